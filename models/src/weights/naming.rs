//! From the paths of a Burn module to the names and layouts of a `state_dict`.

use burn::tensor::Shape;

/// Follows a traversal and knows the parameter it stands at.
#[derive(Default)]
pub(super) struct Cursor {
    stack: Vec<(String, String)>,
}

/// How a parameter is stored in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) name: String,
    /// The shape in the file.
    pub(super) shape: Vec<usize>,
    /// Whether the file holds the transposed matrix.
    pub(super) transposed: bool,
}

/// The container types that Burn's traversal reports; our layers have the names of Burn's.
const LINEAR: &str = "Struct:Linear";
const NORMS: [&str; 4] = [
    "Struct:BatchNorm",
    "Struct:LayerNorm",
    "Struct:GroupNorm",
    "Struct:InstanceNorm",
];

impl Cursor {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.stack.push((name.to_owned(), container.to_owned()));
    }

    pub(super) fn exit(&mut self) {
        self.stack.pop();
    }

    /// The innermost struct or enum that holds the parameter.
    fn holder(&self) -> &str {
        let holders = self
            .stack
            .iter()
            .rev()
            .map(|(_, container)| container.as_str());
        holders
            .into_iter()
            .find(|c| c.starts_with("Struct:") || c.starts_with("Enum:"))
            .unwrap_or("")
    }

    /// Whether this is the state of a reparameterization (a mask, an adapter), which belongs to
    /// training and not to the network.
    pub(super) fn in_reparameterization(&self) -> bool {
        self.stack
            .iter()
            .any(|(_, container)| container == "Reparameterization")
    }

    /// How the parameter at hand, of `shape` in the module, is stored.
    pub(super) fn stored(&self, shape: &Shape) -> Stored {
        let mut path: Vec<&str> = self.stack.iter().map(|(name, _)| name.as_str()).collect();
        let holder = self.holder();
        let mut shape = shape.as_slice().to_vec();
        let mut transposed = false;
        if let Some(last) = path.last_mut() {
            if NORMS.contains(&holder) {
                match *last {
                    "gamma" => *last = "weight",
                    "beta" => *last = "bias",
                    _ => {}
                }
            }
            if holder == LINEAR && *last == "weight" && shape.len() == 2 {
                shape.reverse();
                transposed = true;
            }
        }
        Stored {
            name: path.join("."),
            shape,
            transposed,
        }
    }
}

/// What torchvision's first files of densely connected networks call a tensor: `norm.1.weight` of a
/// `denselayer` for `norm1.weight`. None for all other tensors.
pub(super) fn legacy(name: &str) -> Option<String> {
    let (rest, part) = name.rsplit_once('.')?;
    let (holder, layer) = rest.rsplit_once('.')?;
    let number = holder.rsplit('.').next()?.strip_prefix("denselayer")?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let layer = match layer {
        "norm1" => "norm.1",
        "norm2" => "norm.2",
        "conv1" => "conv.1",
        "conv2" => "conv.2",
        _ => return None,
    };
    Some(format!("{holder}.{layer}.{part}"))
}

/// `values`, a row-major matrix of `rows` × `cols`, as one of `cols` × `rows`.
pub(super) fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    // Tiles keep both the rows read and the rows written in cache.
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..cols).step_by(TILE) {
            for r in r0..(r0 + TILE).min(rows) {
                for c in c0..(c0 + TILE).min(cols) {
                    out[c * rows + r] = values[r * cols + c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &[(&str, &str)], shape: &[usize]) -> Stored {
        let mut cursor = Cursor::default();
        for (name, container) in path {
            cursor.enter(name, container);
        }
        cursor.stored(&Shape::from(shape.to_vec()))
    }

    #[test]
    fn norms_and_products_follow_pytorch() {
        let bn = at(
            &[("bn1", "Struct:ResNet"), ("gamma", "Struct:BatchNorm")],
            &[4],
        );
        assert_eq!(bn.name, "bn1.weight");
        let fc = at(
            &[("fc", "Struct:ResNet"), ("weight", "Struct:Linear")],
            &[4, 2],
        );
        assert_eq!((fc.shape, fc.transposed), (vec![2, 4], true));
        let down = at(
            &[
                ("downsample", "Struct:Block"),
                ("1", "Tuple"),
                ("beta", "Struct:BatchNorm"),
            ],
            &[4],
        );
        assert_eq!(down.name, "downsample.1.bias");
    }

    #[test]
    fn only_layers_of_dense_blocks_had_other_names() {
        let layer = "features.denseblock2.denselayer12";
        for (name, old) in [
            ("norm1.running_mean", "norm.1.running_mean"),
            ("conv2.weight", "conv.2.weight"),
        ] {
            let found = legacy(&format!("{layer}.{name}"));
            assert_eq!(found, Some(format!("{layer}.{old}")));
        }
        for name in [
            "denselayer1.conv1",
            "denselayer.conv1.weight",
            "denselayer1.conv3.weight",
            "denselayerx.conv1.weight",
            "ends_in_denselayer1.conv1.weight",
            "layer1.0.conv1.weight",
            "features.conv0.weight",
            "",
        ] {
            assert_eq!(legacy(name), None, "{name}");
        }
        assert!(legacy("denselayer1.conv1.weight").is_some());
    }

    #[test]
    fn a_transposed_matrix_is_its_mirror() {
        for (rows, cols) in [(1, 1), (1, 5), (33, 2), (40, 65)] {
            let values: Vec<f32> = (0..rows * cols).map(|i| i as f32).collect();
            let mirror = transpose(&values, rows, cols);
            for r in 0..rows {
                for c in 0..cols {
                    assert_eq!(mirror[c * rows + r], values[r * cols + c]);
                }
            }
        }
    }
}
