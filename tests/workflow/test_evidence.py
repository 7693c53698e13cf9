"""What the DAG promises of the evidence: the figure of the modality ablation where a modality can be removed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]


def dry(snakemake: Run, place: Path, **changes: object) -> str:
    shutil.copytree(ROOT / "config", place / "config", dirs_exist_ok=True)
    (place / "overlay.yaml").write_text(yaml.safe_dump(changes))
    text: str = snakemake(place, "-n", "--quiet", "host", "--configfile", place / "overlay.yaml").stdout
    return text


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({}, True),
        pytest.param({"evaluation": {"modality_ablation": False}}, False, marks=pytest.mark.slow),
        ({"model": {"modalities": ["S2L2A", "RGB", "NDVI"]}}, False),
        pytest.param({"model": {"modalities": ["S2L2A", "coords"]}}, True, marks=pytest.mark.slow),
    ],
)
def test_the_figure_is_promised_where_a_modality_can_be_removed(
    snakemake: Run, tmp_path: Path, changes: dict[str, object], drawn: bool
) -> None:
    text = dry(snakemake, tmp_path, **changes)
    told = re.search(r": Draw the figures\n.*?Missing output files: ([^;\n]*)", text, re.DOTALL)
    assert told is not None
    assert ("figures/modality_ablation.png" in told.group(1)) == drawn
    assert "figures/delta.png" in told.group(1)
