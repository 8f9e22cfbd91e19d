//! What positions cost after pruning by columns and rows of blocks.

use burn_sparse::format::{BlockPanels, Csr};

use super::*;

/// Bytes of positions of a matrix of rows, with columns as narrow as they can be.
fn row_index(csr: &Csr) -> usize {
    let column = if csr.row_len() <= 1 << 16 { 2 } else { 4 };
    csr.stored() * column + 4 * (csr.rows() + 1)
}

/// The target is a fifth of the index of rows at blocks of eight rows and more, three tenths at four.
#[test]
fn panels_of_blocks_take_a_fifth_of_the_index_of_rows() {
    println!("block      of rows   of panels  part");
    for (block, most) in [
        ([4, 16], 0.3),
        ([4, 128], 0.3),
        ([8, 16], 0.2),
        ([8, 32], 0.2),
        ([8, 64], 0.2),
        ([8, 256], 0.2),
        ([16, 16], 0.2),
        ([16, 128], 0.2),
    ] {
        for (rows, channels, kernel) in [(256, 256, [3, 3]), (512, 2048, [1, 1])] {
            let shape = WeightShape::new(rows, channels, kernel);
            let rng = &mut ChaCha8Rng::seed_from_u64(5);
            let weights: Vec<f32> = (0..shape.len())
                .map(|_| (0..4).map(|_| rng.random::<f32>() - 0.5).sum())
                .collect();
            let sparsity = Sparsity::block_column_row(0.9, block).unwrap();
            let projection = projection_of(sparsity).unwrap();
            let pruned = projection.project(&weights, shape).unwrap().values;
            let csr = Csr::from_dense(&pruned, [rows, shape.row_len()]).unwrap();
            let panels = BlockPanels::from_csr(&csr, block).unwrap();
            assert_eq!(panels.to_csr(), csr);
            let [of_rows, of_panels] = [row_index(&csr), panels.index_bytes()];
            let part = of_panels as f64 / of_rows as f64;
            println!("{block:>9?}  {of_rows:>8}  {of_panels:>9}  {part:.3}");
            assert!(part <= most, "{block:?} {shape}: {part}");
        }
    }
}
