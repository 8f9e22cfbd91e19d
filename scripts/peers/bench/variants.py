"""The networks that are timed, and how much faster each is meant to be."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """One way to prune the network."""

    key: str
    """The name on the command line and of its files."""
    title: str
    """The name in the table."""
    sparsity: float = 0.0
    """The share of the weights of a pruned layer that is zero."""
    block: int = 1
    """How many consecutive output channels share a pattern."""
    columns: int | None = None
    """How many weights of a channel such a block has; all of them if not set."""
    targets: dict[int, float] = field(default_factory=dict)
    """By batch: the time of the fastest other runtime over ours, at least."""


VARIANTS = {
    variant.key: variant
    for variant in (
        Variant("dense", "dense"),
        Variant("80", "80 %", 0.80, targets={1: 1.7, 16: 1.0}),
        Variant("90", "90 %", 0.90, targets={1: 3.0, 16: 1.0}),
        Variant("95", "95 %", 0.95, targets={1: 2.5, 16: 1.1}),
        Variant("90-blocks", "90 %, blocks of 4", 0.90, 4, targets={1: 4.5, 16: 1.3}),
        Variant("90-bcr", "90 %, blocks of 4 by 128", 0.90, 4, 128),
    )
}
