//! What a measurement was made on.

use std::fmt;
use std::fs;
use std::thread;

use burn_sparse::cpu::{ISA_VARIABLE, Isa};
use serde::{Deserialize, Serialize};

use super::BenchError;
use crate::device::{Backend, Selected};

/// Whether this is a build with debug assertions.
const DEBUG: bool = cfg!(debug_assertions);

/// A machine and the device that was measured. Times compare only where all of it is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The backend, as in `--device`, and whether it is a driver that runs on the CPU.
    pub device: String,
    /// The card, where its driver says what it is.
    pub card: Option<String>,
    /// The processor.
    pub cpu: String,
    /// Processors that this program may use.
    pub cores: usize,
    /// Threads of the pool.
    pub threads: usize,
    /// The instruction set of the CPU kernels; on `flex` only.
    pub isa: Option<String>,
    /// Operating system and architecture.
    pub system: String,
    /// `release`, or `debug`, which slows dense kernels more than sparse ones; see
    /// [`warn`](Self::warn).
    pub build: String,
}

impl Machine {
    /// This machine with a device.
    ///
    /// # Errors
    /// [`BenchError::Settings`] if the environment asks for an instruction set that the machine
    /// does not have.
    pub fn of(selected: &Selected) -> Result<Self, BenchError> {
        let flex = selected.backend == Backend::Flex;
        Ok(Self {
            device: selected.to_string(),
            card: (selected.backend == Backend::Cuda).then(card).flatten(),
            cpu: processor(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            isa: if flex { Some(isa()?) } else { None },
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            build: if DEBUG { "debug" } else { "release" }.into(),
        })
    }

    /// Says on the standard error why times of this build compare with nothing.
    ///
    /// In the workspace's debug builds, the crates that Flex's dense kernels come from check every
    /// vector load, and this workspace's own kernels do not. Kernels of other devices are compiled
    /// when they run.
    pub fn warn(&self) {
        if DEBUG {
            let slower = if self.isa.is_some() {
                "dense kernels are several times slower than they are"
            } else {
                "starting a kernel takes longer than it does"
            };
            eprintln!(
                "warning: a debug build, in which {slower}: for numbers, build with --release"
            );
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.device)?;
        if let Some(card) = &self.card {
            write!(f, " ({card})")?;
        }
        write!(f, ", {}, {} threads", self.cpu, self.threads)?;
        if self.threads != self.cores {
            write!(f, " on {} cores", self.cores)?;
        }
        if let Some(isa) = &self.isa {
            write!(f, ", {isa}")?;
        }
        write!(f, ", {}", self.system)?;
        if self.build == "debug" {
            f.write_str(", DEBUG BUILD")?;
        }
        Ok(())
    }
}

/// Before a kernel asks, because it panics where the variable names what cannot run.
fn isa() -> Result<String, BenchError> {
    if let Ok(asked) = std::env::var(ISA_VARIABLE) {
        let mut available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
        if !available.clone().any(|isa| isa.name() == asked) {
            let names: Vec<_> = available.by_ref().map(Isa::name).collect();
            return Err(BenchError::Settings(format!(
                "{ISA_VARIABLE}={asked:?}: this machine runs {}",
                names.join(", ")
            )));
        }
    }
    Ok(Isa::current().name().to_string())
}

/// The value of the first `key : value` line.
fn field(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_string())
    })
}

/// The processor's name where the system tells it, else its architecture.
fn processor() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| field(&text, "model name"))
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}

/// The first card of NVIDIA's driver on Linux.
fn card() -> Option<String> {
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").ok()?;
    let mut files: Vec<_> = folders
        .flatten()
        .map(|folder| folder.path().join("information"))
        .collect();
    files.sort();
    let text = fs::read_to_string(files.first()?).ok()?;
    field(&text, "Model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_the_machine_is_named_in_one_line() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name : other\n";
        assert_eq!(field(text, "model name").unwrap(), "Some CPU @ 2 GHz");
        assert_eq!(field(text, "model"), None);
        let machine = Machine {
            device: "cuda".into(),
            card: Some("Card".into()),
            cpu: "CPU".into(),
            cores: 4,
            threads: 2,
            isa: None,
            system: "linux x86_64".into(),
            build: "release".into(),
        };
        let line = "cuda (Card), CPU, 2 threads on 4 cores, linux x86_64";
        assert_eq!(machine.to_string(), line);
    }
}
