"""Spatial block split: whole parents go to train, val or test, so that every split holds every class in its share.

Sub-chips of one parent are neighbours and look alike: splitting them apart would leak. The parent is the unit here, and
the unit of the bootstrap in the evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

from cityheads.config import FractionsConfig, SplitsConfig
from cityheads.config.inputs import asked_of, check_splits
from cityheads.core.artifacts.splits import MissingClass, ParentAssignment
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import canonical_json, sha256_bytes
from cityheads.core.grid import SPLITS, Grid, Parent, Split, parent_polygon

__all__ = [
    "Gap",
    "Splits",
    "check_lock",
    "gap_to_training",
    "lock_of",
    "missing_classes",
    "near_held_out",
    "seek_assignment",
    "split_sizes",
    "splits_of",
    "squares_hash",
]

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


def seek_assignment(
    parents: Sequence[Parent], counts: Mapping[str, np.ndarray], splitting: SplitsConfig
) -> ParentAssignment:
    """Seek who is tested when; the order of the parents does not matter.

    Method ``search`` takes the sheet's split column where there is one. Else the assignment is sought whose splits hold
    every class and whose share of each class's pixels (and of all pixels) is nearest to the wanted fractions: thousands
    of random assignments, then pairwise swaps from the best few until none helps. Method ``folds`` seeks equal groups
    in the same way. Method ``region`` makes one region the test split and seeks train and val among the others.

    Args:
        parents: Parents of the sheet.
        counts: Labelled pixels per parent and class, (P, n_classes) per label.
        splitting: The config's ``splits`` section.

    Raises:
        CityHeadsError: Too few parents, a sheet that leaves a split empty, or no such region.
    """
    check_splits(parents, splitting)
    order = sorted(range(len(parents)), key=lambda index: parents[index].parent_id)
    parents = [parents[index] for index in order]
    shares = _shares({label: np.asarray(of)[order] for label, of in counts.items()})
    rng = np.random.default_rng(splitting.seed)
    ids = [parent.parent_id for parent in parents]
    if splitting.method == "folds":
        groups = _search(np.arange(len(parents)) % splitting.folds, shares, rng).tolist()
        return _assignment("folds", parents, splitting, {}, dict(zip(ids, groups, strict=True)))
    given = {parent.parent_id: parent.split for parent in parents if parent.split}
    if splitting.method == "search" and len(given) == len(parents):
        return _assignment("sheet", parents, splitting, given)
    if splitting.method == "region":
        assigned = _leave_out(parents, shares, splitting, rng)
        return _assignment(f"region {splitting.region} left out", parents, splitting, assigned)
    sizes = split_sizes(len(parents), splitting.fractions)
    groups = _search(np.repeat(np.arange(len(SPLITS)), [sizes[name] for name in SPLITS]), shares, rng)
    found = {identifier: SPLITS[group] for identifier, group in zip(ids, groups, strict=True)}
    return _assignment("search", parents, splitting, found)


def _assignment(
    method: str,
    sheet: Sequence[Parent],
    splitting: SplitsConfig,
    parents: dict[str, Split],
    folds: Mapping[str, int] | None = None,
) -> ParentAssignment:
    tested = {name: 0 if split == "test" else None for name, split in parents.items()}
    return {
        "asked": asked_of(sheet, splitting),
        "method": method,
        "folds": splitting.folds if folds else 1,
        "seed": None if method == "sheet" else splitting.seed,
        "parents": parents,
        "tested_in": {**folds} if folds else tested,
    }


def _leave_out(
    parents: Sequence[Parent], shares: np.ndarray, splitting: SplitsConfig, rng: np.random.Generator
) -> dict[str, Split]:
    left = [index for index, parent in enumerate(parents) if parent.region != splitting.region]
    fractions = splitting.fractions
    val = min(len(left) - 1, max(1, round(len(left) * fractions.val / (fractions.train + fractions.val))))
    groups = _search(np.repeat([0, 1], [len(left) - val, val]), shares[left], rng)
    assigned: dict[str, Split] = {parent.parent_id: "test" for parent in parents}
    assigned |= {parents[index].parent_id: SPLITS[group] for index, group in zip(left, groups, strict=True)}
    return assigned


@dataclass(frozen=True)
class Splits:
    """Who is in which split of one fold.

    Attributes:
        method: ``sheet``, ``search``, ``fold K of N`` or ``region NAME left out``.
        parents: Split per parent id, in the order of the sheet.
        tested_in: Fold in which a parent is tested, likewise; None for one that is tested in no fold.
    """

    method: str
    parents: dict[str, Split]
    tested_in: dict[str, int | None]


def splits_of(assignment: ParentAssignment, parents: Sequence[Parent], fold: int) -> Splits:
    """Give the splits of one fold: group K is the test split of fold K, the next one its val, the others its train.

    Args:
        assignment: Who is tested when.
        parents: Parents in sheet order.
        fold: Number of the fold; without a cross-validation there is fold 0 only.

    Raises:
        CityHeadsError: There is no such fold, or the assignment is of other parents.
    """
    folds = assignment["folds"]
    if not 0 <= fold < folds:
        there = f"the folds 0 to {folds - 1}" if folds > 1 else "fold 0"
        raise CityHeadsError(f"no fold {fold}: method {assignment['method']} has {there}")
    ids = [parent.parent_id for parent in parents]
    if set(ids) != assignment["tested_in"].keys():
        raise CityHeadsError(
            "the splits are of other parents than the sheet's; seek them anew: snakemake --forcerun assign_splits"
        )
    tested_in = {name: assignment["tested_in"][name] for name in ids}
    if folds == 1:
        return Splits(assignment["method"], {name: assignment["parents"][name] for name in ids}, tested_in)
    names: dict[int | None, Split] = {fold: "test", (fold + 1) % folds: "val"}
    return Splits(
        f"fold {fold} of {folds}", {name: names.get(group, "train") for name, group in tested_in.items()}, tested_in
    )


def lock_of(
    parents: Sequence[Parent], grid: Grid, tested_in: Mapping[str, int | None], chips: Mapping[str, Mapping[str, str]]
) -> str:
    """Give a hash of what the test set is, whatever its parents are called and in whichever order they stand.

    Args:
        parents: All parents.
        grid: Size of parents and sub-chips.
        tested_in: Fold in which a parent is tested; None for one that is tested in no fold.
        chips: Per parent the kept sub-chips, by their place in it (``r0c1``): a hash of their label pixels.

    Returns:
        ``PLACES-PIXELS``: the tested squares with their folds, and their kept sub-chips and label pixels, 8 hexadecimal
        digits each.
    """
    tested = _tested(parents, tested_in)
    return f"{squares_hash(parents, grid, tested_in)}-{_hash([dict(chips[parent.parent_id]) for parent in tested])}"


def squares_hash(parents: Sequence[Parent], grid: Grid, tested_in: Mapping[str, int | None]) -> str:
    """Give the first half of a lock, which is known before any pixel is read."""
    size = [grid.resolution_m, grid.parent_px, grid.chips_per_side]
    places = [[one.epsg, one.left, one.top, tested_in[one.parent_id]] for one in _tested(parents, tested_in)]
    return _hash([size, places])


def _tested(parents: Sequence[Parent], tested_in: Mapping[str, int | None]) -> list[Parent]:
    """Give the parents that are tested in some fold, ordered by place."""
    return sorted(
        (parent for parent in parents if tested_in[parent.parent_id] is not None),
        key=lambda parent: (parent.epsg, parent.left, parent.top),
    )


def _hash(value: Any) -> str:
    return sha256_bytes(canonical_json(value).encode())[:8]


def check_lock(found: str, wanted: str | None) -> None:
    """Refuse a test set that is not the locked one.

    Raises:
        CityHeadsError: The hashes differ; the message says in what.
    """
    if wanted is None or wanted == found:
        return
    same = wanted.partition("-")[0] == found.partition("-")[0]
    what = "other sub-chips or label pixels of the same squares" if same else "other squares"
    raise CityHeadsError(
        f"config key 'splits.test_lock': the test set is {found}, not the locked {wanted}: {what}; scores of different "
        "test sets do not compare, so undo what changed it, or lock the new one"
    )


@dataclass(frozen=True)
class Gap:
    """How far the kept test sub-chips are from the nearest kept training sub-chip.

    Attributes:
        nearest_m: The least distance, in metres; 0 where two touch.
        median_m: The median over the test sub-chips.
        touching: Number of test sub-chips that touch training ground.
    """

    nearest_m: float
    median_m: float
    touching: int


def gap_to_training(boxes: Sequence[tuple[Parent, shapely.Geometry]], splits: Sequence[str]) -> Gap | None:
    """Measure the distance of the test ground from the training ground; None where either is empty.

    Args:
        boxes: Per kept sub-chip its parent and its square, in the parent's CRS.
        splits: Split per sub-chip.
    """
    found: list[float] = []
    for epsg in sorted({parent.epsg for parent, _ in boxes}):
        of = {
            split: [_in_crs(box, parent.epsg, epsg) for (parent, box), own in zip(boxes, splits, strict=True)
                    if own == split and (split == "train" or parent.epsg == epsg)]
            for split in ("train", "test")
        }  # fmt: skip
        if of["train"] and of["test"]:
            tree = shapely.STRtree(of["train"])
            found += tree.query_nearest(of["test"], return_distance=True, all_matches=False)[1].tolist()
    if not found:
        return None
    # less than a millimetre apart is the same edge, written with other digits
    return Gap(float(min(found)), float(np.median(found)), sum(distance < 1e-3 for distance in found))


def _in_crs(box: shapely.Geometry, own: int, epsg: int) -> shapely.Geometry:
    if own == epsg:
        return box
    from pyproj import Transformer

    to = Transformer.from_crs(own, epsg, always_xy=True)
    return shapely.transform(box, lambda xy: np.column_stack(to.transform(xy[:, 0], xy[:, 1])))


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
