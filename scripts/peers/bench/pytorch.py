"""PyTorch: its precisions, the ways to run it, and the interpreter that has it."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .environments import GPU, HERE, NotInstalled
from .files import read_tensors
from .machine import say
from .runtimes import Failed, Job, Result, Timing, execute, floats
from .table import TOLERANCE


@dataclass(frozen=True)
class Precision:
    """What PyTorch computes in."""

    key: str
    title: str
    tolerance: float
    """Class scores may differ by this from those in f32, relative to the largest."""
    capability: list[int] | None = None
    """The oldest cards that have it; None for all cards and the processor."""

    def obstacle(self, card: dict[str, Any] | None) -> str | None:
        """Why the card, or the processor where there is none, cannot compute in it."""
        if self.capability is None or card and card["capability"] >= self.capability:
            return None
        oldest = ".".join(map(str, self.capability))
        return f"it needs a card of compute capability {oldest} or newer"


# TF32 and f16 keep 11 bits of a factor. Over the 53 layers that makes 4e-3 here, computed on the
# processor, and 3e-2 where the rest of a factor is cut off, not rounded, as TF32 kernels may do.
PRECISIONS = {
    precision.key: precision
    for precision in (
        Precision("f32", "PyTorch f32", TOLERANCE),
        Precision("tf32", "PyTorch TF32", 5e-2, [8, 0]),
        Precision("f16", "PyTorch f16", 5e-2),
    )
}


@dataclass(frozen=True)
class Configuration:
    """How PyTorch runs the network; the fastest counts."""

    channels_last: bool
    """Channels beside each other in memory, not pixels."""
    fused: bool
    """Convolution, sum and ReLU in one operator of cuDNN."""
    graph: bool
    """Captured as a CUDA graph, so that all kernels are launched at once."""

    @property
    def key(self) -> str:
        """The name in reports."""
        parts = ["channels-last" if self.channels_last else "contiguous"]
        parts += ["fused"] * self.fused + ["graph"] * self.graph
        return "+".join(parts)

    @property
    def needs_card(self) -> bool:
        """Whether the processor cannot run it."""
        return self.fused or self.graph


# The plainest first: what follows an error on a card fails too.
CONFIGURATIONS = {
    configuration.key: configuration
    for configuration in (
        Configuration(channels_last, fused, graph)
        for fused, graph, channels_last in itertools.product((False, True), repeat=3)
    )
}
PLAIN = next(iter(CONFIGURATIONS))

REHEARSE = "`--device cpu` runs the whole command on the processor, as a rehearsal"


def configurations(device: str) -> list[str]:
    """Those that the device can run."""
    card = on_card(device)
    return [key for key, found in CONFIGURATIONS.items() if card or not found.needs_card]


def on_card(device: str) -> bool:
    """Whether it is a card, not the processor."""
    return device.startswith("cuda")


def environment() -> dict[str, str]:
    """What the modules here need; packages that PYTHONPATH leads to stay reachable."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class PyTorch:
    """PyTorch in one precision, driven by `bench.torch_worker`."""

    python: Path
    device: str
    precision: Precision

    def run(self, job: Job, keys: list[str]) -> dict[str, Result | Failed]:
        """Runs these configurations in one process."""
        output, report = job.scratch / "logits.safetensors", job.scratch / "report.json"
        command = [str(self.python), "-m", "bench.torch_worker", "--device", self.device]
        command += ["--precision", self.precision.key, "--configurations", *keys]
        command += ["--weights", str(job.network.weights), "--input", str(job.images)]
        command += ["--output", str(output), "--json", str(report)]
        command += ["--repeat", str(job.repeat)]
        execute(command, environment())
        said = json.loads(report.read_text(encoding="utf-8"))
        logits = read_tensors(output)
        return {
            key: outcome(found, said["about"], logits.get(key))
            for key, found in said["configurations"].items()
        }


def outcome(said: dict[str, Any], about: dict[str, Any], logits: Any) -> Result | Failed:
    """What a configuration gave, from the report of the process that ran it."""
    if "failure" in said:
        return Failed(said["failure"])
    wall, card = (Timing.of(times) if times else None for times in (said["times"], said["events"]))
    return Result(wall, floats(logits), about, card)


def describe(python: Path, device: str) -> dict[str, Any]:
    """What that interpreter's PyTorch says of itself and the card; `Failed` without one."""
    try:
        done = subprocess.run(
            [str(python), "-m", "bench.torch_about", device],
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | environment(),
        )
    except OSError as error:
        raise Failed(str(error)) from error
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode:
        raise Failed(lines[-1] if lines else f"exit status {done.returncode}")
    return json.loads(lines[-1])


def interpreter(device: str, wanted: Path | None) -> tuple[Path, dict[str, Any]]:
    """A Python with PyTorch and what that says: the one named, this one, or a new environment's.

    `Failed` says what to do if there is none.
    """
    if wanted:
        # A name in PATH, too; and not resolved, since an environment's Python is a link.
        python = Path(shutil.which(wanted) or wanted).absolute()
        try:
            return python, describe(python, device)
        except Failed as error:
            raise Failed(f"--python {wanted}: {error}") from error
    this = Path(sys.executable)
    try:
        return this, describe(this, device)
    except Failed as error:
        reason = str(error)
    say(f"{this} has no PyTorch and NumPy that work: {reason}")
    if on_card(device) and not driver():
        raise Failed(f"no NVIDIA card with a driver is here; {REHEARSE}")
    try:
        python = GPU.ensure()
        return python, describe(python, device)
    except (NotInstalled, Failed) as error:
        raise Failed(
            f"PyTorch is not in {this} ({reason}) and cannot be installed ({error}); without a "
            "network, run this by a Python that has torch and numpy, or name one by --python"
        ) from error


def driver() -> bool:
    """Whether NVIDIA's driver is loaded, or Windows lends its own."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


def cudnn(version: int | None) -> str | None:
    """91900 as 9.19.0, and 8902 as 8.9.2."""
    if version is None:
        return None
    scale = 10_000 if version >= 90_000 else 1000
    return f"{version // scale}.{version % scale // 100}.{version % 100}"
