//! One tensor of a file: written, and read by the same steps.

use super::choose::{Choice, Order, code_places};
use super::coder::Coder;
use super::coding::{Positions, TensorCoding, Values};
use super::content::{Content, row_ptr, where_taken};
use super::elements::Elements;
use super::places::{Grid, Hints};
use super::range::{Decoder, Encoder, bytes_of};
use super::skeleton::Slot;
use super::varint::Reader;
use super::{codes, floats, gaps, levels};
use crate::quant::BitCodes;
use crate::store::bitmask;

/// Bytes of a tensor. Those of the range coder's stream are whole ones by its end so far, so that
/// sums of them are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) values: u64,
    pub(super) index: u64,
    pub(super) codebook: u64,
}

impl Bytes {
    pub(super) fn add(&mut self, other: Self) {
        self.values += other.values;
        self.index += other.index;
        self.codebook += other.codebook;
    }
}

/// What is written: parts of whole bytes, and a stream after them.
#[derive(Default)]
pub(super) struct Body {
    pub(super) parts: Vec<u8>,
    pub(super) stream: Encoder,
}

impl Body {
    /// Bytes that `write` adds.
    fn taken_by(&mut self, write: impl FnOnce(&mut Self)) -> u64 {
        let bytes =
            |body: &Self| body.parts.len() as u64 + bytes_of(body.stream.information().bits());
        let before = bytes(self);
        write(self);
        bytes(self) - before
    }

    /// Writes a tensor as it was chosen.
    pub(super) fn write(&mut self, content: &Content, choice: &Choice, hints: Hints) -> Bytes {
        let (grid, mut taken) = (content.grid, content.taken.clone());
        let index = self.taken_by(|body| match choice.coding.positions {
            Positions::All | Positions::Empty => {}
            Positions::Mask => body
                .parts
                .extend(bitmask::mask(grid.len(), content.places())),
            Positions::Gaps { bits, .. } => {
                let gaps = BitCodes::new(bits, gaps::gaps(bits, content.places()));
                let gaps = gaps.expect("gaps of as many bits");
                body.parts.extend_from_slice(gaps.as_bytes());
            }
            Positions::Coded => {
                let (order, stored) = (choice.order, content.stored.len() as u64);
                body.stream.plain(u64::from(order.0), Order::BITS);
                code_places(&mut body.stream, grid, order, stored, hints, &mut taken);
            }
        });
        let mut bytes = Bytes {
            index,
            ..Bytes::default()
        };
        match (choice.coding.values, &choice.quantised) {
            (Values::Floats, _) => {
                bytes.values = self.taken_by(|body| {
                    floats::code(&mut body.stream, &mut content.stored.clone());
                });
            }
            (Values::Codes { levels, .. } | Values::CodedCodes { levels, .. }, Some(quantised)) => {
                let (dtype, own) = (content.dtype, Some(quantised.levels()));
                bytes.codebook = self.taken_by(|body| {
                    let row_ptr = row_ptr(grid, &content.taken);
                    levels::code(&mut body.stream, levels, own, dtype, &row_ptr)
                        .expect("numbers that were found");
                });
                bytes.values = self.taken_by(|body| {
                    if matches!(choice.coding.values, Values::Codes { .. }) {
                        body.parts.extend_from_slice(quantised.codes().as_bytes());
                        return;
                    }
                    let bits = u32::from(quantised.codes().bits());
                    let mut given: Vec<u16> = quantised.codes().iter().collect();
                    let columns = content.places().map(|at| at % grid.columns);
                    codes::code(&mut body.stream, bits, &mut given, columns, grid.columns);
                });
            }
            _ => {
                bytes.values =
                    self.taken_by(|body| body.parts.extend_from_slice(content.stored.as_bytes()));
            }
        }
        bytes
    }
}

