//! Plans and times found before, by machine and layer.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{measure::Kind, search::Search};
use crate::{
    ConvProblem,
    cpu::{Isa, Plan, Sharing},
};

/// Raised when kernels change so that another plan, or the other form, may be the fastest.
const KERNELS: u32 = 5;

/// Plans kept, and as many times; the oldest go first.
const MOST: usize = 4096;

/// Largest file that is read.
const MOST_BYTES: u64 = 4 << 20;

/// Plans of layers measured on this machine and, in a file, on others, and how long layers take
/// with them and dense.
///
/// A file that is missing, broken, of other kernels or too large is the same as an empty one: plans
/// are measured again and written anew. A plan never changes a result, one that a layer cannot
/// follow is brought into range, and times only choose between two forms of one layer, so nothing
/// depends on what the file says but time.
#[derive(Debug)]
pub(super) struct PlanCache {
    path: Option<PathBuf>,
    machine: String,
    plans: Vec<Entry>,
    times: Vec<Timed>,
    changed: bool,
}

/// A layer whose two forms are timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct TimedLayer {
    kind: Kind,
    problem: ConvProblem,
    /// Of the stored entries, in thousandths.
    density: u32,
    /// Of the packed form, where it follows one.
    plan: Option<Plan>,
}

impl TimedLayer {
    pub(super) fn new(kind: Kind, problem: ConvProblem, density: f64, plan: Option<Plan>) -> Self {
        Self {
            kind,
            problem,
            density: thousandths(density),
            plan,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Timed {
    machine: String,
    layer: TimedLayer,
    /// Of the dense and the packed form.
    milliseconds: [f64; 2],
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    machine: String,
    problem: ConvProblem,
    /// Of the stored entries, in thousandths.
    density: u32,
    /// Forms that were tried.
    forms: Vec<Sharing>,
    search: Search,
    plan: Plan,
}

#[derive(Serialize, Deserialize)]
struct File {
    kernels: u32,
    plans: Vec<Entry>,
    #[serde(default)]
    times: Vec<Timed>,
}

/// The folder for files that can be made again.
pub(super) fn default_path() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("LOCALAPPDATA").map(PathBuf::from))
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(folder.join("burn-sparse").join("plans.json"))
}

/// What plans depend on besides the layer.
fn machine() -> String {
    let described = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    let model = described.unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let (isa, threads) = (Isa::current().name(), rayon::current_num_threads());
    format!("{model}, {isa}, {threads} threads")
}

fn thousandths(density: f64) -> u32 {
    (1000.0 * density).round() as u32
}

fn read(path: &Path) -> Option<File> {
    if fs::metadata(path).ok()?.len() > MOST_BYTES {
        return None;
    }
    let file: File = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let sound = |timed: &Timed| {
        timed
            .milliseconds
            .iter()
            .all(|ms| ms.is_finite() && *ms > 0.0)
    };
    (file.kernels == KERNELS && file.times.iter().all(sound)).then_some(file)
}

impl PlanCache {
    /// With the plans of a file, if it is there.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let file = path.as_deref().and_then(read);
        let (plans, times) = file.map_or_else(Default::default, |file| (file.plans, file.times));
        Self {
            plans,
            times,
            machine: machine(),
            path,
            changed: false,
        }
    }

    pub(super) fn find(
        &self,
        problem: &ConvProblem,
        density: f64,
        forms: &[Sharing],
        search: Search,
    ) -> Option<Plan> {
        let density = thousandths(density);
        let hit = self.plans.iter().rfind(|entry| {
            entry.machine == self.machine
                && entry.problem == *problem
                && entry.density == density
                && entry.forms == forms
                && entry.search == search
        });
        hit.map(|entry| entry.plan)
    }

    pub(super) fn insert(
        &mut self,
        problem: &ConvProblem,
        density: f64,
        forms: &[Sharing],
        search: Search,
        plan: Plan,
    ) {
        self.plans.push(Entry {
            machine: self.machine.clone(),
            problem: *problem,
            density: thousandths(density),
            forms: forms.to_vec(),
            search,
            plan,
        });
        let surplus = self.plans.len().saturating_sub(MOST);
        self.plans.drain(..surplus);
        self.changed = true;
    }

    /// Milliseconds of a layer dense and packed.
    pub(super) fn times(&self, layer: &TimedLayer) -> Option<[f64; 2]> {
        let mut times = self.times.iter().rev();
        let hit = times.find(|timed| timed.machine == self.machine && timed.layer == *layer);
        hit.map(|timed| timed.milliseconds)
    }

