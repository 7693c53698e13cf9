"""What is made from the config's classes: the page of keys and the JSON schema for editors."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_fixtures import MINIMAL
from jsonschema import Draft7Validator

from cityheads.config import Config, load_config
from cityheads.config.base import Section
from cityheads.config.document import document, json_schema
from cityheads.config.problems import unwrap
from cityheads.core.errors import CityHeadsError

CONFIGS = [
    *(f"config/{name}.yaml" for name in ("config", "terramesh", "nyc", "nyc-lite", "nyc-earth-search")),
    "tests/e2e/tiny.yaml",
]


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = json.loads(json_schema())
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def test_the_files_are_what_the_classes_say(repository: Path) -> None:
    mend = "run: cityheads document_config --out docs/configuration.md --schema workflow/schemas/config.schema.json"
    assert (repository / "docs/configuration.md").read_text() == document(), mend
    assert (repository / "workflow/schemas/config.schema.json").read_text() == json_schema(), mend


@pytest.mark.parametrize("name", CONFIGS)
def test_the_schema_takes_every_config_of_the_repository(
    repository: Path, validator: Draft7Validator, name: str
) -> None:
    path = repository / name
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == repository / "workflow/schemas/config.schema.json"
    assert not list(validator.iter_errors(yaml.safe_load(path.read_text())))
    assert not list(validator.iter_errors(load_config(path).to_dict())), "resolved, too"


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "trian", {}),
        (("train",), "epocs", 3),
        (("train",), "epochs", 0),
        (("train",), "lr", "fast"),
        (("archive", "imagery"), "S3", {}),
        (("archive", "imagery"), "S2L2A", None),
        (("labels",), "lulc", {"kind": "landcover"}),
        (("labels", "LULC"), "source", "x"),
        (("labels", "LULC", "classes", 0), "color", "red"),
        (("heads", "lulc"), "metric", "accuracy"),
        (("runs", "lulc"), "heads", ["lulc", "lulc"]),
        (("quality",), "s1_median_db", [1]),
    ],
)
def test_the_schema_refuses_what_the_classes_refuse(
    validator: Draft7Validator, place: tuple[Any, ...], key: str, value: Any
) -> None:
    raw = copy.deepcopy(MINIMAL)
    at: Any = raw
    for part in place:
        at = at[part] if isinstance(part, int) else at.setdefault(part, {})
    at[key] = value
    assert list(validator.iter_errors(raw))
    with pytest.raises((ValueError, CityHeadsError)):
        Config.model_validate(raw)


def sections(annotation: Any = Config) -> Iterator[type[Section]]:
    for kind in unwrap(annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            yield kind
            for info in kind.model_fields.values():
                yield from sections(info.annotation)
        else:
            for inner in getattr(kind, "__args__", ()):
                yield from sections(inner)


def test_every_key_is_described_and_every_section_is_closed() -> None:
    found = set(sections())
    assert len(found) > 25
    for kind in found:
        assert kind.model_config["extra"] == "forbid"
        assert kind.model_config["frozen"]
        assert (kind.__doc__ or "").strip().endswith(".")
        for name, info in kind.model_fields.items():
            assert (info.description or "").endswith("."), f"{kind.__name__}.{name} has no description (a sentence)"
            assert (info.description or "")[0].isupper() or name in ("provider", "method", "augment"), name


def test_the_schema_describes_every_key_with_its_default(validator: Draft7Validator) -> None:
    for kind in set(sections()):
        rule = (
            validator.schema if kind is Config else validator.schema["definitions"][kind.__name__]  # type: ignore[index]
        )
        if kind.__name__ in ("LabelClass", "RadarConfig"):
            continue
        for name, info in kind.model_fields.items():
            made = rule["properties"][name]
            assert "$ref" in made or made["description"] == info.description
            assert info.is_required() or "default" in made or kind.__name__ == "ImageryConfig", name