/// Checks the entry of a tensor against its place in the model; returns the bytes of its parts.
pub(super) fn check(coding: &TensorCoding, slot: &Slot) -> Result<u64, String> {
    let len = slot.grid.len() as u64;
    let stored = coding.stored.map_or(len, |stored| stored as u64);
    if stored > len {
        let shape = &slot.shape;
        return Err(format!(
            "stores {stored} elements, but is {shape:?} in this model"
        ));
    }
    if !super::coding::is_of(slot.kind, coding.dtype) {
        let (dtype, kind) = (coding.dtype.name(), slot.kind);
        return Err(format!("holds {dtype}, not {kind:?} values"));
    }
    if coding.packed && (slot.layer.is_empty() || coding.dtype != burn::tensor::DType::F32) {
        return Err("is packed, which it cannot be in this model".to_owned());
    }
    if coding.equalised && !coding.packed {
        return Err("is equalised, but not packed".to_owned());
    }
    if len > u64::from(u32::MAX) && coding.values.codes().is_some() {
        return Err(format!("has codes for {len} elements"));
    }
    let index = match coding.positions {
        Positions::All | Positions::Empty | Positions::Coded => 0,
        Positions::Mask => len.div_ceil(8),
        Positions::Gaps { bits, count } => {
            let bits = (count as u64).checked_mul(u64::from(bits));
            bits.ok_or_else(|| format!("has {count} gaps"))?.div_ceil(8)
        }
    };
    if let Some((bits, super::coding::LevelKind::Codebook { entries })) = coding.values.codes()
        && (entries as u64 > stored || entries > 1 << bits)
    {
        return Err(format!(
            "has a codebook of {entries} entries for {stored} codes of {bits} bits"
        ));
    }
    let values = match coding.values {
        Values::Raw => stored * coding.dtype.size() as u64,
        Values::Codes { bits, .. } => (stored * u64::from(bits)).div_ceil(8),
        Values::Floats | Values::CodedCodes { .. } => 0,
    };
    Ok(index + values)
}

/// Reads a tensor whose entry passed [`check`]; the reason if that cannot be.
pub(super) fn read(
    coding: &TensorCoding,
    slot: &Slot,
    hints: Hints,
    parts: &mut Reader,
    stream: &mut Decoder,
) -> Result<(Content, Bytes), String> {
    let grid = slot.grid;
    let stored = coding.stored.unwrap_or(grid.len());
    let mut bytes = Bytes::default();
    let left = |parts: &Reader, stream: &Decoder| Left {
        parts: parts.rest().len() as u64,
        stream: bytes_of(stream.information().bits()),
    };
    let before = left(parts, stream);
    let taken = places(coding, grid, stored, hints, parts, stream)?;
    let after_index = left(parts, stream);
    bytes.index = before.until(after_index);
    let (dtype, width) = (coding.dtype, coding.dtype.size());
    let elements = match coding.values {
        Values::Raw => Elements::new(width, part(parts, width * stored)?.to_vec()),
        Values::Floats => {
            let mut elements = Elements::zeros(width, stored);
            floats::code(stream, &mut elements);
            elements
        }
        Values::Codes { bits, levels } | Values::CodedCodes { bits, levels } => {
            let row_ptr = row_ptr(grid, &taken);
            let numbers = levels::code(stream, levels, None, dtype, &row_ptr)?;
            bytes.codebook = after_index.until(left(parts, stream));
            let codes = if matches!(coding.values, Values::Codes { .. }) {
                let packed = part(parts, (stored * usize::from(bits)).div_ceil(8))?.to_vec();
                let packed = BitCodes::from_bytes(bits, stored, packed);
                packed
                    .map_err(|error| format!("has {error}"))?
                    .iter()
                    .collect()
            } else {
                let mut codes = vec![0; stored];
                let columns = where_taken(&taken).map(|at| at % grid.columns);
                codes::code(stream, u32::from(bits), &mut codes, columns, grid.columns);
                codes
            };
            levels::elements(bits, codes, numbers, dtype, &row_ptr)?
        }
    };
    bytes.values = before.until(left(parts, stream)) - bytes.index - bytes.codebook;
    let content = Content {
        grid,
        dtype,
        taken,
        stored: elements,
        packed: coding.packed,
        equalised: coding.equalised,
    };
    Ok((content, bytes))
}

/// How far reading has come.
#[derive(Clone, Copy)]
struct Left {
    parts: u64,
    stream: u64,
}

