"""Building footprints from where they are published, fetched so that a cut-off download can never pass for a whole one.

What has come is kept in pieces beside the target, each with its checksum; an interrupted download goes on from there.
The target appears only when everything is there, and beside it a note (``NAME.json``) with its size and checksum.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cityheads.archive.hrefs import is_remote
from cityheads.archive.http import check_online
from cityheads.config import Config
from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, read_json, sha256_bytes, sha256_file, write_bytes, write_json
from cityheads.core.grid import Grid, Parent, parent_polygon, read_parents
from cityheads.core.redaction import scrub

if TYPE_CHECKING:
    from cityheads.archive.http import Client

__all__ = ["NYC_FOOTPRINTS", "fetch_footprints"]

log = logging.getLogger(__name__)
progress = logging.getLogger("cityheads.progress")

#: NYC Open Data, "Building Footprints" (dataset 5zhs-2jue), as a Socrata resource; about 1.1 million polygons.
NYC_FOOTPRINTS = "https://data.cityofnewyork.us/resource/5zhs-2jue"

PROVIDERS = ("nyc", "overture", "file")

#: Rows of one Socrata page and bytes of one piece of a file: some seconds each, lost when a connection breaks.
_PAGE_ROWS = 50_000
_PIECE_BYTES = 16 * 2**20
#: A page of 50,000 footprints is about 40 MB.
_MAX_PAGE_BYTES = 2**30

_FOOT_M = 0.3048


def fetch_footprints(
    config: Config,
    *,
    parents: Path,
    out: Path,
    provider: str | None = None,
    url: str | None = None,
) -> None:
    """Fetch building footprints or another vector file, or do nothing where a whole copy lies already.

    Args:
        config: Config with sections ``grid``, ``downloads`` and, of ``archive``, how the network is used.
        parents: Parent sheet; of Overture's world only the buildings around the parents are taken.
        provider: ``nyc`` (the city's official layer, page by page), ``overture`` (Overture Maps' buildings), or
            ``file`` (any URL that serves a file, such as another city's export or a boundary). Without one, provider,
            URL and checksum are those that ``downloads`` has for ``out``.
        out: File to write: GeoJSON for ``nyc``, GeoParquet for ``overture``.
        url: Another resource (``nyc``), the release's folder (``overture``; local, or on S3), or the file (``file``).

    Raises:
        CityHeadsError: The provider is unknown, the URL is missing, the network fails for good, or what came is not
            whole or not the file whose checksum the config has.
    """
    wanted: str | None = None
    if provider is None:
        own = config.downloads.get(str(out))
        if own is None:
            raise CityHeadsError(f"--provider: name one; the config's section 'downloads' has none for {out}")
        provider, url, wanted = own.provider, own.url, own.sha256
    if provider not in PROVIDERS:
        raise CityHeadsError(f"--provider {provider}: is none of {', '.join(PROVIDERS)}")
    if url is None:
        if provider == "overture":
            raise CityHeadsError(
                "--url: name the folder of an Overture release, such as "
                "s3://overturemaps-us-west-2/release/RELEASE/theme=buildings/type=building"
            )
        if provider == "file":
            raise CityHeadsError("--url: name the file to fetch")
        url = NYC_FOOTPRINTS
    if is_whole(out, url):
        log.info("%s: is there already, whole", out)
        return
    if is_remote(url):
        check_online(config.archive, f"{scrub(url)}")
    if provider == "overture":
        grid = config.grid.grid
        facts = _fetch_overture(url, read_parents(parents, grid), grid, out)
    else:
        from cityheads.archive.http import client

        fetch = _fetch_pages if provider == "nyc" else _fetch_file
        facts = fetch(client(config.archive.network), url, out)
    if wanted is not None and (came := sha256_file(out)) != wanted:
        out.unlink()
        raise CityHeadsError(
            f"config key 'downloads.{out}.sha256': the file that came from {scrub(url)} has {came}, not {wanted}; the "
            "source has changed, so look at it and set the new one, or take another copy"
        )
    note = {"provider": provider, "url": scrub(url), "bytes": out.stat().st_size, "sha256": sha256_file(out), **facts}
    write_json(_note(out), note)
    shutil.rmtree(_pieces(out), ignore_errors=True)
    progress.info("%s: %d bytes from %s", out, note["bytes"], scrub(url))


def is_whole(path: Path, url: str) -> bool:
    """Say whether a file is the one that its note describes, byte for byte."""
    if not path.exists() or not _note(path).exists():
        return False
    note = read_json(_note(path))
    return bool(
        note["url"] == scrub(url) and note["bytes"] == path.stat().st_size and note["sha256"] == sha256_file(path)
    )


def _note(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _pieces(out: Path) -> Path:
    return out.with_name(f".{out.name}.pieces")


class _Pieces:
    """The pieces of one download that have come so far; pieces of another version are forgotten."""

    def __init__(self, out: Path, version: Mapping[str, Any]) -> None:
        self.folder = _pieces(out)
        self.state = self.folder / "state.json"
        self.version = dict(version)
        self.sums: dict[str, str] = {}
        if self.state.exists():
            state = read_json(self.state)
            if state["version"] == self.version:
                self.sums = state["sha256"]
                log.info("%s: goes on after %d pieces", out, len(self.sums))
            else:
                log.info("%s: the source has changed; starts anew", out)
                shutil.rmtree(self.folder)

    def get(self, number: int) -> bytes | None:
        """Give a piece that came whole, else None."""
        path = self.folder / f"{number:06d}"
        if str(number) not in self.sums or not path.exists():
            return None
        content = path.read_bytes()
        return content if sha256_bytes(content) == self.sums[str(number)] else None

    def put(self, number: int, content: bytes) -> None:
        """Keep a piece; it counts once its checksum is written."""
        write_bytes(self.folder / f"{number:06d}", content)
        self.sums[str(number)] = sha256_bytes(content)
        write_json(self.state, {"version": self.version, "sha256": self.sums})


def _fetch_file(http: Client, url: str, out: Path) -> dict[str, Any]:
    """Fetch a file in pieces, all of one version and one size; a server without ranges sends it at once."""
    from cityheads.archive.http import NetworkError

    first = http.get(url, span=(0, 1), limit=_MAX_PAGE_BYTES)
    if first.total == len(first.content) == 1:
        first = http.get(url, limit=_MAX_PAGE_BYTES)
    total, version = first.total, first.version
    pieces = _Pieces(out, {"url": scrub(url), "total": total, "etag": version})
    spans = [(start, min(start + _PIECE_BYTES, total)) for start in range(0, total, _PIECE_BYTES)]
    with atomic_path(out) as part, part.open("wb") as stream:
        for number, span in enumerate(spans):
            content = pieces.get(number)
            if content is None:
                answer = http.get(url, span=span, limit=_MAX_PAGE_BYTES)
                if answer.total != total or answer.version != version:
                    raise NetworkError(f"{scrub(url)}: the file changed during the download; run again")
                content = answer.content
                if len(content) != span[1] - span[0]:
                    raise NetworkError(f"{scrub(url)}: {len(content)} bytes came of {span[1] - span[0]}; run again")
                pieces.put(number, content)
                progress.info("%s: %d of %d bytes", out.name, span[1], total)
            stream.write(content)
    return {"etag": version}


def _fetch_pages(http: Client, url: str, out: Path) -> dict[str, Any]:
    """Fetch a Socrata resource page by page, ordered by its row id, and join the pages to one GeoJSON file."""
    count = _count(http, url)
    if count == 0:
        raise CityHeadsError(f"{scrub(url)}: holds no rows")
    pieces = _Pieces(out, {"url": scrub(url), "count": count, "page_rows": _PAGE_ROWS})
    pages = range(-(-count // _PAGE_ROWS))
    for number in pages:
        if pieces.get(number) is not None:
            continue
        wanted = min(_PAGE_ROWS, count - number * _PAGE_ROWS)
        query = urlencode({"$limit": wanted, "$offset": number * _PAGE_ROWS, "$order": ":id"})
        answer = http.get(f"{url}.geojson?{query}", limit=_MAX_PAGE_BYTES, check=lambda page: _features(page))
        rows = _features(answer.content)
        if len(rows) != wanted:
            raise CityHeadsError(f"{scrub(url)}: page {number + 1} holds {len(rows)} rows of {wanted}; run again")
        # the layer repeats each geometry as a property of its own; nobody reads it
        for row in rows:
            row["properties"].pop("the_geom", None)
        pieces.put(number, ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows).encode())
        progress.info("%s: %d of %d rows", out.name, number * _PAGE_ROWS + wanted, count)
    again = _count(http, url)
    if again != count:
        raise CityHeadsError(f"{scrub(url)}: the layer grew from {count} to {again} rows meanwhile; run again")
    with atomic_path(out) as part, part.open("wb") as stream:
        stream.write(b'{"type":"FeatureCollection","features":[\n')
        for number in pages:
            content = pieces.get(number)
            if content is None:
                raise CityHeadsError(f"{_pieces(out)}: page {number + 1} is damaged; run again")
            stream.write((b",\n" if number else b"") + content)
        stream.write(b"\n]}\n")
    return {"rows": count}


def _features(page: bytes) -> list[dict[str, Any]]:
    """Give a page's rows; ValueError where it is not a whole FeatureCollection."""
    rows = json.loads(page)
    if not isinstance(rows, dict) or not isinstance(rows.get("features"), list):
        raise ValueError("no FeatureCollection")
    features: list[dict[str, Any]] = rows["features"]
    return features


def _count(http: Client, url: str) -> int:
    answer = http.get_json(f"{url}.json?{urlencode({'$select': 'count(*)'})}")
    try:
        return int(next(iter(answer[0].values())))
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        raise CityHeadsError(f"{scrub(url)}: does not say how many rows it has; is it a Socrata resource?") from None


def _fetch_overture(url: str, parents: Iterable[Parent], grid: Grid, out: Path) -> dict[str, Any]:
    """Take the buildings around the parents out of an Overture release; heights in metres become feet."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq
    from pyarrow import fs

    filesystem: Any = None
    place = url
    if url.startswith("s3://"):
        # the bucket is public and lies in this region (docs.overturemaps.org, "Getting data")
        filesystem, place = fs.S3FileSystem(anonymous=True, region="us-west-2"), url.removeprefix("s3://")
    elif not Path(url).is_dir():
        raise CityHeadsError(f"{url}: no such folder; name the folder of an Overture release")
    near = None
    for parent in parents:
        left, bottom, right, top = parent_polygon(parent, grid, 4326).buffer(1e-3).bounds
        here = (
            (pc.field("bbox", "xmin") <= right) & (pc.field("bbox", "xmax") >= left)
            & (pc.field("bbox", "ymin") <= top) & (pc.field("bbox", "ymax") >= bottom)
        )  # fmt: skip
        near = here if near is None else near | here
    try:
        source = ds.dataset(place, filesystem=filesystem, format="parquet", exclude_invalid_files=False)
        missing = sorted({"id", "geometry", "bbox", "height", "class", "subtype"} - set(source.schema.names))
        if missing:
            raise CityHeadsError(
                f"{scrub(url)}: no column {missing[0]}; is it Overture's theme=buildings/type=building?"
            )
        table = source.to_table(columns=["id", "geometry", "height", "class", "subtype"], filter=near)
    except (pa.ArrowException, OSError) as error:
        raise CityHeadsError(f"{scrub(url)}: cannot be read as Parquet ({error})") from None
    if table.num_rows == 0:
        raise CityHeadsError(f"{scrub(url)}: no building lies around the parents")
    table = table.sort_by("id")
    height = pc.divide(table["height"].cast(pa.float64()), _FOOT_M)
    columns = {
        "overture_id": table["id"], "class": table["class"], "subtype": table["subtype"], "height_roof_ft": height,
        "geometry": table["geometry"].cast(pa.binary()),
    }  # fmt: skip
    column = {"encoding": "WKB", "geometry_types": [], "crs": _crs84()}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    with atomic_path(out) as part:
        pq.write_table(pa.table(columns).replace_schema_metadata({"geo": json.dumps(geo)}), part, compression="zstd")
    return {"rows": table.num_rows}


def _crs84() -> Any:
    from pyproj import CRS

    return CRS.from_user_input("OGC:CRS84").to_json_dict()
