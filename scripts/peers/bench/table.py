"""From the runs to the table: medians, ratios, verdicts."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .runtimes import PEERS, TITLES, Timing
from .variants import Variant

TOLERANCE = 1e-3
"""Class scores may differ by this, relative to the largest."""
DISTURBED = 0.05
"""Other processes that took more of the machine are worth a remark."""
UNQUIET = 0.1
"""Rounds whose medians differ by more, relatively, are worth a remark."""


@dataclass
class Cell:
    """One runtime on one network and batch."""

    rounds: list[Timing] = field(default_factory=list)
    difference: float = 0.0
    """The largest of all rounds, against the reference."""
    others: float = 0.0
    """The share of the machine that other processes took, in the worst round."""
    failure: str | None = None
    tolerance: float = TOLERANCE
    """How far the class scores may differ."""

    def add(self, timing: Timing, difference: float, others: float) -> None:
        """Takes in a round."""
        self.rounds.append(timing)
        self.difference = max(self.difference, difference)
        self.others = max(self.others, others)

    @property
    def median(self) -> float:
        """The median of the rounds' medians: the number to quote."""
        return statistics.median(timing.median for timing in self.rounds)

    @property
    def spread(self) -> float:
        """Between the medians of the fastest and of the slowest round."""
        medians = [timing.median for timing in self.rounds]
        return max(medians) - min(medians)

    @property
    def agrees(self) -> bool:
        """Whether the class scores are those of the reference."""
        return self.difference <= self.tolerance

    @property
    def valid(self) -> bool:
        """Whether the time counts."""
        return bool(self.rounds) and self.failure is None and self.agrees

    def fields(self) -> dict[str, Any]:
        """For the report."""
        if self.failure is not None:
            return {"failure": self.failure}
        return {
            "median": self.median,
            "min": min(timing.min for timing in self.rounds),
            "spread": self.spread,
            # JSON knows no infinity.
            "difference": self.difference if self.difference < float("inf") else None,
            "agrees": self.agrees,
            "others": self.others,
            "rounds": [timing.fields() for timing in self.rounds],
        }

    def remarks(self, where: str) -> list[str]:
        """What a reader of the time must know; `where` names it."""
        if self.failure is not None:
            return [f"{where}: {self.failure}"]
        if not self.agrees:
            return [f"{where}: logits differ by {self.difference:.1e}, relatively"]
        found = []
        if self.rounds and self.spread > UNQUIET * self.median:
            share = 100 * self.spread / self.median
            found.append(f"{where}: rounds differ by {share:.0f} %, so quote it with care")
        if self.others > DISTURBED:
            share = 100 * self.others
            found.append(f"{where}: other processes took {share:.0f} % of the machine; repeat")
        return found


@dataclass
class Row:
    """All runtimes on one network and batch."""

    variant: Variant
    batch: int
    cells: dict[str, Cell]
    profiles: list[dict[str, Any]] = field(default_factory=list)
    """Where ours spends its time, by number of threads."""

    @property
    def target(self) -> float | None:
        """What the ratio is meant to reach."""
        return self.variant.targets.get(self.batch)

    @property
    def fastest(self) -> str | None:
        """The fastest of the others whose result is right."""
        valid = [key for key in PEERS if key in self.cells and self.cells[key].valid]
        return min(valid, key=lambda key: self.cells[key].median, default=None)

    @property
    def ratio(self) -> float | None:
        """The time of the fastest of the others over ours."""
        ours = self.cells.get("ours")
        if self.fastest is None or ours is None or not ours.valid:
            return None
        return self.cells[self.fastest].median / ours.median

    @property
    def verdict(self) -> str:
        """Met or missed, unless something is wrong."""
        disagree = [key for key, cell in self.cells.items() if cell.rounds and not cell.agrees]
        if disagree:
            return f"DISAGREES: {', '.join(TITLES[key] for key in disagree)}"
        if self.target is None or self.ratio is None:
            return "-"
        word = "met" if self.ratio >= self.target else "missed"
        absent = [
            TITLES[key] for key in PEERS if key not in self.cells or not self.cells[key].valid
        ]
        return f"{word} (without {', '.join(absent)})" if absent else word

    @property
    def sound(self) -> bool:
        """Whether every run gave a result, and the same."""
        return all(cell.valid for cell in self.cells.values())

    def fields(self) -> dict[str, Any]:
        """For the report."""
        return {
            "variant": self.variant.key,
            "sparsity": self.variant.sparsity,
            "block": self.variant.block,
            "columns": self.variant.columns,
            "batch": self.batch,
            "milliseconds": {key: cell.fields() for key, cell in self.cells.items()},
            "fastest": self.fastest,
            "ratio": self.ratio,
            "target": self.target,
            "verdict": self.verdict,
            "profiles": self.profiles,
        }

    def columns(self) -> list[str]:
        """The row as text."""
        times = [milliseconds(self.cells.get(key)) for key in TITLES]
        return [
            self.variant.title,
            str(self.batch),
            *times,
            TITLES[self.fastest] if self.fastest else "-",
            f"{self.ratio:.2f}" if self.ratio is not None else "-",
            f"{self.target:.1f}" if self.target is not None else "-",
            self.verdict,
        ]

    def remarks(self) -> list[str]:
        """What a reader of the row must know."""
        found = []
        for key, cell in self.cells.items():
            found += cell.remarks(f"{TITLES[key]}, {self.variant.title}, batch {self.batch}")
        return found


HEADINGS = ["ResNet-50", "batch", *TITLES.values(), "fastest", "fastest/ours", "target", "verdict"]
WORDS = ("ResNet-50", "fastest", "verdict")
"""Columns of words stand to the left, columns of numbers to the right."""


class Columns(Protocol):
    """A row of some table."""

    def columns(self) -> list[str]:
        """The row as text."""


def milliseconds(cell: Cell | None) -> str:
    """A time with three digits that matter."""
    if cell is None:
        return "-"
    if cell.failure is not None or not cell.rounds:
        return "failed"
    digits = sum(cell.median < bound for bound in (1000, 100, 1))
    return f"{cell.median:.{digits}f}"


def aligned(
    rows: Sequence[Columns], headings: list[str]
) -> tuple[list[list[str]], list[int], list[bool]]:
    """Headings and rows, each column as wide as its widest entry; the widths, and which columns
    stand to the right."""
    lines = [headings, *(row.columns() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    right = [heading not in WORDS for heading in headings]
    return (
        [
            [
                text.rjust(width) if number else text.ljust(width)
                for text, width, number in zip(line, widths, right)
            ]
            for line in lines
        ],
        widths,
        right,
    )


def text(rows: Sequence[Columns], headings: list[str] = HEADINGS) -> str:
    """The table for a terminal."""
    lines, widths, _ = aligned(rows, headings)
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(rows: Sequence[Columns], headings: list[str] = HEADINGS) -> str:
    """The table for a document."""
    lines, widths, right = aligned(rows, headings)
    rule = ["-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, right)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
