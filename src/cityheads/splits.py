"""Deal whole parents to train, val and test so that every split holds every class in its share.

Sub-chips of one parent are neighbours and look alike: dealing them apart would leak. The parent is the unit here, and
the unit of the bootstrap in the evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cityheads.errors import CityHeadsError
from cityheads.grid import SPLITS, Parent

__all__ = ["deal_parents", "missing_classes", "split_sizes"]

log = logging.getLogger(__name__)

_STARTS = 4096
_DESCENTS = 16


def split_sizes(parents: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Turn fractions into whole numbers of parents (largest remainder), at least one parent a split.

    Raises:
        CityHeadsError: Fewer parents than splits.
    """
    if parents < len(SPLITS):
        raise CityHeadsError(f"{parents} parents cannot fill {len(SPLITS)} splits; add parents to the sheet")
    exact = {name: fractions[name] * parents for name in SPLITS}
    sizes = {name: max(1, int(exact[name])) for name in SPLITS}
    while sum(sizes.values()) < parents:
        sizes[max(SPLITS, key=lambda name: exact[name] - sizes[name])] += 1
    while sum(sizes.values()) > parents:
        sizes[max((name for name in SPLITS if sizes[name] > 1), key=lambda name: sizes[name] - exact[name])] -= 1
    return sizes


def deal_parents(
    parents: Sequence[Parent], counts: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> tuple[dict[str, str], str]:
    """Deal parents to splits.

    Where the sheet has a split column, it is taken as it is. Else the assignment is sought whose splits hold every
    class and whose share of each class's pixels (and of all pixels) is nearest to the wanted fractions: thousands of
    random assignments, then pairwise swaps from the best few until none helps.

    Args:
        parents: Parents in sheet order.
        counts: Labelled pixels per parent and class, (P, n_classes) per label.
        settings: The config's ``splits`` section.

    Returns:
        Split per parent id, and the method: ``sheet`` or ``search``.

    Raises:
        CityHeadsError: Too few parents, or a sheet that leaves a split empty.
    """
    if all(parent.split for parent in parents):
        dealt = {parent.parent_id: str(parent.split) for parent in parents}
        empty = [name for name in SPLITS if name not in dealt.values()]
        if empty:
            raise CityHeadsError(
                f"the parent sheet's split column leaves {empty[0]} empty; give it at least one parent"
            )
        return dealt, "sheet"
    sizes = split_sizes(len(parents), settings["fractions"])
    wanted = np.array([sizes[name] for name in SPLITS], float) / len(parents)
    classes = np.concatenate([np.asarray(counts[label], float) for label in sorted(counts)], axis=1)
    present = classes[:, classes.sum(axis=0) > 0]
    labelled = np.concatenate([present, classes.sum(axis=1, keepdims=True)], axis=1)
    shares = labelled / np.maximum(labelled.sum(axis=0), 1)

    rng = np.random.default_rng(settings["seed"])
    base = np.repeat(np.arange(len(SPLITS)), [sizes[name] for name in SPLITS])
    starts = rng.permuted(np.tile(base, (_STARTS, 1)), axis=1)
    scores = _costs(starts, shares, wanted)
    best = min(
        (_descend(starts[index], shares, wanted) for index in np.argsort(scores, kind="stable")[:_DESCENTS]),
        key=lambda found: found[0],
    )
    dealt = {parent.parent_id: SPLITS[code] for parent, code in zip(parents, best[1], strict=True)}
    log.info("splits %s at cost %.4f", {name: list(dealt.values()).count(name) for name in SPLITS}, best[0])
    return dealt, "search"


def _costs(assignments: np.ndarray, shares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give the cost of assignments (M, P): relative share errors, plus a large price per class that a split lacks."""
    held = np.stack([(assignments == code) @ shares for code in range(len(SPLITS))], axis=1)
    error = ((held / wanted[None, :, None] - 1) ** 2).mean(axis=(1, 2))
    return error + 1000.0 * (held == 0).sum(axis=(1, 2))


def _descend(assignment: np.ndarray, shares: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    current = assignment.copy()
    cost = float(_costs(current[None], shares, wanted)[0])
    one, two = np.triu_indices(len(current), k=1)
    while True:
        differ = current[one] != current[two]
        swaps = np.tile(current, (int(differ.sum()), 1))
        rows = np.arange(len(swaps))
        swaps[rows, one[differ]], swaps[rows, two[differ]] = current[two[differ]], current[one[differ]]
        costs = _costs(swaps, shares, wanted)
        best = int(np.argmin(costs))
        if costs[best] >= cost - 1e-12:
            return cost, current
        cost, current = float(costs[best]), swaps[best]


def missing_classes(
    pixels: Mapping[str, Mapping[str, Sequence[int]]], classes: Mapping[str, Sequence[str]]
) -> list[dict[str, str]]:
    """List the classes that a split lacks.

    Args:
        pixels: Labelled pixels per split, label and class.
        classes: Class names per label.

    Returns:
        ``{"split", "label", "class"}`` for each that has no pixel.
    """
    return [
        {"split": split, "label": label, "class": name}
        for split in SPLITS
        for label, names in classes.items()
        for name, count in zip(names, pixels[split][label], strict=True)
        if count == 0
    ]
