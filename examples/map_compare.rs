//! Compares ways of choosing the scheme of each layer, at equal times and equal epochs: one scheme everywhere, by
//! rules, by what schemes cost, and by search.
//!
//! ```text
//! cargo run --release --example map_compare
//! cargo run --release --example map_compare -- --arch resnet20 --seeds 3
//! cargo run --release --example map_compare -- --by uniform,rules,knapsack --latency 0.8,0.6,0.4
//! ```

use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_admm::hardware::Effort;
use burn_admm::mapping::{
    Bound, Family, MapBudget, Mapping, OptionConfig, SearchConfig, SearchDevices, SearchMethod,
    Searched,
};
use burn_admm::{SparsityReport, fold};
use burn_sparse::SparseError;
use clap::{Parser, ValueEnum};
use examples::cli::{ArchParser, CommonArgs, DataArgs, after_help, factor, positive};
use examples::data::{ImageDataset, Source, load};
use examples::device::Selected;
use examples::training::{
    Assignment, Contest, Dense, DenseEntry, Entry, Mapper, Measured, Method, PruneArgs, Recipe,
    SETTINGS, TrainingError, by_rules, check_images, config_of, deploy, exit_code, in_turns,
    latency_file, offers, packed_as, recipe_of, resnet_limits, settle, train_dense, train_on,
};
use models::{Arch, Classifier, Model};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};

/// Which way of choosing schemes is best: the same one everywhere, rules, least harm, or search
///
/// Every way gives a network for each bound on latency: of each scheme, and of the rules, the least
/// sparsity whose predicted time keeps the bound; by least harm and by search, each layer its own. All
/// train from the same dense network for as many epochs, are packed, and timed in turns. For each
/// network that was chosen layer by layer, the table says which single scheme is fastest at the same
/// accuracy, on the line through its own networks and the dense one.
///
/// Networks by chance say how well times are predicted.
#[derive(Parser, Debug)]
#[command(version, after_help = after_help("map_compare", &[
    ("six layers, minutes", ""),
    ("without searches, at more bounds", "--by uniform,rules,knapsack --latency 0.8,0.6,0.4"),
    ("a residual network over three seeds", "--arch resnet20 --seeds 3"),
]))]
pub(crate) struct Args {
    /// The network
    #[arg(long, value_parser = ArchParser, default_value_t = Arch::Cifar6)]
    arch: Arch,

    /// What the widths of all layers are multiplied by
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    width: Option<f64>,

    /// Bounds on the time of an image, as parts of what the dense network takes
    #[arg(long, value_name = "PARTS", value_delimiter = ',', default_value = "0.7,0.5,0.35", value_parser = factor)]
    latency: Vec<f64>,

    /// Ways of choosing schemes
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "uniform,rules,knapsack,policy,random,evolution"
    )]
    by: Vec<Way>,

    /// Bounds at which searches are made; all of them unless set
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = factor)]
    searched: Vec<f64>,

    /// Networks that a search trains for an epoch each
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    evaluations: usize,

    /// Networks of schemes by chance whose times are predicted and measured, of each kind
    #[arg(long, value_name = "N", default_value_t = 16)]
    assignments: usize,

    /// Repeat with so many seeds, from --seed on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    seeds: usize,

    /// File that keeps the times of layers; by default one for each device in the user's cache
    #[arg(long, value_name = "FILE")]
    times: Option<PathBuf>,

    /// How to prune
    #[arg(long, value_enum, default_value_t)]
    method: Method,

    #[command(flatten)]
    prune: PruneArgs,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    common: CommonArgs,
}

/// Ways of choosing schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// The same scheme at the same sparsity in every layer, each scheme by itself
    Uniform,
    /// By the kind of each layer
    Rules,
    /// The least sum of losses that layers alone cost
    Knapsack,
    /// A search by a policy that learns what is rewarded
    Policy,
    /// A search by chance
    Random,
    /// A search by regularised evolution
    Evolution,
}

impl Way {
    fn search(self) -> Option<SearchMethod> {
        match self {
            Self::Uniform | Self::Rules | Self::Knapsack => None,
            Self::Policy => Some(SearchMethod::Policy),
            Self::Random => Some(SearchMethod::Random),
            Self::Evolution => Some(SearchMethod::Evolution),
        }
    }
}

