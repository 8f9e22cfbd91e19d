"""One run of one runtime, in a process of its own: times and class scores."""

import json
import math
import os
import subprocess
from array import array
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from .cache import Network
from .environments import HERE
from .files import Tensor, read_tensor

REPOSITORY = HERE.parent.parent
# A run that takes longer hangs.
PATIENCE = 1800

TITLES = {"ort": "ONNX Runtime", "openvino": "OpenVINO", "deepsparse": "DeepSparse", "ours": "ours"}
PEERS = ("ort", "openvino", "deepsparse")


class Failed(Exception):
    """A run gave no result; the text says why."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of several runs."""

    median: float
    min: float
    max: float
    spread: float
    """Between the first and the third quartile."""
    runs: int

    @classmethod
    def of(cls, times: list[float]) -> "Timing":
        """Statistics of at least one time."""
        times = sorted(times)

        def quantile(part: float) -> float:
            at = part * (len(times) - 1)
            low = math.floor(at)
            high = min(low + 1, len(times) - 1)
            return times[low] + (at - low) * (times[high] - times[low])

        spread = quantile(0.75) - quantile(0.25)
        return cls(quantile(0.5), times[0], times[-1], spread, len(times))

    def fields(self) -> dict[str, float]:
        """For the report."""
        return asdict(self)


@dataclass(frozen=True)
class Result:
    """What came out of a run."""

    timing: Timing | None
    """None if only the class scores were asked for."""
    logits: array
    about: dict[str, Any]
    """The version, or what else the runtime says of itself."""
    card: Timing | None = None
    """The same runs again, by the clock of the card, where that is known."""


@dataclass(frozen=True)
class Job:
    """What to run."""

    network: Network
    images: Path
    threads: int | None
    """None to leave it to the runtime."""
    repeat: int
    scratch: Path


class Runtime(Protocol):
    """Something that runs jobs."""

    def run(self, job: Job) -> Result:
        """Raises `Failed`."""


def execute(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs a command that is expected to succeed."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        raise Failed(str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"gave no result within {PATIENCE} s") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else "said nothing"
        if done.returncode < 0:
            reason = f"killed by signal {-done.returncode}; {reason}"
        raise Failed(reason)


def floats(tensor: Tensor) -> array:
    """The numbers of a tensor of f32."""
    values = array("f")
    values.frombytes(tensor.data)
    return values


def read_logits(path: Path) -> array:
    """The class scores that a run left."""
    return floats(read_tensor(path, "logits"))


def difference(found: array, expected: array) -> float:
    """Largest difference over the largest magnitude; infinite for what cannot be compared."""
    if len(found) != len(expected) or not all(map(math.isfinite, found)):
        return math.inf
    largest = max(map(abs, expected), default=0.0)
    distance = max((abs(a - b) for a, b in zip(found, expected)), default=0.0)
    return distance / largest if largest else math.inf


@dataclass(frozen=True)
class Peer:
    """A runtime that `bench.worker` drives."""

    key: str
    python: Path

    def run(self, job: Job) -> Result:
        """See `Runtime`."""
        output, report = job.scratch / "logits.safetensors", job.scratch / "report.json"
        # Left to itself, OpenMP would take more threads than were asked for.
        environment = {
            "PYTHONPATH": str(HERE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(job.threads),
        }
        command = [str(self.python), "-m", "bench.worker", "--runtime", self.key]
        command += ["--model", str(job.network.onnx), "--input", str(job.images)]
        command += ["--output", str(output), "--json", str(report)]
        command += ["--threads", str(job.threads), "--repeat", str(job.repeat)]
        execute(command, environment)
        said = json.loads(report.read_text(encoding="utf-8"))
        timing = Timing.of(said["times"]) if said["times"] else None
        return Result(timing, read_logits(output), {"version": said["version"]})


@dataclass(frozen=True)
class Ours:
    """This repository's example `resnet50_infer`."""

    binary: Path
    pack: str
    device: str = "flex"
    """The processor unless set, also where a build with more backends finds a card."""

    def said(self, job: Job, *options: str) -> dict[str, Any]:
        """What the example's report says; the class scores lie in `logits.safetensors`."""
        output, report = job.scratch / "logits.safetensors", job.scratch / "report.json"
        command = [str(self.binary), "--weights", str(job.network.weights)]
        command += ["--input", str(job.images), "--output", str(output), "--json", str(report)]
        command += ["--repeat", str(job.repeat), "--pack", self.pack, "--device", self.device]
        if job.threads is not None:
            command += ["--threads", str(job.threads)]
        execute([*command, *options])
        return json.loads(report.read_text(encoding="utf-8"))

    def profile(self, job: Job) -> dict[str, Any]:
        """Where the time goes, layer by layer, what bounds it, and what memory a run takes. The
        layers' plans are known by now, unless these are other threads than before."""
        said = self.said(job, "--profile")
        names = ("threads", "packing_seconds", "fresh_buffers", "memory", "profile")
        return {name: said[name] for name in names}

    def run(self, job: Job) -> Result:
        """See `Runtime`."""
        said = self.said(job)
        timing = Timing(**{name: said["milliseconds"][name] for name in Timing.__annotations__})
        about = {name: said.get(name) for name in ("device", "pack", "threads", "sparsity")}
        return Result(timing, read_logits(job.scratch / "logits.safetensors"), about)


def build(*features: str, example: str = "resnet50_infer") -> Path:
    """Builds the example and says where it lies."""
    command = ["cargo", "build", "--release", "--example", example]
    command += [f"--features={feature}" for feature in features]
    command.append("--message-format=json-render-diagnostics")
    try:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise Failed(
            f"cargo: {error}; install Rust (https://rustup.rs), give a built binary by "
            "--binary, or leave ours out by --only"
        ) from error
    if done.returncode:
        raise Failed("cargo build failed, see above; mend it or leave ours out by --only")
    for line in done.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("target", {}).get("name") == example and message["executable"]:
            return Path(message["executable"])
    raise Failed(f"cargo named no executable for {example}; give it by --binary")
