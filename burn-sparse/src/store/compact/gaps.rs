//! Relative indices: how many places each entry is after the one before, in a few bits.
//!
//! The form of Deep Compression (S. Han et al., 2016, section 3, figure 2) and ADMM-NN (A. Ren et
//! al., 2019): a gap that does not fit is split by fillers. There a filler is a stored zero. Here it
//! has a code of its own, the highest, so that it needs no value: it stands for as many places without
//! an entry as the highest code says.

use crate::quant::BitCodes;

/// Bits of a gap that are tried.
pub(super) const WIDTHS: [u8; 4] = [4, 5, 6, 8];

/// The gaps, fillers included, between ascending places.
pub(super) fn gaps(bits: u8, places: impl Iterator<Item = usize>) -> impl Iterator<Item = u16> {
    let filler = (1usize << bits) - 1;
    let mut next = 0;
    places.flat_map(move |place| {
        let gap = place - next;
        next = place + 1;
        let fillers = core::iter::repeat_n(filler as u16, gap / filler);
        fillers.chain(core::iter::once((gap % filler) as u16))
    })
}

/// The `stored` places of `len` that the gaps lead to; the reason if they do not.
pub(super) fn places(gaps: &BitCodes, len: usize, stored: usize) -> Result<Vec<bool>, String> {
    let filler = (1u16 << gaps.bits()) - 1;
    let mut taken = vec![false; len];
    let (mut next, mut found) = (0usize, 0);
    for gap in gaps.iter() {
        next += usize::from(gap);
        if gap == filler {
            continue;
        }
        let Some(place) = taken.get_mut(next) else {
            return Err(format!("its index runs to place {next} of {len}"));
        };
        *place = true;
        next += 1;
        found += 1;
    }
    if found != stored {
        return Err(format!("its index has {found} places for {stored} values"));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codes(bits: u8, at: &[usize]) -> BitCodes {
        BitCodes::new(bits, gaps(bits, at.iter().copied())).unwrap()
    }

    #[test]
    fn fillers_split_long_gaps() {
        let all = |at: &[usize]| codes(4, at).iter().collect::<Vec<_>>();
        assert_eq!(all(&[0, 1, 4]), [0, 0, 2]);
        assert_eq!(all(&[14]), [14]);
        assert_eq!(all(&[15]), [15, 0]);
        assert_eq!(all(&[46, 47]), [15, 15, 15, 1, 0]);
        assert!(all(&[]).is_empty());
    }

    #[test]
    fn indices_that_run_past_the_end_are_refused() {
        assert!(places(&codes(4, &[3, 20]), 21, 2).is_ok());
        for (len, stored, says) in [
            (20, 2, "place 20 of 20"),
            (21, 3, "2 places for 3"),
            (0, 0, "place 3 of 0"),
        ] {
            let reason = places(&codes(4, &[3, 20]), len, stored).unwrap_err();
            assert!(reason.contains(says), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn places_come_back(
            taken in prop::collection::vec(prop::bool::weighted(0.03), 0..900),
            width in 0usize..4,
        ) {
            let at: Vec<usize> = (0..taken.len()).filter(|at| taken[*at]).collect();
            let codes = codes(WIDTHS[width], &at);
            prop_assert_eq!(places(&codes, taken.len(), at.len()).unwrap(), taken);
        }

        #[test]
        fn any_bytes_are_places_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..50), len in 0usize..500) {
            let codes = BitCodes::from_bytes(4, 2 * bytes.len(), bytes).unwrap();
            let stored = codes.iter().filter(|gap| *gap != 15).count();
            if let Ok(taken) = places(&codes, len, stored) {
                prop_assert_eq!(taken.iter().filter(|taken| **taken).count(), stored);
            }
        }
    }
}
