"""The config: read, completed with defaults and checked, before any job starts.

The schema in ``workflow/schemas/config.schema.yaml`` is the only list of keys, defaults and descriptions; what a JSON
schema cannot say (a head that names an unknown label, say) is checked here.
"""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import canonical_json, write_bytes
from cityheads.core.modalities import COORDS, MODALITIES, stored

__all__ = ["document", "document_config", "load_config", "pick", "resolve", "schema", "schema_path"]

#: Sub-chips must be whole patches: TerraMind cuts its input into 16 x 16 px tokens.
_PATCH_PX = 16


def schema_path() -> Path:
    """Find the schema: beside the package when installed, else in the checkout."""
    installed = Path(__file__).parents[1] / "schemas" / "config.schema.yaml"
    if installed.exists():
        return installed
    return Path(__file__).parents[3] / "workflow" / "schemas" / "config.schema.yaml"


@functools.cache
def schema() -> dict[str, Any]:
    """Read the schema."""
    loaded: dict[str, Any] = yaml.load(schema_path().read_text(), Loader=_Loader)
    return loaded


#: libyaml's loader where PyYAML was built with it, ten times faster than the Python one.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_config(path: Path) -> dict[str, Any]:
    """Read a config file, complete it with the defaults and check it.

    Raises:
        CityHeadsError: The file is missing or no YAML mapping, or the config is wrong; the message names the key.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(), Loader=_Loader)
    except FileNotFoundError:
        raise CityHeadsError(f"{path}: no such config file") from None
    except yaml.YAMLError as error:
        raise CityHeadsError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(raw, dict):
        raise CityHeadsError(f"{path}: a config is a mapping of keys to values")
    try:
        return resolve(raw)
    except CityHeadsError as error:
        raise CityHeadsError(f"{path}: {error}") from None


def resolve(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a config with the schema's defaults and check it; the argument is left as it is.

    Raises:
        CityHeadsError: A key is unknown, missing, of the wrong kind, or at odds with another.
    """
    from jsonschema import Draft202012Validator

    config = copy.deepcopy(dict(raw))
    errors = sorted(Draft202012Validator(schema()).iter_errors(config), key=lambda error: len(error.absolute_path))
    if errors:
        raise CityHeadsError(_explain(errors[0]))
    _fill(config, schema())
    _cross_check(config)
    return config


def pick(config: Mapping[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """Take the sections that one verb may depend on; ``labels.LULC`` takes a part of a section."""
    picked: dict[str, Any] = {}
    for section in sections:
        value: Any = config
        for key in section.split("."):
            value = value[key]
        picked[section] = value
    return picked


def _fill(value: Any, rule: Mapping[str, Any]) -> None:
    """Set missing keys of ``value`` to their defaults, in place and at every depth."""
    if isinstance(value, dict):
        for key, sub in rule.get("properties", {}).items():
            if key not in value and "default" in sub:
                value[key] = copy.deepcopy(sub["default"])
            if key in value:
                _fill(value[key], sub)
        extra = rule.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - rule.get("properties", {}).keys():
                _fill(value[key], extra)
    elif isinstance(value, list) and isinstance(rule.get("items"), dict):
        for item in value:
            _fill(item, rule["items"])


def _explain(error: Any) -> str:
    """Say in one line what a schema violation is and how to mend it."""
    where = ".".join(str(part) for part in error.absolute_path)
    here = f"config key '{where}'" if where else "config"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known))
        name = unknown[0]
        full = f"{where}.{name}" if where else name
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known here are {', '.join(known)}"
        return f"config key '{full}' is unknown; {hint}"
    if error.validator == "required":
        return f"{here}: {error.message}"
    if error.validator == "enum":
        return f"{here}: {error.instance!r} is none of {', '.join(map(str, error.validator_value))}"
    return f"{here}: {error.message}"


