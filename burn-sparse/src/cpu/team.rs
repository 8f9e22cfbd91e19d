//! Tasks of a layer, shared out to rayon's threads, which stay awake between layers.
//!
//! A thread of rayon that finds nothing to do sleeps after some ten microseconds, and takes longer than a
//! small layer to be woken. Between two layers of a network there is less to wait for than that, so threads
//! that have helped with one look for the next a little longer.

use core::cell::Cell;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{Scope, Yield};

use super::{on_pool, threads};

/// How long a thread looks for work after its last.
const LINGER: Duration = Duration::from_micros(200);

/// How long it does so at most before others may have it: it may have begun while it waited for a result.
const MOST: Duration = Duration::from_millis(1);

/// How long it keeps the processor while it does so. It may be wanted elsewhere, but who gives it to a process of the
/// least priority has it back after milliseconds.
const KEEP: Duration = Duration::from_micros(100);

/// Turns of a waiting loop between two looks at the clock.
const TURNS: usize = 64;

std::thread_local! {
    /// Whether this thread must not begin to look for work: it does so already, further up on its stack, or
    /// something there waits for it.
    static ENGAGED: Cell<bool> = const { Cell::new(false) };
}

/// Groups of pieces for each thread: enough for all to end at the same time.
const GROUPS: usize = 8;

/// Calls `work` with each piece of `len` elements (the last may be shorter) and its number, on as many threads
/// as have `least` pieces each.
///
/// # Panics
/// If `work` does, and for pieces of no elements.
pub(crate) fn chunks<T: Send>(
    data: &mut [T],
    len: usize,
    least: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    chunks_init(
        data,
        len,
        least,
        || (),
        |(), index, piece| work(index, piece),
    );
}

/// [`chunks`], with what `init` has made for the thread.
///
/// # Panics
/// If `init` or `work` does, and for pieces of no elements.
pub(crate) fn chunks_init<T: Send, S>(
    data: &mut [T],
    len: usize,
    least: usize,
    init: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &mut [T]) + Sync,
) {
    assert!(len > 0 || data.is_empty(), "pieces of no elements");
    let len = len.max(1);
    let pieces = data.len().div_ceil(len);
    let threads = threads().min(pieces / least.max(1));
    let group = match threads {
        0 | 1 => pieces.max(1),
        _ => pieces.div_ceil(GROUPS * threads).max(least),
    };
    let groups = data.chunks_mut(group * len).enumerate();
    for_each_init(groups, init, |state, (at, data)| {
        for (index, piece) in data.chunks_mut(len).enumerate() {
            work(state, at * group + index, piece);
        }
    });
}

/// Calls `work` with each item.
///
/// # Panics
/// If `work` does.
pub(crate) fn for_each<T: Send>(items: impl ExactSizeIterator<Item = T>, work: impl Fn(T) + Sync) {
    for_each_init(items, || (), |(), item| work(item));
}

fn for_each_init<T: Send, S>(
    items: impl ExactSizeIterator<Item = T>,
    init: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) + Sync,
) {
    if threads() == 1 || items.len() <= 1 {
        let mut state = init();
        return items.for_each(|item| work(&mut state, item));
    }
    let items: Vec<_> = items.map(|item| Mutex::new(Some(item))).collect();
    indices_init(items.len(), init, |state, index| {
        let item = items[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(item) = item {
            work(state, item);
        }
    });
}

/// Calls `work` with every number below `tasks`: neighbours on one thread, as far as all end at the same time.
///
/// The calling thread takes part. Who is done with his share takes from the shares of others, so a thread
/// that comes late, or not at all, costs no more than its own work.
///
/// # Panics
/// If `work` does.
pub(crate) fn indices(tasks: usize, work: impl Fn(usize) + Sync) {
    indices_init(tasks, || (), |(), index| work(index));
}

/// [`indices`], with what `init` has made for the thread.
///
/// # Panics
/// If `init` or `work` does.
pub(crate) fn indices_init<S>(
    tasks: usize,
    init: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) + Sync,
) {
    let threads = threads().min(tasks);
    if threads <= 1 {
        let mut state = init();
        return (0..tasks).for_each(|index| work(&mut state, index));
    }
    match rayon::current_thread_index() {
        Some(home) => share_out(home, threads, tasks, &init, &work),
        // All threads of the pool will look for work; one more would be too many.
        None => on_pool(|| {
            let home = rayon::current_thread_index().unwrap_or(0);
            share_out(home, threads, tasks, &init, &work);
        }),
    }
}

