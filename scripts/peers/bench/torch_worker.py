"""Times PyTorch on one network in one precision, in a process of its own.

Runs in the environment with PyTorch: `python -m bench.torch_worker --help`.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Both overrule what is set below, so they must be gone before the libraries are loaded.
for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"):
    os.environ.pop(name, None)

import numpy as np
import torch

from .files import Tensor, read_tensor, write_json, write_tensors
from .pytorch import CONFIGURATIONS, PRECISIONS, Configuration
from .torch_about import describe
from .torch_network import ResNet50, load, weights

Session = Callable[[], torch.Tensor]

# Warm-up lasts so long at least, however many runs that takes: an idle card clocks down.
SECONDS = 0.3
# Runs before a capture, in which libraries ask for the memory that they work in.
BEFORE_CAPTURE = 3


def settle(precision: str) -> None:
    """Sets what PyTorch may compute with, and lets cuDNN search for its fastest algorithms."""
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    if (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) != (tf32, tf32):
        raise SystemExit(f"PyTorch does not let TF32 be turned {'on' if tf32 else 'off'}")


class Captured:
    """A run of a network as a CUDA graph; keeps alive what the graph points to."""

    def __init__(self, network: ResNet50, x: torch.Tensor) -> None:
        self.network, self.x = network, x
        # Memory and algorithms must be settled before, on a stream that is not the default one.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(BEFORE_CAPTURE):
                network(x)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.y = network(x)

    def __call__(self) -> torch.Tensor:
        self.graph.replay()
        return self.y


def wait(device: torch.device) -> None:
    """Until the card is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(session: Session, device: torch.device, warmup: int, repeat: int) -> list[float]:
    """Milliseconds from the call to the end of the work, of `repeat` runs after a warm-up."""
    begin = time.perf_counter()
    done = 0
    while done < warmup or time.perf_counter() - begin < SECONDS:
        session()
        wait(device)
        done += 1
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        session()
        wait(device)
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def events(session: Session, device: torch.device, repeat: int) -> list[float]:
    """Milliseconds by the card's clock, in runs of their own: recording takes time too."""
    if device.type != "cuda":
        return []
    times = []
    for _ in range(repeat):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        session()
        end.record()
        wait(device)
        times.append(begin.elapsed_time(end))
    return times


class Worker:
    """One network and batch on one device in one precision."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.dtype = torch.float16 if args.precision == "f16" else torch.float32
        self.state = weights(args.weights)
        stored = read_tensor(args.input, "input")
        images = np.frombuffer(stored.data, "<f4").astype(np.float32).reshape(stored.shape)
        self.images = torch.from_numpy(images)
        self.placed: dict[bool, tuple[ResNet50, torch.Tensor]] = {}

    def place(self, channels_last: bool) -> tuple[ResNet50, torch.Tensor]:
        """Network and images on the device, in one memory format."""
        if channels_last not in self.placed:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            # Parameters made in inference mode cannot be moved about.
            with torch.inference_mode(False):
                network = load(self.state).to(self.device, self.dtype).to(memory_format=layout)
                x = self.images.to(self.device, self.dtype).contiguous(memory_format=layout)
            self.placed[channels_last] = network, x
        return self.placed[channels_last]

    def session(self, configuration: Configuration) -> Session:
        """What runs the network; to be used before the next one is made."""
        network, x = self.place(configuration.channels_last)
        network.fuse(configuration.fused)
        return Captured(network, x) if configuration.graph else lambda: network(x)

    def attempt(
        self, configuration: Configuration, warmup: int, repeat: int
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Times and class scores."""
        session = self.session(configuration)
        said: dict[str, Any] = {"times": [], "events": []}
        if repeat:
            said["times"] = measure(session, self.device, warmup, repeat)
            said["events"] = events(session, self.device, repeat)
        logits = session().float().cpu().contiguous().numpy()
        return said, logits


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, required=True)
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors, with norms")
    parser.add_argument("--input", type=Path, required=True, help="`input`, .safetensors")
    parser.add_argument("--output", type=Path, required=True, help="logits by configuration")
    parser.add_argument("--json", type=Path, required=True, help="milliseconds and versions")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--repeat", type=int, required=True, help="0 for the output alone")
    args = parser.parse_args()

    settle(args.precision)
    if torch.device(args.device).type == "cuda":
        torch.cuda.set_device(torch.device(args.device).index or 0)
    report: dict[str, Any] = {"about": describe(args.device), "configurations": {}}
    outputs: dict[str, Tensor] = {}
    worker = Worker(args)
    for key in args.configurations:
        try:
            with torch.inference_mode():
                said, logits = worker.attempt(CONFIGURATIONS[key], args.warmup, args.repeat)
        except Exception as error:
            # Not every configuration is to be had everywhere; the others still count.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            said = {"failure": lines[0]}
        else:
            outputs[key] = Tensor("F32", logits.shape, logits.astype("<f4").tobytes())
        report["configurations"][key] = said
    write_tensors(args.output, outputs)
    write_json(args.json, report)


if __name__ == "__main__":
    main()
