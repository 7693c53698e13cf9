"""Paths and URLs from catalogues: what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cityheads.archive.addresses import kind_of
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


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", "public"),
        ("2600:1f18::1", "public"),
        ("127.8.8.8", "loopback"),
        ("0.0.0.0", "loopback"),  # Linux connects it to this machine
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("10.0.0.1", "private"),
        ("172.31.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00:ec2::254", "private"),
        ("224.0.0.1", "private"),
    ],
)
def test_what_an_address_is(address: str, kind: str) -> None:
    assert kind_of(address) == kind