def _cross_check(config: dict[str, Any]) -> None:
    grid, labels, heads, runs, gate = (config[key] for key in ("grid", "labels", "heads", "runs", "gate"))
    step = grid["chips_per_side"] * _PATCH_PX
    if grid["parent_px"] % step:
        raise CityHeadsError(
            f"config key 'grid.parent_px': {grid['parent_px']} is not a multiple of {step} "
            f"(chips_per_side x {_PATCH_PX} px patches); sub-chips would not fit the encoder"
        )
    archive = config["archive"]
    if archive["provider"] == "stac" and not archive["catalog"]:
        raise CityHeadsError("config key 'archive.catalog': provider stac needs the URL or path of a catalogue")
    if archive["provider"] == "simulated" and archive["catalog"]:
        raise CityHeadsError("config key 'archive.catalog': the simulated provider makes its own; remove the key")
    if "S2L2A" not in archive["imagery"]:
        raise CityHeadsError("config key 'archive.imagery': S2L2A is needed; the other modalities are chosen around it")
    if archive["provider"] == "simulated" and "S1GRD" in archive["imagery"]:
        raise CityHeadsError("config key 'archive.imagery': the simulated archive has no S1GRD; remove it")
    for name, rule in archive["imagery"].items():
        if rule["collection"] is None and (rule["missing"] != "synthesize" or archive["provider"] == "simulated"):
            raise CityHeadsError(
                f"config key 'archive.imagery.{name}.collection': null means that the catalogue has none, so that "
                "missing must be synthesize; the simulated archive always has one"
            )
    synthesis = archive["synthesis"]
    if not synthesis["pretrained"] and bool(synthesis["weights"]) != bool(synthesis["tokenizer_weights"]):
        lacking = "tokenizer_weights" if synthesis["weights"] else "weights"
        raise CityHeadsError(f"config key 'archive.synthesis.{lacking}': name a file here too, or set pretrained")
    _check_model(config["model"], archive["imagery"])
    splits = config["splits"]
    if splits["fold"] >= splits["folds"]:
        raise CityHeadsError(
            f"config key 'splits.fold': {splits['fold']} is not below splits.folds ({splits['folds']})"
        )
    if splits["method"] == "region" and not splits["region"]:
        raise CityHeadsError("config key 'splits.region': name the region that method region leaves out")
    if abs(sum(config["splits"]["fractions"].values()) - 1) > 1e-6:
        raise CityHeadsError("config key 'splits.fractions': train, val and test must sum to 1")
    for name, label in labels.items():
        _check_label(f"labels.{name}", label, archive["provider"])
    for name, head in heads.items():
        if head["label"] not in labels:
            raise CityHeadsError(
                f"config key 'heads.{name}.label': no label '{head['label']}'; there are {', '.join(labels)}"
            )
    for name, run in runs.items():
        for head in run["heads"]:
            if head not in heads:
                raise CityHeadsError(f"config key 'runs.{name}.heads': no head '{head}'; there are {', '.join(heads)}")
    if gate["run"] not in runs:
        raise CityHeadsError(f"config key 'gate.run': no run '{gate['run']}'; there are {', '.join(runs)}")
    tested = runs[gate["run"]]["heads"]
    for head in gate["baselines"]:
        if head not in tested:
            raise CityHeadsError(f"config key 'gate.baselines.{head}': run '{gate['run']}' has no such head")
    for head in tested:
        baseline = gate["baselines"].setdefault(head, head)
        if baseline not in runs:
            raise CityHeadsError(f"config key 'gate.baselines.{head}': no run '{baseline}' to compare head {head} with")
        if runs[baseline]["heads"] != [head]:
            raise CityHeadsError(f"config key 'gate.baselines.{head}': run '{baseline}' is not single-task for {head}")


def _check_model(model: dict[str, Any], imagery: dict[str, Any]) -> None:
    if model["thinking"] is not None:
        if not model["backbone"].endswith("_tim"):
            raise CityHeadsError(
                f"config key 'model.thinking': {model['backbone']} does not think in modalities; take "
                "terramind_v1_*_tim, or null"
            )
        inputs = [name for name in model["thinking"]["modalities"] if name in model["modalities"]]
        if inputs:
            raise CityHeadsError(f"config key 'model.thinking.modalities': {inputs[0]} is an input already")
    chosen = model["modalities"]
    missing = [name for name in stored(chosen) if name not in imagery]
    if missing:
        raise CityHeadsError(f"config key 'model.modalities': {missing[0]} is not in archive.imagery")
    if chosen == [COORDS]:
        raise CityHeadsError("config key 'model.modalities': coords alone show nothing; name an image as well")
    for name, bands in model["bands"].items():
        if name not in chosen:
            raise CityHeadsError(f"config key 'model.bands.{name}': {name} is not in model.modalities")
        for band in bands:
            if band not in MODALITIES[name].bands:
                raise CityHeadsError(
                    f"config key 'model.bands.{name}': no band '{band}'; there are {', '.join(MODALITIES[name].bands)}"
                )
    if COORDS in chosen and model["weights"] and not model["coords_vocabulary"]:
        raise CityHeadsError(
            "config key 'model.coords_vocabulary': weights from a file that read coords need the file of their words"
        )


