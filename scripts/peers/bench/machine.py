"""What the numbers were measured on."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Instruction sets that decide which kernels a runtime takes.
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def say(text: str) -> None:
    """A line of progress, apart from the table on standard output."""
    print(text, file=sys.stderr, flush=True)


def logical_cores() -> set[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores() -> int:
    """Cores, each counted once however many threads it runs."""
    cores = set()
    for index in logical_cores():
        topology = Path(f"/sys/devices/system/cpu/cpu{index}/topology")
        try:
            names = ("physical_package_id", "core_id")
            cores.add(tuple((topology / name).read_text().strip() for name in names))
        except OSError:
            cores.add((str(index),))
    return len(cores)


def cpuinfo() -> dict[str, str]:
    """The first processor of `/proc/cpuinfo`; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def busy() -> float | None:
    """Seconds that the processors have computed, all together; None where the system hides it."""
    try:
        first = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()
    except OSError:
        return None
    # user, nice and system; what waits or is stolen by other guests is not this machine's work.
    return sum(map(int, first[1:4])) / os.sysconf("SC_CLK_TCK")


def ended_children() -> float:
    """Processor seconds of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def watch() -> Callable[[], float]:
    """Starts to watch; the result, called at the end, gives the share of the machine that other
    processes than ours took meanwhile."""
    clock, work, own = time.monotonic(), busy(), ended_children()

    def others() -> float:
        now = busy()
        if work is None or now is None:
            return 0.0
        seconds = (time.monotonic() - clock) * (os.cpu_count() or 1)
        return max(0.0, (now - work - (ended_children() - own)) / seconds)

    return others


def describe() -> dict[str, Any]:
    """The machine, for the report."""
    info = cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "family": info.get("cpu family"),
        "model": info.get("model"),
        "flags": [flag for flag in FLAGS if flag in flags],
        "logical_cores": len(logical_cores()),
        "physical_cores": physical_cores(),
        "system": platform.platform(),
        "load": load(),
    }


def commit(repository: Path) -> str | None:
    """The commit checked out, with `+` if files differ from it."""
    git = ["git", "-C", str(repository)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        state = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")
