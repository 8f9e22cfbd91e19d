//! `--device NAME` to a Burn device, without a panic on a machine that lacks it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

#[cfg(any(
    feature = "vulkan",
    feature = "metal",
    feature = "wgpu",
    feature = "webgpu"
))]
use burn::tensor::DeviceKind;
use burn::tensor::{Device, DeviceType};

use crate::quiet::catch;

/// Longest wait for a driver to name its devices.
const PRESENT: Duration = Duration::from_secs(60);

/// A backend that this package can be built with; its name is also its cargo feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Burn's pure-Rust CPU backend.
    Flex,
    /// NVIDIA cards.
    Cuda,
    /// AMD cards.
    Rocm,
    /// Apple's cards.
    Metal,
    /// Any card with a Vulkan driver, or lavapipe on the CPU.
    Vulkan,
    /// `wgpu`, which picks the graphics interface itself.
    Wgpu,
    /// WebGPU shaders through `wgpu`.
    WebGpu,
    /// `CubeCL`'s own CPU runtime.
    Cpu,
}

impl Backend {
    /// All of them, in the order in which `auto` prefers them: hardware first, then `flex`.
    pub const ALL: [Self; 8] = [
        Self::Cuda,
        Self::Metal,
        Self::Rocm,
        Self::Vulkan,
        Self::WebGpu,
        Self::Wgpu,
        Self::Flex,
        Self::Cpu,
    ];

    /// The name on the command line, and the cargo feature.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::WebGpu => "webgpu",
            Self::Cpu => "cpu",
        }
    }

    /// Whether this build contains it.
    #[must_use]
    pub const fn compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::WebGpu => cfg!(feature = "webgpu"),
            Self::Cpu => cfg!(feature = "cpu"),
        }
    }

    /// Burn's name for it, in builds that contain it.
    fn device_type(self) -> Option<DeviceType> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Some(DeviceType::Flex),
            #[cfg(feature = "cuda")]
            Self::Cuda => Some(DeviceType::Cuda),
            #[cfg(feature = "rocm")]
            Self::Rocm => Some(DeviceType::Rocm),
            #[cfg(feature = "metal")]
            Self::Metal => Some(DeviceType::Metal),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(DeviceType::Vulkan),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(DeviceType::Wgpu),
            #[cfg(feature = "webgpu")]
            Self::WebGpu => Some(DeviceType::WebGpu),
            #[cfg(feature = "cpu")]
            Self::Cpu => Some(DeviceType::Cpu),
            #[allow(
                unreachable_patterns,
                reason = "reached in builds without some backend"
            )]
            _ => None,
        }
    }

    /// The CPU behind a graphics interface (lavapipe, for one), which is no card.
    fn software(self) -> Option<Device> {
        match self {
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(Device::vulkan(DeviceKind::Cpu)),
            #[cfg(feature = "metal")]
            Self::Metal => Some(Device::metal(DeviceKind::Cpu)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(Device::wgpu(DeviceKind::Cpu)),
            #[cfg(feature = "webgpu")]
            Self::WebGpu => Some(Device::webgpu(DeviceKind::Cpu)),
            _ => None,
        }
    }

    /// The devices present on this machine, hardware before software.
    fn present(self) -> Result<Vec<Device>, String> {
        let Some(kind) = self.device_type() else {
            return Ok(Vec::new());
        };
        // A missing driver library makes some runtimes panic.
        catch(PRESENT, move || Device::enumerate(kind).into_vec())
    }
}

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best that is there: a card if this build and this machine have one, else `flex`.
    #[default]
    Auto,
    /// A backend, and which of its devices (from 0).
    Named(Backend, Option<usize>),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(backend, None) => f.write_str(backend.name()),
            Self::Named(backend, Some(index)) => write!(f, "{}:{index}", backend.name()),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    /// Reads `auto`, a backend's name, or a name and a number such as `cuda:1`, in any case.
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown {
            asked: text.to_string(),
        };
        let lower = text.trim().to_ascii_lowercase();
        if lower == "auto" {
            return Ok(Self::Auto);
        }
        let (name, index) = match lower.split_once(':') {
            Some((name, index)) => (name, Some(index.parse().map_err(|_| unknown())?)),
            None => (lower.as_str(), None),
        };
        let backend = Backend::ALL
            .into_iter()
            .find(|b| b.name() == name)
            .ok_or_else(unknown)?;
        Ok(Self::Named(backend, index))
    }
}

/// Why a device cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such name.
    #[error(
        "unknown device {asked:?}; choose auto, {}, optionally with a number as in cuda:1",
        names(|_| true)
    )]
    Unknown {
        /// What was asked for.
        asked: String,
    },
    /// The backend is not part of this build.
    #[error(
        "this build has no {0} backend (it has: {have}); build again with `--features {0}`",
        .backend.name(), have = names(Backend::compiled)
    )]
    NotCompiled {
        /// The backend.
        backend: Backend,
    },
    /// The backend is part of this build, but this machine has no device for it.
    #[error("no {} device on this machine: {reason}", .backend.name())]
    Unavailable {
        /// The backend.
        backend: Backend,
        /// What is missing.
        reason: String,
    },
    /// A build without any backend.
    #[error("this build has no backend at all; build again with `--features flex`")]
    NoBackend,
}

/// The names of some backends, comma-separated.
fn names(which: impl Fn(Backend) -> bool) -> String {
    let names: Vec<_> = Backend::ALL
        .into_iter()
        .filter(|&b| which(b))
        .map(Backend::name)
        .collect();
    names.join(", ")
}

