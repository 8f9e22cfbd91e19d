"""Pruning by magnitude, with the same number of weights kept in every output channel."""

import numpy as np

from .network import convs, prunable
from .variants import Variant


def kept(positions: int, sparsity: float) -> int:
    """How many of an output channel's weights stay: rounded, and one at least."""
    return max(1, round(positions * (1 - sparsity)))


def mask(
    weight: np.ndarray, sparsity: float, block: int = 1, columns: int | None = None
) -> np.ndarray:
    """Which weights stay.

    Each group of `block` consecutive output channels keeps the positions (input channel, row,
    column) with the largest L2 norm over the group, the same in all its channels; with groups of
    one that is the largest magnitude. With `columns`, so many consecutive positions are chosen from
    at a time: the columns of blocks, all of whose rows stay.
    """
    outputs = weight.shape[0]
    if outputs % block:
        raise ValueError(f"{outputs} output channels do not divide into blocks of {block}")
    groups = weight.reshape(outputs // block, block, -1).astype(np.float64)
    energy = np.square(groups).sum(axis=1)
    width = columns or energy.shape[1]
    stays = np.zeros(energy.shape, bool)
    for first in range(0, energy.shape[1], width):
        part = energy[:, first : first + width]
        keep = kept(part.shape[1], sparsity)
        largest = np.argpartition(part, -keep, axis=1)[:, -keep:]
        np.put_along_axis(stays[:, first : first + width], largest, True, axis=1)
    return stays.repeat(block, axis=0).reshape(weight.shape)


def prune(state: dict[str, np.ndarray], variant: Variant) -> None:
    """Zeroes weights of every convolution that is pruned."""
    if variant.sparsity == 0:
        return
    for conv in filter(prunable, convs()):
        weight = state[f"{conv.name}.weight"]
        stays = mask(weight, variant.sparsity, variant.block, variant.columns)
        state[f"{conv.name}.weight"] = weight * stays
