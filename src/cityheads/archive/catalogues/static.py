"""A catalogue of linked JSON documents, on disk or on a web server."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import shapely

from cityheads.archive.catalogues.documents import load_json
from cityheads.archive.catalogues.item import Item, checked
from cityheads.archive.hrefs import is_remote, resolve_link
from cityheads.config import ArchiveConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub
from cityheads.core.times import Interval

__all__ = ["StaticCatalog"]

#: More documents than this in one static catalogue are refused (a loop, or a catalogue that needs an API).
_MAX_DOCUMENTS = 50_000


class StaticCatalog:
    """A catalogue of linked JSON documents, on disk or on a web server."""

    def __init__(self, location: str, document: dict[str, Any], archive: ArchiveConfig) -> None:
        self.location = location
        self.root = posixpath.dirname(location) if is_remote(location) else str(Path(location).parent)
        self._document = document
        self._archive = archive

    @property
    def simulated(self) -> bool:
        """Whether the catalogue says that its pixels are simulated."""
        return self._document.get("cityheads:simulated") is True

    def search(
        self,
        collection: str,
        polygon: shapely.Geometry,
        interval: Interval | None,
    ) -> list[Item]:
        """Give the items of a collection whose footprint shares area with a polygon, whatever their time.

        Raises:
            CityHeadsError: No such collection, or a document that cannot be read.
        """
        del interval  # items outside it are few, and naming them explains an empty result
        found: dict[str, Item] = {}
        ids: set[str] = set()
        known = False
        for document, raw in self._walk(collection):
            if raw.get("type") == "Collection":
                ids.add(str(raw.get("id")))
                known = known or raw.get("id") == collection
                continue
            if raw.get("collection") != collection:
                continue
            known = True
            item = checked(Item(raw, document, self.root))
            if item.touches(polygon):
                found[item.id] = item
        if not known:
            raise CityHeadsError(
                f"{scrub(self.location)}: no collection '{collection}'; there are {', '.join(sorted(ids)) or 'none'}"
            )
        return [found[key] for key in sorted(found)]

    def _walk(self, collection: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every document below the root, without descending into other collections."""
        seen = {self.location}
        level = [(self.location, self._document)]
        while level:
            links: list[str] = []
            for document, raw in level:
                if raw.get("type") == "Collection" and raw.get("id") != collection:
                    continue
                for link in raw.get("links") or ():
                    if isinstance(link, dict) and link.get("rel") in ("child", "item"):
                        target = resolve_link(document, str(link.get("href")), self.root)
                        if target not in seen:
                            seen.add(target)
                            links.append(target)
            if len(seen) > _MAX_DOCUMENTS:
                raise CityHeadsError(f"{scrub(self.location)}: more than {_MAX_DOCUMENTS} documents; use an API")
            level = list(zip(links, self._load(links), strict=True))
            yield from level

    def _load(self, locations: Sequence[str]) -> list[dict[str, Any]]:
        if not any(map(is_remote, locations)):
            return [load_json(location, self._archive, self.location) for location in locations]
        with ThreadPoolExecutor(self._archive.workers) as pool:
            return list(pool.map(lambda one: load_json(one, self._archive, self.location), locations))
