//! Memory for tests that ends, or begins, where nothing may be read or written.

use core::ops::{Deref, DerefMut};

use bytemuck::Pod;

/// On which side the forbidden memory touches the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Right before the first value.
    Start,
    /// Right after the last one.
    End,
}

/// Values between two pages without access, directly at one of them: a kernel that reads or writes one element
/// too far on that side ends the test program.
pub(crate) struct Guarded<T: Pod> {
    /// The first of all pages.
    map: *mut u8,
    /// Bytes of all pages.
    mapped: usize,
    values: *mut T,
    len: usize,
}

fn page() -> usize {
    // SAFETY: asks the system for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).expect("pages have a size")
}

impl<T: Pod> Guarded<T> {
    pub(crate) fn new(values: &[T], edge: Edge) -> Self {
        let page = page();
        let bytes = size_of_val(values);
        let inner = bytes.next_multiple_of(page);
        let mapped = inner + 2 * page;
        // SAFETY: new pages of our own, which nobody else knows.
        let map = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(map != libc::MAP_FAILED, "no memory for {mapped} bytes");
        let map = map.cast::<u8>();
        for guard in [0, page + inner] {
            // SAFETY: a whole page of the mapping, in which nothing lies.
            let done = unsafe { libc::mprotect(map.add(guard).cast(), page, libc::PROT_NONE) };
            assert_eq!(done, 0, "pages can be protected");
        }
        let before = match edge {
            Edge::Start => 0,
            Edge::End => inner - bytes,
        };
        // SAFETY: within the pages between the guards; `inner` is a multiple of any element's alignment, and so is
        // what `bytes` leaves of it.
        let place = unsafe { map.add(page + before) }.cast::<T>();
        // SAFETY: `bytes` bytes are there, in memory that nobody else holds.
        unsafe { core::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
        Self {
            map,
            mapped,
            values: place,
            len: values.len(),
        }
    }
}

impl<T: Pod> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many values were written there, and the pages live as long as `self`.
        unsafe { core::slice::from_raw_parts(self.values, self.len) }
    }
}

impl<T: Pod> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed for writing.
        unsafe { core::slice::from_raw_parts_mut(self.values, self.len) }
    }
}

impl<T: Pod> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping as it was made; no slice of it outlives `self`.
        unsafe { libc::munmap(self.map.cast(), self.mapped) };
    }
}

#[test]
fn values_lie_at_their_edge() {
    for len in [0usize, 1, 1_000, 1_024, 1_025] {
        let values: Vec<f32> = (0..len).map(|value| value as f32).collect();
        let [start, end] = [Edge::Start, Edge::End].map(|edge| Guarded::new(&values, edge));
        assert_eq!((&*start, &*end), (&values[..], &values[..]));
        assert_eq!(start.as_ptr() as usize % page(), 0);
        assert_eq!((end.as_ptr() as usize + 4 * len) % page(), 0);
    }
}
