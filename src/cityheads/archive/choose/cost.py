"""What a Sentinel-2 pass costs over a parent: cloud, missing ground and distance from the target date, in points."""

from __future__ import annotations

from datetime import datetime

from cityheads.archive.choose.passes import Pass
from cityheads.config import OpticalConfig
from cityheads.core.artifacts.scenes import ChoiceCost

__all__ = ["cost_of", "day_points", "days_between", "told"]


def days_between(one: datetime, other: datetime) -> float:
    """Give the distance of two times in days."""
    return abs((one - other).total_seconds()) / 86400


def day_points(when: datetime, rule: OpticalConfig) -> float:
    """Give what the date alone costs: no pass of that date costs less."""
    return round(rule.cost.points_per_day * days_between(when, rule.target_time), 3)


def cost_of(one: Pass, rule: OpticalConfig) -> ChoiceCost:
    """Give the cost of a measured pass.

    Without a scene classification the tile-wide cloud cover of its items stands in for the parent's; where they have
    none either, cloud is unknown and costs nothing.
    """
    cloud: float | None = None
    if one.clear is not None:
        cloud = 100 * one.valid * (1 - one.clear)
    else:
        known = [item.properties.get("eo:cloud_cover") for item in one.items]
        covers = [float(cover) for cover in known if cover is not None]
        if covers:
            cloud = one.valid * sum(covers) / len(covers)
    missing = 100 * (1 - one.valid)
    weights = rule.cost
    cloud_points = round(weights.points_per_cloud_percent * (cloud or 0.0), 3)
    missing_points = round(weights.points_per_missing_percent * missing, 3)
    return {
        "points": round(cloud_points + missing_points + day_points(one.when, rule), 3),
        "cloud_percent": None if cloud is None else round(cloud, 3),
        "missing_percent": round(missing, 3),
        "days": round(days_between(one.when, rule.target_time), 3),
        "cloud_points": cloud_points,
        "missing_points": missing_points,
        "day_points": day_points(one.when, rule),
    }


def told(cost: ChoiceCost, target: datetime) -> str:
    """Tell a cost in words."""
    cloud = "cloud unknown" if cost["cloud_percent"] is None else f"{cost['cloud_percent']:.1f} % cloud"
    return (
        f"{cost['points']:.1f} points ({cloud}, {cost['missing_percent']:.1f} % missing, {cost['days']:.0f} days from "
        f"{target:%Y-%m-%d})"
    )
