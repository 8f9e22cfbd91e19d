"""From the runs to the table: medians, ratios, verdicts."""

import statistics
from dataclasses import dataclass, field
from typing import Any

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
        return self.difference <= TOLERANCE

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


@dataclass
class Row:
    """All runtimes on one network and batch."""

    variant: Variant
    batch: int
    cells: dict[str, Cell]

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
            "batch": self.batch,
            "milliseconds": {key: cell.fields() for key, cell in self.cells.items()},
            "fastest": self.fastest,
            "ratio": self.ratio,
            "target": self.target,
            "verdict": self.verdict,
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
            where = f"{TITLES[key]}, {self.variant.title}, batch {self.batch}"
            if cell.failure is not None:
                found.append(f"{where}: {cell.failure}")
                continue
            if not cell.agrees:
                found.append(f"{where}: logits differ by {cell.difference:.1e}, relatively")
                continue
            if cell.rounds and cell.spread > UNQUIET * cell.median:
                share = 100 * cell.spread / cell.median
                found.append(f"{where}: rounds differ by {share:.0f} %, so quote it with care")
            if cell.others > DISTURBED:
                share = 100 * cell.others
                found.append(f"{where}: other processes took {share:.0f} % of the machine; repeat")
        return found


HEADINGS = ["ResNet-50", "batch", *TITLES.values(), "fastest", "fastest/ours", "target", "verdict"]
# Columns of numbers stand to the right.
RIGHT = [heading in ("batch", "fastest/ours", "target", *TITLES.values()) for heading in HEADINGS]


def milliseconds(cell: Cell | None) -> str:
    """A time with three digits that matter."""
    if cell is None:
        return "-"
    if cell.failure is not None or not cell.rounds:
        return "failed"
    return f"{cell.median:.{0 if cell.median >= 1000 else 1 if cell.median >= 100 else 2}f}"


def aligned(rows: list[Row]) -> tuple[list[list[str]], list[int]]:
    """Headings and rows, each column as wide as its widest entry."""
    lines = [HEADINGS, *(row.columns() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, RIGHT)
        ]
        for line in lines
    ], widths


def text(rows: list[Row]) -> str:
    """The table for a terminal."""
    lines, widths = aligned(rows)
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown(rows: list[Row]) -> str:
    """The table for a document."""
    lines, widths = aligned(rows)
    rule = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, RIGHT)]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
