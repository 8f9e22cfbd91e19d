//! The instruction sets that the kernels are compiled for, and which of them runs.

use std::sync::OnceLock;

use pulp::{Simd, WithSimd};
use serde::{Deserialize, Serialize};

/// The environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "BURN_SPARSE_ISA";

/// A vector instruction set.
///
/// The kernels are compiled for all of a target's sets; the widest one that the machine has runs,
/// unless the environment variable `BURN_SPARSE_ISA` names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isa {
    /// 16 lanes, 32 registers.
    Avx512,
    /// 8 lanes with fused multiply-add, 16 registers.
    Avx2,
    /// 4 lanes, 32 registers.
    Neon,
    /// What the compiler makes of plain Rust, 8 lanes at a time.
    Portable,
}

impl Isa {
    /// All, widest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// The name that `BURN_SPARSE_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().is_some(),
            Self::Portable => true,
            #[allow(unreachable_patterns, reason = "the sets of other architectures")]
            _ => false,
        }
    }

    /// The widest set of this machine, or the one that `BURN_SPARSE_ISA` names; looked up once.
    ///
    /// # Panics
    /// If the variable names no set, or one that this machine cannot run.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let mut available = Self::ALL.into_iter().filter(|isa| isa.is_available());
            let Ok(asked) = std::env::var(ISA_VARIABLE) else {
                return available.next().expect("portable code runs anywhere");
            };
            let names: Vec<_> = available.clone().map(Self::name).collect();
            available
                .find(|isa| isa.name() == asked)
                .unwrap_or_else(|| {
                    panic!(
                        "{ISA_VARIABLE}={asked}: this machine runs {}",
                        names.join(", ")
                    )
                })
        })
    }

    /// f32 values in a register.
    pub fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 | Self::Portable => 8,
            Self::Neon => 4,
        }
    }

    /// Vector registers.
    pub(crate) fn registers(self) -> usize {
        match self {
            Self::Avx512 | Self::Neon => 32,
            Self::Avx2 | Self::Portable => 16,
        }
    }

    /// Runs `op` compiled for this set.
    ///
    /// # Panics
    /// If this machine cannot run it.
    #[inline]
    pub(crate) fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        const MISSING: &str = "an instruction set that this machine has";
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Simd::vectorize(pulp::x86::V4::try_new().expect(MISSING), op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Simd::vectorize(pulp::x86::V3::try_new().expect(MISSING), op),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => Simd::vectorize(pulp::aarch64::Neon::try_new().expect(MISSING), op),
            Self::Portable => op.with_simd(pulp::Scalar256b),
            #[allow(unreachable_patterns, reason = "the sets of other architectures")]
            other => panic!("{} is not of this architecture", other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_set_always_runs_and_lanes_are_those_of_the_code() {
        struct Lanes;
        impl WithSimd for Lanes {
            type Output = usize;
            fn with_simd<S: Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        assert!(Isa::current().is_available());
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert_eq!(isa.dispatch(Lanes), isa.lanes(), "{}", isa.name());
        }
    }
}
