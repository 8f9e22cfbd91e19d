use burn_sparse::{Budget, Pool, Sparsity};

/// The constraint sets of which a constraint is the intersection, as ADMM splits it: each gets a
/// feasible copy and a dual of its own.
///
/// All but one are a single set. Kernel patterns with fewer than all kernels are two (Niu et al.,
/// "PatDNN", ASPLOS 2020, section 4): the patterns of every kernel, and connectivity.
///
/// # Example
/// ```
/// use burn_admm::projection::parts_of;
/// use burn_sparse::Sparsity;
///
/// assert_eq!(parts_of(Sparsity::filter(0.5)?), [Sparsity::filter(0.5)?]);
/// let parts = parts_of(Sparsity::kernel_pattern(0.8, 8)?);
/// assert_eq!([parts[0].name(), parts[1].name()], ["kernel-pattern", "connectivity"]);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
pub fn parts_of(sparsity: Sparsity) -> Vec<Sparsity> {
    match sparsity {
        Sparsity::KernelPattern { pool, budget } if budget != ALL => {
            vec![every_kernel(pool), Sparsity::Connectivity(budget)]
        }
        other => vec![other],
    }
}

const ALL: Budget = Budget::Sparsity(0.0);

fn every_kernel(pool: Pool) -> Sparsity {
    Sparsity::KernelPattern { pool, budget: ALL }
}
