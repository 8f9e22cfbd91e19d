//! Short rows in fixed-size pieces.

/// Something done to `N` neighbouring elements at once, for the few `N` that registers hold; doing
/// it twice to an element must not matter.
pub(super) trait Piece {
    fn run<const N: usize>(&mut self, at: usize);
}

/// Covers `0..len` with pieces of the largest size that fits; the last overlaps the one before it.
/// Rows of small images are shorter than a vector, so neither a loop over vectors with a scalar
/// rest nor the call of a `memcpy` is good for them.
#[inline(always)]
pub(super) fn cover(len: usize, piece: &mut impl Piece) {
    match len {
        16.. => steps::<16>(len, piece),
        8.. => steps::<8>(len, piece),
        4.. => steps::<4>(len, piece),
        _ => steps::<1>(len, piece),
    }
}

#[inline(always)]
fn steps<const N: usize>(len: usize, piece: &mut impl Piece) {
    let mut at = 0;
    while at + N <= len {
        piece.run::<N>(at);
        at += N;
    }
    if at < len {
        piece.run::<N>(len - N);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Mark(Vec<bool>);

    impl Piece for Mark {
        fn run<const N: usize>(&mut self, at: usize) {
            self.0[at..at + N].fill(true);
        }
    }

    #[test]
    fn every_element_is_covered_and_no_other() {
        for len in 0..70 {
            let mut mark = Mark(vec![false; len]);
            cover(len, &mut mark);
            assert!(mark.0.into_iter().all(|marked| marked), "{len}");
        }
    }
}
