"""From the runs on a card to the table: the fastest configurations, ratios, agreement."""

from array import array
from dataclasses import dataclass, field
from typing import Any

from .pytorch import PRECISIONS
from .runtimes import TITLES as CPU_TITLES
from .runtimes import Failed, Result, Timing, difference
from .table import Cell, milliseconds
from .variants import Variant

TITLES = {key: precision.title for key, precision in PRECISIONS.items()} | {
    "ours": CPU_TITLES["ours"]
}
SHORT = {"f32": "f32", "tf32": "TF32", "f16": "f16"}


@dataclass
class CardCell(Cell):
    """One configuration of one runtime on one network and batch."""

    card: list[Timing] = field(default_factory=list)
    """The rounds again, by the clock of the card."""

    def take(self, result: Result, difference: float, others: float) -> None:
        """Takes in a round."""
        if result.timing is None:
            raise AssertionError("a timed run without times")
        self.add(result.timing, difference, others)
        if result.card:
            self.card.append(result.card)

    def fields(self) -> dict[str, Any]:
        """For the report."""
        if self.failure is not None:
            return super().fields()
        return super().fields() | {"card": [timing.fields() for timing in self.card]}


@dataclass
class Entry:
    """One runtime on one network and batch, in all its configurations."""

    cells: dict[str, CardCell]
    failure: str | None = None
    """Why the runtime as a whole gave nothing more."""

    def add(self, results: dict[str, Result | Failed], expected: array, others: float) -> str:
        """Takes in a round; gives what there is to say of it."""
        medians: dict[str, float] = {}
        wrong = 0.0
        for key, result in results.items():
            cell = self.cells[key]
            if isinstance(result, Failed):
                cell.failure = str(result)
                continue
            cell.take(result, difference(result.logits, expected), others)
            if cell.agrees:
                medians[key] = cell.rounds[-1].median
            else:
                wrong = max(wrong, cell.difference)
        if not self.left:
            self.failure = "no configuration runs"
        verdict = f", DISAGREES by {wrong:.1e}" if wrong else ""
        if not medians:
            return f"no valid time{verdict}"
        fastest = min(medians, key=medians.__getitem__)
        how = f" ({fastest})" if len(self.cells) > 1 else ""
        return f"{medians[fastest]:.3f} ms{how}{verdict}"

    @property
    def fastest(self) -> str | None:
        """The configuration that counts: the fastest whose result is right."""
        valid = [key for key, cell in self.cells.items() if cell.valid and not self.failure]
        return min(valid, key=lambda key: self.cells[key].median, default=None)

    @property
    def best(self) -> CardCell | None:
        """What is known of that one."""
        return None if self.fastest is None else self.cells[self.fastest]

    @property
    def disagree(self) -> list[str]:
        """Configurations whose result is wrong."""
        return [key for key, cell in self.cells.items() if cell.rounds and not cell.agrees]

    @property
    def left(self) -> list[str]:
        """Configurations that have not failed."""
        return [key for key, cell in self.cells.items() if cell.failure is None]

    @property
    def sound(self) -> bool:
        """Whether there is a time, and no result is wrong. That PyTorch refuses some of its
        configurations is worth a remark only."""
        return self.best is not None and not self.disagree

    def fields(self) -> dict[str, Any]:
        """For the report: the fastest, and all."""
        found: dict[str, Any] = {} if self.best is None else self.best.fields()
        if self.failure is not None:
            found["failure"] = self.failure
        return found | {
            "configuration": self.fastest,
            "configurations": {
                key: cell.fields()
                for key, cell in self.cells.items()
                if cell.rounds or cell.failure is not None
            },
        }


@dataclass
class Row:
    """All runtimes on one network and batch."""

    variant: Variant
    batch: int
    entries: dict[str, Entry]

    @property
    def where(self) -> str:
        """The row in words."""
        return f"{self.variant.title}, batch {self.batch}"

    @property
    def peers(self) -> list[str]:
        """The precisions of PyTorch that were asked for and can be had."""
        return [key for key in self.entries if key in PRECISIONS]

    def ratio(self, key: str) -> float | None:
        """The time of PyTorch in this precision over ours."""
        peer, ours = (
            self.entries[name].best if name in self.entries else None for name in (key, "ours")
        )
        return None if peer is None or ours is None else peer.median / ours.median

    @property
    def agreement(self) -> str:
        """Whether all class scores are those of the reference."""
        names = []
        for key, entry in self.entries.items():
            if len(entry.disagree) == len(entry.cells):
                names.append(TITLES[key])
            elif entry.disagree:
                names.append(f"{TITLES[key]} ({', '.join(entry.disagree)})")
        if names:
            return f"DISAGREES: {', '.join(names)}"
        return "agree" if any(entry.best for entry in self.entries.values()) else "-"

    @property
    def sound(self) -> bool:
        """Whether every runtime gave a result, and the same."""
        return all(entry.sound for entry in self.entries.values())

    def fields(self) -> dict[str, Any]:
        """For the report."""
        return {
            "variant": self.variant.key,
            "sparsity": self.variant.sparsity,
            "block": self.variant.block,
            "columns": self.variant.columns,
            "batch": self.batch,
            "milliseconds": {key: entry.fields() for key, entry in self.entries.items()},
            "ratios": {key: self.ratio(key) for key in PRECISIONS},
            "verdict": self.agreement,
        }

    def columns(self) -> list[str]:
        """The row as text."""
        ratios = [self.ratio(key) for key in PRECISIONS]
        return [
            self.variant.title,
            str(self.batch),
            *(self.time(key) for key in TITLES),
            *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            self.agreement,
        ]

    def time(self, key: str) -> str:
        """The time that counts, or if all results are wrong the shortest."""
        if key not in self.entries:
            return "-"
        entry = self.entries[key]
        timed = [cell for cell in entry.cells.values() if cell.rounds and cell.failure is None]
        if entry.failure is not None or not timed:
            return "failed"
        return milliseconds(entry.best or min(timed, key=lambda cell: cell.median))

    def fastest(self) -> str:
        """The configurations that count."""
        names = [
            f"{SHORT[key]} {self.entries[key].fastest}"
            for key in self.peers
            if self.entries[key].fastest
        ]
        return f"{self.where}: {', '.join(names) or 'none'}"

    def remarks(self) -> list[str]:
        """What a reader of the row must know: of the times in it, and of what is wrong."""
        found = []
        for key, entry in self.entries.items():
            where = f"{TITLES[key]}, {self.where}"
            if entry.failure is not None:
                found.append(f"{where}: {entry.failure}")
            for name, cell in entry.cells.items():
                if name == entry.fastest or cell.failure is not None or name in entry.disagree:
                    found += cell.remarks(where if name == key else f"{where}, {name}")
        return found


HEADINGS = [
    "ResNet-50",
    "batch",
    *TITLES.values(),
    *(f"{SHORT[key]}/ours" for key in PRECISIONS),
    "verdict",
]
