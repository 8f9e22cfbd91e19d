//! Compiles and runs the code of the README and of every chapter of the book:
//! `cargo test -p tests --doc`.
#![cfg(doctest)]

macro_rules! pages {
    ($($name:ident => $file:literal),* $(,)?) => {
        $(#[doc = include_str!(concat!("../../", $file))] mod $name {})*
    };
}

pages! {
    readme => "README.md",
    contributing => "CONTRIBUTING.md",
    introduction => "book/src/introduction.md",
    first_hour => "book/src/first-hour.md",
    admm => "book/src/admm.md",
    formats_and_kernels => "book/src/formats-and-kernels.md",
    speed_cpu => "book/src/speed-cpu.md",
    bench => "book/src/bench.md",
    your_model => "book/src/your-model.md",
    plans => "book/src/plans.md",
    structured => "book/src/structured.md",
    training => "book/src/training.md",
    shrink => "book/src/shrink.md",
    recurrent => "book/src/recurrent.md",
    text => "book/src/text.md",
    files => "book/src/files.md",
    quantisation => "book/src/quantisation.md",
    tucker => "book/src/tucker.md",
    ranks => "book/src/ranks.md",
    penni => "book/src/penni.md",
    evolve => "book/src/evolve.md",
    automatic => "book/src/automatic.md",
    recipes => "book/src/recipes.md",
    when => "book/src/when.md",
    how_small => "book/src/how-small.md",
    networks => "book/src/networks.md",
    results => "book/src/results.md",
    faq => "book/src/faq.md",
    glossary => "book/src/glossary.md",
}
