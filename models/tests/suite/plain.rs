//! VGG, `DenseNet`, `MobileNetV2`, `AlexNet` and `Cifar6` by plain loops in f64, from the tensors of a
//! `state_dict` by torchvision's names.

use std::collections::BTreeMap;

use burn::module::Module;
use models::{DenseNetConfig, MobileNetV2Config, Stem, VggConfig, VggHead, weights};

/// Shapes and values by name.
pub(crate) struct StateDict(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl StateDict {
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let bytes = weights::to_bytes(model).expect("serialises");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("is valid");
        let tensors = file.iter().map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter();
            let values = values.map(|b| f64::from(f32::from_le_bytes(*b))).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        Self(tensors.collect())
    }

    fn shape(&self, name: &str) -> &[usize] {
        &self.0.get(name).unwrap_or_else(|| panic!("no {name}")).0
    }

    pub(crate) fn values(&self, name: &str) -> &[f64] {
        &self.0.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        assert_eq!(weight.len(), x.len() * bias.len(), "{name}");
        let rows = weight.chunks(x.len()).zip(bias);
        rows.map(|(row, bias)| bias + row.iter().zip(x).map(|(w, v)| w * v).sum::<f64>())
            .collect()
    }
}

/// The feature maps of one image, channel by channel.
#[derive(Clone)]
pub(crate) struct Maps {
    pub(crate) size: [usize; 3],
    pub(crate) data: Vec<f64>,
}

impl Maps {
    fn at(&self, c: usize, row: isize, col: isize) -> Option<f64> {
        let [_, h, w] = self.size;
        let inside = (0..h as isize).contains(&row) && (0..w as isize).contains(&col);
        inside.then(|| self.data[(c * h + row as usize) * w + col as usize])
    }

    fn each(self, f: impl Fn(f64) -> f64) -> Self {
        let data = self.data.into_iter().map(f).collect();
        Self { data, ..self }
    }

    /// `size[0]` maps of `size[1]` by `size[2]` values.
    fn from_fn(size: [usize; 3], f: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut data = Vec::new();
        for c in 0..size[0] {
            for row in 0..size[1] {
                data.extend((0..size[2]).map(|col| f(c, row, col)));
            }
        }
        Self { size, data }
    }

    /// With as much padding as keeps the size at a stride of one.
    fn conv(&self, file: &StateDict, name: &str, stride: usize, groups: usize) -> Self {
        let pad = file.shape(&format!("{name}.weight"))[2] / 2;
        self.conv_padded(file, name, (stride, pad), groups)
    }

    fn conv_padded(
        &self,
        file: &StateDict,
        name: &str,
        (stride, pad): (usize, usize),
        groups: usize,
    ) -> Self {
        let shape = file.shape(&format!("{name}.weight"));
        let weight = file.values(&format!("{name}.weight"));
        let &[outputs, seen, k, _] = shape else {
            panic!("{name}: {shape:?}");
        };
        let [channels, h, w] = self.size;
        assert_eq!(seen * groups, channels, "{name}");
        let bias = file.0.get(&format!("{name}.bias"));
        let out = |size: usize| (size + 2 * pad - k) / stride + 1;
        Self::from_fn([outputs, out(h), out(w)], |o, row, col| {
            let first = o / (outputs / groups) * seen;
            let mut sum = bias.map_or(0.0, |(_, bias)| bias[o]);
            for c in 0..seen {
                for (r, q) in (0..k * k).map(|i| (i / k, i % k)) {
                    let row = (row * stride + r) as isize - pad as isize;
                    let col = (col * stride + q) as isize - pad as isize;
                    let x = self.at(first + c, row, col).unwrap_or(0.0);
                    sum += weight[((o * seen + c) * k + r) * k + q] * x;
                }
            }
            sum
        })
    }

