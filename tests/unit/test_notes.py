"""What the card and an answer say about a modality that was not acquired but made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import product_fixtures
from pyproj import Transformer
from scene_fixtures import chosen_item, chosen_layer, scene_choice

from cityheads.config import SynthesisConfig, load_config
from cityheads.core.files import read_json, write_json
from cityheads.core.grid import Parent
from cityheads.product.city_map import CityMap
from cityheads.product.notes import synthesized_notes, year_notes
from cityheads.product.publish import publish

SYNTHESIS = SynthesisConfig(backbone="terramind_v1_base_generate", pretrained=True)
CHIPS = {"train": 30, "val": 10, "test": 20}


def statistics(**counts: int) -> Any:
    return {"chips": CHIPS, "synthesized": {"S1RTC": dict.fromkeys(CHIPS, 0) | counts}}


def test_labels_of_another_year_are_told_of() -> None:
    parents = [Parent(name, 32618, 587000.0, 4512000.0) for name in ("P1", "P2")]
    world = chosen_item("w", datetime=None, properties={"start_datetime": "2021-01-01T00:00:00Z"})
    choices = [
        scene_choice(parent, {"S2L2A": chosen_layer([chosen_item("s", datetime=time)]), "LULC": chosen_layer([world])})
        for parent, time in zip(parents, ("2024-07-10T15:50:00Z", "2021-07-10T15:50:00Z"), strict=True)
    ]
    (note,) = year_notes(choices, ["LULC", "BUILDINGS"])
    assert note.startswith("The labels of LULC are of 2021, the images of 2024 (in 1 of 2 parents)")
    assert year_notes(choices[1:], ["LULC"]) == []


def test_a_sentence_counts_and_names_the_maker() -> None:
    assert synthesized_notes(statistics(), SYNTHESIS) == []
    (note,) = synthesized_notes(statistics(train=4, test=8), SYNTHESIS)
    assert note == (
        "S1RTC of 12 of 60 sub-chips (4 of 30 in train, 8 of 20 in test) was not acquired: it was generated from the "
        "other modalities by terramind_v1_base_generate."
    )
    untrained = SYNTHESIS.model_copy(update={"pretrained": False})
    (note,) = synthesized_notes(statistics(test=8), untrained)
    assert "by an untrained generator, so that they are noise" in note
    (note,) = synthesized_notes(statistics(test=8), untrained.model_copy(update={"weights": "g.pt"}))
    assert "untrained" not in note


def test_the_card_and_the_answer_say_it(tmp_path: Path) -> None:
    fake = product_fixtures.make(tmp_path / "fake")
    local = {"weights": "/home/someone/generator.pt", "tokenizer_weights": "/home/someone/tokenizer.pt"}
    fake.change(archive={"synthesis": local})
    parents = [parent.parent_id for parent in product_fixtures.sheet(fake)]
    path = fake.results / "scenes" / f"{parents[0]}.json"
    scenes = read_json(path)
    scenes["layers"]["S1RTC"] |= {"items": [], "synthesized": True}
    write_json(path, scenes)
    path = fake.results / "dataset" / "0" / "statistics.json"
    found = read_json(path)
    write_json(path, found | {"synthesized": {"S1RTC": dict.fromkeys(found["chips"], 0) | {"train": 1}}})
    bundle = tmp_path / "bundle"
    publish(fake.settings("publish"), parents=fake.parents, results=fake.results, out=bundle)
    card = (bundle / "card.md").read_text()
    assert f"- S1RTC of 1 of {sum(found['chips'].values())} sub-chips" in card.split("## Limitations")[1]
    made = load_config(bundle / "recipe.yaml").archive.synthesis
    assert (made.weights, made.tokenizer_weights) == ("generator.pt", "tokenizer.pt")
    city = CityMap(bundle, fake.results)
    for index, parent in enumerate(product_fixtures.sheet(fake)):
        back = Transformer.from_crs(parent.epsg, 4326, always_xy=True)
        lon, lat = back.transform(parent.left + 300, parent.top - 300)
        caveats = city.at(lat, lon)["caveats"]
        assert any("S1RTC was not acquired here" in caveat for caveat in caveats) == (index == 0)
