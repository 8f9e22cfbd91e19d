//! What a file and a fresh model have in common: which tensors there are, in which order.

use std::collections::{HashMap, HashSet};

use super::super::survey::{Dense, Kind, Survey};
use super::places::{Grid, Hints};

/// A place of a model for a tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) path: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    /// `linear`, `conv1d`, `conv2d`, or `""` for what is no weight of a layer of this crate.
    pub(super) layer: &'static str,
    /// The parameter as the matrix of output channels by weights that is coded.
    pub(super) grid: Grid,
    /// Whether the parameter holds that matrix column by column.
    pub(super) transposed: bool,
    /// Which layer of the survey it belongs to.
    pub(super) layer_at: Option<usize>,
    /// Which tensor of the survey it is, unless packed.
    pub(super) tensor_at: Option<usize>,
}

impl Slot {
    pub(super) fn new(path: &str, shape: &[usize], kind: Kind, layer: &'static str) -> Self {
        let (grid, transposed) = match shape {
            _ if kind != Kind::Float => (Grid::plain(1, shape.iter().product()), false),
            [input, output] => (Grid::plain(*output, *input), true),
            [rows, _, kernel @ ..] if !kernel.is_empty() => {
                let columns = shape[1..].iter().product();
                let grid = Grid {
                    rows: *rows,
                    columns,
                    kernel: kernel.iter().product::<usize>().max(1),
                    width: kernel.last().copied().unwrap_or(1).max(1),
                };
                (grid, false)
            }
            _ => (Grid::plain(1, shape.iter().product()), false),
        };
        Self {
            path: path.to_owned(),
            shape: shape.to_vec(),
            kind,
            layer,
            grid,
            transposed,
            layer_at: None,
            tensor_at: None,
        }
    }

    /// Whether publications count it among the weights: not a bias, not a statistic.
    pub(super) fn is_weight(&self) -> bool {
        self.kind == Kind::Float && self.shape.len() >= 2
    }

    /// The path of the module that holds it.
    fn parent(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
}

/// The tensors of a model: the weights of the layers of this crate first, then the others.
pub(super) fn slots(survey: &Survey) -> Vec<Slot> {
    let find = |path: &str, tensors: &[Dense]| tensors.iter().position(|dense| dense.path == path);
    let layers = survey.layers.iter().enumerate().map(|(at, layer)| Slot {
        layer_at: Some(at),
        tensor_at: find(&layer.path, &survey.tensors),
        ..Slot::new(
            &layer.path,
            &layer.weight.shape(),
            Kind::Float,
            layer.weight.kind(),
        )
    });
    let paths: HashSet<&str> = (survey.layers.iter())
        .map(|layer| layer.path.as_str())
        .collect();
    let others = (survey.tensors.iter().enumerate())
        .filter(|(_, dense)| !paths.contains(dense.path.as_str()))
        .map(|(at, dense)| Slot {
            tensor_at: Some(at),
            ..Slot::new(&dense.path, &dense.shape, dense.kind, "")
        });
    layers.chain(others).collect()
}

/// CRC-32 (IEEE) of paths, kinds and shapes.
pub(super) fn checksum(slots: &[Slot]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for slot in slots {
        for text in [slot.path.as_str(), slot.layer] {
            crc.update(text.as_bytes());
            crc.update(&[0]);
        }
        crc.update(&[slot.kind as u8, slot.shape.len() as u8]);
        for side in &slot.shape {
            crc.update(&(*side as u64).to_le_bytes());
        }
    }
    crc.finalize()
}

/// Which rows of the weights so far hold anything: what the next tensors are expected to hold.
#[derive(Default)]
pub(super) struct Alive {
    last: Vec<bool>,
    of_layers: HashMap<String, Vec<bool>>,
}

impl Alive {
    /// An output that is cut off leaves nothing for the next layer to read, and needs no bias.
    pub(super) fn hints(&self, slot: &Slot) -> Hints<'_> {
        let columns = if !slot.layer.is_empty() {
            let fits = !self.last.is_empty() && slot.grid.columns.is_multiple_of(self.last.len());
            if fits { self.last.as_slice() } else { &[] }
        } else {
            let own = self.of_layers.get(slot.parent());
            let fits = |rows: &&Vec<bool>| slot.grid.rows == 1 && rows.len() == slot.grid.columns;
            own.filter(fits).map_or(&[][..], Vec::as_slice)
        };
        Hints { rows: &[], columns }
    }

    /// Notes which places of a layer's weight are taken.
    pub(super) fn note(&mut self, slot: &Slot, rows: Vec<bool>) {
        if !slot.layer.is_empty() {
            self.of_layers
                .insert(slot.parent().to_owned(), rows.clone());
            self.last = rows;
        }
    }
}
