"""ResNet-50 as ONNX, with the batch norms folded so that every runtime gets the same graph."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .network import CLASSES, IMAGE, Block, Conv, walk
from .weights import State, folded

# What runtimes of several years read.
OPSET = 13
IR_VERSION = 7


class Graph:
    """A walk that writes the nodes; what it passes on are the names of values."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, operator: str, name: str, inputs: list[str], **attributes: object) -> str:
        """Adds a node and names its result after it."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a constant tensor."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def conv(self, x: str, conv: Conv, relu: bool) -> str:
        """See `network.Steps`."""
        weight, bias = folded(self.state, conv)
        inputs = [
            x,
            self.constant(f"{conv.name}.weight", weight),
            self.constant(f"{conv.name}.bias", bias),
        ]
        y = self.node(
            "Conv",
            conv.name,
            inputs,
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[conv.padding] * 4,
        )
        return self.node("Relu", f"{conv.name}.relu", [y]) if relu else y

    def add_relu(self, x: str, shortcut: str, block: Block) -> str:
        """See `network.Steps`."""
        y = self.node("Add", f"{block.name}.add", [x, shortcut])
        return self.node("Relu", f"{block.name}.relu", [y])

    def max_pool(self, x: str) -> str:
        """See `network.Steps`."""
        return self.node(
            "MaxPool", "maxpool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
        )

    def classify(self, x: str) -> str:
        """See `network.Steps`."""
        y = self.node("Flatten", "flatten", [self.node("GlobalAveragePool", "avgpool", [x])])
        weight = self.constant("fc.weight", self.state["fc.weight"])
        bias = self.constant("fc.bias", self.state["fc.bias"])
        return self.node("Gemm", "logits", [y, weight, bias], transB=1)


def model(state: State, size: int = IMAGE) -> onnx.ModelProto:
    """The network with a free batch dimension, from `input` to `logits`."""
    graph = Graph(state)
    logits = walk("input", graph)
    value = helper.make_tensor_value_info
    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "resnet50",
            [value("input", TensorProto.FLOAT, ["batch", 3, size, size])],
            [value(logits, TensorProto.FLOAT, ["batch", CLASSES])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="burn-sparse",
    )
    onnx.checker.check_model(proto)
    return proto
