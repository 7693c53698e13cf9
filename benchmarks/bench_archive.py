"""Read one 12-band parent over HTTP at 50 ms a request: bytes over the minimum, wall time against others, memory.

    python benchmarks/bench_archive.py [--latency-ms 50] [--parent-px 896] [--repeats 3]

A Sentinel-2 tile of 10980 px (12 bands at 10, 20 and 60 m, in 512 px blocks with the directory first, of noise that
hardly compresses) is made once and served on loopback by a process that waits before each answer. Each reader runs
in a process of its own, three times, in turn; the best wall time counts. The others are odc-stac and stackstac, where
they are installed, with GDAL set up as their documentation advises. The last line sets reading 22 parents' worth from
disk against decoding alone, on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TILE_PX, BLOCK_PX, EPSG = 10980, 512, 32618
TILE_LEFT, TILE_TOP = 499980.0, 4600020.0
GSD = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
       "B11": 20, "B12": 20}  # fmt: skip
#: Upper left pixel of the parent: on the 60 m grid, on no block's edge.
COLUMN, ROW = 3000, 4200
READERS = ("cityheads", "odc-stac", "stackstac")
GDAL: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIRANGE": "YES",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif",
}


def make_tile(folder: Path, around_px: int) -> None:
    """Write the tile's bands; only the surroundings of the parent hold data, the rest are blocks never written."""
    import rasterio

    for band, gsd in GSD.items():
        path = folder / f"{band}.tif"
        if path.exists():
            continue
        size = TILE_PX * 10 // gsd
        rng = np.random.default_rng(gsd + int(band[1:].replace("A", "9")))
        first_row, first_column = (max(0, (start - 1024) * 10 // gsd) for start in (ROW, COLUMN))
        span = (around_px + 2048) * 10 // gsd
        window = rasterio.windows.Window(first_column, first_row, span, span)
        pixels = rng.normal(2500, 700, (span, span)).clip(1, 20000).astype(np.uint16)
        part = folder / f".{band}.tif"
        with rasterio.open(
            part, "w", driver="GTiff", count=1, height=size, width=size, dtype="uint16", crs=f"EPSG:{EPSG}", nodata=0,
            transform=rasterio.transform.from_origin(TILE_LEFT, TILE_TOP, gsd, gsd), tiled=True, blockxsize=BLOCK_PX,
            blockysize=BLOCK_PX, compress="deflate", predictor=2, sparse_ok=True,
        ) as made:  # fmt: skip
            made.write(pixels, 1, window=window)
        part.rename(path)


def minimum_bytes(folder: Path, px: int) -> tuple[int, int]:
    """Give the bytes of the blocks that the parent touches, computed from the file with rasterio, and their number."""
    import rasterio

    total = count = 0
    for band, gsd in GSD.items():
        with rasterio.open(folder / f"{band}.tif") as source:
            rows = range(ROW * 10 // gsd // BLOCK_PX, -(-(ROW + px) * 10 // gsd // BLOCK_PX))
            columns = range(COLUMN * 10 // gsd // BLOCK_PX, -(-(COLUMN + px) * 10 // gsd // BLOCK_PX))
            for row in rows:
                for column in columns:
                    total += int(source.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1))
                    count += 1
    return total, count


# --- the server -------------------------------------------------------------------------------------------------------


def serve(folder: Path, latency_s: float) -> None:
    """Serve byte ranges of a folder; ``GET /counts`` gives and resets what was sent."""
    import re
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    counts = {"bytes": 0, "requests": 0}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if self.path == "/counts":
                with lock:
                    body = json.dumps(counts).encode()
                    counts.update(bytes=0, requests=0)
                return self.send(200, body, {})
            time.sleep(latency_s)
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                return self.send(404, b"", {})
            size = path.stat().st_size
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, stop = (int(match[1]), min(int(match[2]) + 1, size)) if match else (0, size)
            with path.open("rb") as stream:
                stream.seek(start)
                body = b"" if self.command == "HEAD" else stream.read(stop - start)
            with lock:
                counts["bytes"] += len(body)
                counts["requests"] += 1
            place = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if match else {}
            return self.send(206 if match else 200, body, {"Content-Length": str(stop - start), **place})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


# --- the readers ------------------------------------------------------------------------------------------------------


def stac_item(url: str, px: int) -> Any:
    """Make the tile's item, with the projection fields that the other readers look at."""
    import pystac
    from rasterio.warp import transform_bounds, transform_geom

    side = TILE_PX * 10
    ring = [(TILE_LEFT, TILE_TOP - side), (TILE_LEFT + side, TILE_TOP - side), (TILE_LEFT + side, TILE_TOP),
            (TILE_LEFT, TILE_TOP), (TILE_LEFT, TILE_TOP - side)]  # fmt: skip
    geometry = transform_geom(f"EPSG:{EPSG}", "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
    bounds = transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", TILE_LEFT, TILE_TOP - side, TILE_LEFT + side, TILE_TOP)
    import datetime

    when = datetime.datetime(2024, 7, 10, tzinfo=datetime.UTC)
    item = pystac.Item("tile", geometry, list(bounds), when, {"proj:epsg": EPSG})
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    for band, gsd in GSD.items():
        size = TILE_PX * 10 // gsd
        fields = {
            "proj:shape": [size, size],
            "proj:transform": [gsd, 0, TILE_LEFT, 0, -gsd, TILE_TOP],
            "raster:bands": [{"data_type": "uint16", "nodata": 0}],
        }
        item.add_asset(band, pystac.Asset(f"{url}/{band}.tif", extra_fields=fields))
    return item


def read_cityheads(url: str, px: int, threads: int) -> np.ndarray:
    """Read with CityHeads."""
    from cityheads.archive.read.layers import Wanted, read_layers
    from cityheads.config import ArchiveConfig, NetworkConfig
    from cityheads.core.grid import Grid, Parent

    archive = ArchiveConfig(
        catalog=f"{url}/catalog.json", workers=threads, network=NetworkConfig(attempts=3, connections=threads)
    )
    prefix = f"{url}/" if url.startswith("http") else ""
    scenes: Any = {
        "catalog": f"{url}/catalog.json",
        "layers": {
            "S2L2A": {
                "collection": "bench",
                "items": [{"id": "tile", "assets": {band: f"{prefix}{band}.tif" for band in GSD}}],
            }
        },
    }
    parent = Parent("P1", EPSG, TILE_LEFT + 10 * COLUMN, TILE_TOP - 10 * ROW)
    wanted = {"S2L2A": Wanted("S2L2A", tuple(GSD), "nearest", 0, 0)}
    layer = read_layers(scenes, wanted, parent, Grid(10, px, 4), archive)["S2L2A"]
    return np.stack([layer.pixels[band][0] for band in GSD])


def read_odc(url: str, px: int, threads: int) -> np.ndarray:
    """Read with odc-stac."""
    import odc.stac
    from affine import Affine
    from odc.geo.geobox import GeoBox

    odc.stac.configure_rio(cloud_defaults=True, **GDAL)
    grid = GeoBox((px, px), Affine(10, 0, TILE_LEFT + 10 * COLUMN, 0, -10, TILE_TOP - 10 * ROW), f"EPSG:{EPSG}")
    cube = odc.stac.load([stac_item(url, px)], bands=list(GSD), geobox=grid, resampling="nearest", pool=threads)
    return np.stack([cube[band].values[0] for band in GSD])


def read_stackstac(url: str, px: int, threads: int) -> np.ndarray:
    """Read with stackstac."""
    import dask
    import pandas as pd
    import stackstac
    from rasterio.enums import Resampling

    # stackstac 0.5 passes an argument that pandas 3 no longer has
    to_datetime: Any = pd.to_datetime
    setattr(pd, "to_datetime", lambda *values, infer_datetime_format=None, **how: to_datetime(*values, **how))  # noqa: B010
    left, top = TILE_LEFT + 10 * COLUMN, TILE_TOP - 10 * ROW
    cube = stackstac.stack(
        [stac_item(url, px)], assets=list(GSD), epsg=EPSG, resolution=10, snap_bounds=False, dtype=np.dtype("uint16"),
        bounds=(left, top - 10 * px, left + 10 * px, top), resampling=Resampling.nearest, fill_value=np.uint16(0),
        rescale=False, chunksize=px, gdal_env=stackstac.DEFAULT_GDAL_ENV.updated(always=GDAL),
    )  # fmt: skip
    with dask.config.set(scheduler="threads", num_workers=threads):
        values: np.ndarray = cube.values[0]
    return values


def run_reader(name: str, url: str, px: int, threads: int) -> None:
    """Run one reader, imports done beforehand, and print what it cost."""
    readers = {"cityheads": read_cityheads, "odc-stac": read_odc, "stackstac": read_stackstac}
    ours = ["cityheads.archive.read.layers", "rasterio"]
    modules = {"cityheads": ours, "odc-stac": ["odc.stac"],
               "stackstac": ["stackstac", "dask.array"]}  # fmt: skip
    for module in modules[name]:
        importlib.import_module(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    pixels = readers[name](url, px, threads)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    import zlib

    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "memory_mb": grown / 1024, "crc": zlib.crc32(pixels.tobytes())}))


def decode_limit(folder: Path, px: int) -> float:
    """Measure one core decoding the same window from disk, band after band."""
    import rasterio
    from rasterio.windows import Window

    started = time.process_time()
    for band, gsd in GSD.items():
        with rasterio.open(folder / f"{band}.tif") as source:
            source.read(1, window=Window(COLUMN * 10 // gsd, ROW * 10 // gsd, -(-px * 10 // gsd), -(-px * 10 // gsd)))
    return time.process_time() - started


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--parent-px", type=int, default=896)
    parser.add_argument("--threads", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "cityheads-bench-archive")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.folder, options.latency_ms / 1000)
    if options.reader:
        return run_reader(options.reader, options.url, options.parent_px, options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    make_tile(options.folder, options.parent_px)
    least, blocks = minimum_bytes(options.folder, options.parent_px)
    print(f"one parent of {options.parent_px} px, 12 bands: {blocks} blocks, {least / 1e6:.2f} MB at least")
    print(f"{options.latency_ms:g} ms a request, {options.threads} threads")
    own = [sys.executable, __file__, "--folder", str(options.folder)]
    serving = [*own, "--serve", "--latency-ms", str(options.latency_ms)]
    server = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        compare(own, url, options, least)
    finally:
        server.terminate()
        server.wait()
    decoding = sum(decode_limit(options.folder, options.parent_px) for _ in range(22))
    started = time.process_time()
    for _ in range(22):
        read_cityheads(str(options.folder), options.parent_px, 1)
    reading = time.process_time() - started
    print(f"22 parents from disk, one thread: {reading:.2f} s CPU, of which decoding alone takes {decoding:.2f} s")


def compare(own: list[str], url: str, options: argparse.Namespace, least: int) -> None:
    """Run the readers in turn and print a line for each."""
    import urllib.request

    def counts() -> dict[str, int]:
        with urllib.request.urlopen(f"{url}/counts") as answer:
            found: dict[str, int] = json.load(answer)
            return found

    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.repeats):
        for name in READERS:
            if importlib.util.find_spec({"odc-stac": "odc.stac"}.get(name, name)) is None:
                continue
            counts()
            asked = ["--parent-px", str(options.parent_px), "--threads", str(options.threads)]
            command = [*own, "--reader", name, "--url", url, *asked]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **GDAL})
            found = {**json.loads(done.stdout), **counts()}
            if name not in best or found["wall_s"] < best[name]["wall_s"]:
                best[name] = found
    heads = ("wall s", "cpu s", "requests", "MB", "of minimum", "memory MB", "same pixels")
    print(f"{'reader':12} " + " ".join(f"{head:>11}" for head in heads))
    for name, found in best.items():
        same = "-" if name == "cityheads" else ("yes" if found["crc"] == best["cityheads"]["crc"] else "NO")
        cells = (
            f"{found['wall_s']:.2f}",
            f"{found['cpu_s']:.2f}",
            str(found["requests"]),
            f"{found['bytes'] / 1e6:.2f}",
            f"{found['bytes'] / least:.3f}",
            f"{found['memory_mb']:.0f}",
            same,
        )
        print(f"{name:12} " + " ".join(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    main()
