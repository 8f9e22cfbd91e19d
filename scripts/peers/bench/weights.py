"""Seeded random weights whose batch norms fit the activations that they see.

Statistics taken from a forward pass through the very network (pruned, if it is) keep activations
of order one in all 53 convolutions: they neither explode nor die, and about half of what leaves a
ReLU is zero, as in a trained network.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .network import BN_EPSILON, CLASSES, FEATURES, IMAGE, Block, Conv, convs, walk

Array = np.ndarray
State = dict[str, Array]


def initial(seed: int) -> State:
    """Weights by torchvision's names: He-normal convolutions, batch norms not yet calibrated."""
    random = np.random.default_rng([seed, 0])
    state: State = {}

    def normal(shape: tuple[int, ...], deviation: float) -> Array:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    for conv in convs():
        fan_out = conv.outputs * conv.kernel**2
        state[f"{conv.name}.weight"] = normal(conv.shape, np.sqrt(2 / fan_out))
        gamma = random.uniform(0.8, 1.2, conv.outputs).astype(np.float32)
        # The last norm of a bottleneck is damped, so that its sum with the shortcut stays put.
        damping = 0.5 if conv.name.endswith("conv3") else 1.0
        state[f"{conv.norm}.weight"] = gamma * np.float32(damping)
        state[f"{conv.norm}.bias"] = normal((conv.outputs,), 0.1)
        state[f"{conv.norm}.running_mean"] = np.zeros(conv.outputs, np.float32)
        state[f"{conv.norm}.running_var"] = np.ones(conv.outputs, np.float32)
        state[f"{conv.norm}.num_batches_tracked"] = np.array(1, np.int64)
    state["fc.weight"] = normal((CLASSES, FEATURES), FEATURES**-0.5)
    state["fc.bias"] = normal((CLASSES,), 0.1)
    return state


def images(seed: int, count: int, size: int = IMAGE) -> Array:
    """Normalised images: noise that is coarse, as pictures are, with some fine noise on top."""
    random = np.random.default_rng([seed, 1])
    coarse = random.standard_normal((count, 3, size // 16, size // 16), dtype=np.float32)
    fine = random.standard_normal((count, 3, size, size), dtype=np.float32)
    return coarse.repeat(16, 2).repeat(16, 3) + np.float32(0.3) * fine


def calibrate(state: State, x: Array) -> None:
    """Sets the statistics of all batch norms to those of the activations that `x` gives."""
    walk(x, Forward(state, calibrating=True))


def folded(state: State, conv: Conv) -> tuple[Array, Array]:
    """Weight and bias of a convolution with its batch norm in them; zeros stay zero."""
    weight, gamma, beta, mean, var = (
        state[name].astype(np.float64)
        for name in (
            f"{conv.name}.weight",
            f"{conv.norm}.weight",
            f"{conv.norm}.bias",
            f"{conv.norm}.running_mean",
            f"{conv.norm}.running_var",
        )
    )
    scale = gamma / np.sqrt(var + BN_EPSILON)
    weight = weight * scale[:, None, None, None]
    return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)


class Forward:
    """A walk that computes with the unfolded network."""

    def __init__(self, state: State, calibrating: bool = False) -> None:
        self.state = state
        self.calibrating = calibrating

    def conv(self, x: Array, conv: Conv, relu: bool) -> Array:
        """See `network.Steps`."""
        y = convolve(x, self.state[f"{conv.name}.weight"], conv.stride, conv.padding)
        mean, var = f"{conv.norm}.running_mean", f"{conv.norm}.running_var"
        if self.calibrating:
            self.state[mean] = y.mean((0, 2, 3), dtype=np.float64).astype(np.float32)
            self.state[var] = y.var((0, 2, 3), dtype=np.float64).astype(np.float32)
        scale = self.state[f"{conv.norm}.weight"] / np.sqrt(self.state[var] + BN_EPSILON)
        offset = self.state[f"{conv.norm}.bias"] - self.state[mean] * scale
        y *= scale[:, None, None].astype(np.float32)
        y += offset[:, None, None].astype(np.float32)
        return np.maximum(y, 0, out=y) if relu else y

    def add_relu(self, x: Array, shortcut: Array, block: Block) -> Array:
        """See `network.Steps`."""
        return np.maximum(x + shortcut, 0)

    def max_pool(self, x: Array) -> Array:
        """See `network.Steps`."""
        return windows(x, 3, 2, 1).max((-2, -1))

    def classify(self, x: Array) -> Array:
        """See `network.Steps`."""
        return x.mean((2, 3)) @ self.state["fc.weight"].T + self.state["fc.bias"]


def windows(x: Array, kernel: int, stride: int, padding: int) -> Array:
    """N x C x H x W to N x C x H' x W' x kernel x kernel; the border is zero, as fits a ReLU."""
    pad = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    view = sliding_window_view(np.pad(x, pad), (kernel, kernel), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


def convolve(x: Array, weight: Array, stride: int, padding: int) -> Array:
    """A convolution as one matrix product per image."""
    outputs, inputs, kernel, _ = weight.shape
    matrix = weight.reshape(outputs, -1)
    view = windows(x, kernel, stride, padding)
    count, _, height, width = view.shape[:4]
    y = np.empty((count, outputs, height, width), np.float32)
    for image in range(count):
        columns = view[image].transpose(0, 3, 4, 1, 2).reshape(inputs * kernel**2, -1)
        y[image] = (matrix @ columns).reshape(outputs, height, width)
    return y