/// As tables name it.
fn name(family: Family) -> String {
    match family {
        Family::RowBalanced => "row-balanced".into(),
        Family::SharedPattern(rows) => format!("shared{rows}"),
        Family::Blocks([rows, columns]) => format!("blocks{rows}x{columns}"),
        Family::Punched([filters, channels]) => format!("punched{filters}x{channels}"),
        Family::KernelPatterns(patterns) => format!("patterns{patterns}"),
        Family::Columns => "columns".into(),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

/// The whole run; what it printed is in the report.
///
/// # Errors
/// See [`TrainingError`]; [`TrainingError::Stopped`] where `--stop-after` says so.
pub(crate) fn run(args: &Args) -> Result<Contest, TrainingError> {
    let CommonArgs {
        preset,
        seed,
        resume,
        ..
    } = args.common;
    if matches!(args.method, Method::Clicktrain | Method::Evolve) {
        let reason = format!(
            "--method {} chooses for itself or starts anew; schemes are chosen here, for trained networks",
            args.method
        );
        return Err(TrainingError::Settings(reason));
    }
    let selected = args.common.select_device()?;
    selected.warn();
    let output = args.common.open_output("map_compare", SETTINGS)?;
    let (limit, test_limit) = resnet_limits(preset);
    let options = args.data.options(seed, limit, test_limit);
    let data = load(args.data.source(Source::Cifar10), &options)?;
    println!("{}", data.summary());
    if data.valid.is_empty() {
        let reason = "searches judge by validation images, of which there are none; take more images: --limit";
        return Err(TrainingError::Settings(reason.into()));
    }
    let shape = data.shape;
    let size = [shape.height, shape.width];
    check_images(args.arch, size)?;
    let config = config_of(args.arch, args.width, &data);
    let recipe = args.prune.apply(recipe_of(args.arch, preset, seed));
    let choice = OptionConfig::default();
    let settings = json!({
        "model": config, "dataset": data.name, "train_images": data.train.len(), "options": choice,
        "latency": args.latency, "by": args.by, "searched": args.searched, "evaluations": args.evaluations,
        "method": args.method, "recipe": recipe, "device": selected.to_string(),
    });
    settle(&output, &settings, resume)?;
    println!(
        "{} on {selected}, seed {seed}: {} dense epochs, {} of {} and masked retraining for each network",
        args.arch,
        recipe.epochs,
        recipe.pruning_epochs(),
        args.method,
    );
    let epochs_left = Cell::new(args.prune.stop_after);
    let mut contest = Contest::default();
    let mut searches = Vec::new();
    let mut prediction = Value::Null;
    for number in 0..args.seeds {
        let recipe = Recipe {
            seed: recipe.seed + number as u64,
            ..recipe.clone()
        };
        let one = OneSeed {
            args,
            choice: &choice,
            selected: &selected,
            mapper: Mapper {
                config: config.clone(),
                folder: output.path().join(format!("seed-{}", recipe.seed)),
                recipe,
                method: args.method,
                data: &data,
                device: selected.device.clone(),
                resume,
                weights: None,
                epochs_left: Cell::new(epochs_left.get()),
            },
        };
        let found = one.run(&mut contest, &mut searches)?;
        prediction = json!(found.prediction);
        epochs_left.set(one.mapper.epochs_left.get());
    }
    println!("\n{contest}");
    let command = examples::cli::command_line();
    let report = json!({
        "command": command, "device": selected.to_string(), "arch": args.arch, "dataset": data.name,
        "train_images": data.train.len(), "valid_images": data.valid.len(), "test_images": data.test.len(),
        "recipe": recipe, "prediction": prediction, "searches": searches, "contest": contest,
    });
    output.write("report.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &report)?;
        Ok(())
    })?;
    println!("report: {}", output.file("report.json").display());
    let title = format!("{} on {}: ways of choosing schemes", args.arch, data.name);
    let subtitle = format!("{selected}, mean of {} seeds, {}", args.seeds, args.method);
    if let Some(svg) = contest.figure(title, subtitle)? {
        output.write("accuracy-latency.svg", |file| {
            file.write_all(svg.as_bytes())
        })?;
        println!("figure: {}", output.file("accuracy-latency.svg").display());
    }
    Ok(contest)
}

/// A network to be trained.
struct Candidate {
    way: String,
    uniform: bool,
    target: f64,
    predicted_ms: f64,
    mapping: Mapping,
}

/// What is the same for all ways.
struct OneSeed<'a> {
    args: &'a Args,
    choice: &'a OptionConfig,
    selected: &'a Selected,
    mapper: Mapper<'a>,
}

