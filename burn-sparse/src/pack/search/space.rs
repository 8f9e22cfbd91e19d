//! All plans of a layer.

use crate::{
    ConvProblem,
    cpu::{Isa, Plan, Sharing},
};

/// Parts of a plan that vary: who shares loads, vectors, blocks, shifted copies, their alignment,
/// strips.
pub(super) const AXES: usize = 6;

/// An index into each axis of a [`Space`].
pub(crate) type Gene = [u8; AXES];

/// Most vectors of a tile whatever the rows.
const VECTORS: usize = 14;

/// Every plan that a layer may follow. Where a choice means nothing, such as shifted copies under a
/// kernel of one column, it has one value; some genes still stand for the same plan.
#[derive(Debug)]
pub(crate) struct Space {
    forms: Vec<Sharing>,
    vectors: Vec<usize>,
    blocks: Vec<usize>,
    shifted: Vec<bool>,
    align: Vec<usize>,
    strips: Vec<usize>,
}

impl Space {
    pub(crate) fn new(problem: &ConvProblem, forms: &[Sharing], isa: Isa) -> Self {
        let channels = (problem.in_channels / problem.groups).max(1);
        let [height, _] = problem.output();
        let lanes = isa.lanes();
        let wide = problem.kernel[1] > 1;
        // What is read where it lies must not be cut.
        let plain = problem.kernel == [1, 1] && problem.stride == [1, 1];
        let strips = if plain { 1 } else { 5 };
        let mut align = vec![lanes, (lanes / 2).max(1), 1];
        align.dedup();
        Self {
            forms: forms.to_vec(),
            vectors: (1..=VECTORS).collect(),
            blocks: (0..=channels.ilog2().min(5))
                .map(|power| 1 << power)
                .collect(),
            shifted: if wide { vec![false, true] } else { vec![false] },
            align: if wide { align } else { vec![1] },
            strips: (0..strips)
                .map(|halvings| height.div_ceil(1 << halvings).max(1))
                .collect(),
        }
    }

    /// Values of each axis.
    pub(crate) fn sizes(&self) -> [usize; AXES] {
        [
            self.forms.len(),
            self.vectors.len(),
            self.blocks.len(),
            self.shifted.len(),
            self.align.len(),
            self.strips.len(),
        ]
    }

    /// The plan of a gene.
    ///
    /// # Panics
    /// If the gene lies outside of the space.
    pub(crate) fn plan(&self, gene: Gene) -> Plan {
        let [form, vectors, blocks, shifted, align, strip] = gene.map(usize::from);
        let Sharing { rows, panel } = self.forms[form];
        Plan {
            rows,
            vectors: self.vectors[vectors],
            blocks: self.blocks[blocks],
            shifted: self.shifted[shifted],
            align: self.align[align],
            strip: self.strips[strip],
            panel,
            compiled: false,
        }
    }

    /// The gene whose plan is nearest to one.
    pub(crate) fn gene(&self, plan: &Plan) -> Gene {
        let near = |values: &[usize], value: usize| {
            let distance = |&index: &usize| values[index].abs_diff(value);
            (0..values.len()).min_by_key(distance).unwrap_or(0) as u8
        };
        let form = Sharing {
            rows: plan.rows,
            panel: plan.panel,
        };
        [
            self.forms.iter().position(|&f| f == form).unwrap_or(0) as u8,
            near(&self.vectors, plan.vectors),
            near(&self.blocks, plan.blocks),
            self.shifted
                .iter()
                .position(|&s| s == plan.shifted)
                .unwrap_or(0) as u8,
            near(&self.align, plan.align),
            near(&self.strips, plan.strip),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::AWKWARD;

    #[test]
    fn guesses_lie_in_the_space() {
        for case in AWKWARD {
            let isa = Isa::current();
            let forms = [1, 2, 4].map(Sharing::neighbours);
            let space = Space::new(&case.problem, &forms, isa);
            for (form, &sharing) in forms.iter().enumerate() {
                let guess = Plan::guess_sharing(&case.problem, case.density, sharing, isa);
                let gene = space.gene(&guess);
                let inside = gene
                    .iter()
                    .zip(space.sizes())
                    .all(|(&g, size)| usize::from(g) < size);
                assert!(
                    inside && usize::from(gene[0]) == form,
                    "{}: {gene:?}",
                    case.name
                );
                let plan = space.plan(gene);
                assert_eq!((plan.rows, plan.vectors), (guess.rows, guess.vectors));
                assert_eq!(space.gene(&plan), gene);
            }
        }
    }
}
