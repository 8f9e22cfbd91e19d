//! What a network costs, computed from its structure without building or running it.

use std::fmt;

/// The kind of a layer that holds parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// A convolution over two axes.
    Conv2d,
    /// A batch norm; its running statistics are not counted as parameters.
    BatchNorm,
    /// A product with a weight matrix.
    Linear,
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LayerKind::Conv2d => "Conv2d",
            LayerKind::BatchNorm => "BatchNorm",
            LayerKind::Linear => "Linear",
        })
    }
}

/// One row of a [`Summary`]; sizes are those of a single image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The path of the layer, `layer1.0.conv2`; its weight is the parameter `{path}.weight`.
    pub path: String,
    /// What it is.
    pub kind: LayerKind,
    /// Shape of the weight as the module holds it: `[out, in / groups, kh, kw]` for convolutions,
    /// `[in, out]` for products, `[channels]` for batch norms.
    pub weight: Vec<usize>,
    /// Shape of its input.
    pub input: Vec<usize>,
    /// Shape of its output.
    pub output: Vec<usize>,
    /// Multiply-accumulates of the weight; additions of biases and batch norms count nothing.
    pub macs: u64,
    /// Trainable parameters, biases included.
    pub params: u64,
}

/// The layers of a network with their costs, in the order in which they run.
///
/// `Display` prints it as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    name: String,
    layers: Vec<Layer>,
}

impl Summary {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            layers: Vec::new(),
        }
    }

    /// The name of the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All rows.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The rows with weights worth pruning: convolutions and products.
    pub fn weighted(&self) -> impl DoubleEndedIterator<Item = &Layer> {
        self.layers
            .iter()
            .filter(|layer| layer.kind != LayerKind::BatchNorm)
    }

    /// Multiply-accumulates of one image, convolutions and products.
    ///
    /// This is the figure published as "GFLOPs" by torchvision and by most papers.
    pub fn macs(&self) -> u64 {
        self.layers.iter().map(|layer| layer.macs).sum()
    }

    /// Trainable parameters.
    pub fn params(&self) -> u64 {
        self.layers.iter().map(|layer| layer.params).sum()
    }

    /// Weights of convolutions and products, without biases: what pruning papers count.
    pub fn weights(&self) -> u64 {
        self.weighted()
            .map(|layer| layer.weight.iter().product::<usize>() as u64)
            .sum()
    }

    /// Adds a convolution without dilation and groups and returns the shape of its output.
    pub(crate) fn conv(
        &mut self,
        path: impl Into<String>,
        input: [usize; 3],
        channels: usize,
        conv: Window,
        bias: bool,
    ) -> [usize; 3] {
        self.convolution(path.into(), input, [channels, input[0]], conv, bias)
    }

    /// Adds a convolution of each channel for itself, without bias.
    pub(crate) fn depthwise(
        &mut self,
        path: impl Into<String>,
        input: [usize; 3],
        conv: Window,
    ) -> [usize; 3] {
        self.convolution(path.into(), input, [input[0], 1], conv, false)
    }

    /// `matrix`: the channels of the output, and those of the input that each of them sees.
    fn convolution(
        &mut self,
        path: String,
        input: [usize; 3],
        matrix: [usize; 2],
        conv: Window,
        bias: bool,
    ) -> [usize; 3] {
        let [_, h, w] = input;
        let [channels, seen] = matrix;
        let output = [channels, conv.out(h), conv.out(w)];
        let weight = channels * seen * conv.kernel * conv.kernel;
        self.layers.push(Layer {
            path,
            kind: LayerKind::Conv2d,
            weight: vec![channels, seen, conv.kernel, conv.kernel],
            input: input.to_vec(),
            output: output.to_vec(),
            macs: (weight * output[1] * output[2]) as u64,
            params: (weight + if bias { channels } else { 0 }) as u64,
        });
        output
    }

    pub(crate) fn batch_norm(&mut self, path: impl Into<String>, shape: [usize; 3]) {
        self.layers.push(Layer {
            path: path.into(),
            kind: LayerKind::BatchNorm,
            weight: vec![shape[0]],
            input: shape.to_vec(),
            output: shape.to_vec(),
            macs: 0,
            params: 2 * shape[0] as u64,
        });
    }

    pub(crate) fn linear(&mut self, path: impl Into<String>, input: usize, output: usize) {
        self.layers.push(Layer {
            path: path.into(),
            kind: LayerKind::Linear,
            weight: vec![input, output],
            input: vec![input],
            output: vec![output],
            macs: (input * output) as u64,
            params: (input * output + output) as u64,
        });
    }
}

/// A square window that slides over an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Window {
    pub(crate) fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel,
            stride,
            padding,
        }
    }

    /// How many positions it takes along an axis of `size`; none where it does not fit.
    pub(crate) fn out(self, size: usize) -> usize {
        match (size + 2 * self.padding).checked_sub(self.kernel) {
            Some(room) => room / self.stride + 1,
            None => 0,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self
            .layers
            .iter()
            .map(|layer| layer.path.len())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(
            f,
            "{:<wide$}  {:<9}  {:>18}  {:>14}  {:>14}  {:>14}  {:>11}",
            "layer", "kind", "weight", "input", "output", "MACs", "parameters"
        )?;
        for layer in &self.layers {
            writeln!(
                f,
                "{:<wide$}  {:<9}  {:>18}  {:>14}  {:>14}  {:>14}  {:>11}",
                layer.path,
                layer.kind,
                shape(&layer.weight),
                shape(&layer.input),
                shape(&layer.output),
                thousands(layer.macs),
                thousands(layer.params)
            )?;
        }
        write!(
            f,
            "{}: {} parameters, {} of them weights, {} MACs per image",
            self.name,
            thousands(self.params()),
            thousands(self.weights()),
            thousands(self.macs())
        )
    }
}

fn shape(dims: &[usize]) -> String {
    dims.iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join("x")
}

/// `1234567` as `1 234 567`.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_from_the_right() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (11_689_512, "11 689 512"),
        ];
        for (value, text) in cases {
            assert_eq!(thousands(value), text);
        }
    }

    #[test]
    fn a_window_counts_its_positions() {
        assert_eq!(Window::new(7, 2, 3).out(224), 112);
        assert_eq!(Window::new(3, 2, 1).out(7), 4);
        assert_eq!(Window::new(5, 1, 0).out(28), 24);
        assert_eq!(Window::new(5, 1, 0).out(4), 0);
    }
}
