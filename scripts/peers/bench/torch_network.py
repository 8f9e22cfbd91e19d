"""ResNet-50 for PyTorch by torchvision's names, with the batch norms folded.

Needs PyTorch and NumPy.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .files import read_tensors
from .network import CLASSES, FEATURES, STEM, Block, Conv, blocks, convs
from .weights import folded

TYPES = {"F32": "<f4", "I64": "<i8"}


def weights(path: Path) -> dict[str, Tensor]:
    """The folded weights of a network by the names of the module's parameters."""
    state = {
        name: np.frombuffer(tensor.data, TYPES[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in read_tensors(path).items()
    }
    # Copied, as PyTorch warns of arrays that cannot be written to.
    found = {name: torch.from_numpy(state[name].copy()) for name in ("fc.weight", "fc.bias")}
    for conv in convs():
        weight, bias = folded(state, conv)
        found[f"{conv.name}.weight"] = torch.from_numpy(weight)
        found[f"{conv.name}.bias"] = torch.from_numpy(bias)
    return found


class Layer(nn.Conv2d):
    """A convolution, with what follows it in one kernel of cuDNN if `fused`."""

    fused = False

    def __init__(self, conv: Conv) -> None:
        super().__init__(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.padding)

    def relu(self, x: Tensor) -> Tensor:
        """Convolution and ReLU."""
        if not self.fused:
            return functional.relu(self(x), inplace=True)
        return torch.cudnn_convolution_relu(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def add_relu(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Convolution, sum with the shortcut, and ReLU."""
        if not self.fused:
            return functional.relu(self(x).add_(shortcut), inplace=True)
        return torch.cudnn_convolution_add_relu(
            x,
            self.weight,
            shortcut,
            1.0,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a projection where the shape changes."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = map(Layer, block.body)
        # A sequence of one, for torchvision's names; the norm behind it is folded.
        self.downsample = nn.Sequential(Layer(block.projection)) if block.projection else None

    def forward(self, x: Tensor) -> Tensor:
        """See `network.walk`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv3.add_relu(self.conv2.relu(self.conv1.relu(x)), shortcut)


class ResNet50(nn.Module):
    """The whole network."""

    def __init__(self) -> None:
        super().__init__()
        stages: dict[str, list[Bottleneck]] = {}
        for block in blocks():
            stages.setdefault(block.name.split(".")[0], []).append(Bottleneck(block))
        self.conv1 = Layer(STEM)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for name, stage in stages.items():
            self.add_module(name, nn.Sequential(*stage))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def fuse(self, fused: bool) -> None:
        """Whether convolutions and what follows them are one kernel each."""
        for module in self.modules():
            if isinstance(module, Layer):
                module.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """See `network.walk`."""
        x = self.maxpool(self.conv1.relu(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def load(state: dict[str, Tensor]) -> ResNet50:
    """The network with these weights, for inference."""
    # Without memory of its own: what it would be filled with is replaced at once.
    with torch.device("meta"):
        network = ResNet50()
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()
