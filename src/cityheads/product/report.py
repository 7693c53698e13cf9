"""The report: one HTML file that holds everything it shows and opens without a network."""

from __future__ import annotations

import base64
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cityheads.config.base import plain
from cityheads.core.confusion import metric_title
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file, write_bytes
from cityheads.core.grid import SPLITS
from cityheads.core.modalities import COORDS, DERIVED, RADAR
from cityheads.evaluation.ablation import averaged, how_to_read
from cityheads.product.notes import synthesized_notes
from cityheads.product.results import Results
from cityheads.product.text import duration, number, percent, share, signed

__all__ = ["ABSENT", "report"]

log = logging.getLogger(__name__)

#: What stands in place of a score that is undefined since the test labels hold no pixel of the class.
ABSENT = "n/a (class absent)"
_NEVER = "n/a (never predicted)"

#: The verdict in plain words: the sentence under the large word.
_MEANING = {
    "strong": "One shared model can take the place of the single-task models.",
    "acceptable": "One shared model can take the place of the single-task models: what one head loses, another gains.",
    "mixed": "Whether one shared model is worth it depends on which map matters most to you.",
    "negative": "One shared model is worse than the single-task models at every task. Use those.",
    "inconclusive": "These data cannot tell whether sharing one encoder costs anything.",
}

#: What each input is, for the glossary.
_KINDS = {
    "S2L2A": "Sentinel-2 surface reflectance",
    "S1RTC": "Sentinel-1 backscatter, terrain corrected",
    "S1GRD": "Sentinel-1 backscatter, ground range detected",
    "DEM": "elevation",
    "RGB": "the true colours of S2L2A",
    "NDVI": "the vegetation index of S2L2A",
    COORDS: "the place on Earth",
}

_SECTION_FIGURES = (
    "delta",
    "map",
    "panels",
    "confusion",
    "modality_ablation",
    "curves",
    "balance",
    "dropped",
    "timings",
)

_SCORES = (("iou", "IoU"), ("f1", "F1"), ("precision", "Precision"), ("recall", "Recall"))