impl Left {
    /// Bytes read from here to there.
    fn until(self, there: Self) -> u64 {
        self.parts - there.parts + there.stream - self.stream
    }
}

fn part<'a>(parts: &mut Reader<'a>, len: usize) -> Result<&'a [u8], String> {
    let too_short = || "is cut off; was the file copied completely?".to_owned();
    parts.take(len).ok_or_else(too_short)
}

fn places(
    coding: &TensorCoding,
    grid: Grid,
    stored: usize,
    hints: Hints,
    parts: &mut Reader,
    stream: &mut Decoder,
) -> Result<Vec<bool>, String> {
    let len = grid.len();
    Ok(match coding.positions {
        Positions::All => vec![true; len],
        Positions::Empty => vec![false; len],
        Positions::Mask => {
            let mask = part(parts, bitmask::mask_len(len))?;
            bitmask::check(mask, len, stored).map_err(|reason| format!("is broken: {reason}"))?;
            let mut taken = vec![false; len];
            bitmask::positions(mask).for_each(|at| taken[at] = true);
            taken
        }
        Positions::Gaps { bits, count } => {
            let packed = part(parts, (count * usize::from(bits)).div_ceil(8))?.to_vec();
            let gaps = BitCodes::from_bytes(bits, count, packed);
            let gaps = gaps.map_err(|error| format!("has {error}"))?;
            gaps::places(&gaps, len, stored).map_err(|reason| format!("is broken: {reason}"))?
        }
        Positions::Coded => {
            let mut taken = vec![false; len];
            let order = Order(stream.plain(0, Order::BITS) as u8);
            let left = code_places(stream, grid, order, stored as u64, hints, &mut taken);
            if left > 0 {
                return Err(format!("has places for all but {left} of {stored} values"));
            }
            taken
        }
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use proptest::prelude::*;

    use super::super::choose::{choose, kind_of};
    use super::*;
    use crate::quant::Quantized;
    use crate::store::survey::Kind;

    fn slot(rows: usize, columns: usize) -> Slot {
        Slot::new("weight", &[rows, columns, 1], Kind::Float, "conv1d")
    }

    /// Levels in some places of a matrix.
    fn matrix() -> impl Strategy<Value = (Slot, Content)> {
        let element = prop_oneof![4 => Just(0i8), 1 => -3i8..=3];
        (0usize..9, 0usize..12)
            .prop_flat_map(move |(rows, columns)| {
                let elements = prop::collection::vec(element.clone(), rows * columns);
                (Just([rows, columns]), elements)
            })
            .prop_map(|([rows, columns], levels)| {
                let slot = slot(rows, columns);
                let bytes = levels
                    .into_iter()
                    .flat_map(|level| (f32::from(level) * 0.3 + 0.0).to_le_bytes());
                let elements = Elements::new(4, bytes.collect());
                let content = Content::dense(slot.grid, false, DType::F32, elements);
                (slot, content)
            })
    }

    fn round_trip(slot: &Slot, content: &Content, choice: &Choice) -> (Vec<u8>, Vec<u8>) {
        let mut body = Body::default();
        let written = body.write(content, choice, Hints::default());
        let (parts, stream) = (body.parts, body.stream.into_bytes());
        assert_eq!(check(&choice.coding, slot).unwrap(), parts.len() as u64);
        let mut reader = Reader::new(&parts);
        let mut decoder = Decoder::new(&stream);
        let (again, bytes) = read(
            &choice.coding,
            slot,
            Hints::default(),
            &mut reader,
            &mut decoder,
        )
        .unwrap();
        assert_eq!(bytes, written);
        assert_eq!(again.taken, content.taken);
        assert_eq!(again.stored, content.stored);
        assert!(decoder.is_exhausted() && reader.rest().is_empty());
        (parts, stream)
    }

    /// A content in every coding that can tell it.
    fn choices(content: &Content) -> Vec<Choice> {
        let values: Vec<f32> = content.stored.to_f32(DType::F32).unwrap();
        let quantised = Quantized::find(&values, &row_ptr(content.grid, &content.taken)).unwrap();
        let (bits, levels) = (quantised.codes().bits(), kind_of(quantised.levels()));
        let gaps = gaps::WIDTHS.map(|bits| {
            let count = gaps::gaps(bits, content.places()).count();
            (Positions::Gaps { bits, count }, Order(0))
        });
        let coded = (0..8).map(|order| (Positions::Coded, Order(order)));
        let positions = [(Positions::Mask, Order(0))].into_iter().chain(gaps);
        let values = [
            Values::Raw,
            Values::Floats,
            Values::Codes { bits, levels },
            Values::CodedCodes { bits, levels },
        ];
        positions
            .chain(coded)
            .flat_map(|position| values.map(|values| (position, values)))
            .map(|((positions, order), values)| Choice {
                coding: TensorCoding {
                    positions,
                    values,
                    stored: Some(content.stored.len()),
                    packed: false,
                    equalised: false,
                    dtype: DType::F32,
                },
                order,
                quantised: Some(quantised.clone()),
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_coding_comes_back((slot, content) in matrix()) {
            let sizes = choices(&content).into_iter().map(|choice| {
                let (parts, stream) = round_trip(&slot, &content, &choice);
                parts.len() + stream.len()
            });
            let least = sizes.min().unwrap();
            let mut chosen = content.clone();
            let choice = choose(&mut chosen, Hints::default());
            let (parts, stream) = round_trip(&slot, &chosen, &choice);
            // Estimates are rounded to bits, and streams to bytes.
            prop_assert!(parts.len() + stream.len() <= least + 4);
        }

        #[test]
        fn any_bytes_are_a_tensor_or_refused(
            (slot, content) in matrix(),
            which in any::<prop::sample::Index>(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut choices = choices(&content);
            let choice = choices.swap_remove(which.index(choices.len()));
            let (mut parts, mut stream) = round_trip(&slot, &content, &choice);
            for (at, byte) in flips {
                if let Some(all) = (parts.len() + stream.len()).checked_sub(1) {
                    let at = at.index(all + 1);
                    if at < parts.len() { parts[at] = byte } else { stream[at - parts.len()] = byte }
                }
            }
            let mut reader = Reader::new(&parts);
            let mut decoder = Decoder::new(&stream);
            let read = read(&choice.coding, &slot, Hints::default(), &mut reader, &mut decoder);
            if let Ok((again, _)) = read {
                prop_assert_eq!(again.taken.len(), content.grid.len());
                prop_assert_eq!(again.places().count(), again.stored.len());
                prop_assert_eq!(again.stored.len(), content.stored.len());
            }
        }
    }

    #[test]
    fn entries_that_do_not_fit_the_model_are_refused() {
        let slot = slot(4, 5);
        let good = TensorCoding {
            positions: Positions::Mask,
            values: Values::Raw,
            stored: Some(3),
            packed: false,
            equalised: false,
            dtype: DType::F32,
        };
        assert_eq!(check(&good, &slot).unwrap(), 3 + 12);
        let codebook = |entries| super::super::coding::LevelKind::Codebook { entries };
        let cases = [
            (
                TensorCoding {
                    stored: Some(21),
                    ..good
                },
                "stores 21",
            ),
            (
                TensorCoding {
                    stored: Some(usize::MAX),
                    ..good
                },
                "stores",
            ),
            (
                TensorCoding {
                    dtype: DType::I64,
                    ..good
                },
                "i64, not Float",
            ),
            (
                TensorCoding {
                    packed: true,
                    dtype: DType::F16,
                    ..good
                },
                "is packed",
            ),
            (
                TensorCoding {
                    equalised: true,
                    ..good
                },
                "is equalised",
            ),
            (
                TensorCoding {
                    positions: Positions::Gaps {
                        bits: 8,
                        count: usize::MAX,
                    },
                    ..good
                },
                "gaps",
            ),
            (
                TensorCoding {
                    values: Values::Codes {
                        bits: 2,
                        levels: codebook(4),
                    },
                    ..good
                },
                "codebook of 4 entries for 3 codes",
            ),
        ];
        for (coding, says) in cases {
            let reason = check(&coding, &slot).unwrap_err();
            assert!(reason.contains(says), "{reason}");
        }
    }
}
