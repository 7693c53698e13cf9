"""What the data are: parents and their splits, the account of every sub-chip, the footprints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cityheads.config import Config, FootprintsLabel
from cityheads.core.artifacts.footprints import FOOTPRINTS_SUMMARY, FootprintsSummary
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import SPLITS
from cityheads.core.text import number
from cityheads.product.report.tables import Column, Table, count, words
from cityheads.product.results import Results

__all__ = [
    "Account",
    "Bar",
    "Facts",
    "Footprints",
    "Split",
    "account",
    "balance",
    "dropped_table",
    "facts",
    "footprints",
    "gap",
    "parents",
    "split_table",
    "splits",
]


@dataclass(frozen=True)
class Facts:
    """The numbers that stand under the headline and in running text."""

    parents: int
    chips: int
    kept: int
    test_chips: int
    seeds: Sequence[int]
    side_km: float
    per_parent: int
    method: str

    @property
    def method_text(self) -> str:
        """How the splits were assigned, as a sentence says it."""
        known = {"sheet": "as the parent sheet says", "search": "by a seeded search for equal class shares"}
        return known.get(self.method, self.method)


def parents(results: Results) -> list[str]:
    """Give the ids of the parents, in the order of the chip table."""
    return list(dict.fromkeys(row["parent_id"] for row in results.chips))


def facts(config: Config, results: Results) -> Facts:
    """Count what there is."""
    return Facts(
        parents=len(parents(results)),
        chips=len(results.chips),
        kept=sum(row["kept"] for row in results.chips),
        test_chips=results.statistics["chips"]["test"],
        seeds=results.seeds,
        side_km=config.grid.grid.side_m / 1000,
        per_parent=config.grid.chips_per_side**2,
        method=results.splits["method"],
    )


def gap(results: Results) -> str | None:
    """Say how far the test ground is from the training ground; None where that was not measured."""
    found = results.splits["gap_to_training"]
    if found is None:
        return None
    tested, touching = results.statistics["chips"]["test"], found["touching"]
    touch = (
        f"{touching:,} of the {tested:,} test sub-chips touch training ground"
        if touching
        else "no test sub-chip touches training ground"
    )
    return (
        f"From a test sub-chip to the nearest training sub-chip it is {number(found['nearest_m'], 0)} m at least and "
        f"{number(found['median_m'], 0)} m in the median; {touch} (splits.buffer_m is {results.splits['buffer_m']:g})."
    )


@dataclass(frozen=True)
class Split:
    """One split: its parents, and how many sub-chips of them were kept."""

    name: str
    parents: Sequence[str]
    chips: int


def splits(results: Results) -> list[Split]:
    """Give train, val and test."""
    of = results.splits["parents"]
    return [
        Split(split, [parent for parent in parents(results) if of[parent] == split], results.statistics["chips"][split])
        for split in SPLITS
    ]


@dataclass(frozen=True)
class Dropped:
    """Sub-chips that were dropped for one reason: how many, how many of each split, of which parents."""

    reason: str
    count: int
    splits: dict[str, int]
    parents: Sequence[str]


@dataclass(frozen=True)
class Account:
    """Every sub-chip: kept, or dropped with the reason."""

    total: int
    kept: int
    rows: Sequence[Dropped]

    @property
    def dropped(self) -> int:
        """Number of dropped sub-chips."""
        return self.total - self.kept


def account(results: Results) -> Account:
    """Account for every sub-chip.

    Raises:
        CityHeadsError: The numbers of the chip table and of the statistics do not agree.
    """
    chips, dropped = results.chips, results.statistics["dropped"]
    kept = sum(row["kept"] for row in chips)
    if kept + sum(dropped.values()) != len(chips):
        raise CityHeadsError(
            f"{results.dataset.statistics}: {sum(dropped.values())} dropped sub-chips, but "
            f"{results.dataset.chips.name} has {len(chips) - kept}; assemble the dataset again"
        )
    rows = []
    for reason in sorted(dropped, key=lambda name: (-dropped[name], name)):
        of = [row for row in chips if row["reason"] == reason]
        rows.append(
            Dropped(
                reason=reason,
                count=dropped[reason],
                splits={split: sum(row["split"] == split for row in of) for split in SPLITS},
                parents=list(dict.fromkeys(row["parent_id"] for row in of)),
            )
        )
    return Account(len(chips), kept, rows)


def split_table(results: Results) -> Table:
    """Give the splits as a table."""
    rows = [
        [words(one.name), count(len(one.parents)), count(one.chips), words(", ".join(one.parents))]
        for one in splits(results)
    ]
    columns = [Column("split", number=False), Column("parents"), Column("sub-chips"), Column("which", number=False)]
    return Table("splits", "Splits of the first fold." if len(results.folds) > 1 else "Splits.", columns, rows)


def dropped_table(found: Account) -> Table | None:
    """Give the dropped sub-chips by reason; None where none was dropped."""
    rows = [
        [words(one.reason), count(one.count), *(count(n) for n in one.splits.values()), words(", ".join(one.parents))]
        for one in found.rows
    ]
    columns = [
        Column("reason", number=False), Column("sub-chips"), *(Column(split) for split in SPLITS),
        Column("parents", number=False),
    ]  # fmt: skip
    return Table("dropped", "Dropped sub-chips by reason.", columns, rows) if rows else None


@dataclass(frozen=True)
class Bar:
    """Class shares of one split of one label: name, colour, width in percent, text."""

    split: str
    parts: Sequence[tuple[str, str | None, float, str]]


def balance(config: Config, results: Results) -> dict[str, list[Bar]]:
    """Give the class shares per label and split."""
    found: dict[str, list[Bar]] = {}
    for label in results.classes:
        looks = [(item.name, item.color) for item in config.labels[label].classes]
        named: list[tuple[str, str | None]] = [*looks, ("ignored", None)]
        for split in SPLITS:
            counts = results.statistics["class_pixels"][split][label]
            total = sum(counts)
            shares = [pixels / total if total else 0.0 for pixels in counts]
            found.setdefault(label, []).append(
                Bar(
                    split,
                    [
                        (name, color, round(100 * part, 3), f"{number(100 * part)} %")
                        for (name, color), part in zip(named, shares, strict=True)
                    ],
                )
            )
    return found


@dataclass(frozen=True)
class Footprints:
    """The footprints behind a label: its settings, what became of the rows, dropped rows by reason in words."""

    label: str
    options: FootprintsLabel
    summary: FootprintsSummary
    dropped: dict[str, int]


#: Reasons for which a footprint is left out, where the key does not say enough.
_DROPPED = {"ground": "coded as ground", "elsewhere": "far from all parents"}


def footprints(config: Config, results: Results) -> list[Footprints]:
    """Say for each footprints label what was kept, repaired and dropped."""
    found = []
    for label, options in config.labels.items():
        if isinstance(options, FootprintsLabel):
            summary = FOOTPRINTS_SUMMARY.read(results.layout.label(label).summary)
            dropped = {
                _DROPPED.get(reason, reason.replace("_", " ")): count
                for reason, count in summary["dropped"].items()
                if count
            }
            found.append(Footprints(label, options, summary, dropped))
    return found
