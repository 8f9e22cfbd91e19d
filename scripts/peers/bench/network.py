"""ResNet-50 as torchvision builds it (v1.5: the stride sits in the 3x3 convolution), by its names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

CLASSES = 1000
IMAGE = 224
FEATURES = 2048
BN_EPSILON = 1e-5


@dataclass(frozen=True)
class Conv:
    """A convolution without bias and the batch norm behind it."""

    name: str
    norm: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1

    @property
    def padding(self) -> int:
        """What keeps the size at stride 1."""
        return self.kernel // 2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the weight."""
        return self.outputs, self.inputs, self.kernel, self.kernel


@dataclass(frozen=True)
class Block:
    """A bottleneck: 1x1, 3x3, 1x1, and a projection where the shape changes."""

    name: str
    body: tuple[Conv, Conv, Conv]
    projection: Conv | None


STEM = Conv("conv1", "bn1", 3, 64, 7, 2)


def blocks() -> Iterator[Block]:
    """The bottlenecks, first to last."""
    inputs = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for index in range(depth):
            name = f"layer{stage + 1}.{index}"
            stride = 2 if stage > 0 and index == 0 else 1
            body = (
                Conv(f"{name}.conv1", f"{name}.bn1", inputs, width, 1),
                Conv(f"{name}.conv2", f"{name}.bn2", width, width, 3, stride),
                Conv(f"{name}.conv3", f"{name}.bn3", width, 4 * width, 1),
            )
            projection = None
            if index == 0:
                sequence = f"{name}.downsample"
                projection = Conv(
                    f"{sequence}.0", f"{sequence}.1", inputs, 4 * width, 1, stride
                )
            yield Block(name, body, projection)
            inputs = 4 * width


def convs() -> Iterator[Conv]:
    """Every convolution, in torchvision's order."""
    yield STEM
    for block in blocks():
        yield from block.body
        if block.projection:
            yield block.projection


def prunable(conv: Conv) -> bool:
    """All convolutions but the first are pruned; the classifier is not."""
    return conv is not STEM


X = TypeVar("X")


class Steps(Protocol[X]):
    """What a walk through the network calls, in order."""

    def conv(self, x: X, conv: Conv, relu: bool) -> X:
        """Convolution, batch norm and, if asked for, ReLU."""

    def add_relu(self, x: X, shortcut: X, block: Block) -> X:
        """The end of a bottleneck."""

    def max_pool(self, x: X) -> X:
        """3x3, stride 2, padding 1."""

    def classify(self, x: X) -> X:
        """Average over the image, then the classifier."""


def walk(x: X, steps: Steps[X]) -> X:
    """Takes `x` through the network."""
    x = steps.max_pool(steps.conv(x, STEM, relu=True))
    for block in blocks():
        first, second, third = block.body
        y = steps.conv(x, first, relu=True)
        y = steps.conv(y, second, relu=True)
        y = steps.conv(y, third, relu=False)
        if block.projection:
            x = steps.conv(x, block.projection, relu=False)
        x = steps.add_relu(y, x, block)
    return steps.classify(x)
