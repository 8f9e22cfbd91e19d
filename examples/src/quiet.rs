//! Calls that may panic or hang in other people's code, turned into errors.

use std::panic;
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

/// Name of the threads whose panics are returned and not printed.
const THREAD: &str = "quiet";

/// Runs `work` in a thread of its own, for at most `limit`. A panic's text becomes the error; a
/// thread that takes longer is left to itself.
pub(crate) fn catch<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    silence();
    let (send, receive) = mpsc::channel();
    let run = move || {
        let result = panic::catch_unwind(panic::AssertUnwindSafe(work)).map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("panic")
                .to_string()
        });
        // Nobody listens any more after the time limit.
        let _ = send.send(result);
    };
    thread::Builder::new()
        .name(THREAD.into())
        .spawn(run)
        .map_err(|e| e.to_string())?;
    receive
        .recv_timeout(limit)
        .unwrap_or_else(|_| Err(format!("not finished within {} s", limit.as_secs())))
}

/// Keeps the panics of these threads, and of no others, from being printed.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(THREAD) {
                usual(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_endless_work_are_errors() {
        let limit = Duration::from_secs(20);
        assert_eq!(catch(limit, || 3), Ok(3));
        assert_eq!(
            catch(limit, || -> u8 { panic!("no route") }),
            Err("no route".into())
        );
        assert_eq!(
            catch(limit, || -> u8 { panic!("no {}", 1) }),
            Err("no 1".into())
        );
        let endless = || thread::sleep(Duration::from_secs(5));
        let error = catch(Duration::from_millis(20), endless).unwrap_err();
        assert!(error.contains("not finished"), "{error}");
    }
}
