"""The picture of when each parent was seen."""

from __future__ import annotations

from scene_fixtures import chosen_item, chosen_layer, scene_choice

from cityheads.core.artifacts.agreement import Agreement
from cityheads.core.artifacts.scenes import SceneChoice
from cityheads.core.grid import Parent
from cityheads.product.report.seen import seen


def choice(name: str, optical: str, radar: str | None) -> SceneChoice:
    layers = {"S2L2A": chosen_layer([chosen_item("A", datetime=f"{optical}T00:00:00Z")])}
    layers["S1RTC"] = chosen_layer(
        [] if radar is None else [chosen_item("B", datetime=f"{radar}T00:00:00Z")], synthesized=radar is None
    )
    layers["DEM"] = chosen_layer([chosen_item("C", datetime="2010-01-01T00:00:00Z")])
    return scene_choice(Parent(name, 32618, 0.0, 0.0), layers)


def test_scenes_lie_on_their_parents_line_at_their_date() -> None:
    choices = {"P1": choice("P1", "2024-07-11", "2024-07-01"), "P2": choice("P2", "2024-07-21", None)}
    made = seen(choices, None)
    assert [(mark.x, mark.y, mark.kind) for mark in made.marks] == [
        (150.0, 8.0, "optical"), (0.0, 8.0, "radar"), (300.0, 24.0, "optical"),
    ]  # fmt: skip
    assert made.marks[0].title == "P1: S2L2A, 2024-07-11"
    assert made.ticks == [(0.0, "2024-07-01"), (150.0, "2024-07-11"), (300.0, "2024-07-21")]
    assert made.window is None
    assert "Sentinel-2 within 10 days." in made.alt


def test_the_window_is_shaded_and_stretches_the_dates() -> None:
    agreement: Agreement = {
        "parents": ["P1"],
        "window": {"start": "2024-07-11T00:00:00+00:00", "end": "2024-07-31T00:00:00+00:00", "parents": 1},
        "orbits": {},
    }
    made = seen({"P1": choice("P1", "2024-07-11", "2024-07-01")}, agreement)
    assert made.window == (100.0, 200.0)
    assert made.marks[0].x == 100.0


def test_one_day_alone_is_drawn() -> None:
    assert [mark.x for mark in seen({"P1": choice("P1", "2024-07-11", None)}, None).marks] == [0.0]
