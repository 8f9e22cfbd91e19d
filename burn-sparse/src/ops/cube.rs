//! The operations on every `CubeCL` runtime.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;

use super::{OptionalFloat, OptionalInt, Pattern, SparseOps};
use crate::{
    ConvProblem,
    kernel::{self, Choice, Codes, Entries, Epilogue, Panels},
};

/// The panels of a pattern, whose index comes with the call.
fn panels_of(
    index: OptionalInt<CubeBackend>,
    pattern: &Pattern,
    positions: usize,
    groups: usize,
) -> Option<Panels> {
    let index = index.into_option()?;
    let panels = pattern.panel_entries(positions, groups)?;
    Some(Panels::new(index, &panels))
}

impl SparseOps for CubeBackend {
    fn sparse_conv(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        offsets: OptionalInt<Self>,
        row_ptr: OptionalInt<Self>,
        _transpose: OptionalInt<Self>,
        panels: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        problem: ConvProblem,
        relu: bool,
    ) -> FloatTensor<Self> {
        let [offsets, row_ptr] = [offsets, row_ptr].map(|indices| {
            let indices = indices.into_option();
            indices.expect("a sparse operation on this device comes with its indices")
        });
        let positions = problem.kernel[0] * problem.kernel[1];
        let panels = panels_of(panels, &pattern, positions, problem.groups);
        let entries = Entries::new(values, offsets, row_ptr).with_panels(panels);
        let epilogue = Epilogue {
            bias: bias.into_option(),
            residual: residual.into_option(),
            relu,
        };
        kernel::sparse_conv(input, entries, epilogue, &problem, Choice::Tuned)
    }

    fn sparse_conv_grad_input(
        grad: FloatTensor<Self>,
        values: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        transpose: IntTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        let entries = Entries::new(values, offsets, row_ptr);
        kernel::sparse_conv_grad_input(grad, entries, transpose, &problem, Choice::Heuristic)
    }

    fn sparse_conv_grad_values(
        input: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        problem: ConvProblem,
    ) -> FloatTensor<Self> {
        kernel::sparse_conv_grad_values(input, grad, offsets, row_ptr, &problem, Choice::Heuristic)
    }

    fn sparse_linear(
        input: FloatTensor<Self>,
        values: FloatTensor<Self>,
        columns: IntTensor<Self>,
        row_ptr: IntTensor<Self>,
        _transpose: OptionalInt<Self>,
        panels: OptionalInt<Self>,
        codes: OptionalInt<Self>,
        bias: OptionalFloat<Self>,
        residual: OptionalFloat<Self>,
        pattern: Pattern,
        relu: bool,
    ) -> FloatTensor<Self> {
        let panels = panels_of(panels, &pattern, 1, 1);
        let codes = codes.into_option().zip(pattern.code_words());
        let codes = codes.map(|(index, codes)| Codes::new(index, &codes));
        let entries = Entries::new(values, columns, row_ptr)
            .with_panels(panels)
            .with_codes(codes);
        let epilogue = Epilogue {
            bias: bias.into_option(),
            residual: residual.into_option(),
            relu,
        };
        let rows = pattern.csr().rows();
        kernel::sparse_linear(input, entries, epilogue, rows, Choice::Tuned)
    }
}
