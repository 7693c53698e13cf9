"""Writing the report: what its sections print, gathered and handed to the template."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from matplotlib.colors import to_hex

from cityheads.config import Config
from cityheads.core.artifacts.readings import count_readings
from cityheads.core.files import write_bytes
from cityheads.core.modalities import COORDS
from cityheads.core.redaction import portable
from cityheads.core.text import share
from cityheads.evaluation.verdict import MEANING, Margins, rule
from cityheads.product.figures.style import SEQUENTIAL
from cityheads.product.notes import synthesized_notes, year_notes
from cityheads.product.render import render
from cityheads.product.report import dataset, first, provenance, scores, trainings
from cityheads.product.report.application import application
from cityheads.product.report.chips import head_pictures
from cityheads.product.report.city import Mosaic, city_view, triptych
from cityheads.product.report.comparison import comparison
from cityheads.product.report.curves import curves
from cityheads.product.report.leaderboard import standing
from cityheads.product.results import Results

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


def report(config: Config, *, results: Path, out: Path) -> None:
    """Write the report.

    Args:
        config: Sections ``project``, ``grid``, ``archive``, ``simulate``, ``quality``, ``labels``, ``splits``,
            ``heads``, ``runs``, ``seeds``, ``model``, ``train``, ``evaluation``, ``noninferiority`` and ``report``.
        results: Results folder.
        out: HTML file to write.

    Raises:
        CityHeadsError: An artifact is missing or unreadable.
    """
    found = Results(results, config)
    text = render("report/page.html.j2", _context(config, found))
    write_bytes(out, text.encode())
    log.info("%s: verdict %s, %.1f MB", out, found.gate["verdict"], len(text) / 1e6)


def _context(config: Config, results: Results) -> dict[str, Any]:
    """Give all names of the template."""
    gate = results.gate
    mosaic = Mosaic(config, results)
    heads = results.runs[config.noninferiority.run]
    account = dataset.account(results)
    scenes = provenance.scenes(results)
    return {
        "config": config,
        "simulated": results.simulated,
        "facts": dataset.facts(config, results),
        "gate": gate,
        "caveats": [
            *gate["caveats"],
            *synthesized_notes(results.statistics, config.archive.synthesis),
            *year_notes(map(results.scenes, results.splits["parents"]), config.labels),
        ],
        "meaning": MEANING[gate["verdict"]],
        "sign": first.verdict_sign(gate["verdict"]),
        "rule": rule(Margins(**gate["margins"])),
        "confidence": share(gate["confidence"]),
        "purpose": first.purpose(config, heads),
        "numbers": first.head_numbers(config, results),
        "picture": triptych(config, mosaic),
        "comparison": comparison(gate),
        "city": city_view(config, mosaic),
        "pictures": [head_pictures(config, mosaic, head) for head in heads],
        "heads": [scores.head_scores(config, results, head) for head in heads],
        "application": application(config, results),
        "leaderboard": standing(results),
        "readings": count_readings(results.layout.test_readings),
        "others": scores.other_scores(config, results),
        "ablation": scores.ablation(config, results),
        "trainings": trainings.trainings(results),
        "effort": trainings.effort(config.noninferiority, results),
        "economy": trainings.economy(config.noninferiority, results),
        "curves": curves(config, results),
        "splits": dataset.split_table(results),
        "distance": dataset.gap(results),
        "missing": results.splits["missing"],
        "balance": dataset.balance(config, results),
        "modalities": {name: _KINDS[name] for name in config.model.modalities},
        "account": account,
        "dropped": dataset.dropped_table(account),
        "footprints": dataset.footprints(config, results),
        "scenes": provenance.scene_table(scenes),
        "seen": provenance.seen_when(
            results, config.archive.together.asked_for and config.archive.frozen_scenes is None
        ),
        "layers": provenance.layer_table(scenes),
        "origin": provenance.origin(results),
        "environments": provenance.environments(results),
        "hashes": provenance.hashes(results),
        "timings": provenance.timing_table(results),
        "heat": [to_hex(SEQUENTIAL(step / 10)) for step in range(11)],
        "settings": yaml.safe_dump(
            portable(config.to_dict()), sort_keys=False, allow_unicode=True, default_flow_style=None, width=96
        ),
    }
