"""Drawing all figures: matplotlib without pyplot, fixed fonts, equal bytes for equal results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from cityheads.config import Config
from cityheads.core.artifacts.figures import FIGURE_LIST, FigureEntry
from cityheads.core.files import atomic_path
from cityheads.core.layout import Layout
from cityheads.product.figures.balance import draw_balance
from cityheads.product.figures.confusion import draw_confusion
from cityheads.product.figures.curves import draw_curves
from cityheads.product.figures.delta import draw_delta
from cityheads.product.figures.dropped import draw_dropped
from cityheads.product.figures.evidence import Evidence
from cityheads.product.figures.map import draw_map
from cityheads.product.figures.modality_ablation import NAME, draw_modality_ablation
from cityheads.product.figures.panels import draw_panels
from cityheads.product.figures.sheet import Drawing
from cityheads.product.figures.style import style
from cityheads.product.figures.timings import draw_timings

__all__ = ["draw_figures"]

log = logging.getLogger(__name__)


def draw_figures(config: Config, *, parents: Path, results: Path, out: Path) -> None:
    """Draw all figures of the report.

    Writes ``map``, ``panels_{head}`` and ``confusion_{head}`` for each head of the run under test, ``curves_score``,
    ``curves_loss``, ``balance``, ``delta``, ``dropped`` and ``timings``, all PNG, and ``figures.json`` last; also
    ``modality_ablation`` where the evaluations removed modalities.

    Args:
        config: Sections ``grid``, ``labels``, ``heads``, ``runs``, ``seeds``, ``noninferiority`` and ``report``.
        parents: Parent sheet.
        results: Results folder.
        out: Folder of the figures.

    Raises:
        CityHeadsError: An artifact is missing or unreadable.
    """
    out = Path(out)
    evidence = Evidence(config, Path(parents), Path(results))
    entries: list[FigureEntry] = []
    with style():
        for drawing in _drawings(evidence):
            file = f"{drawing.id}.png"
            with atomic_path(out / file) as part:
                # without Software, the bytes do not depend on matplotlib's version string
                drawing.figure.savefig(part, metadata={"Software": None})
            entries.append(
                {
                    "id": drawing.id,
                    "file": file,
                    "title": drawing.title,
                    "caption": drawing.caption,
                    "section": drawing.section,
                    "alt": f"Simulated data. {drawing.alt}" if evidence.simulated else drawing.alt,
                }
            )
    if NAME not in {entry["id"] for entry in entries}:
        (out / f"{NAME}.png").unlink(missing_ok=True)
    FIGURE_LIST.write(out / Layout(results).figure_list.name, {"figures": entries})
    log.info("%d figures in %s", len(entries), out)


def _drawings(evidence: Evidence) -> Iterator[Drawing]:
    """Give the figures in the order of the report."""
    yield draw_delta(evidence)
    yield draw_map(evidence)
    for head in evidence.heads:
        yield draw_panels(evidence, head)
    yield from draw_curves(evidence)
    for head in evidence.heads:
        yield draw_confusion(evidence, head)
    ablation = draw_modality_ablation(evidence)
    if ablation is not None:
        yield ablation
    yield draw_balance(evidence)
    yield draw_dropped(evidence)
    yield draw_timings(evidence)
