"""Writes Kim's network for sentences, pruned, as `.safetensors` and as ONNX, with word vectors.

Runs in the environment of ONNX Runtime: `python -m bench.text_models --help`. The look-up of word
vectors is left out: networks and layers begin with vectors. Weights and vectors are seeded and random.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .files import Tensor, write_tensors
from .prune import mask
from .tucker_models import IR_VERSION, OPSET

NUMBERS, MAPS, CLASSES = 300, 100, 2
"""Kim 2014: numbers a word, maps of each window, classes."""
WINDOWS = (3, 4, 5)


def weights(random: np.random.Generator, sparsity: float, windows: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A network by its parameters' names, as many weights zero in every output channel."""
    state = {"embedding.weight": np.zeros((1, NUMBERS), np.float32)}

    def uniform(*shape: int) -> np.ndarray:
        bound = 1.0 / np.sqrt(np.prod(shape[1:], initial=1.0))
        return random.uniform(-bound, bound, shape).astype(np.float32)

    for index, window in enumerate(windows):
        weight = uniform(MAPS, NUMBERS, window)
        state[f"convs.{index}.weight"] = weight * mask(weight, sparsity)
        state[f"convs.{index}.bias"] = uniform(MAPS)
    state["head.weight"] = uniform(CLASSES, MAPS * len(windows))
    state["head.bias"] = uniform(CLASSES)
    return state


def graph(state: dict[str, np.ndarray], part: str) -> tuple[list[onnx.NodeProto], list[str]]:
    """The nodes of a network from `input` to `logits`, or of one convolution, and what they need."""
    nodes, needed, maxima = [], [], []

    def conv(index: int, result: str) -> None:
        names = [f"convs.{index}.weight", f"convs.{index}.bias"]
        window = state[names[0]].shape[2]
        # A window may hang over both ends, and one is behind the sentence.
        nodes.append(
            helper.make_node(
                "Conv", ["input", *names], [result], kernel_shape=[window], pads=[window - 1, window]
            )
        )
        needed.extend(names)

    if part.startswith("conv"):
        conv(int(part.removeprefix("conv")), "maps")
        nodes.append(helper.make_node("Flatten", ["maps"], ["logits"], axis=1))
        return nodes, needed
    for index in range(sum(name.endswith(".weight") for name in state) - 2):
        conv(index, f"maps{index}")
        nodes.append(
            helper.make_node("ReduceMax", [f"maps{index}"], [f"max{index}"], axes=[2], keepdims=0)
        )
        maxima.append(f"max{index}")
    nodes.append(helper.make_node("Concat", maxima, ["features"], axis=1))
    nodes.append(helper.make_node("Relu", ["features"], ["positive"]))
    head = ["head.weight", "head.bias"]
    nodes.append(helper.make_node("Gemm", ["positive", *head], ["logits"], transB=1))
    return nodes, needed + head


def model(state: dict[str, np.ndarray], part: str, batch: int, words: int) -> onnx.ModelProto:
    """A part of a network for so many sentences of so many words."""
    nodes, needed = graph(state, part)
    if part == "network":
        columns = CLASSES
    else:
        window = state[f"convs.{part.removeprefix('conv')}.weight"].shape[2]
        columns = MAPS * (words + window)
    value = helper.make_tensor_value_info
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            part,
            [value("input", TensorProto.FLOAT, [batch, NUMBERS, words])],
            [value("logits", TensorProto.FLOAT, [batch, columns])],
            [numpy_helper.from_array(state[name], name) for name in needed],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="burn-sparse",
    )
    onnx.checker.check_model(proto)
    return proto


def stored(value: np.ndarray) -> Tensor:
    """For a file."""
    value = np.ascontiguousarray(value, "<f4")
    return Tensor("F32", value.shape, value.tobytes())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--sparsity", type=float, required=True)
    parser.add_argument("--windows", type=int, nargs="+", default=list(WINDOWS))
    parser.add_argument("--parts", nargs="+", required=True, help="network, conv0, conv1 ...")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--words", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    state = weights(random, args.sparsity, tuple(args.windows))
    write_tensors(
        args.directory / "weights.safetensors",
        {name: stored(value) for name, value in state.items()},
    )
    shape = args.batch, NUMBERS, args.words
    vectors = random.uniform(-0.25, 0.25, shape).astype(np.float32)
    write_tensors(args.directory / "input.safetensors", {"input": stored(vectors)})
    for part in args.parts:
        onnx.save(
            model(state, part, args.batch, args.words), str(args.directory / f"{part}.onnx")
        )


if __name__ == "__main__":
    main()
