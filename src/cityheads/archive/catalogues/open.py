"""Open a catalogue, whichever kind it is."""

from __future__ import annotations

from cityheads.archive.catalogues.api import ApiCatalog
from cityheads.archive.catalogues.documents import load_json
from cityheads.archive.catalogues.static import StaticCatalog
from cityheads.archive.hrefs import is_remote
from cityheads.config import ArchiveConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub

__all__ = ["Catalog", "open_catalog"]

Catalog = StaticCatalog | ApiCatalog


def open_catalog(location: str, archive: ArchiveConfig) -> Catalog:
    """Open a STAC API or a static catalogue; what the root document says decides which it is.

    Raises:
        CityHeadsError: It is not there, or is no catalogue.
    """
    document = load_json(location, archive, location)
    if document.get("type") not in ("Catalog", "Collection") and "stac_version" not in document:
        raise CityHeadsError(f"{scrub(location)}: not a STAC catalogue")
    if is_remote(location) and "conformsTo" in document:
        return ApiCatalog(location, archive)
    return StaticCatalog(location, document, archive)
