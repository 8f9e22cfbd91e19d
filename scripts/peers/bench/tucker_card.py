"""Convolutions by Tucker factors on a card: what rivals run, and the table."""

import itertools
from dataclasses import dataclass
from statistics import median
from typing import Any

FORMS = ("dense", "three")


@dataclass(frozen=True)
class Part:
    """A convolution without bias whose padding keeps the size at stride 1."""

    inputs: int
    outputs: int
    kernel: int
    stride: int


def parts(row: dict[str, Any], form: str) -> list[Part]:
    """The convolutions of a form, in a row; a factor that leaves all channels is none."""
    problem, ranks = row["problem"], row["ranks"]
    inputs, outputs = problem["in_channels"], problem["out_channels"]
    kernel, stride = problem["kernel"][0], problem["stride"][0]
    if form == "dense":
        return [Part(inputs, outputs, kernel, stride)]
    core = Part(ranks["input"], ranks["output"], kernel, stride)
    found = [Part(inputs, core.inputs, 1, 1)] if core.inputs != inputs else []
    found.append(core)
    return found + ([Part(core.outputs, outputs, 1, 1)] if core.outputs != outputs else [])


@dataclass(frozen=True)
class Layout:
    """How PyTorch runs a form."""

    channels_last: bool
    """Channels beside each other in memory, not pixels."""
    inside: bool
    """Without changing the layout of what comes in and goes out."""
    graph: bool
    """Captured as a CUDA graph."""

    @property
    def key(self) -> str:
        """The name in reports."""
        words = ["channels-last" if self.channels_last else "contiguous"]
        return "+".join(words + ["inside"] * self.inside + ["graph"] * self.graph)


LAYOUTS = {
    layout.key: layout
    for layout in (
        Layout(last, inside, graph)
        for graph, (last, inside) in itertools.product(
            (False, True), ((False, False), (True, False), (True, True))
        )
    )
}


def fastest(ways: dict[str, Any], inside: bool) -> float | None:
    """Median milliseconds of the fastest layout, layout changes counted or, `inside`, none made."""
    times = [
        median(said["times"])
        for key, said in ways.items()
        if said.get("times") and (inside or not LAYOUTS[key].inside)
    ]
    return min(times, default=None)


COLUMNS = {
    "f32 dense": "cuDNN f32",
    "f32 three": "its three",
    "tf32 dense": "cuDNN TF32",
    "tf32 three": "its three",
    "f16 dense": "cuDNN f16",
    "f16 three": "its three",
    "dense": "dense",
    "burn_three": "Burn's three",
    "core_between": "core as TDC",
    "strip": "strip",
    "factors": "factors",
}


def ratios(milliseconds: dict[str, float]) -> dict[str, float]:
    """Rivals over our factors: above 1, ours are faster."""
    ours = milliseconds.get("factors")
    rivals = [key for key in milliseconds if " " in key]
    return {key: milliseconds[key] / ours for key in rivals} if ours else {}


def render(rows: list[dict[str, Any]]) -> str:
    """The table, as Markdown."""
    found = [row.get("milliseconds", {}) for row in rows]
    columns = [key for key in COLUMNS if any(key in times for times in found)]
    rivals = [key for key in columns if " " in key]
    heads = ["layer", "batch", "type", "ranks", "FLOPs", *(COLUMNS[key] for key in columns)]
    heads += [f"{key} / factors" for key in rivals]
    lines = [f"| {' | '.join(heads)} |", f"|---|--:|---|---{'|--:' * (len(heads) - 4)}|"]
    for row in rows:
        ranks = row["ranks"]
        cells = [row["name"], str(row["batch"]), row["dtype"], f"{ranks['output']}, {ranks['input']}"]
        cells.append(f"{row['flop_ratio']:.2f}×")
        times = row.get("milliseconds", {})
        cells += [f"{times[key]:.3f}" if key in times else "" for key in columns]
        gains = ratios(times)
        cells += [f"{gains[key]:.2f}" if key in gains else "" for key in rivals]
        if "failed" in row:
            cells[5] = row["failed"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