/// [`indices_init`] from the thread `home` of the pool.
fn share_out<S>(
    home: usize,
    threads: usize,
    tasks: usize,
    init: &(impl Fn() -> S + Sync),
    work: &(impl Fn(&mut S, usize) + Sync),
) {
    let _engaged = Engaged::new();
    let shares: Vec<Share> = (0..threads)
        .map(|thread| Share::new(thread * tasks / threads..(thread + 1) * tasks / threads))
        .collect();
    let toil = |thread: usize| {
        let mut state = None;
        for share in shares[thread..].iter().chain(&shares[..thread]) {
            while let Some(index) = share.take() {
                work(state.get_or_insert_with(init), index);
            }
        }
    };
    let team = Team {
        shares: &shares,
        toil,
        helping: AtomicUsize::new(0),
        home,
    };
    rayon::in_place_scope(|scope| {
        team.enlist(scope, 1..threads);
        (team.toil)(0);
        team.wait();
    });
}

/// Threads that work on the same tasks.
struct Team<'a, F> {
    shares: &'a [Share],
    /// What each does, by its number.
    toil: F,
    /// How many help.
    helping: AtomicUsize,
    /// The thread of the pool whose work it is.
    home: usize,
}

impl<F: Fn(usize) + Sync> Team<'_, F> {
    /// Asks for helpers of these numbers: half of them at a time, of whom the first asks for the others. Waking
    /// threads takes long.
    fn enlist<'scope>(&'scope self, scope: &Scope<'scope>, mut numbers: Range<usize>) {
        while !numbers.is_empty() {
            let middle = numbers.start + numbers.len() / 2;
            let (first, end) = (middle, numbers.end);
            scope.spawn(move |scope| {
                // Too late: there is nothing left to help with. Whoever slept again now would be late for the next, too.
                if self.shares.iter().all(Share::is_empty) {
                    return stay(self.home);
                }
                let _helper = Helper::new(&self.helping, self.home);
                self.enlist(scope, first + 1..end);
                (self.toil)(first);
            });
            numbers.end = middle;
        }
    }

    /// Waits for those who have begun. The scope does so too, but soon sleeps.
    fn wait(&self) {
        let begin = Instant::now();
        while begin.elapsed() < LINGER {
            for _ in 0..TURNS {
                if self.helping.load(Ordering::Acquire) == 0 {
                    return;
                }
                core::hint::spin_loop();
            }
        }
    }
}

/// Some tasks, and the first that nobody has taken; on cache lines of its own, since each thread counts its own.
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: usize,
}

impl Share {
    fn new(tasks: Range<usize>) -> Self {
        Self {
            next: AtomicUsize::new(tasks.start),
            end: tasks.end,
        }
    }

    fn take(&self) -> Option<usize> {
        // Looked at first: threads that pass by must not count without end.
        let index = (!self.is_empty()).then(|| self.next.fetch_add(1, Ordering::Relaxed));
        index.filter(|&index| index < self.end)
    }

    fn is_empty(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.end
    }
}

/// A thread at work for another; afterwards it looks for more.
struct Helper<'a> {
    helping: &'a AtomicUsize,
    /// The thread of the pool whose work it is.
    home: usize,
}

