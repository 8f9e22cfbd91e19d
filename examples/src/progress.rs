//! Progress on standard error: a bar in a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(15);
/// A finished task shorter than this leaves no plain line behind.
const SHORT: Duration = Duration::from_secs(2);

/// The progress of one task of known length.
///
/// In a terminal it is a bar that disappears when the task is done. In a log it is a line every
/// 15 seconds, and one at the end of a task that took longer than two seconds.
#[derive(Debug)]
pub struct Progress(Kind);

#[derive(Debug)]
enum Kind {
    Hidden,
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

#[derive(Debug)]
struct Lines {
    label: String,
    message: String,
    total: u64,
    done: u64,
    started: Instant,
    printed: Instant,
}

impl Lines {
    fn new(label: &str, total: u64) -> Self {
        let (label, message, now) = (label.to_string(), String::new(), Instant::now());
        Self {
            label,
            message,
            total,
            done: 0,
            started: now,
            printed: now,
        }
    }

    fn line(&self) -> String {
        let percent = (100 * self.done).checked_div(self.total).unwrap_or(100);
        let seconds = self.started.elapsed().as_secs_f64();
        let space = if self.message.is_empty() { "" } else { "  " };
        format!(
            "{}: {}/{} ({percent} %), {seconds:.0} s{space}{}",
            self.label, self.done, self.total, self.message
        )
    }
}

impl Progress {
    /// Starts the progress of a task of `total` steps.
    #[must_use]
    pub fn new(label: &str, total: u64) -> Self {
        if !stderr().is_terminal() {
            return Self(Kind::Lines(Mutex::new(Lines::new(label, total))));
        }
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(
            "{prefix} {wide_bar:.cyan/blue} {pos}/{len} {elapsed}<{eta} {msg}",
        ) {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_string());
        Self(Kind::Bar(bar))
    }

    /// Progress that shows nothing.
    #[must_use]
    pub fn hidden() -> Self {
        Self(Kind::Hidden)
    }

    /// [`new`](Self::new) if `shown`, otherwise [`hidden`](Self::hidden).
    #[must_use]
    pub fn when(shown: bool, label: &str, total: u64) -> Self {
        if shown {
            Self::new(label, total)
        } else {
            Self::hidden()
        }
    }

    /// Advances by some steps.
    pub fn inc(&self, steps: u64) {
        match &self.0 {
            Kind::Hidden => {}
            Kind::Bar(bar) => bar.inc(steps),
            Kind::Lines(lines) => {
                let mut lines = lines
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                lines.done += steps;
                if lines.printed.elapsed() >= PAUSE {
                    lines.printed = Instant::now();
                    eprintln!("{}", lines.line());
                }
            }
        }
    }

    /// Shows something beside the count, such as the current loss.
    pub fn message(&self, message: impl Into<String>) {
        match &self.0 {
            Kind::Hidden => {}
            Kind::Bar(bar) => bar.set_message(message.into()),
            Kind::Lines(lines) => {
                lines
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner())
                    .message = message.into();
            }
        }
    }

    /// Prints a line of its own above the bar.
    pub fn println(&self, line: impl AsRef<str>) {
        match &self.0 {
            Kind::Bar(bar) => bar.suspend(|| eprintln!("{}", line.as_ref())),
            _ => eprintln!("{}", line.as_ref()),
        }
    }

    /// Ends the task.
    pub fn finish(self) {
        match self.0 {
            Kind::Hidden => {}
            Kind::Bar(bar) => bar.finish_and_clear(),
            Kind::Lines(lines) => {
                let lines = lines
                    .into_inner()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                if lines.started.elapsed() >= SHORT {
                    eprintln!("{}", lines.line());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_says_how_far_it_is() {
        let mut lines = Lines::new("epoch 3", 40);
        lines.done = 10;
        assert_eq!(lines.line(), "epoch 3: 10/40 (25 %), 0 s");
        lines.message = "loss 1.5".into();
        assert!(lines.line().ends_with("0 s  loss 1.5"));
        assert!(Lines::new("nothing", 0).line().contains("(100 %)"));
    }

    #[test]
    fn counting_works_from_many_threads() {
        let progress = Progress(Kind::Lines(Mutex::new(Lines::new("test", 100))));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| progress.inc(1)));
            }
        });
        let Kind::Lines(lines) = &progress.0 else {
            unreachable!("made of lines")
        };
        assert_eq!(lines.lock().unwrap().done, 100);
        progress.finish();
    }
}
