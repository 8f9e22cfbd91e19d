"""Writes convolutions and ResNet-18 as ONNX, with an input each, weights seeded and random.

Runs in the environment of ONNX Runtime: `python -m bench.tucker_models --help`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .files import Tensor, write_tensors

# What runtimes of several years read.
OPSET = 13
IR_VERSION = 7


class Network:
    """Nodes and constants, node by node."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        """Adds a node; gives the name of its result."""
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        """A constant whose sums of products stay of order one."""
        name = f"weight{len(self.constants)}"
        scale = 1.0 / np.sqrt(np.prod(shape[1:], initial=1.0))
        value = (self.random.standard_normal(shape) * scale).astype(np.float32)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int, bias: bool) -> str:
        """A convolution whose padding keeps the size at stride 1."""
        inputs, outputs = channels
        operands = [x, self.weight(outputs, inputs, kernel, kernel)]
        if bias:
            operands.append(self.weight(outputs))
        return self.node(
            "Conv",
            operands,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
        )

    def save(self, path: Path, result: str, shapes: tuple[list[int], list[int]]) -> None:
        """The network from `input` to `result`."""
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [value("input", TensorProto.FLOAT, shapes[0])],
            [value(result, TensorProto.FLOAT, shapes[1])],
            self.constants,
        )
        proto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="burn-sparse",
        )
        onnx.checker.check_model(proto)
        onnx.save(proto, str(path))


def convolution(path: Path, row: dict, seed: int) -> list[int]:
    """The undivided layer of a row; gives the shape of its input."""
    problem = row["problem"]
    network = Network(seed)
    channels = problem["in_channels"], problem["out_channels"]
    result = network.conv("input", channels, problem["kernel"][0], problem["stride"][0], False)
    height, width = problem["input"]
    shape = [row["batch"], channels[0], height, width]
    stride = problem["stride"][0]
    after = [row["batch"], channels[1], -(-height // stride), -(-width // stride)]
    network.save(path, result, (shape, after))
    return shape


def factors(path: Path, row: dict, seed: int) -> None:
    """The factors of a row, as convolutions one after the other."""
    problem, ranks = row["problem"], row["ranks"]
    network = Network(seed)
    inputs, outputs = problem["in_channels"], problem["out_channels"]
    stride = problem["stride"][0]
    x, inner = "input", (ranks["input"], ranks["output"])
    # A factor that leaves all channels is none.
    if inner[0] != inputs:
        x = network.conv(x, (inputs, inner[0]), 1, 1, False)
    x = network.conv(x, inner, problem["kernel"][0], stride, False)
    if inner[1] != outputs:
        x = network.conv(x, (inner[1], outputs), 1, 1, False)
    height, width = problem["input"]
    after = [row["batch"], outputs, -(-height // stride), -(-width // stride)]
    network.save(path, x, ([row["batch"], inputs, height, width], after))


def resnet18(path: Path, row: dict, seed: int) -> list[int]:
    """torchvision's ResNet-18 with the batch norms folded; gives the shape of its input."""
    network = Network(seed)
    x = network.node("Relu", [network.conv("input", (3, 64), 7, 2, True)])
    x = network.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for stage in range(4):
        width = 64 << stage
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            y = network.node("Relu", [network.conv(x, (inputs, width), 3, stride, True)])
            y = network.conv(y, (width, width), 3, 1, True)
            if inputs != width:
                x = network.conv(x, (inputs, width), 1, stride, True)
            x = network.node("Relu", [network.node("Add", [y, x])])
            inputs = width
    x = network.node("Flatten", [network.node("GlobalAveragePool", [x])])
    operands = [x, network.weight(1000, 512), network.weight(1000)]
    scores = network.node("Gemm", operands, transB=1)
    shape = [row["batch"], 3, 224, 224]
    network.save(path, scores, (shape, [row["batch"], 1000]))
    return shape


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", type=Path, required=True, help="of `bench tucker`")
    parser.add_argument("--directory", type=Path, required=True, help="for row-N.onnx, factors-N.onnx and row-N.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = json.loads(args.report.read_text(encoding="utf-8"))["rows"]
    for number, row in enumerate(rows):
        path = args.directory / f"row-{number}.onnx"
        write = convolution if row["problem"] else resnet18
        shape = write(path, row, args.seed + number)
        if row["problem"]:
            factors(path.with_name(f"factors-{number}.onnx"), row, args.seed + number)
        random = np.random.default_rng(args.seed + number)
        images = random.standard_normal(shape).astype("<f4")
        tensor = Tensor("F32", images.shape, images.tobytes())
        write_tensors(path.with_suffix(".safetensors"), {"input": tensor})


if __name__ == "__main__":
    main()