    fn norm(&self, file: &StateDict, name: &str) -> Self {
        let part = |part: &str| file.values(&format!("{name}.{part}"));
        let (gamma, beta) = (part("weight"), part("bias"));
        let (mean, var) = (part("running_mean"), part("running_var"));
        Self::from_fn(self.size, |c, row, col| {
            let x = self.at(c, row as isize, col as isize).expect("inside");
            (x - mean[c]) / (var[c] + 1e-5).sqrt() * gamma[c] + beta[c]
        })
    }

    /// The largest of windows of `k` by `k` at every other position.
    fn pooled(&self, k: usize) -> Self {
        self.pooled_padded(k, 0)
    }

    fn pooled_padded(&self, k: usize, pad: usize) -> Self {
        let [c, h, w] = self.size;
        let out = |size: usize| (size + 2 * pad - k) / 2 + 1;
        Self::from_fn([c, out(h), out(w)], |c, row, col| {
            let near = (0..k * k).map(|i| (2 * row + i / k, 2 * col + i % k));
            let inside = |at: usize| at as isize - pad as isize;
            near.filter_map(|(row, col)| self.at(c, inside(row), inside(col)))
                .fold(f64::NEG_INFINITY, f64::max)
        })
    }

    /// The mean of each two by two values, whatever is left over left out.
    fn halved(&self) -> Self {
        let [c, h, w] = self.size;
        Self::from_fn([c, h / 2, w / 2], |c, row, col| {
            let near = (0..4).map(|i| (2 * row + i / 2, 2 * col + i % 2));
            let at = |(row, col)| self.at(c, row as isize, col as isize).expect("inside");
            near.map(at).sum::<f64>() / 4.0
        })
    }

    /// These channels, then those.
    fn beside(mut self, other: Self) -> Self {
        assert_eq!(self.size[1..], other.size[1..]);
        self.size[0] += other.size[0];
        self.data.extend(other.data);
        self
    }

    /// PyTorch's adaptive average pool to squares: windows from the floor of one fraction to the
    /// ceiling of the next.
    fn averaged(&self, to: usize) -> Vec<f64> {
        let [c, h, w] = self.size;
        let window = |i: usize, size: usize| i * size / to..((i + 1) * size).div_ceil(to);
        let pooled = Self::from_fn([c, to, to], |c, row, col| {
            let (rows, cols) = (window(row, h), window(col, w));
            let count = (rows.len() * cols.len()) as f64;
            let at = |row, col| self.at(c, row as isize, col as isize).expect("inside");
            let sum = |row| cols.clone().map(|col| at(row, col)).sum::<f64>();
            rows.map(sum).sum::<f64>() / count
        });
        pooled.data
    }
}

fn relu(x: f64) -> f64 {
    x.max(0.0)
}

fn relu6(x: f64) -> f64 {
    x.clamp(0.0, 6.0)
}

/// Scores of a VGG.
pub(crate) fn vgg(config: &VggConfig, file: &StateDict, image: Maps) -> Vec<f64> {
    let (mut x, mut at) = (image, 0);
    for &count in &config.convs {
        for _ in 0..count {
            x = x.conv(file, &format!("features.{at}"), 1, 1);
            at += 1;
            if config.batch_norm {
                x = x.norm(file, &format!("features.{at}"));
                at += 1;
            }
            x = x.each(relu);
            at += 1;
        }
        x = x.pooled(2);
        at += 1;
    }
    match config.head {
        VggHead::Cifar => file.linear("classifier", &x.averaged(1)),
        VggHead::ImageNet => {
            let mut x = x.averaged(7);
            for layer in ["classifier.0", "classifier.3"] {
                x = file.linear(layer, &x).into_iter().map(relu).collect();
            }
            file.linear("classifier.6", &x)
        }
    }
}

