"""Section ``downloads``: files that the config names and the workflow fetches by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import StringConstraints, model_validator

from cityheads.config.base import SPELLING, Section, Text, field, freeze, refuse

__all__ = ["DownloadConfig", "Downloads"]

_SHA256 = "^[0-9a-f]{64}$"
SPELLING[_SHA256] = "a SHA-256 is 64 hexadecimal digits; NAME.json beside a fetched file has its"


class DownloadConfig(Section):
    """Where a file comes from; the workflow fetches it when something needs it and it is not there."""

    provider: Literal["nyc", "overture", "file"] = field(
        ...,
        "nyc reads a Socrata resource page by page, as New York's open data are published; overture takes the "
        "buildings around the parents out of a release of Overture Maps; file fetches any URL that serves a file.",
    )
    url: Text | None = field(
        None,
        "The resource (nyc; null takes the building footprints), the folder of a release (overture), or the file.",
        min_length=1,
    )
    sha256: Annotated[Text, StringConstraints(pattern=_SHA256)] | None = field(
        None, "What the file's SHA-256 must be; null takes what comes and writes it into NAME.json beside the file."
    )

    @model_validator(mode="after")
    def _has_a_place(self) -> DownloadConfig:
        if self.url is None and self.provider != "nyc":
            refuse("url", f"provider {self.provider} needs a URL")
        return self


#: The section: paths as the config names them elsewhere, and where each file comes from.
Downloads = Annotated[Mapping[Text, DownloadConfig], freeze]