impl OneSeed<'_> {
    fn run(
        &self,
        contest: &mut Contest,
        searches: &mut Vec<Value>,
    ) -> Result<Measured, TrainingError> {
        let mapper = &self.mapper;
        let (recipe, folder) = (&mapper.recipe, mapper.folder.as_path());
        let build = |device: &Device| mapper.build(device);
        let context = mapper.context(recipe, recipe.epochs + recipe.pruning_epochs())?;
        let start = train_dense(&context, build, &folder.join("dense"))?;
        let dense = train_on(&context, build, &start, &folder.join("dense-on"))?;
        mapper.epochs_left.set(context.epochs_left());
        let latency = match &self.args.times {
            Some(file) => file.clone(),
            None => latency_file(self.selected, folder)?,
        };
        let places = (folder, latency.as_path());
        let measured = offers(&context, self.selected, &start, self.choice, places)?;
        if let Some(error) = &measured.prediction {
            println!("{error}");
        }
        let ruled = match self.args.by.contains(&Way::Rules) {
            true => {
                let sparsities = &self.choice.sparsities;
                by_rules(&context, self.selected, &start, sparsities, &latency)?
            }
            false => Vec::new(),
        };
        let mut candidates = Vec::new();
        for &target in &self.args.latency {
            self.uniform(&measured, target, &mut candidates)?;
            self.chosen(&measured, &ruled, target, &mut candidates);
            for &way in &self.args.by {
                if let Some(method) = way.search()
                    && (self.args.searched.is_empty() || self.args.searched.contains(&target))
                {
                    let found = self.searched(&measured, &start, (way, method, target))?;
                    searches.push(json!({
                        "seed": recipe.seed, "by": way, "target": target, "reward": found.reward,
                        "accuracy": found.accuracy, "candidates": found.history,
                    }));
                    if found.best.mapping.plan()?.rules().is_empty() {
                        println!("{}, {target}x: all layers stay dense", of_way(way));
                        continue;
                    }
                    candidates.push(Candidate {
                        way: of_way(way),
                        uniform: false,
                        target,
                        predicted_ms: found.best.ms,
                        mapping: found.best.mapping,
                    });
                }
            }
        }
        let dense_folded = Classifier::fold(fold(dense.model.valid()));
        let mut entries = Vec::new();
        let mut timed = vec![dense_folded];
        for (number, candidate) in candidates.into_iter().enumerate() {
            let (entry, packed) = self.trained(&start, candidate, number)?;
            entries.push(entry);
            timed.push(packed);
        }
        let mut assignments = Vec::new();
        for (assignment, packed) in self.by_chance(&measured, &start)? {
            assignments.push(assignment);
            timed.push(packed);
        }
        let image = image(self.mapper.data, &self.selected.device);
        let times = in_turns(&timed, &image, &self.selected.device)?;
        let mut times = times.into_iter();
        let mut next = || times.next().unwrap_or(f64::NAN);
        contest.add_dense(DenseEntry {
            seed: recipe.seed,
            ms: next(),
            accuracy: dense.accuracy,
        });
        for entry in entries {
            contest.add(Entry {
                ms: next(),
                ..entry
            });
        }
        for assignment in assignments {
            contest.add_assignment(Assignment {
                ms: next(),
                ..assignment
            });
        }
        Ok(measured)
    }

    /// Each scheme at the least sparsity that keeps the bound.
    fn uniform(
        &self,
        measured: &Measured,
        target: f64,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), TrainingError> {
        if !self.args.by.contains(&Way::Uniform) {
            return Ok(());
        }
        let bound = target * measured.offers.dense()[0];
        for &family in &self.choice.families {
            let mut within = None;
            for &sparsity in &self.choice.sparsities {
                let everywhere = measured
                    .offers
                    .everywhere(&measured.layers, family, sparsity)?;
                if everywhere.ms <= bound {
                    within = Some(everywhere);
                    break;
                }
            }
            match within {
                Some(everywhere) => candidates.push(Candidate {
                    way: name(family),
                    uniform: true,
                    target,
                    predicted_ms: everywhere.ms,
                    mapping: everywhere.mapping,
                }),
                None => println!("{} everywhere: {target}x is out of reach", name(family)),
            }
        }
        Ok(())
    }

    /// By rules, at the least sparsity that keeps the bound, and by least harm.
    fn chosen(
        &self,
        measured: &Measured,
        ruled: &[Mapping],
        target: f64,
        candidates: &mut Vec<Candidate>,
    ) {
        let offers = &measured.offers;
        let bound = target * offers.dense()[0];
        let mut add = |way, predicted_ms, mapping| {
            candidates.push(Candidate {
                way: of_way(way),
                uniform: false,
                target,
                predicted_ms,
                mapping,
            });
        };
        if self.args.by.contains(&Way::Rules) {
            match ruled.iter().find(|mapping| offers.ms_of(mapping) <= bound) {
                Some(mapping) => add(Way::Rules, offers.ms_of(mapping), mapping.clone()),
                None => println!("rules: {target}x is out of reach"),
            }
        }
        if self.args.by.contains(&Way::Knapsack) {
            let mut budget = MapBudget::default();
            budget.latency = Some(Bound::Part(target));
            match offers.select(&budget) {
                Ok(selection) => add(Way::Knapsack, selection.ms, selection.mapping),
                Err(error) => println!("knapsack: {error}"),
            }
        }
    }

    fn searched(
        &self,
        measured: &Measured,
        start: &Dense<Model>,
        (way, method, target): (Way, SearchMethod, f64),
    ) -> Result<Searched, TrainingError> {
        let config = SearchConfig {
            evaluations: self.args.evaluations,
            seed: self.mapper.recipe.seed,
            ..SearchConfig::new(method, target * measured.offers.dense()[0])
        };
        println!("{}, {target}x:", of_way(way));
        let mut devices = SearchDevices::new([self.selected.device.clone()])?;
        let file = format!("search-{}-{target}.json", of_way(way));
        let file = self.mapper.folder.join(file);
        self.mapper
            .search(&measured.offers, &config, start, &mut devices, &file)
    }

    /// Trains a candidate, packs it and verifies that; its time is still to be measured.
    fn trained(
        &self,
        start: &Dense<Model>,
        candidate: Candidate,
        number: usize,
    ) -> Result<(Entry, Model), TrainingError> {
        let mapper = &self.mapper;
        let folder = format!("{number}-{}", candidate.way);
        println!(
            "{} at {}x: {:.3} ms predicted",
            candidate.way, candidate.target, candidate.predicted_ms
        );
        let plan = candidate.mapping.plan()?;
        let (pruned, _) = mapper.train(start, &plan, Effort::Full, &folder)?;
        let context = mapper.context(&mapper.recipe, 0)?;
        let build = |device: &Device| mapper.build(device);
        let deployed = deploy(&context, build, &pruned, &mapper.folder.join(&folder))?;
        let report = SparsityReport::new(&fold(pruned.model.valid()))?;
        let entry = Entry {
            seed: mapper.recipe.seed,
            way: candidate.way,
            uniform: candidate.uniform,
            target: candidate.target,
            predicted_ms: candidate.predicted_ms,
            ms: f64::NAN,
            sparsity: report.sparsity,
            accuracy: deployed.accuracy,
            max_abs_diff: deployed.max_abs_diff,
            mapping: candidate.mapping,
        };
        Ok((entry, deployed.model))
    }

    /// Networks of schemes by chance, projected and packed: where zeros are decides about times, training does not.
    fn by_chance(
        &self,
        measured: &Measured,
        start: &Dense<Model>,
    ) -> Result<Vec<(Assignment, Model)>, TrainingError> {
        let seed = self.mapper.recipe.seed;
        // Others than those that the times of offers were fitted to.
        let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_add(1));
        let sparsities = &self.choice.sparsities;
        // Layers without schemes have no offers.
        let options = measured
            .layers
            .iter()
            .filter(|layer| !layer.schemes.is_empty());
        let options: Vec<_> = options.collect();
        let model = start.model.valid();
        let image = image(self.mapper.data, &self.selected.device);
        let mut drawn = Vec::new();
        for number in 0..2 * self.args.assignments {
            let each = number % 2 == 0;
            let shared = sparsities[rng.random_range(0..sparsities.len())];
            let mut choice = Vec::new();
            for (layer, options) in measured.offers.layers.iter().zip(&options) {
                // Of all offers, or of those of one sparsity and the dense one.
                let mut allowed: Vec<usize> = (0..layer.offers.len()).collect();
                if !each {
                    let families = self.choice.families.iter();
                    let schemes = families.map(|family| family.at(shared, options.shape));
                    let schemes = schemes.collect::<Result<Vec<_>, SparseError>>()?;
                    allowed.retain(|&at| at == 0 || schemes.contains(&layer.offers[at].sparsity));
                }
                choice.push(allowed[rng.random_range(0..allowed.len())]);
            }
            let selection = measured.offers.selection(&choice);
            let packed = packed_as(&model, &selection, &image)?;
            let assignment = Assignment {
                seed,
                each,
                predicted_ms: selection.ms,
                ms: f64::NAN,
            };
            drawn.push((assignment, packed));
        }
        Ok(drawn)
    }
}

fn of_way(way: Way) -> String {
    way.to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A black image.
fn image(data: &ImageDataset, device: &Device) -> Tensor<4> {
    let shape = data.shape;
    Tensor::zeros([1, shape.channels, shape.height, shape.width], device)
}
