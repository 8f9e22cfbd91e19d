//! Times layers and networks, sparse beside dense, on any device.
//!
//! ```text
//! cargo run --release --example bench -- run
//! cargo run --release --example bench -- compare before/report.json after/report.json
//! cargo run --release --example bench -- growth --axis sparsity --suite resnet50 --layer 'conv2$'
//! ```

use std::process::ExitCode;

use clap::Parser;
use examples::bench::{Command, Ending, after_help, execute};

/// Time layers and networks, sparse beside dense, on any device
#[derive(Parser, Debug)]
#[command(version, after_help = after_help())]
struct Args {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match execute(&Args::parse().command) {
        Ok(Ending::Well) => ExitCode::SUCCESS,
        Ok(Ending::Found(found)) => {
            eprintln!("{found} rows failed, or are slower than they were");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