/// Scores of a `DenseNet`.
pub(crate) fn densenet(config: &DenseNetConfig, file: &StateDict, image: Maps) -> Vec<f64> {
    let cifar = config.stem == Stem::Cifar;
    let x = image
        .conv(file, "features.conv0", if cifar { 1 } else { 2 }, 1)
        .norm(file, "features.norm0")
        .each(relu);
    let mut x = if cifar { x } else { x.pooled_padded(3, 1) };
    for (block, &layers) in config.blocks.iter().enumerate() {
        if block > 0 {
            let name = format!("features.transition{block}");
            x = x
                .norm(file, &format!("{name}.norm"))
                .each(relu)
                .conv(file, &format!("{name}.conv"), 1, 1)
                .halved();
        }
        for layer in 1..=layers {
            let name = format!("features.denseblock{}.denselayer{layer}", block + 1);
            let mut y = x.clone();
            for part in 1..=2 {
                y = y.norm(file, &format!("{name}.norm{part}")).each(relu).conv(
                    file,
                    &format!("{name}.conv{part}"),
                    1,
                    1,
                );
            }
            x = x.beside(y);
        }
    }
    let x = x.norm(file, "features.norm5").each(relu);
    file.linear("classifier", &x.averaged(1))
}

/// Scores of a `MobileNetV2`.
pub(crate) fn mobilenet(config: &MobileNetV2Config, file: &StateDict, image: Maps) -> Vec<f64> {
    let norm6 = |x: Maps, name: &str, stride: usize, groups: usize| {
        x.conv(file, &format!("{name}.0"), stride, groups)
            .norm(file, &format!("{name}.1"))
            .each(relu6)
    };
    let cifar = config.stem == Stem::Cifar;
    let mut x = norm6(image, "features.0", if cifar { 1 } else { 2 }, 1);
    let (mut index, mut strides) = (1, 0);
    for stage in &config.stages {
        for block in 0..stage.blocks {
            let mut stride = if block == 0 { stage.stride } else { 1 };
            if stride == 2 {
                strides += 1;
                if cifar && strides == 1 {
                    stride = 1;
                }
            }
            let name = |at: usize| format!("features.{index}.conv.{at}");
            let (mut y, mut at) = (x.clone(), 0);
            if stage.expansion != 1 {
                y = norm6(y, &name(0), 1, 1);
                at = 1;
            }
            let groups = y.size[0];
            y = norm6(y, &name(at), stride, groups)
                .conv(file, &name(at + 1), 1, 1)
                .norm(file, &name(at + 2));
            if stride == 1 && y.size[0] == x.size[0] {
                y.data.iter_mut().zip(&x.data).for_each(|(y, x)| *y += x);
            }
            x = y;
            index += 1;
        }
    }
    let x = norm6(x, &format!("features.{index}"), 1, 1);
    file.linear("classifier.1", &x.averaged(1))
}

/// Scores of a `Cifar6`.
pub(crate) fn cifar6(file: &StateDict, image: Maps) -> Vec<f64> {
    let mut x = image;
    for number in 1..=4 {
        x = x
            .conv(file, &format!("conv{number}"), 1, 1)
            .norm(file, &format!("bn{number}"))
            .each(relu);
        if number % 2 == 0 {
            x = x.pooled(2);
        }
    }
    let x: Vec<f64> = file.linear("fc1", &x.data).into_iter().map(relu).collect();
    file.linear("fc2", &x)
}

/// Scores of an `AlexNet`.
pub(crate) fn alexnet(file: &StateDict, image: Maps) -> Vec<f64> {
    let conv = |x: Maps, at: usize, stride, pad| {
        x.conv_padded(file, &format!("features.{at}"), (stride, pad), 1)
            .each(relu)
    };
    let x = conv(image, 0, 4, 2).pooled(3);
    let x = conv(x, 3, 1, 2).pooled(3);
    let x = conv(conv(conv(x, 6, 1, 1), 8, 1, 1), 10, 1, 1).pooled(3);
    let mut x = x.averaged(6);
    for layer in ["classifier.1", "classifier.4"] {
        x = file.linear(layer, &x).into_iter().map(relu).collect();
    }
    file.linear("classifier.6", &x)
}
