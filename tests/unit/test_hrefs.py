"""Paths and URLs from catalogues: what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cityheads.archive.hrefs import locate, stored_href
from cityheads.core.errors import CityHeadsError

PC = "https://planetarycomputer.microsoft.com/api/stac/v1"


def test_signatures_are_dropped_where_reading_signs_anew() -> None:
    href = "https://host.example/a/b.tif?sv=1&sig=abc&version=3"
    stored = stored_href(f"{PC}/x", href, root=PC, asset_base=None, signed=True, where="item X")
    assert stored == "https://host.example/a/b.tif?version=3"


def test_a_tampered_choice_cannot_leave_the_folder_either(tmp_path: Path) -> None:
    for href in ("../../etc/passwd", "/etc/passwd", "file:///etc/passwd"):
        with pytest.raises(CityHeadsError, match="item X"):
            locate(href, str(tmp_path), "item X")
    assert locate("a/b.tif", str(tmp_path), "item X") == str(tmp_path / "a" / "b.tif")