def _check_label(where: str, label: dict[str, Any], provider: str) -> None:
    names = [item["name"] for item in label["classes"]]
    if len(set(names)) != len(names):
        raise CityHeadsError(f"config key '{where}.classes': two classes share a name")
    if label["kind"] == "landcover":
        codes = [code for item in label["classes"] for code in item["codes"]] + label["ignore_codes"]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise CityHeadsError(f"config key '{where}': code {twice[0]} is mapped twice")
        for item in label["classes"]:
            if not item["codes"]:
                raise CityHeadsError(f"config key '{where}.classes': class '{item['name']}' has no codes")
    elif label["kind"] == "raster":
        if not label["source"]:
            raise CityHeadsError(f"config key '{where}.source': name the folder of the rasters")
        mapped = [code for number, item in enumerate(label["classes"]) for code in item["codes"] or [number]]
        twice = sorted({code for code in mapped if (mapped + label["ignore_codes"]).count(code) > 1})
        if twice:
            raise CityHeadsError(
                f"config key '{where}': code {twice[0]} is mapped twice; see classes and ignore_codes (default [0])"
            )
    elif label["kind"] == "vector":
        if not label["source"]:
            raise CityHeadsError(f"config key '{where}.source': name a vector file")
        values = [value for item in label["classes"] for value in item["values"]] + label["ignore_values"]
        twice_values = sorted({value for value in values if values.count(value) > 1})
        if twice_values:
            raise CityHeadsError(f"config key '{where}': value '{twice_values[0]}' is mapped twice")
        if label["attribute"] is None and (values or len(names) != 2):
            raise CityHeadsError(
                f"config key '{where}.attribute': name the column of the class, or list two classes without values, "
                "background first"
            )
        background = [item["name"] for item in label["classes"] if not item["values"]]
        if label["attribute"] is not None and len(background) > 1:
            raise CityHeadsError(f"config key '{where}.classes': only one class, the background, can be without values")
        if (label["attribute"] is None or background) and not label["boundary"]:
            raise CityHeadsError(
                f"config key '{where}.boundary': '{names[0] if label['attribute'] is None else background[0]}' is "
                "known inside a surveyed area only; name its vector file"
            )
    else:
        if len(names) != 2:
            raise CityHeadsError(f"config key '{where}.classes': footprints make two classes, background first")
        if provider != "simulated":
            for key in ("source", "boundary"):
                if not label[key]:
                    raise CityHeadsError(f"config key '{where}.{key}': name a vector file")


def document() -> str:
    """Write the schema as a Markdown page: every key with its default and description."""
    lines = [
        "# Configuration",
        "",
        "Every key that a config file may hold; `*` stands for a name of your own. Unknown keys are refused. This is",
        "`workflow/schemas/config.schema.yaml` as `cityheads document_config --out docs/configuration.md` writes it.",
        "",
    ]
    for name, rule in schema()["properties"].items():
        lines += [f"## {name}", "", rule["description"], ""]
        rows = list(_document(rule, f"{name}.")) or [(name, rule, name in schema().get("required", ()))]
        lines += ["| key | default | what it is |", "|---|---|---|"]
        for key, sub, required in rows:
            default = "required" if required else f"`{canonical_json(sub['default'])}`" if "default" in sub else "none"
            allowed = f" One of {', '.join(f'`{value}`' for value in sub['enum'])}." if "enum" in sub else ""
            lines.append(f"| `{key}` | {default} | {sub['description']}{allowed} |".replace("||", "\\|\\|"))
        lines.append("")
    return "\n".join(lines)


def _document(rule: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    for key, sub in rule.get("properties", {}).items():
        below = list(_document(sub, f"{path}{key}."))
        yield from below or [(f"{path}{key}", sub, key in rule.get("required", ()))]
    for child, mark in ((rule.get("additionalProperties"), "*."), (rule.get("items"), "*.")):
        if isinstance(child, dict):
            yield from _document(child, f"{path}{mark}")


def document_config(*, out: Path) -> None:
    """Write `document` to a file."""
    write_bytes(out, document().encode())
