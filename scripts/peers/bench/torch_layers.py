"""Times a convolution and its Tucker factors by PyTorch in one precision, in a process of its own.

Runs in the environment with PyTorch: `python -m bench.torch_layers --help`. Images come in as they lie
everywhere else in these tables, pixels beside each other, and results leave so: a layout of cuDNN's own is
changed to and from within the time. `inside` is the same without those changes, as in a network that keeps
the layout. Paddings are cuDNN's, which writes no zeros to memory for them.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch: it clears what overrules the settings.
from . import torch_worker
import torch

from .files import write_json
from .pytorch import PRECISIONS
from .torch_about import describe
from .tucker_card import FORMS, LAYOUTS, Layout, parts

Session = Callable[[], torch.Tensor]


class Layer:
    """A row of `bench tucker`, on a device."""

    def __init__(self, row: dict[str, Any], device: torch.device, dtype: torch.dtype, seed: int) -> None:
        self.row, self.device, self.dtype = row, device, dtype
        self.random = torch.Generator().manual_seed(seed)
        problem = row["problem"]
        self.x = self.normal([row["batch"], problem["in_channels"], *problem["input"]])
        self.weights = {
            form: [
                (self.normal([part.outputs, part.inputs, part.kernel, part.kernel]), part.stride)
                for part in parts(row, form)
            ]
            for form in FORMS
        }

    def normal(self, shape: list[int]) -> torch.Tensor:
        """Numbers whose sums of products stay of order one, as weights."""
        value = torch.randn(shape, generator=self.random)
        fan = max(1, value[0].numel())
        return (value / fan**0.5).to(self.device, self.dtype)

    def session(self, form: str, layout: Layout) -> Session:
        """What runs a form."""
        memory = torch.channels_last if layout.channels_last else torch.contiguous_format
        weights = [(w.contiguous(memory_format=memory), s) for w, s in self.weights[form]]
        inside = self.x.contiguous(memory_format=memory)

        def run() -> torch.Tensor:
            x = inside if layout.inside else self.x.contiguous(memory_format=memory)
            for weight, stride in weights:
                padding = weight.shape[-1] // 2
                x = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
            return x if layout.inside else x.contiguous()

        return torch_worker.Captured(lambda _: run(), self.x) if layout.graph else run


def attempt(layer: Layer, form: str, layout: Layout, repeat: int) -> dict[str, Any]:
    """Times of a form, or why there are none."""
    try:
        with torch.inference_mode():
            session = layer.session(form, layout)
            times = torch_worker.measure(session, layer.device, 10, repeat)
            events = torch_worker.events(session, layer.device, repeat)
            if not torch.isfinite(session().float()).all():
                return {"failure": "the result is not finite"}
    except Exception as error:
        # Not every layout is to be had everywhere; the others still count.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"failure": lines[0]}
    return {"times": times, "events": events}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", choices=PRECISIONS, required=True)
    parser.add_argument("--row", required=True, help="a row of `bench tucker`, as JSON")
    parser.add_argument("--json", type=Path, required=True, help="milliseconds and versions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, required=True)
    args = parser.parse_args()

    torch_worker.settle(args.precision)
    # No limit to how many algorithms are tried.
    torch.backends.cudnn.benchmark_limit = 0
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    dtype = torch.float16 if args.precision == "f16" else torch.float32
    layer = Layer(json.loads(args.row), device, dtype, args.seed)
    forms = {
        form: {
            key: attempt(layer, form, layout, args.repeat)
            for key, layout in LAYOUTS.items()
            if device.type == "cuda" or not layout.graph
        }
        for form in FORMS
    }
    write_json(args.json, {"about": describe(args.device), "forms": forms})


if __name__ == "__main__":
    main()