def report(settings: dict[str, Any], *, results: Path, out: Path) -> None:
    """Write the report.

    Args:
        settings: Sections ``project``, ``grid``, ``archive``, ``labels``, ``heads``, ``runs``, ``seeds``, ``model``,
            ``train``, ``splits``, ``gate`` and, where given, ``quality`` and ``simulate``.
        results: Results folder, with the figures in it.
        out: HTML file to write.

    Raises:
        CityHeadsError: An artifact is missing or unreadable.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = _Page(settings, Path(results))
    environment = Environment(
        loader=PackageLoader("cityheads.product", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "duration": duration,
        "share": share,
    }
    text = environment.get_template("report.html.j2").render(page.context())
    write_bytes(out, text.encode())
    log.info("%s: verdict %s, %.1f MB", out, page.results.gate["verdict"], len(text) / 1e6)


class _Page:
    """Gathers what the template prints, section by section."""

    def __init__(self, settings: dict[str, Any], results: Path) -> None:
        self.settings = settings
        self.results = Results(results, settings["runs"], settings["seeds"])
        self.gate_run: str = settings["gate"]["run"]
        self.heads = self.results.runs[self.gate_run]
        self.parents = list(dict.fromkeys(row["parent_id"] for row in self.results.chips))

    def context(self) -> dict[str, Any]:
        """Give all values of the template."""
        figures = self._figures()
        return {
            "project": self.settings["project"],
            "simulated": self.results.simulated,
            "facts": self._facts(),
            "gate": self.results.gate
            | {
                "caveats": self.results.gate["caveats"]
                + synthesized_notes(self.results.statistics, self.settings["archive"]["synthesis"])
            },
            "meaning": _MEANING[self.results.gate["verdict"]],
            "confidence": share(self.results.gate["confidence"]),
            "verdict_rows": self._verdict_rows(),
            "figures": {name: [f for f in figures if f["section"] == name] for name in _SECTION_FIGURES},
            "more_figures": [figure for figure in figures if figure["section"] not in _SECTION_FIGURES],
            "runs": self._runs(),
            "economy": self._economy(),
            "splits": self._splits(),
            "missing": self.results.splits["missing"],
            "heads": [self._head(head) for head in self.heads],
            "others": self._other_runs(),
            "without": self._without(),
            "modalities": {name: _KINDS[name] for name in self.settings["model"]["modalities"]},
            "account": self._account(),
            "footprints": self._footprints(),
            "scenes": self._scenes(),
            "layers": self._layers(),
            "environments": self._environments(),
            "hashes": self._hashes(),
            "timings": self.results.timings(),
            "config": yaml.safe_dump(
                _shorten(plain(self.settings)), sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
            ),
            "settings": self.settings,
            "absent": ABSENT,
        }

    def _facts(self) -> dict[str, Any]:
        chips = self.results.chips
        return {
            "parents": len(self.parents),
            "chips": len(chips),
            "kept": sum(row["kept"] for row in chips),
            "test_chips": self.results.statistics["chips"]["test"],
            "seeds": self.results.seeds,
            "side_km": self.settings["grid"]["parent_px"] * self.settings["grid"]["resolution_m"] / 1000,
            "per_parent": self.settings["grid"]["chips_per_side"] ** 2,
            "method": self.results.splits["method"],
        }

    def _figures(self) -> list[dict[str, Any]]:
        figures = []
        for entry in self.results.json("figures", "figures.json"):
            content = self.results.path("figures", entry["file"]).read_bytes()
            if content[:8] != b"\x89PNG\r\n\x1a\n":
                raise CityHeadsError(
                    f"{self.results.root / 'figures' / entry['file']}: not a PNG; delete it and run again"
                )
            # the size stands in the header chunk, which always comes first (PNG specification, 11.2.2)
            width, height = struct.unpack(">II", content[16:24])
            data = "data:image/png;base64," + base64.b64encode(content).decode()
            figures.append({**entry, "data": data, "width": width, "height": height})
        return figures

    # -------------------------------------------------------------- verdict

    def _verdict_rows(self) -> list[dict[str, Any]]:
        return [
            {"head": head, "name": metric_title(part["metric"], part["positive_class"]), **part}
            for head, part in self.results.gate["heads"].items()
        ]

    def _economy(self) -> dict[str, Any] | None:
        """Compare the size of the shared model with that of its baselines together."""
        seed = self.results.seeds[0]
        baselines = list(dict.fromkeys(self.settings["gate"]["baselines"][head] for head in self.heads))
        if self.gate_run in baselines:
            return None
        shared = self.results.training(self.gate_run, seed)["parameters"]["total"]
        apart = sum(self.results.training(run, seed)["parameters"]["total"] for run in baselines)
        return {"shared": shared, "apart": apart, "models": len(baselines), "ratio": apart / shared}

    def _runs(self) -> list[dict[str, Any]]:
        rows = []
        for run, heads in self.results.runs.items():
            for seed in self.results.seeds:
                training = self.results.training(run, seed)
                environment = self.results.json("runs", run, seed, "environment.json")
                rows.append(
                    {
                        "run": run,
                        "seed": seed,
                        "heads": heads,
                        "parameters": training["parameters"],
                        "best_epoch": training["best_epoch"] + 1,
                        "epochs": training["epochs_run"],
                        "stopped_early": training["stopped_early"],
                        "best_score": training["best_score"],
                        "monitor": training["monitor"],
                        "device": environment.get("device"),
                        "wall_s": environment.get("wall_s"),
                        "backbone": self.results.json("runs", run, seed, "model.json")["backbone"],
                    }
                )
        return rows

    # ----------------------------------------------------------------- data

    def _splits(self) -> list[dict[str, Any]]:
        of = self.results.splits["parents"]
        return [
            {
                "split": split,
                "parents": [parent for parent in self.parents if of[parent] == split],
                "chips": self.results.statistics["chips"][split],
            }
            for split in SPLITS
        ]

    def _account(self) -> dict[str, Any]:
        """Account for every sub-chip: kept, or dropped with the reason.

        Raises:
            CityHeadsError: The numbers of the manifest and of the statistics do not agree.
        """
        chips = self.results.chips
        dropped = self.results.statistics["dropped"]
        kept = sum(row["kept"] for row in chips)
        if kept + sum(dropped.values()) != len(chips):
            raise CityHeadsError(
                f"{self.results.root / 'dataset' / 'statistics.json'}: {sum(dropped.values())} dropped sub-chips, but "
                f"chips.parquet has {len(chips) - kept}; assemble the dataset again"
            )
        rows = []
        for reason in sorted(dropped, key=lambda name: (-dropped[name], name)):
            of = [row for row in chips if row["reason"] == reason]
            rows.append(
                {
                    "reason": reason,
                    "count": dropped[reason],
                    "splits": {split: sum(row["split"] == split for row in of) for split in SPLITS},
                    "parents": list(dict.fromkeys(row["parent_id"] for row in of)),
                }
            )
        return {"total": len(chips), "kept": kept, "dropped": len(chips) - kept, "rows": rows}

    def _footprints(self) -> list[dict[str, Any]]:
        """Say for each footprint label what was kept, repaired and dropped."""
        found = []
        for label, rule in self.settings["labels"].items():
            if rule["kind"] == "footprints":
                summary = self.results.json("labels", label, "summary.json")
                dropped = {key.replace("_", " "): count for key, count in summary["dropped"].items() if count}
                found.append({"label": label, "options": rule, **summary, "dropped": dropped})
        return found

    # --------------------------------------------------------------- scores

    def _head(self, head: str) -> dict[str, Any]:
        rule = self.settings["heads"][head]
        baseline = self.settings["gate"]["baselines"][head]
        shared: list[Mapping[str, Any]] = [
            self.results.metrics(self.gate_run, seed)["heads"][head] for seed in self.results.seeds
        ]
        single: list[Mapping[str, Any]] = [
            self.results.metrics(baseline, seed)["heads"][head] for seed in self.results.seeds
        ]
        pixels = np.asarray(shared[0]["confusion"]).sum(axis=1)
        rows = []
        for index, item in enumerate(self.settings["labels"][rule["label"]]["classes"]):
            cells = []
            for key, title in _SCORES:
                pair = [_mean(part[key][index] for part in parts) for parts in (shared, single)]
                cells.append({"title": title, **_pair(pair[0], pair[1])})
            rows.append(
                {
                    "name": item["name"],
                    "color": item["color"],
                    "pixels": int(pixels[index]),
                    "absent": not pixels[index],
                    "cells": cells,
                }
            )
        means = [
            {"title": title, **_pair(_mean(p[key] for p in shared), _mean(p[key] for p in single))}
            for key, title in (("miou", "mIoU"), ("mf1", "mean F1"), ("accuracy", "accuracy"))
        ]
        return {
            "head": head,
            "label": rule["label"],
            "metric": metric_title(shared[0]["metric"]["name"], shared[0]["metric"]["positive_class"]),
            "baseline": baseline,
            "confidence": share(self.results.metrics(baseline, self.results.seeds[0])["confidence"]),
            "classes": rows,
            "means": means,
            "pixels": shared[0]["pixels"],
            "ignored": shared[0]["ignored"],
            "intervals": [
                {"run": run, "seed": seed, **part}
                for run, parts in ((self.gate_run, shared), (baseline, single))
                for seed, part in zip(self.results.seeds, parts, strict=True)
            ],
            "parents": [
                {
                    "parent": parent,
                    **_pair(
                        _mean(part["per_parent"][parent]["value"] for part in shared),
                        _mean(part["per_parent"][parent]["value"] for part in single),
                    ),
                }
                for parent in shared[0]["per_parent"]
            ],
        }

    def _other_runs(self) -> list[dict[str, Any]]:
        """Score the runs that the gate does not look at."""
        known = {self.gate_run, *self.settings["gate"]["baselines"].values()}
        rows = []
        for run, heads in self.results.runs.items():
            if run in known:
                continue
            for head in heads:
                scores = [self.results.metrics(run, seed)["heads"][head]["metric"] for seed in self.results.seeds]
                name = metric_title(scores[0]["name"], scores[0]["positive_class"])
                values = [score["value"] for score in scores]
                rows.append({"run": run, "head": head, "metric": name, "value": _mean(values)})
        return rows

    def _without(self) -> dict[str, Any] | None:
        """Set the scores with one input removed beside the full ones; None where that was not measured."""
        shared = averaged([self.results.metrics(self.gate_run, seed) for seed in self.results.seeds])
        if shared is None:
            return None
        columns: list[tuple[str, _Table | None]] = []
        for head in self.heads:
            baseline = self.settings["gate"]["baselines"][head]
            single = averaged([self.results.metrics(baseline, seed) for seed in self.results.seeds])
            columns += [(head, shared), (head, single)]
        names = list(shared)
        return {
            "full": [_full(table, names, head) for head, table in columns],
            "rows": [
                {"modality": name, "cells": [_removed(table, name, head) for head, table in columns]} for name in names
            ],
            "kept": self.results.metrics(self.gate_run, self.results.seeds[0])["not_ablated"],
            "derived": [name for name in self.settings["model"]["modalities"] if name in DERIVED],
            "confidence": share(self.results.metrics(self.gate_run, self.results.seeds[0])["confidence"]),
            "how_to_read": how_to_read(self.settings["model"]["modality_dropout"]),
        }

    # ----------------------------------------------------------- provenance

    def _scenes(self) -> list[dict[str, Any]]:
        rows = []
        for parent in self.parents:
            choice = self.results.json("scenes", f"{parent}.json")
            reading = self.results.json("parents", parent, "reading.json")["layers"]
            layers = choice["layers"]
            rows.append(
                {
                    "parent": parent,
                    "split": self.results.splits["parents"][parent],
                    "optical": [_scene(item) for item in layers["S2L2A"]["items"]],
                    "radar": [_scene(item) for name in RADAR if name in layers for item in layers[name]["items"]],
                    "synthesized": [name for name, layer in layers.items() if layer.get("synthesized")],
                    "clear_fraction": reading["S2L2A"]["clear_fraction"],
                    "valid": {name: layer["valid_fraction"] for name, layer in reading.items()},
                    "layers": [
                        {
                            "name": name,
                            "collection": layer["collection"],
                            "why": layer["why"],
                            "considered": layer["considered"],
                            "rejected": len(layer["rejected"]),
                            "items": [item["id"] for item in layer["items"]],
                        }
                        for name, layer in layers.items()
                    ],
                }
            )
        return rows

    def _layers(self) -> dict[str, Any]:
        """Say where the pixels come from: catalogues and collections."""
        choices = [self.results.json("scenes", f"{parent}.json") for parent in self.parents]
        collections: dict[str, dict[str, Any]] = {}
        for choice in choices:
            for name, layer in choice["layers"].items():
                entry = collections.setdefault(name, {"collection": layer["collection"], "items": set()})
                entry["items"].update(item["id"] for item in layer["items"])
        return {
            "catalogs": list(dict.fromkeys(_short_path(choice["catalog"]) for choice in choices)),
            "collections": [
                {"name": name, "collection": entry["collection"], "count": len(entry["items"])}
                for name, entry in collections.items()
                if entry["items"]
            ],
        }

    def _environments(self) -> dict[str, Any]:
        """Group the trainings by where they ran and, apart from that, by the packages that they ran with."""
        places: dict[str, dict[str, Any]] = {}
        packages: dict[str, dict[str, Any]] = {}
        for run in self.results.runs:
            for seed in self.results.seeds:
                found = self.results.json("runs", run, seed, "environment.json")
                threads = f"{found['threads']} thread{'' if found['threads'] == 1 else 's'}"
                origin = found.get("weights")
                facts = {
                    "Git revision": found["revision"] or "not run from a git checkout",
                    "Python": found["python"],
                    "Platform": found["platform"],
                    "Device": f"{found['device']}, {threads}",
                    "First weights": ", ".join(map(str, origin.values())) if origin else "random",
                }
                versions = {name: version for name, version in found["packages"].items() if version}
                for groups, content in ((places, facts), (packages, versions)):
                    group = groups.setdefault(repr(content), {"content": content, "trainings": []})
                    group["trainings"].append(f"{run}/{seed}")
        contents = [group["content"] for group in places.values()]
        common = {key: value for key, value in contents[0].items() if all(one[key] == value for one in contents)}
        apart = [
            {**group, "content": {key: value for key, value in group["content"].items() if key not in common}}
            for group in places.values()
            if len(places) > 1
        ]
        return {"common": common, "apart": apart, "packages": list(packages.values())}

    def _hashes(self) -> list[dict[str, Any]]:
        rows = [
            {"what": f"dataset/{name}", "sha256": sha256_file(self.results.path("dataset", name))}
            for name in ("chips.parquet", "splits.json", "classes.json")
        ]
        for name, array in self.results.json("dataset", "store", "index.json")["arrays"].items():
            rows.append(
                {
                    "what": f"dataset/store/{name}.npy",
                    "sha256": array["sha256"],
                    "shape": " x ".join(map(str, array["shape"])) + f" {array['dtype']}",
                }
            )
        return rows


def _mean(values: Iterable[float | None]) -> float | None:
    """Average over seeds; None as soon as one is undefined, since the labels are the same for all."""
    found = list(values)
    if any(value is None for value in found):
        return None
    return float(np.mean([value for value in found if value is not None]))


def _pair(shared: float | None, single: float | None) -> dict[str, Any]:
    """Set two scores beside each other, as text in percent, with their difference in percentage points."""
    delta = None if shared is None or single is None else 100 * (shared - single)

    def show(value: float | None) -> str:
        return "n/a" if value is None else number(100 * value)

    return {
        "shared": show(shared),
        "single": show(single),
        "delta": "n/a" if delta is None else signed(delta),
        "sign": 0 if delta is None or abs(delta) < 0.05 else 1 if delta > 0 else -1,
        "why": _NEVER if delta is None else "",
    }


_Table = Mapping[str, Mapping[str, Mapping[str, Any]]]


def _full(table: _Table | None, names: Sequence[str], head: str) -> str:
    """Give the score of the full model as text, in percent."""
    value = None if not table or not names else table[names[0]][head]["full"]
    return "n/a" if value is None else number(100 * value, 2)


def _removed(table: _Table | None, modality: str, head: str) -> dict[str, Any]:
    """Give score, difference and interval of one cell as text; ``sign`` is 0 where the interval holds 0."""
    found = None if table is None else table[modality][head]
    if found is None or found["delta_pp"] is None:
        return {"value": "n/a", "delta": "", "interval": "", "sign": 0}
    ends = found["interval_pp"]
    return {
        "value": number(100 * found["value"], 2),
        "delta": signed(found["delta_pp"], 2),
        "interval": "no interval" if ends is None else f"[{signed(ends[0], 2)}, {signed(ends[1], 2)}]",
        "sign": 0 if ends is None or ends[0] <= 0 <= ends[1] else 1 if ends[0] > 0 else -1,
    }


def _scene(item: Mapping[str, Any]) -> dict[str, Any]:
    properties = item["properties"]
    return {
        "id": item["id"],
        "date": (item["datetime"] or "")[:10],
        "cloud": properties.get("eo:cloud_cover"),
        "baseline": properties.get("s2:processing_baseline"),
        "offset": item.get("offset_dn"),
        "orbit": properties.get("sat:orbit_state"),
    }


def _short_path(text: str) -> str:
    """Keep the last two parts of an absolute path: a report that is passed on should not tell the folders of a disk."""
    return "\N{HORIZONTAL ELLIPSIS}/" + "/".join(Path(text).parts[-2:]) if text.startswith("/") else text


def _shorten(value: Any) -> Any:
    """Shorten the absolute paths in a config."""
    if isinstance(value, Mapping):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_shorten(item) for item in value]
    return _short_path(value) if isinstance(value, str) else value
