"""Redaction: no credentials and no folders of this machine, and nothing else taken away."""

from __future__ import annotations

from typing import Any

import pytest

from cityheads.core.redaction import portable, scrub, shown


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "GET https://me:pw@host.example/a/b.tif?sv=1&sig=abc%3D failed; s3://bucket/key?X-Amz-Signature=dd",
            "GET https://host.example/a/b.tif failed; s3://bucket/key",
        ),
        ("https://me:p@ss@host.example/a", "https://host.example/a"),
        ("https://host.example/a?mail=me@else", "https://host.example/a"),
        ("postgresql+psycopg://me:pw@host/db", "postgresql+psycopg://host/db"),
        ("https://host.example:8080/v1#token=1", "https://host.example:8080/v1"),
        ("/path?sig=abc was refused", "/path was refused"),
        ("Is it 3 km/h? Yes = no.", "Is it 3 km/h? Yes = no."),
    ],
)
def test_credentials_are_scrubbed_from_urls(text: str, left: str) -> None:
    assert scrub(text) == left
    assert scrub(left) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/me/my city/x y.tif", "\N{HORIZONTAL ELLIPSIS}/x y.tif"),
        ("see /home/me/x.tif, or (~/data/b)", "see \N{HORIZONTAL ELLIPSIS}/x.tif, or (\N{HORIZONTAL ELLIPSIS}/b)"),
        ("file:///home/me/catalog.json", "\N{HORIZONTAL ELLIPSIS}/catalog.json"),
        ("in: /scratch/me/", "in: \N{HORIZONTAL ELLIPSIS}/me"),
        ("https://host.example/a/b", "https://host.example/a/b"),
        ("2021-05-01/2024-09-30, image/png, km/h, data/x.tif, ../x/y, and / or", None),
    ],
)
def test_files_are_shown_without_their_folders(text: str, left: str | None) -> None:
    assert shown(text) == (text if left is None else left)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, None),
        ("data/footprints.parquet", "data/footprints.parquet"),
        ("/data/footprints.parquet", "footprints.parquet"),
        ("https://a.example/x.json?token=1#f", "https://a.example/x.json"),
        ({"a": ["/x/y", 1.5, {"b": "s3://me:pw@bucket/key"}]}, {"a": ["y", 1.5, {"b": "s3://bucket/key"}]}),
    ],
)
def test_values_of_a_config_are_made_portable(value: Any, left: Any) -> None:
    assert portable(value) == left
