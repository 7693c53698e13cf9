"""Spatial block split: whole parents go to train, val or test, so that every split holds every class in its share.

Sub-chips of one parent are neighbours and look alike: splitting them apart would leak. The parent is the unit here, and
the unit of the bootstrap in the evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from cityheads.config import FractionsConfig, SplitsConfig
from cityheads.core.artifacts.splits import MissingClass
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import canonical_json, sha256_bytes
from cityheads.core.grid import SPLITS, Grid, Parent, Split, parent_polygon

__all__ = ["Splits", "assign_splits", "check_lock", "lock_of", "missing_classes", "near_held_out", "split_sizes"]

log = logging.getLogger(__name__)

_STARTS = 4096
_DESCENTS = 16


def split_sizes(parents: int, fractions: FractionsConfig) -> dict[str, int]:
    """Turn fractions into whole numbers of parents (largest remainder), at least one parent a split.

    Raises:
        CityHeadsError: Fewer parents than splits.
    """
    if parents < len(SPLITS):
        raise CityHeadsError(f"{parents} parents cannot fill {len(SPLITS)} splits; add parents to the sheet")
    exact = {name: getattr(fractions, name) * parents for name in SPLITS}
    sizes: dict[str, int] = {name: max(1, int(exact[name])) for name in SPLITS}
    while sum(sizes.values()) < parents:
        sizes[max(SPLITS, key=lambda name: exact[name] - sizes[name])] += 1
    while sum(sizes.values()) > parents:
        sizes[max((name for name in SPLITS if sizes[name] > 1), key=lambda name: sizes[name] - exact[name])] -= 1
    return sizes


@dataclass(frozen=True)
class Splits:
    """Who is in which split of one fold.

    Attributes:
        method: ``sheet``, ``search``, ``fold K of N`` or ``region NAME left out``.
        parents: Split per parent id, in the order of the sheet.
        folds: Number of all folds, run or not; 1 for the methods without.
        tested_in: Fold in which a parent is tested, likewise; None for one that is tested in no fold.
        lock: Hash of who is tested.
    """

    method: str
    parents: dict[str, Split]
    folds: int
    tested_in: dict[str, int | None]
    lock: str


def assign_splits(
    parents: Sequence[Parent], counts: Mapping[str, np.ndarray], splitting: SplitsConfig, fold: int = 0
) -> Splits:
    """Assign every parent to a split.

    Method ``search`` takes the sheet's split column where there is one. Else the assignment is sought whose splits hold
    every class and whose share of each class's pixels (and of all pixels) is nearest to the wanted fractions: thousands
    of random assignments, then pairwise swaps from the best few until none helps. Method ``folds`` seeks equal groups
    in the same way: group K is the test split of fold K, the next one its val, the others its train. The groups are the
    same for all folds, whichever are run. Method ``region`` makes one region the test split and seeks train and val
    among the others.

    Args:
        parents: Parents in sheet order.
        counts: Labelled pixels per parent and class, (P, n_classes) per label.
        splitting: The config's ``splits`` section.
        fold: Number of the fold; methods ``search`` and ``region`` have fold 0 only.

    Raises:
        CityHeadsError: Too few parents, a sheet that leaves a split empty, or no such region or fold.
    """
    folds = splitting.folds if splitting.method == "folds" else 1
    if not 0 <= fold < folds:
        raise CityHeadsError(
            f"no fold {fold}: method {splitting.method} has {f'the folds 0 to {folds - 1}' if folds > 1 else 'fold 0'}"
        )
    if folds > 1:
        group = _groups(parents, counts, splitting)
        names: dict[int, Split] = {fold: "test", (fold + 1) % folds: "val"}
        assigned = {identifier: names.get(number, "train") for identifier, number in group.items()}
        return Splits(f"fold {fold} of {folds}", assigned, folds, {**group}, _lock_of_folds(parents, group))
    assigned, method = _one_split(parents, counts, splitting)
    tested_in = {identifier: 0 if split == "test" else None for identifier, split in assigned.items()}
    return Splits(method, assigned, 1, tested_in, lock_of(parents, assigned))


def _groups(parents: Sequence[Parent], counts: Mapping[str, np.ndarray], splitting: SplitsConfig) -> dict[str, int]:
    """Give the fold in which each parent is tested."""
    if len(parents) < splitting.folds:
        raise CityHeadsError(f"{len(parents)} parents cannot fill {splitting.folds} folds; lower splits.folds")
    rng = np.random.default_rng(splitting.seed)
    groups = _search(np.arange(len(parents)) % splitting.folds, _shares(counts), rng)
    return {parent.parent_id: int(group) for parent, group in zip(parents, groups, strict=True)}


def _one_split(
    parents: Sequence[Parent], counts: Mapping[str, np.ndarray], splitting: SplitsConfig
) -> tuple[dict[str, Split], str]:
    """Assign by the sheet, by search, or by region."""
    ids = [parent.parent_id for parent in parents]
    given = {parent.parent_id: parent.split for parent in parents if parent.split}
    if splitting.method == "search" and len(given) == len(parents):
        empty = [name for name in SPLITS if name not in given.values()]
        if empty:
            raise CityHeadsError(
                f"the parent sheet's split column leaves {empty[0]} empty; give it at least one parent"
            )
        return given, "sheet"
    shares = _shares(counts)
    rng = np.random.default_rng(splitting.seed)
    if splitting.method == "region":
        return _leave_out(parents, shares, splitting, rng), f"region {splitting.region} left out"
    sizes = split_sizes(len(parents), splitting.fractions)
    groups = _search(np.repeat(np.arange(len(SPLITS)), [sizes[name] for name in SPLITS]), shares, rng)
    return {identifier: SPLITS[group] for identifier, group in zip(ids, groups, strict=True)}, "search"


def _leave_out(
    parents: Sequence[Parent], shares: np.ndarray, splitting: SplitsConfig, rng: np.random.Generator
) -> dict[str, Split]:
    regions = sorted({parent.region for parent in parents if parent.region})
    if splitting.region not in regions:
        known = f"there are {', '.join(regions)}" if regions else "the parent sheet has no region column"
        raise CityHeadsError(f"config key 'splits.region': no region '{splitting.region}'; {known}")
    left = [index for index, parent in enumerate(parents) if parent.region != splitting.region]
    if len(left) < 2:
        raise CityHeadsError(f"leaving region '{splitting.region}' out leaves {len(left)} parents; two are needed")
    fractions = splitting.fractions
    val = min(len(left) - 1, max(1, round(len(left) * fractions.val / (fractions.train + fractions.val))))
    groups = _search(np.repeat([0, 1], [len(left) - val, val]), shares[left], rng)
    assigned: dict[str, Split] = {parent.parent_id: "test" for parent in parents}
    assigned |= {parents[index].parent_id: SPLITS[group] for index, group in zip(left, groups, strict=True)}
    return assigned


def lock_of(parents: Sequence[Parent], assigned: Mapping[str, str]) -> str:
    """Give a hash of the test parents: their ids and places, in any order."""
    return _hash((p.parent_id, p.epsg, p.left, p.top) for p in parents if assigned[p.parent_id] == "test")


def _lock_of_folds(parents: Sequence[Parent], group: Mapping[str, int]) -> str:
    """Give a hash of the whole partition: ids and places of all parents, each with the fold in which it is tested."""
    return _hash((p.parent_id, p.epsg, p.left, p.top, group[p.parent_id]) for p in parents)


def _hash(entries: Iterable[tuple[Any, ...]]) -> str:
    return sha256_bytes(canonical_json(sorted(entries)).encode())[:16]


def check_lock(found: str, wanted: str | None) -> None:
    """Refuse a test set that is not the locked one.

    Raises:
        CityHeadsError: The hashes differ.
    """
    if wanted is not None and wanted != found:
        raise CityHeadsError(
            f"config key 'splits.test_lock': the test set is {found}, not the locked {wanted}; scores of different "
            "test sets do not compare, so undo what changed it, or lock the new one"
        )


def near_held_out(
    boxes: Sequence[tuple[Parent, shapely.Geometry]],
    splits: Sequence[str],
    parents: Sequence[Parent],
    assigned: Mapping[str, str],
    grid: Grid,
    buffer_m: float,
) -> list[str | None]:
    """Say for each sub-chip which held-out split it comes too near to: val or test for train, test for val.

    Args:
        boxes: Per sub-chip its parent and its square, in the parent's CRS.
        splits: Split per sub-chip.
        parents: All parents.
        assigned: Split per parent id.
        grid: Size of the parents.
        buffer_m: Least distance in metres; 0 keeps all.

    Returns:
        Name of the split, or None for a sub-chip that may stay.
    """
    if buffer_m == 0:
        return [None] * len(boxes)
    held: dict[tuple[int, str], shapely.Geometry] = {}
    for epsg in {parent.epsg for parent, _ in boxes}:
        for split in ("val", "test"):
            squares = [parent_polygon(p, grid, epsg) for p in parents if assigned[p.parent_id] == split]
            held[epsg, split] = shapely.union_all(squares)
    found: list[str | None] = []
    for (parent, box), own in zip(boxes, splits, strict=True):
        others = SPLITS[SPLITS.index(own) + 1 :]
        near = [other for other in others if shapely.distance(box, held[parent.epsg, other]) < buffer_m]
        found.append(near[-1] if near else None)
    return found


def _shares(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Give per parent its share of each class's pixels and, last, of all labelled ones; absent classes are left out."""
    classes = np.concatenate([np.asarray(counts[label], float) for label in sorted(counts)], axis=1)
    present = classes[:, classes.sum(axis=0) > 0]
    labelled = np.concatenate([present, classes.sum(axis=1, keepdims=True)], axis=1)
    return np.asarray(labelled / np.maximum(labelled.sum(axis=0), 1))


def _search(base: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute group codes so that each group's share of everything is nearest to its share of the parents."""
    wanted = np.bincount(base) / len(base)
    starts = rng.permuted(np.tile(base, (_STARTS, 1)), axis=1)
    order = np.argsort(_costs(starts, shares, wanted), kind="stable")[:_DESCENTS]
    cost, best = min((_descend(starts[index], shares, wanted) for index in order), key=lambda found: found[0])
    log.info("groups of %s parents at cost %.4f", np.bincount(best).tolist(), cost)
    return best


def _costs(assignments: np.ndarray, shares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give the cost of assignments (M, P): relative share errors, plus a large price per class that a split lacks."""
    held = np.stack([(assignments == code) @ shares for code in range(len(wanted))], axis=1)
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
) -> list[MissingClass]:
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
