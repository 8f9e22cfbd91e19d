//! Weights, shapes and constraints for the properties, and what is feasible, said without the
//! projections.

use std::collections::{HashMap, HashSet};

use rand::seq::{IndexedRandom, SliceRandom};

use super::*;

pub(super) type Case = (Vec<f32>, WeightShape, Sparsity);

/// Weights with many ties and zeros or ordinary ones, under any constraint that fits them.
pub(super) fn case() -> impl Strategy<Value = Case> {
    let kernel = prop::sample::select(vec![[1, 1], [1, 3], [2, 2], [3, 3], [3, 3]]);
    let shape = (1usize..7, 1usize..7, kernel)
        .prop_map(|(rows, channels, kernel)| WeightShape::new(rows, channels, kernel));
    (shape, any::<bool>()).prop_flat_map(|(shape, ties)| {
        let entry = if ties {
            prop::sample::select(vec![-1.0f32, 1.0, 0.0, -0.0, 0.5, -0.5]).boxed()
        } else {
            (-2.0f32..2.0).boxed()
        };
        let weights = prop::collection::vec(entry, shape.len());
        (weights, Just(shape), constraint(shape))
    })
}

fn constraint(shape: WeightShape) -> impl Strategy<Value = Sparsity> {
    let row_len = shape.row_len();
    (
        0usize..12,
        0.0f64..0.999,
        1..=shape.rows,
        1..=row_len,
        1..=shape.channels,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(move |(which, s, rows, columns, channels, odd, seed)| {
            let budget = Budget::sparsity(s).unwrap();
            let search = if odd {
                BlockSearch::Sequential
            } else {
                BlockSearch::Alternating
            };
            let sparsity = match which {
                0 => Sparsity::Unstructured(budget),
                1 => Sparsity::RowBalanced(budget),
                2 => Sparsity::SharedPattern { rows, budget },
                3 | 4 => Sparsity::BlockColumnRow {
                    block: [rows, columns],
                    rows: Budget::Sparsity(if odd { 0.0 } else { s / 2.0 }),
                    budget,
                    search,
                },
                5 => Sparsity::Punched {
                    filters: rows,
                    channels,
                    budget,
                },
                6 if shape.kernel == [3, 3] => Sparsity::KernelPattern {
                    pool: Pool::Given(pool(seed)),
                    budget,
                },
                6 | 7 => Sparsity::Connectivity(budget),
                8 => Sparsity::Filter(budget),
                9 => Sparsity::Channel(budget),
                10 => Sparsity::Column(budget),
                _ => Sparsity::NofM {
                    n: channels,
                    m: channels + usize::from(odd) * rows,
                },
            };
            // A rate that would empty so small a layer.
            if sparsity.nnz(shape).is_err() {
                sparsity.at(0.0)
            } else {
                sparsity
            }
        })
}

fn pool(seed: u64) -> PatternPool {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let natural = PatternPool::natural();
    let patterns = rng.random_range(1..=8);
    let masks: Vec<u16> = natural
        .choose_multiple(&mut rng, patterns)
        .copied()
        .collect();
    PatternPool::from_masks(&masks).unwrap()
}

/// Where an entry stands: row, column of the matrix, input channel, position.
fn place(shape: WeightShape, index: usize) -> [usize; 4] {
    let (row, column) = (index / shape.row_len(), index % shape.row_len());
    let positions = shape.positions();
    [row, column, column / positions, column % positions]
}

/// For constraints of the form "at most `k` groups in each contest": an entry's contest and group,
/// and `k`. The others are looked at one by one.
type Contest = (Box<dyn Fn(usize) -> ([usize; 3], [usize; 3])>, usize);

fn contest(shape: WeightShape, sparsity: Sparsity) -> Option<Contest> {
    let at = move |index| place(shape, index);
    let (rows, row_len, channels) = (shape.rows, shape.row_len(), shape.channels);
    let none = [0; 3];
    Some(match sparsity {
        Sparsity::Unstructured(budget) => (
            Box::new(move |i| (none, [i, 0, 0])),
            budget.keep(shape.len()).unwrap(),
        ),
        Sparsity::RowBalanced(budget) => (
            Box::new(move |i| ([at(i)[0], 0, 0], [at(i)[1], 0, 0])),
            budget.keep(row_len).unwrap(),
        ),
        Sparsity::SharedPattern { rows, budget } => (
            Box::new(move |i| ([at(i)[0] / rows, 0, 0], [at(i)[1], 0, 0])),
            budget.keep(row_len).unwrap(),
        ),
        Sparsity::Filter(budget) => (
            Box::new(move |i| (none, [at(i)[0], 0, 0])),
            budget.keep_groups(rows, "").unwrap(),
        ),
        Sparsity::Channel(budget) => (
            Box::new(move |i| (none, [at(i)[2], 0, 0])),
            budget.keep_groups(channels, "").unwrap(),
        ),
        Sparsity::Column(budget) => (
            Box::new(move |i| (none, [at(i)[1], 0, 0])),
            budget.keep_groups(row_len, "").unwrap(),
        ),
        Sparsity::Connectivity(budget) => (
            Box::new(move |i| (none, [at(i)[0], at(i)[2], 0])),
            budget.keep_groups(rows * channels, "").unwrap(),
        ),
        Sparsity::Punched {
            filters,
            channels: wide,
            budget,
        } => {
            let blocks = rows.div_ceil(filters) * channels.div_ceil(wide);
            (
                Box::new(move |i| (none, [at(i)[0] / filters, at(i)[2] / wide, at(i)[3]])),
                budget.keep_groups(blocks * shape.positions(), "").unwrap(),
            )
        }
        Sparsity::NofM { n, m } => (
            Box::new(move |i| ([at(i)[0], at(i)[3], at(i)[2] / m], [at(i)[2], 0, 0])),
            n,
        ),
        _ => return None,
    })
}

/// Whether weights that are not zero there satisfy the constraint.
pub(super) fn feasible(support: &[bool], shape: WeightShape, sparsity: Sparsity) -> bool {
    let indices: Vec<usize> = (0..support.len()).filter(|&i| support[i]).collect();
    if let Some((key, most)) = contest(shape, sparsity) {
        let mut groups: HashMap<_, HashSet<_>> = HashMap::new();
        for i in indices {
            let (contest, group) = key(i);
            groups.entry(contest).or_default().insert(group);
        }
        return groups.values().all(|groups| groups.len() <= most);
    }
    match sparsity {
        Sparsity::KernelPattern {
            pool: Pool::Given(pool),
            budget,
        } => {
            let mut kernels: HashMap<usize, u16> = HashMap::new();
            for i in indices {
                *kernels.entry(i / 9).or_default() |= 1 << (i % 9);
            }
            let most = budget.keep_groups(support.len() / 9, "").unwrap();
            kernels.len() <= most
                && kernels
                    .values()
                    .all(|kernel| pool.masks().iter().any(|mask| kernel & !mask == 0))
        }
        Sparsity::BlockColumnRow {
            block,
            rows,
            budget,
            ..
        } => {
            let mut blocks: HashMap<[usize; 2], [HashSet<usize>; 2]> = HashMap::new();
            for i in indices {
                let [row, column, ..] = place(shape, i);
                let kept = blocks
                    .entry([row / block[0], column / block[1]])
                    .or_default();
                kept[0].insert(row);
                kept[1].insert(column);
            }
            blocks.iter().all(|(at, kept)| {
                let size = [
                    block[0].min(shape.rows - at[0] * block[0]),
                    block[1].min(shape.row_len() - at[1] * block[1]),
                ];
                let most = Sparsity::kept_of_block(rows, budget, size).unwrap();
                kept[0].len() <= most[0] && kept[1].len() <= most[1]
            })
        }
        other => panic!("{other} is not looked at"),
    }
}

/// A feasible point: `weights` on a random allowed support, mostly.
pub(super) fn random_feasible(
    rng: &mut ChaCha8Rng,
    sparsity: Sparsity,
    weights: &[f32],
    shape: WeightShape,
) -> Vec<f32> {
    let mut support = vec![false; weights.len()];
    if let Some((key, most)) = contest(shape, sparsity) {
        let mut groups: HashMap<_, Vec<_>> = HashMap::new();
        for i in 0..weights.len() {
            let (contest, group) = key(i);
            let groups = groups.entry(contest).or_default();
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        for groups in groups.values_mut() {
            groups.shuffle(rng);
            groups.truncate(most);
        }
        for (i, support) in support.iter_mut().enumerate() {
            let (contest, group) = key(i);
            *support = groups[&contest].contains(&group);
        }
    } else if let Sparsity::KernelPattern {
        pool: Pool::Given(pool),
        budget,
    } = sparsity
    {
        let mut kernels: Vec<usize> = (0..weights.len() / 9).collect();
        kernels.shuffle(rng);
        kernels.truncate(budget.keep_groups(kernels.len(), "").unwrap());
        for kernel in kernels {
            let mask = *pool.masks().choose(rng).unwrap();
            (0..9).for_each(|p| support[9 * kernel + p] = mask >> p & 1 == 1);
        }
    } else {
        panic!("{sparsity} has no random points");
    }
    (weights.iter().zip(support))
        .map(|(&weight, support)| match support {
            // Mostly the best value on that support, sometimes any other.
            true if rng.random_bool(0.9) => weight,
            true => rng.random_range(-2.0..2.0),
            false => 0.0,
        })
        .collect()
}
