"""What the choices of all parents keep to: one window of dates for Sentinel-2, one relative orbit for Sentinel-1.

Squares of one city that were seen weeks apart differ by season, and under another orbit roofs and slopes lean the other
way: a model can learn such differences between parents in place of the ground's. So one look over all parents comes
before the choice of each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import shapely

from cityheads.archive.catalogues.open import open_catalog
from cityheads.archive.choose.cost import cost_of, days_between
from cityheads.archive.choose.passes import Pass, group_by_pass
from cityheads.archive.choose.search import Search
from cityheads.archive.choose.sentinel1 import FULL_COVER, candidates, orbit_of, s1_pass
from cityheads.archive.choose.sentinel2 import measured_passes
from cityheads.config import Config, OpticalConfig, RadarConfig, TogetherConfig
from cityheads.core.artifacts.agreement import AGREEMENT, AgreedOrbit, AgreedWindow
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import read_parents

__all__ = ["agree_orbit", "agree_scenes", "agree_window"]

log = logging.getLogger(__name__)

#: Of each parent, when it was seen and what that costs.
Seen = Mapping[str, Sequence[tuple[datetime, float]]]


def agree_scenes(config: Config, *, parents: Path, out: Path, catalog: str | None = None) -> None:
    """Look over the scenes of all parents, and write down what their choices shall have in common.

    Args:
        config: Read are the sections ``grid`` and ``archive``.
        parents: Parent sheet.
        out: ``agreement.json``.
        catalog: As for ``select_scenes``.

    Raises:
        CityHeadsError: A collection that is not there, a search that fails.
    """
    archive = config.archive
    together, imagery = archive.together, archive.imagery
    location = catalog or archive.catalog
    if location is None:
        raise CityHeadsError("config key 'archive.catalog': the simulated archive's is to be named with --catalog")
    source = open_catalog(location, archive)
    rows = read_parents(parents, config.grid.grid)
    searches = {row.parent_id: Search.of(archive, row, config.grid.grid, source) for row in rows}
    seen = {}
    for name, search in searches.items():
        passes = measured_passes(search, imagery.s2)
        seen[name] = [(one.when, cost_of(one, imagery.s2)["points"]) for one in passes]
        log.info("%s: %d overflight(s) of Sentinel-2", name, len(passes))
    window = agree_window(seen, imagery.s2, together)
    orbits: dict[str, AgreedOrbit] = {}
    if together.relative_orbit:
        for layer, rule in imagery.radar.items():
            if rule.collection is None:
                continue
            near = {}
            for name, search in searches.items():
                when = _taken(seen[name], window, together)
                if when is not None:
                    near[name] = [(one, days_between(one.when, when)) for one in _covering(search, layer, rule, when)]
            agreed = agree_orbit(near, rule)
            if agreed is not None:
                orbits[layer] = agreed
    AGREEMENT.write(out, {"parents": list(searches), "window": window, "orbits": orbits})
    dates = f"{window['start'][:10]} to {window['end'][:10]}, {window['parents']} parents" if window else "no window"
    told = [f"{layer} orbit {one['relative_orbit']}, {one['parents']} parents" for layer, one in orbits.items()]
    log.info("%s: %s of %d", out, "; ".join([dates, *told]), len(rows))


def agree_window(seen: Seen, rule: OpticalConfig, together: TogetherConfig) -> AgreedWindow | None:
    """Find the window in which most parents find a scene that is good enough, at the least cost in all.

    A window begins with an overflight. Of equals the one nearest to the target date is taken, then the earliest.

    Args:
        seen: Usable overflights of each parent.
        rule: Gives the target date.
        together: Length of the window, and the points that a parent may lose by it.
    """
    if together.window_days is None:
        return None
    length = timedelta(days=together.window_days)
    starts = sorted({when for passes in seen.values() for when, _ in passes})
    ranked = []
    for start in starts:
        taken = []
        for passes in seen.values():
            inside = [points for when, points in passes if start <= when <= start + length]
            own = min((points for _, points in passes), default=0.0)
            if inside and min(inside) <= own + together.tolerance_points:
                taken.append(min(inside))
        distance = days_between(start + length / 2, rule.target_time)
        ranked.append((-len(taken), round(sum(taken), 3), round(distance, 3), start))
    # one alone shares it with nobody
    if not ranked or -min(ranked)[0] < min(2, len(seen)):
        return None
    count, _, _, start = min(ranked)
    return {"start": start.isoformat(), "end": (start + length).isoformat(), "parents": -count}


def agree_orbit(near: Mapping[str, Sequence[tuple[Pass, float]]], rule: RadarConfig) -> AgreedOrbit | None:
    """Find the relative orbit that covers most parents, of the preferred direction first, of equals the nearest.

    Args:
        near: Of each parent, the overflights that cover it near its Sentinel-2 scene, and their distance in days.
        rule: Gives the preferred direction.
    """
    days: dict[tuple[int, str | None], dict[str, float]] = {}
    for name, passes in near.items():
        for one, distance in passes:
            number, state = orbit_of(one)
            if number is not None:
                known = days.setdefault((number, state), {})
                known[name] = min(distance, known.get(name, distance))
    if not days:
        return None

    def order(orbit: tuple[int, str | None]) -> tuple[bool, int, float, int]:
        covered = days[orbit]
        return rule.orbit not in ("any", orbit[1]), -len(covered), round(sum(covered.values()), 3), orbit[0]

    best = min(days, key=order)
    return {"relative_orbit": best[0], "orbit_state": best[1], "parents": len(days[best])}


def _taken(
    passes: Sequence[tuple[datetime, float]], window: AgreedWindow | None, together: TogetherConfig
) -> datetime | None:
    """Give when the overflight was that a parent will take; None where it has none."""
    if not passes:
        return None
    best = min(passes, key=lambda one: one[1])
    if window is not None:
        start, end = (datetime.fromisoformat(window[key]) for key in ("start", "end"))
        inside = min((one for one in passes if start <= one[0] <= end), key=lambda one: one[1], default=None)
        if inside is not None and inside[1] <= best[1] + together.tolerance_points:
            return inside[0]
    return best[0]


def _covering(search: Search, layer: str, rule: RadarConfig, when: datetime) -> list[Pass]:
    """Give the overflights near a time whose footprints cover the parent; its pixels the choice will look at."""
    _, kept, _ = candidates(search, layer, rule, when)
    found = []
    for one in group_by_pass(kept, s1_pass):
        union = shapely.union_all([item.footprint for item in one.members])
        if union.intersection(search.polygon).area >= FULL_COVER * search.polygon.area:
            found.append(one)
    return found