    pub(super) fn insert_times(&mut self, layer: TimedLayer, milliseconds: [f64; 2]) {
        self.times.push(Timed {
            machine: self.machine.clone(),
            layer,
            milliseconds,
        });
        let surplus = self.times.len().saturating_sub(MOST);
        self.times.drain(..surplus);
        self.changed = true;
    }

    /// Writes new plans and times to the file. A cache that cannot be written costs time, nothing else.
    pub(super) fn save(self) {
        if let (true, Some(path)) = (self.changed, &self.path) {
            let file = File {
                kernels: KERNELS,
                plans: self.plans,
                times: self.times,
            };
            let _ = write(path, &file);
        }
    }
}

fn write(path: &Path, file: &File) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut temporary, file)?;
    temporary.flush()?;
    temporary.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [Sharing; 1] = [Sharing {
        rows: 1,
        panel: None,
    }];

    fn plan() -> (ConvProblem, Plan) {
        let problem = ConvProblem::new(1, [4, 8], [6, 6], [3, 3]);
        (problem, Plan::guess(&problem, 0.1, 1, Isa::current()))
    }

    #[test]
    fn plans_come_back_for_the_same_layer_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("plans.json");
        let (problem, plan) = plan();
        let mut cache = PlanCache::open(Some(path.clone()));
        assert_eq!(cache.find(&problem, 0.1, &ONE, Search::Candidates), None);
        cache.insert(&problem, 0.1, &ONE, Search::Candidates, plan);
        cache.save();
        let cache = PlanCache::open(Some(path));
        assert_eq!(
            cache.find(&problem, 0.1, &ONE, Search::Candidates),
            Some(plan)
        );
        assert_eq!(cache.find(&problem, 0.2, &ONE, Search::Candidates), None);
        assert_eq!(
            cache.find(
                &problem,
                0.1,
                &[Sharing::neighbours(1), Sharing::neighbours(4)],
                Search::Candidates
            ),
            None
        );
        let thorough = Search::Genetic { evaluations: 9 };
        assert_eq!(cache.find(&problem, 0.1, &ONE, thorough), None);
        assert_eq!(
            cache.find(&problem.with_stride([2, 2]), 0.1, &ONE, Search::Candidates),
            None
        );
    }

    #[test]
    fn times_come_back_for_the_same_layer_and_plan_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plans.json");
        let (problem, plan) = plan();
        let layer = |kind, plan| TimedLayer::new(kind, problem, 0.1, plan);
        let conv = layer(Kind::Conv2d, Some(plan));
        let mut cache = PlanCache::open(Some(path.clone()));
        assert_eq!(cache.times(&conv), None);
        cache.insert_times(conv, [2.0, 1.0]);
        cache.insert_times(conv, [4.0, 1.5]);
        cache.save();
        let cache = PlanCache::open(Some(path.clone()));
        assert_eq!(cache.times(&conv), Some([4.0, 1.5]));
        assert_eq!(cache.times(&layer(Kind::Conv2d, None)), None);
        assert_eq!(cache.times(&layer(Kind::Linear, Some(plan))), None);
        let thinner = TimedLayer::new(Kind::Conv2d, problem, 0.05, Some(plan));
        assert_eq!(cache.times(&thinner), None);
        // Times that no clock gives make the whole file one that is not believed.
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("[4.0,1.5]"), "{text}");
        for wrong in ["[-4.0,1.5]", "[4.0,0.0]", "[1e999,1.5]", "[null,1.5]"] {
            fs::write(&path, text.replace("[4.0,1.5]", wrong)).unwrap();
            let cache = PlanCache::open(Some(path.clone()));
            assert_eq!(cache.times(&conv), None, "{wrong}");
        }
    }

    #[test]
    fn broken_files_are_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plans.json");
        let (problem, plan) = plan();
        for text in ["", "{", "[]", r#"{"kernels":0,"plans":[]}"#, "\u{0}\u{1}"] {
            fs::write(&path, text).unwrap();
            let mut cache = PlanCache::open(Some(path.clone()));
            assert_eq!(
                cache.find(&problem, 0.1, &ONE, Search::Candidates),
                None,
                "{text:?}"
            );
            cache.insert(&problem, 0.1, &ONE, Search::Candidates, plan);
            cache.save();
            let cache = PlanCache::open(Some(path.clone()));
            assert_eq!(
                cache.find(&problem, 0.1, &ONE, Search::Candidates),
                Some(plan),
                "{text:?}"
            );
        }
        // A place that cannot be written is no error either.
        let mut cache = PlanCache::open(Some(path.join("within a file")));
        cache.insert(&problem, 0.1, &ONE, Search::Candidates, plan);
        cache.save();
    }
}
