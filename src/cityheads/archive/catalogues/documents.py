"""JSON documents of catalogues, from disk or over the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cityheads.archive.addresses import Guard
from cityheads.archive.hrefs import is_remote
from cityheads.archive.http import check_online, client
from cityheads.config import ArchiveConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub

__all__ = ["load_json"]

#: Largest JSON document that is read; Planetary Computer's collection documents are about 50 kB.
_MAX_JSON_BYTES = 64 * 2**20


def load_json(location: str, archive: ArchiveConfig, root: str) -> dict[str, Any]:
    """Read a JSON object from a path or URL, which the catalogue at ``root`` names.

    Raises:
        CityHeadsError: Not there, not readable, too large, or no JSON object.
    """
    if is_remote(location):
        check_online(archive, f"the catalogue {scrub(location)}")
        accept = {"Accept": "application/json, */*"}
        loaded = client(archive.network, Guard.of(archive, root)).get_json(
            location, limit=_MAX_JSON_BYTES, headers=accept
        )
    else:
        try:
            with Path(location).open("rb") as stream:
                content = stream.read(_MAX_JSON_BYTES + 1)
        except FileNotFoundError:
            raise CityHeadsError(f"{location}: no such catalogue file; see the config key 'archive.catalog'") from None
        except OSError as error:
            raise CityHeadsError(f"{location}: cannot be read ({error.strerror})") from None
        if len(content) > _MAX_JSON_BYTES:
            raise CityHeadsError(f"{location}: larger than {_MAX_JSON_BYTES >> 20} MiB; not a catalogue document")
        try:
            loaded = json.loads(content)
        except ValueError as error:
            raise CityHeadsError(f"{location}: not valid JSON ({error})") from None
    if not isinstance(loaded, dict):
        raise CityHeadsError(f"{scrub(location)}: not a STAC document")
    return loaded