impl<'a> Helper<'a> {
    fn new(helping: &'a AtomicUsize, home: usize) -> Self {
        helping.fetch_add(1, Ordering::AcqRel);
        Self { helping, home }
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        stay(self.home);
        self.helping.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Lets this thread look for more, if it is not the one whose work it was asked to help with.
fn stay(home: usize) {
    let home = Some(home);
    if !ENGAGED.get() && rayon::current_thread_index() != home {
        // As a job of its own, since that of the scope has to end. This thread is likely to take it next; with
        // another that looks for work it is as well.
        rayon::spawn(move || {
            if rayon::current_thread_index() != home {
                linger();
            }
        });
    }
}

/// Keeps this thread from looking for work of others while it lives.
pub(super) struct Engaged {
    before: bool,
}

impl Engaged {
    pub(super) fn new() -> Self {
        Self {
            before: ENGAGED.replace(true),
        }
    }
}

impl Drop for Engaged {
    fn drop(&mut self) {
        ENGAGED.set(self.before);
    }
}

/// Does what there is to do, until there has been nothing for a while.
fn linger() {
    if ENGAGED.get() {
        return;
    }
    let _engaged = Engaged::new();
    let begin = Instant::now();
    let mut last = begin;
    while last.elapsed() < LINGER && begin.elapsed() < MOST {
        match rayon::yield_now() {
            Some(Yield::Executed) => last = Instant::now(),
            _ if last.elapsed() < KEEP => (0..TURNS).for_each(|_| core::hint::spin_loop()),
            // Another process, or a thread too many, may have the processor.
            _ => std::thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(work)
    }

    #[test]
    fn every_task_is_done_once_whoever_does_it() {
        for threads in [1, 2, 3, 7] {
            for tasks in [0, 1, 2, 5, 64, 1000] {
                on(threads, || {
                    let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    for _ in 0..20 {
                        indices(tasks, |index| {
                            counts[index].fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    let counts = counts.into_iter().map(AtomicUsize::into_inner);
                    assert!(
                        counts.into_iter().all(|count| count == 20),
                        "{threads} {tasks}"
                    );
                });
            }
        }
    }

    #[test]
    fn pieces_have_their_numbers_and_the_last_may_be_short() {
        for (len, pieces, least) in [
            (10, 3, 1),
            (1000, 7, 5),
            (64, 64, 1),
            (5, 1, 100),
            (0, 4, 1),
        ] {
            let mut data = vec![usize::MAX; len];
            on(3, || {
                chunks(&mut data, pieces, least, |index, piece| piece.fill(index))
            });
            let expected: Vec<_> = (0..len).map(|at| at / pieces).collect();
            assert_eq!(data, expected);
        }
        let mut cells = vec![0; 100];
        for_each(cells.iter_mut().enumerate(), |(at, cell)| *cell = at);
        assert!(cells.into_iter().eq(0..100));
    }

    #[test]
    fn tasks_may_share_out_tasks_of_their_own() {
        let sum = AtomicUsize::new(0);
        let work = || {
            indices(20, |outer| {
                indices(30, |inner| {
                    sum.fetch_add(outer * inner, Ordering::Relaxed);
                });
                rayon::join(|| (), || ());
            });
        };
        on(4, work);
        // From a thread that no pool knows, too.
        work();
        assert_eq!(sum.into_inner(), 2 * 190 * 435);
    }

    #[test]
    fn callers_do_not_wait_for_each_other() {
        let sum = AtomicUsize::new(0);
        on(3, || {
            rayon::scope(|scope| {
                for _ in 0..50 {
                    scope.spawn(|_| {
                        indices(40, |index| {
                            sum.fetch_add(index, Ordering::Relaxed);
                        });
                    });
                }
            });
        });
        assert_eq!(sum.into_inner(), 50 * 780);
    }

    /// A caller that has helped another one leaves when its own work is done, however long the other goes on.
    #[test]
    fn whoever_helps_is_not_kept() {
        use core::sync::atomic::AtomicBool;

        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(3)
            .build()
            .unwrap();
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let layer = || {
            indices(6, |_| {
                std::hint::black_box((0..2000).sum::<usize>());
            });
        };
        let other = || {
            begun.store(true, Ordering::Relaxed);
            while !over.load(Ordering::Relaxed) {
                layer();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| pool.install(other));
            // Not before: a thread that waits may begin what nobody has begun, and then has to end it.
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            pool.install(|| {
                (0..500).for_each(|_| layer());
                rayon::join(layer, layer);
            });
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_in_order() {
        on(2, || {
            for bad in [0, 99] {
                let work = || indices(100, |index| assert!(index != bad, "as planned"));
                assert!(std::panic::catch_unwind(work).is_err());
            }
            let done = AtomicUsize::new(0);
            indices(100, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 100);
        });
    }

    #[test]
    fn threads_that_find_nothing_sleep_again() {
        on(2, || {
            indices(2, |_| std::thread::sleep(Duration::from_millis(1)));
            std::thread::sleep(20 * LINGER);
            // On the other thread: a job that only it may take.
            let engaged = rayon::broadcast(|_| ENGAGED.get());
            assert_eq!(engaged, [false, false]);
        });
    }
}
