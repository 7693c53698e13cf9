"""A STAC API, asked through ``pystac_client`` and our own HTTP client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import shapely
from shapely.geometry import mapping

from cityheads.archive.addresses import Guard
from cityheads.archive.catalogues.item import Item, checked
from cityheads.archive.http import Client, client
from cityheads.config import ArchiveConfig
from cityheads.core.errors import CityHeadsError
from cityheads.core.redaction import scrub
from cityheads.core.times import Interval

__all__ = ["ApiCatalog"]


class ApiCatalog:
    """A STAC API."""

    def __init__(self, location: str, archive: ArchiveConfig) -> None:
        import pystac_client

        self.location = location
        self.root = location
        self._client = pystac_client.Client.open(
            location, stac_io=_patient_io(client(archive.network, Guard.of(archive, location)))
        )
        self.simulated = self._client.extra_fields.get("cityheads:simulated") is True

    def search(
        self,
        collection: str,
        polygon: shapely.Geometry,
        interval: Interval | None,
    ) -> list[Item]:
        """Give the items of a collection that share area with a polygon and lie in an interval.

        Cloud cover is left to the caller: servers without an index on it compare it as text.

        Raises:
            CityHeadsError: No such collection, or a search that fails; a failure is never an empty result.
        """
        from pystac.errors import STACError

        where = f"{scrub(self.location)}: collection '{collection}'"
        try:
            self._client.get_collection(collection)
            search = self._client.search(
                collections=[collection],
                intersects=mapping(polygon),
                datetime=_interval_text(interval),
                limit=100,
            )
            features = list(search.items_as_dicts())
        except CityHeadsError as error:
            if getattr(error, "status", None) == 404:
                raise CityHeadsError(f"{where}: there is no such collection") from None
            raise CityHeadsError(f"{where}: the search fails: {error}") from None
        except (STACError, KeyError, TypeError, ValueError) as error:
            raise CityHeadsError(f"{where}: the search's answer is no STAC ({scrub(str(error))})") from None
        items = {}
        for raw in features:
            if raw.get("collection") != collection:
                continue  # not every server heeds every part of a search
            own = [link.get("href") for link in raw.get("links") or () if link.get("rel") == "self"]
            item = checked(Item(raw, str(own[0]) if own else self.location, self.root))
            if item.touches(polygon):
                items[item.id] = item
        return [items[key] for key in sorted(items)]


def _patient_io(http: Client) -> Any:
    """Make pystac-client speak through our HTTP client, page by page: what failed is asked for again, and only that."""
    from pystac_client.stac_api_io import StacApiIO

    class PatientIO(StacApiIO):
        def request(
            self,
            href: str,
            method: str | None = "GET",
            headers: dict[str, str] | None = None,
            parameters: dict[str, Any] | None = None,
        ) -> str:
            sent = {"Accept": "application/json, */*", **(headers or {})}
            body = None
            if method == "POST":
                body = json.dumps(parameters or {}).encode()
                sent["Content-Type"] = "application/json"
            elif parameters:
                href += ("&" if "?" in href else "?") + urlencode(_query(parameters))
            answer = http.get(href, method=method or "GET", body=body, headers=sent, check=json.loads)
            return answer.content.decode()

    return PatientIO()


def _query(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Write search parameters as STAC's GET form has them."""
    written = {}
    for key, value in parameters.items():
        if isinstance(value, (list, tuple)):
            written[key] = ",".join(map(str, value))
        else:
            written[key] = json.dumps(value) if isinstance(value, dict) else str(value)
    return written


def _interval_text(interval: Interval | None) -> str | None:
    if interval is None or interval == (None, None):
        return None
    return "/".join(end.strftime("%Y-%m-%dT%H:%M:%SZ") if end else ".." for end in interval)
