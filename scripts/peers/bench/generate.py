"""Writes networks and images into the cache; what is there already is kept.

Runs in an environment with NumPy, and with ONNX unless that is left out:
`python -m bench.generate --help`.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .cache import Network, images_path
from .files import Tensor, replacing, write_json, write_tensors
from .network import convs, prunable
from .prune import prune
from .variants import VARIANTS, Variant
from .weights import calibrate, images, initial

# Names of NumPy's types in `.safetensors`.
DTYPES = {"float32": "F32", "int64": "I64"}
# Images behind the statistics of the batch norms.
CALIBRATION = 4


def tensor(array: np.ndarray) -> Tensor:
    """An array as `.safetensors` holds it."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return Tensor(DTYPES[array.dtype.name], array.shape, little.tobytes())


def count(state: dict[str, np.ndarray]) -> dict[str, int]:
    """Weights of the pruned layers, and how many of them are not zero."""
    pruned = [state[f"{conv.name}.weight"] for conv in convs() if prunable(conv)]
    return {
        "weights": sum(weight.size for weight in pruned),
        "nnz": sum(int(np.count_nonzero(weight)) for weight in pruned),
    }


def write_network(network: Network, variant: Variant, seed: int, onnx: bool = True) -> None:
    """Writes the files of one network, then the note that says they are whole."""
    state = initial(seed)
    prune(state, variant)
    calibrate(state, images(seed + 1, CALIBRATION))
    write_tensors(network.weights, {name: tensor(array) for name, array in state.items()})
    if onnx:
        write_onnx(network.onnx, state)
    write_json(network.note, network.sizes(onnx) | count(state))


def write_onnx(path: Path, state: dict[str, np.ndarray]) -> None:
    """Writes a network as ONNX."""
    # Here, as some environments have no ONNX.
    import onnx

    from .export import model

    with replacing(path) as temporary:
        onnx.save(model(state), str(temporary))


def write_images(path: Path, seed: int, batch: int) -> None:
    """Writes a batch of images as the tensor `input`."""
    write_tensors(path, {"input": tensor(images(seed, batch))})


def generate(
    directory: Path, seed: int, variants: Iterable[str], batches: Iterable[int], onnx: bool = True
) -> None:
    """Writes what is missing."""
    for key in variants:
        network = Network(directory, key)
        if network.whole(onnx):
            continue
        variant = VARIANTS[key]
        print(f"writing ResNet-50, {variant.title}", flush=True)
        write_network(network, variant, seed, onnx)
        note = json.loads(network.note.read_text(encoding="utf-8"))
        zero = 100 * (1 - note["nnz"] / note["weights"])
        print(f"  {note['weights']} weights in pruned layers, {zero:.2f} % zero", flush=True)
    for batch in batches:
        path = images_path(directory, batch)
        if not path.exists():
            print(f"writing {batch} image{'s' if batch > 1 else ''}", flush=True)
            write_images(path, seed, batch)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, required=True)
    parser.add_argument("--batches", nargs="+", type=int, required=True)
    parser.add_argument("--no-onnx", dest="onnx", action="store_false", help="only .safetensors")
    args = parser.parse_args()
    generate(args.directory, args.seed, args.variants, args.batches, args.onnx)


if __name__ == "__main__":
    main()
