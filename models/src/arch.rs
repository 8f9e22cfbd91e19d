//! The networks by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An architecture that [`ModelConfig`](crate::ModelConfig) builds.
///
/// ```
/// use models::Arch;
/// assert_eq!("resnet50".parse(), Ok(Arch::ResNet50));
/// assert_eq!(Arch::LeNet5.to_string(), "lenet5");
/// let error = "resnet51".parse::<Arch>().unwrap_err();
/// assert!(error.to_string().contains("resnet50"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 18 layers of basic blocks, 11.7 M parameters.
    ResNet18,
    /// 34 layers of basic blocks, 21.8 M parameters.
    ResNet34,
    /// 50 layers of bottleneck blocks, 25.6 M parameters.
    ResNet50,
    /// 101 layers of bottleneck blocks, 44.5 M parameters.
    ResNet101,
    /// 152 layers of bottleneck blocks, 60.2 M parameters.
    ResNet152,
    /// The CIFAR network with three blocks per stage, 0.27 M parameters.
    ResNet20,
    /// The CIFAR network with five blocks per stage, 0.46 M parameters.
    ResNet32,
    /// The CIFAR network with nine blocks per stage, 0.85 M parameters.
    ResNet56,
    /// Thirteen 3×3 convolutions and three products, 138.4 M parameters.
    Vgg16,
    /// The same with batch norms.
    Vgg16Bn,
    /// Dense blocks of 6, 12, 24 and 16 layers, 8.0 M parameters.
    DenseNet121,
    /// Dense blocks of 6, 12, 36 and 24 wider layers, 28.7 M parameters.
    DenseNet161,
    /// Dense blocks of 6, 12, 32 and 32 layers, 14.1 M parameters.
    DenseNet169,
    /// Dense blocks of 6, 12, 48 and 32 layers, 20.0 M parameters.
    DenseNet201,
    /// Inverted residuals with depthwise convolutions, 3.5 M parameters.
    MobileNetV2,
    /// Five convolutions and three products, 61.1 M parameters.
    AlexNet,
    /// Four convolutions and two products for CIFAR, 0.59 M parameters.
    Cifar6,
    /// Two convolutions and two products, 0.43 M parameters.
    LeNet5,
    /// Three products, 0.27 M parameters.
    LeNet300,
}

impl Arch {
    /// Every architecture, in the order of the documentation.
    pub const ALL: [Arch; 19] = [
        Arch::ResNet18,
        Arch::ResNet34,
        Arch::ResNet50,
        Arch::ResNet101,
        Arch::ResNet152,
        Arch::ResNet20,
        Arch::ResNet32,
        Arch::ResNet56,
        Arch::Vgg16,
        Arch::Vgg16Bn,
        Arch::DenseNet121,
        Arch::DenseNet161,
        Arch::DenseNet169,
        Arch::DenseNet201,
        Arch::MobileNetV2,
        Arch::AlexNet,
        Arch::Cifar6,
        Arch::LeNet5,
        Arch::LeNet300,
    ];

    /// The name that [`FromStr`] reads and [`fmt::Display`] writes.
    pub fn name(self) -> &'static str {
        match self {
            Arch::ResNet18 => "resnet18",
            Arch::ResNet34 => "resnet34",
            Arch::ResNet50 => "resnet50",
            Arch::ResNet101 => "resnet101",
            Arch::ResNet152 => "resnet152",
            Arch::ResNet20 => "resnet20",
            Arch::ResNet32 => "resnet32",
            Arch::ResNet56 => "resnet56",
            Arch::Vgg16 => "vgg16",
            Arch::Vgg16Bn => "vgg16bn",
            Arch::DenseNet121 => "densenet121",
            Arch::DenseNet161 => "densenet161",
            Arch::DenseNet169 => "densenet169",
            Arch::DenseNet201 => "densenet201",
            Arch::MobileNetV2 => "mobilenetv2",
            Arch::AlexNet => "alexnet",
            Arch::Cifar6 => "cifar6",
            Arch::LeNet5 => "lenet5",
            Arch::LeNet300 => "lenet300",
        }
    }

    /// Channels and size of the images the architecture was published for.
    pub fn input(self) -> [usize; 3] {
        match self {
            Arch::ResNet18
            | Arch::ResNet34
            | Arch::ResNet50
            | Arch::ResNet101
            | Arch::ResNet152
            | Arch::Vgg16
            | Arch::Vgg16Bn
            | Arch::DenseNet121
            | Arch::DenseNet161
            | Arch::DenseNet169
            | Arch::DenseNet201
            | Arch::MobileNetV2
            | Arch::AlexNet => [3, 224, 224],
            Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet56 | Arch::Cifar6 => [3, 32, 32],
            Arch::LeNet5 | Arch::LeNet300 => [1, 28, 28],
        }
    }

    /// The number of classes it was published with.
    pub fn classes(self) -> usize {
        match self {
            Arch::ResNet18
            | Arch::ResNet34
            | Arch::ResNet50
            | Arch::ResNet101
            | Arch::ResNet152
            | Arch::Vgg16
            | Arch::Vgg16Bn
            | Arch::DenseNet121
            | Arch::DenseNet161
            | Arch::DenseNet169
            | Arch::DenseNet201
            | Arch::MobileNetV2
            | Arch::AlexNet => 1000,
            Arch::ResNet20
            | Arch::ResNet32
            | Arch::ResNet56
            | Arch::Cifar6
            | Arch::LeNet5
            | Arch::LeNet300 => 10,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    /// Reads a name, whatever its case; `-` and `_` are ignored (`ResNet-50`, `vgg16_bn`).
    fn from_str(name: &str) -> Result<Self, UnknownArch> {
        let plain: String = name
            .chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        Arch::ALL
            .into_iter()
            .find(|arch| arch.name() == plain)
            .ok_or_else(|| UnknownArch {
                name: name.to_owned(),
            })
    }
}

/// The name of no architecture of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no architecture `{name}`; known are {}", known())]
pub struct UnknownArch {
    /// What was asked for.
    pub name: String,
}

fn known() -> String {
    Arch::ALL.map(Arch::name).join(", ")
}
