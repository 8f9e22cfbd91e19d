//! Aligned memory that is used again: a network's layers need the same sizes on every forward
//! pass, and fresh pages cost more than small layers do.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes to which buffers are aligned: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// Bytes kept for later; beyond them, freed buffers go back to the system.
const KEPT: usize = 256 << 20;

/// How much larger than needed a buffer may be. The one that was used last is most likely still in
/// a cache; one that fits exactly may have lain in memory since the last forward pass.
const MOST_SPARE: usize = 8;

/// Freed buffers, most recently used last. A thread is given those first that it has used itself.
static FREE: Mutex<Vec<Block>> = Mutex::new(Vec::new());

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

std::thread_local! {
    /// A number of this thread alone.
    static THREAD: u32 = {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// How many buffers were asked of the system since the program began. It stands still while a
/// network runs in its steady state.
pub fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Gives the memory of all unused buffers back to the system.
pub fn trim() {
    free_list().clear();
}

fn free_list() -> std::sync::MutexGuard<'static, Vec<Block>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of its own, initialised, aligned to [`ALIGN`].
#[derive(Debug)]
struct Block {
    start: NonNull<f32>,
    /// Elements.
    len: usize,
    /// Whose caches it most likely lies in: the thread that used it last.
    thread: u32,
}

// SAFETY: a block owns its memory, and plain numbers may be used from any thread.
unsafe impl Send for Block {}
// SAFETY: shared references only read.
unsafe impl Sync for Block {}

impl Block {
    fn layout(len: usize) -> Layout {
        Layout::array::<f32>(len)
            .and_then(|layout| layout.align_to(ALIGN))
            .unwrap_or_else(|_| panic!("a buffer of {len} elements exceeds the address space"))
    }

    fn new(len: usize) -> Self {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        let layout = Self::layout(len);
        // SAFETY: `len` is never 0 (see `capacity`), so the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start.cast()).unwrap_or_else(|| handle_alloc_error(layout));
        Self {
            start,
            len,
            thread: 0,
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
    }
}

/// Sizes are rounded up so that layers of nearly the same size share buffers: to a quarter of a
/// power of two, at most a fifth too much.
fn capacity(len: usize) -> usize {
    let len = len.max(ALIGN);
    let step = (1usize << len.ilog2()) / 4;
    len.next_multiple_of(step)
}

/// A run of f32 values from the pool of unused ones; goes back when dropped. Its contents are
/// initialised but arbitrary.
#[derive(Debug)]
pub struct Buffer {
    block: Option<Block>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` elements holding whatever its last user left.
    pub fn new(len: usize) -> Self {
        let wanted = capacity(len);
        let block = {
            let mut free = free_list();
            let fits = |block: &Block| (wanted..=MOST_SPARE * wanted).contains(&block.len);
            // What another thread has written would come from its caches, and go there again with the next image.
            let me = THREAD.with(|&thread| thread);
            let own = free
                .iter()
                .rposition(|block| block.thread == me && fits(block));
            let last = own.or_else(|| free.iter().rposition(fits));
            last.map(|index| free.remove(index))
        };
        Self {
            block: Some(block.unwrap_or_else(|| Block::new(wanted))),
            len,
        }
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("present until dropped")
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the block holds at least `len` initialised elements (zeroed when allocated).
        unsafe { std::slice::from_raw_parts(self.block().start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.block().start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(mut block) = self.block.take() else {
            return;
        };
        // A thread that ends has no number any more.
        block.thread = THREAD.try_with(|&thread| thread).unwrap_or_default();
        let mut free = free_list();
        let kept: usize = free.iter().map(|block| 4 * block.len).sum();
        if kept + 4 * block.len <= KEPT {
            free.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_hold_what_is_asked_and_little_more() {
        for len in (0..5000).chain([1 << 20, (1 << 20) + 1, 3_211_264]) {
            let capacity = capacity(len);
            assert!(
                capacity >= len && capacity <= (len.max(64) * 5).div_ceil(4) + 1,
                "{len}"
            );
        }
    }

    #[test]
    fn a_dropped_buffer_is_used_again() {
        // A size that no other test asks for.
        let len = 7_654_321;
        let buffer = Buffer::new(len);
        assert_eq!(buffer.as_ptr().align_offset(ALIGN), 0);
        assert_eq!(buffer.len(), len);
        let address = buffer.as_ptr() as usize;
        drop(buffer);
        let again = Buffer::new(len - 1);
        assert_eq!(again.as_ptr() as usize, address);
    }

    #[test]
    fn a_thread_gets_back_what_it_has_used() {
        // A size that no other test asks for.
        let len = 9_876_543;
        let (mine, other) = (Buffer::new(len), Buffer::new(len));
        let address = mine.as_ptr() as usize;
        drop(mine);
        let dropped = std::thread::spawn(move || drop(other)).join();
        dropped.expect("dropping a buffer does not panic");
        assert_eq!(Buffer::new(len).as_ptr() as usize, address);
    }
}
