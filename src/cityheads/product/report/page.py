"""Writing the report: what its sections print, gathered and handed to the template."""

from __future__ import annotations

import base64
import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from cityheads.config import Config
from cityheads.core.artifacts.figures import FIGURE_LIST, FigureEntry
from cityheads.core.confusion import metric_title
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import write_bytes
from cityheads.core.modalities import COORDS
from cityheads.core.redaction import portable
from cityheads.core.text import share
from cityheads.evaluation.verdict import MEANING, Margins, rule
from cityheads.product.notes import synthesized_notes
from cityheads.product.render import render
from cityheads.product.report import dataset, provenance, scores, trainings
from cityheads.product.results import Results, require

__all__ = ["report"]

log = logging.getLogger(__name__)

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

#: Sections that show figures; a figure of another section goes to the end of the page.
_SECTIONS = (
    "delta", "map", "panels", "confusion", "modality_ablation", "curves", "balance", "dropped", "timings",
)  # fmt: skip

_PNG = b"\x89PNG\r\n\x1a\n"


def report(config: Config, *, results: Path, out: Path) -> None:
    """Write the report.

    Args:
        config: Sections ``project``, ``grid``, ``archive``, ``simulate``, ``quality``, ``labels``, ``splits``,
            ``heads``, ``runs``, ``seeds``, ``model``, ``train``, ``evaluation`` and ``noninferiority``.
        results: Results folder, with the figures in it.
        out: HTML file to write.

    Raises:
        CityHeadsError: An artifact is missing or unreadable.
    """
    found = Results(results, config)
    text = render("report.html.j2", _context(config, found))
    write_bytes(out, text.encode())
    log.info("%s: verdict %s, %.1f MB", out, found.gate["verdict"], len(text) / 1e6)


def _context(config: Config, results: Results) -> dict[str, Any]:
    """Give all names of the template."""
    gate = results.gate
    figures = _figures(results)
    return {
        "config": config,
        "simulated": results.simulated,
        "facts": dataset.facts(config, results),
        "gate": gate,
        "caveats": gate["caveats"] + synthesized_notes(results.statistics, config.archive.synthesis),
        "meaning": MEANING[gate["verdict"]],
        "rule": rule(Margins(**gate["margins"])),
        "confidence": share(gate["confidence"]),
        "titles": {head: metric_title(part["metric"], part["positive_class"]) for head, part in gate["heads"].items()},
        "figures": {name: [one for one in figures if one.entry["section"] == name] for name in _SECTIONS},
        "more_figures": [one for one in figures if one.entry["section"] not in _SECTIONS],
        "runs": trainings.trainings(results),
        "economy": trainings.economy(config.noninferiority, results),
        "splits": dataset.splits(results),
        "missing": results.splits["missing"],
        "heads": [scores.head_scores(config, results, head) for head in results.runs[config.noninferiority.run]],
        "others": scores.other_scores(config, results),
        "ablation": scores.ablation(config, results),
        "modalities": {name: _KINDS[name] for name in config.model.modalities},
        "account": dataset.account(results),
        "footprints": dataset.footprints(config, results),
        "scenes": provenance.scenes(results),
        "origin": provenance.origin(results),
        "environments": provenance.environments(results),
        "hashes": provenance.hashes(results),
        "timings": results.timings(),
        "settings": yaml.safe_dump(
            portable(config.to_dict()), sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
        ),
        "absent": scores.ABSENT,
    }


@dataclass(frozen=True)
class _Embedded:
    """A figure as the page holds it: what the list says of it, the PNG as a URL, its size in pixels."""

    entry: FigureEntry
    data: Markup
    width: int
    height: int


def _figures(results: Results) -> list[_Embedded]:
    """Read the figures in the order of their list.

    Raises:
        CityHeadsError: One is missing or no PNG.
    """
    figures = []
    for entry in FIGURE_LIST.read(results.layout.figure_list)["figures"]:
        path = results.layout.figures / entry["file"]
        content = require(path).read_bytes()
        if not content.startswith(_PNG):
            raise CityHeadsError(f"{path}: not a PNG; delete it and run again")
        # the size stands in the header chunk, which always comes first (PNG specification, 11.2.2)
        width, height = struct.unpack(">II", content[16:24])
        data = Markup("data:image/png;base64," + base64.b64encode(content).decode())
        figures.append(_Embedded(entry, data, width, height))
    return figures
