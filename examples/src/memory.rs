//! How much memory this program held at most.

use std::fs;

use serde::Serialize;

/// Bytes of memory that a piece of work needed, as the system counts pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PeakMemory {
    /// Held before the work: the program, the model, the input.
    pub before: u64,
    /// Held at most while it ran, what was held before included.
    pub peak: u64,
}

/// Runs `work` and says how much memory the program held meanwhile; `None` where the system does
/// not tell, which is everywhere but on Linux.
pub fn peak_memory<T>(work: impl FnOnce() -> T) -> (T, Option<PeakMemory>) {
    // 5 sets the peak back to what is held now.
    let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = status("VmRSS").filter(|_| reset);
    let result = work();
    let peak = before.and_then(|before| {
        let peak = status("VmHWM")?;
        Some(PeakMemory { before, peak })
    });
    (result, peak)
}

/// A line of the kernel's account of this program, in bytes.
fn status(key: &str) -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/status").ok()?, key)
}

fn parse(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let number = line.strip_prefix(':')?.trim().strip_suffix("kB")?;
    number.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_for_a_while_counts() {
        let bytes = 64 << 20;
        let (sum, memory) = peak_memory(|| {
            let held = vec![1u8; bytes];
            std::hint::black_box(&held)
                .iter()
                .map(|&b| u64::from(b))
                .sum::<u64>()
        });
        assert_eq!(sum, bytes as u64);
        if cfg!(target_os = "linux")
            && let Some(memory) = memory
        {
            assert!(
                memory.peak >= memory.before + bytes as u64 / 2,
                "{memory:?}"
            );
        }
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t1 kB\n";
        assert_eq!(parse(text, "VmHWM"), Some(2048 << 10));
        assert_eq!(parse(text, "VmSwap"), None);
        assert_eq!(parse("VmHWM: lots", "VmHWM"), None);
    }
}