/// Whether `CubeCL` was built with the fix of `.ci/patches`: without it, releases up to 0.11.3 crash
/// Vulkan drivers that lack `VK_KHR_workgroup_memory_explicit_layout`, lavapipe among them, in
/// every kernel with shared memory. `.ci/patch-cubecl` prints the cargo configuration that has it.
const SHARED_MEMORY_FIXED: bool = option_env!("BURN_SPARSE_CUBECL_FIXED").is_some();

/// A device that was found.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The device, without autodiff.
    pub device: Device,
    /// Its backend.
    pub backend: Backend,
    /// Whether a graphics interface runs on the CPU (lavapipe): results count, times do not.
    pub software: bool,
}

impl Selected {
    /// What crashes the program on this device in this build, and what to do; `None` if nothing is
    /// known to.
    ///
    /// That is so for Burn's own reductions and matrix products, hence for whole networks, on
    /// lavapipe in builds without the fix of `.ci/patches`. Sparse kernels run in all builds.
    #[must_use]
    pub fn crashes(&self) -> Option<&'static str> {
        let crashes = self.software && cfg!(feature = "vulkan") && !SHARED_MEMORY_FIXED;
        crashes.then_some(
            "CubeCL's kernels with shared memory crash most software Vulkan drivers in this \
             build; build with `cargo --config \"$(.ci/patch-cubecl)\"`, or take `--device flex`",
        )
    }

    /// Says on the standard error what [`crashes`](Self::crashes), before it does.
    pub fn warn(&self) {
        if let Some(reason) = self.crashes() {
            eprintln!("warning: {self}: {reason}");
        }
    }
}

impl fmt::Display for Selected {
    /// The backend's name, for reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let software = if self.software {
            " (software, on the CPU)"
        } else {
            ""
        };
        write!(f, "{}{software}", self.backend.name())
    }
}

/// Finds the device that was asked for.
///
/// `auto` takes a card if there is one, else `flex`; it does not take a graphics interface that
/// runs on the CPU, which is slower than `flex`. Asked by name, `vulkan` does take lavapipe where
/// there is no card.
///
/// # Errors
/// [`DeviceError::NotCompiled`] naming the cargo feature to add, [`DeviceError::Unavailable`] where
/// the machine has no such device, [`DeviceError::NoBackend`] for `auto` in a build without any.
///
/// ```
/// use examples::device::{DeviceChoice, select};
///
/// let selected = select("flex".parse()?)?;
/// assert_eq!(selected.to_string(), "flex");
/// # Ok::<(), examples::device::DeviceError>(())
/// ```
pub fn select(choice: DeviceChoice) -> Result<Selected, DeviceError> {
    match choice {
        DeviceChoice::Named(backend, index) => select_named(backend, index),
        DeviceChoice::Auto => {
            let compiled = Backend::ALL.into_iter().filter(|b| b.compiled());
            let found = compiled.filter_map(|b| select_named(b, None).ok());
            let mut last = None;
            for selected in found {
                if !selected.software {
                    return Ok(selected);
                }
                last = last.or(Some(selected));
            }
            last.ok_or(DeviceError::NoBackend)
        }
    }
}

fn select_named(backend: Backend, index: Option<usize>) -> Result<Selected, DeviceError> {
    if !backend.compiled() {
        return Err(DeviceError::NotCompiled { backend });
    }
    let unavailable = |reason| DeviceError::Unavailable { backend, reason };
    let present = backend.present().map_err(unavailable)?;
    let count = present.len();
    let index = index.unwrap_or(0);
    let Some(device) = present.into_iter().nth(index) else {
        return Err(unavailable(match count {
            0 => "none was found (is the driver installed?); `--device auto` takes what is there"
                .into(),
            _ => format!("number {index} was asked for, there are {count} (from 0)"),
        }));
    };
    let software = backend
        .software()
        .is_some_and(|software| software == device);
    Ok(Selected {
        device,
        backend,
        software,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        assert_eq!("AUTO".parse(), Ok(DeviceChoice::Auto));
        for backend in Backend::ALL {
            assert_eq!(
                backend.name().parse(),
                Ok(DeviceChoice::Named(backend, None))
            );
        }
        let second = DeviceChoice::Named(Backend::Cuda, Some(1));
        assert_eq!("cuda:1".parse(), Ok(second));
        assert_eq!(second.to_string().parse(), Ok(second));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", ":0"] {
            let error = DeviceChoice::from_str(wrong).unwrap_err();
            assert!(error.to_string().contains("vulkan"), "{error}");
        }
    }

    #[test]
    fn an_absent_backend_names_the_feature_to_add() {
        for backend in Backend::ALL {
            match select(DeviceChoice::Named(backend, None)) {
                Ok(selected) => assert_eq!(selected.backend, backend),
                Err(error) if backend.compiled() => {
                    assert!(matches!(error, DeviceError::Unavailable { .. }), "{error}");
                }
                Err(error) => {
                    let feature = format!("--features {}", backend.name());
                    assert!(error.to_string().contains(&feature), "{error}");
                }
            }
        }
    }

    #[test]
    #[cfg(feature = "flex")]
    fn auto_always_finds_something_and_flex_has_one_device() {
        let selected = select(DeviceChoice::Auto).unwrap();
        assert!(!selected.software);
        let error = select(DeviceChoice::Named(Backend::Flex, Some(7))).unwrap_err();
        assert!(error.to_string().contains("number 7"), "{error}");
    }
}
