"""What the card and an answer say about a modality that was not acquired but made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import product_fixtures
from pyproj import Transformer

from cityheads.config.bridge import load_config, pick
from cityheads.core.files import read_json, write_json
from cityheads.product.notes import synthesized_notes
from cityheads.product.predict import CityMap
from cityheads.product.publish import publish
from cityheads.verbs import VERBS

SYNTHESIS: dict[str, Any] = {"backbone": "terramind_v1_base_generate", "pretrained": True, "weights": None}
CHIPS = {"train": 30, "val": 10, "test": 20}


def statistics(**counts: int) -> dict[str, Any]:
    return {"chips": CHIPS, "synthesized": {"S1RTC": dict.fromkeys(CHIPS, 0) | counts}}


def test_a_sentence_counts_and_names_the_maker() -> None:
    assert synthesized_notes(statistics(), SYNTHESIS) == []
    assert synthesized_notes({"chips": CHIPS}, SYNTHESIS) == [], "a dataset of before"
    (note,) = synthesized_notes(statistics(train=4, test=8), SYNTHESIS)
    assert note == (
        "S1RTC of 12 of 60 sub-chips (4 of 30 in train, 8 of 20 in test) was not acquired: it was made of the other "
        "modalities by terramind_v1_base_generate."
    )
    (note,) = synthesized_notes(statistics(test=8), SYNTHESIS | {"pretrained": False})
    assert "by an untrained generator, so that they are noise" in note
    (note,) = synthesized_notes(statistics(test=8), SYNTHESIS | {"pretrained": False, "weights": "g.pt"})
    assert "untrained" not in note


def test_the_card_and_the_answer_say_it(tmp_path: Path) -> None:
    fake = product_fixtures.make(tmp_path / "fake")
    fake.config["archive"]["synthesis"] |= {
        "weights": "/home/someone/generator.pt",
        "tokenizer_weights": "/home/someone/tokenizer.pt",
    }
    parents = [parent.parent_id for parent in product_fixtures.sheet(fake)]
    path = fake.results / "scenes" / f"{parents[0]}.json"
    scenes = read_json(path)
    scenes["layers"]["S1RTC"] |= {"items": [], "synthesized": True}
    write_json(path, scenes)
    path = fake.results / "dataset" / "statistics.json"
    found = read_json(path)
    write_json(path, found | {"synthesized": {"S1RTC": dict.fromkeys(found["chips"], 0) | {"train": 1}}})
    bundle = tmp_path / "bundle"
    publish(pick(fake.config, VERBS["publish"].sections), parents=fake.parents, results=fake.results, out=bundle)
    card = (bundle / "card.md").read_text()
    assert f"- S1RTC of 1 of {sum(found['chips'].values())} sub-chips" in card.split("## Limitations")[1]
    made = load_config(bundle / "recipe.yaml")["archive"]["synthesis"]
    assert (made["weights"], made["tokenizer_weights"]) == ("generator.pt", "tokenizer.pt")
    city = CityMap(bundle, fake.results / "dataset")
    for index, parent in enumerate(product_fixtures.sheet(fake)):
        back = Transformer.from_crs(parent.epsg, 4326, always_xy=True)
        lon, lat = back.transform(parent.left + 300, parent.top - 300)
        caveats = city.at(lat, lon)["caveats"]
        assert any("S1RTC was not acquired here" in caveat for caveat in caveats) == (index == 0)
