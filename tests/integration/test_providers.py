"""Footprints over the network: resumed, checksummed, and never taken for whole when they are not."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from fault_server import Fault, FaultServer

from cityheads.config import Config, resolve
from cityheads.core.errors import CityHeadsError
from cityheads.labels import download as providers
from cityheads.labels.download import fetch_footprints, is_whole
from cityheads.labels.preparation import prepare_footprints

QUICK = {"attempts": 3, "backoff_s": 0.001, "timeout_s": 0.4, "connections": 2}


def make_config(**archive: Any) -> Config:
    classes = [{"name": "not building", "color": "#e8e6e1"}, {"name": "building", "color": "#4b3f72"}]
    return resolve(
        {
            "grid": {"parent_px": 128, "chips_per_side": 4},
            "archive": {"provider": "simulated", "network": QUICK, **archive},
            "labels": {"BUILDINGS": {"kind": "footprints", "feature_codes": [], "classes": classes}},
            "heads": {"buildings": {"label": "BUILDINGS"}},
            "runs": {"multihead": {"heads": ["buildings"]}, "buildings": {"heads": ["buildings"]}},
        }
    )


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "parents.tsv"
    path.write_text("parent_id\tepsg\tleft\ttop\nM1\t32618\t585750\t4511950\n")
    return path


@pytest.fixture
def pieces_of_4_kb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_PIECE_BYTES", 4096)


def fetch(sheet: Path, provider: str, out: Path, url: str | None, **archive: Any) -> None:
    fetch_footprints(make_config(**archive), parents=sheet, provider=provider, out=out, url=url)


# --------------------------------------------------------------------------------------------------- a plain file


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    content = np.random.default_rng(0).bytes(30_000)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.bin").write_bytes(content)
    return content


def test_a_file_comes_whole_and_once(tmp_path: Path, sheet: Path, content: bytes, pieces_of_4_kb: None) -> None:
    out = tmp_path / "a.bin"
    with FaultServer(tmp_path / "site") as server:
        fetch(sheet, "file", out, f"{server.url}/a.bin")
        assert out.read_bytes() == content
        note = json.loads((tmp_path / "a.bin.json").read_text())
        assert note["bytes"] == 30_000
        asked = len(server.requests)
        assert asked == 9, "one byte, then 8 pieces"
        fetch(sheet, "file", out, f"{server.url}/a.bin")
        assert len(server.requests) == asked, "a whole copy is not fetched again"
        out.write_bytes(content[:20_000])
        assert not is_whole(out, f"{server.url}/a.bin")
        fetch(sheet, "file", out, f"{server.url}/a.bin")
        assert out.read_bytes() == content, "a truncated copy never counts"
    assert not list(tmp_path.glob(".a.bin*"))


def test_the_workflow_fetches_what_the_config_says(
    tmp_path: Path, content: bytes, snakemake: Callable[..., subprocess.CompletedProcess[str]], repository: Path
) -> None:
    """By a rule, once; with the checksum kept, and refused where it is not the one that the config has."""
    shutil.copytree(repository / "config", tmp_path / "config")
    overlay, target = tmp_path / "over.yaml", tmp_path / "data" / "a.bin"

    def run(*options: str, check: bool = True, **download: Any) -> str:
        labels = {"BUILDINGS": {"source": "data/a.bin"}}
        overlay.write_text(yaml.safe_dump({"labels": labels, "downloads": {"data/a.bin": download}}))
        done = snakemake(tmp_path, "data/a.bin", *options, "--cores", "1", "--configfile", overlay, check=check)
        assert (done.returncode == 0) == check
        return done.stdout + done.stderr

    with FaultServer(tmp_path / "site") as server:
        url = f"{server.url}/a.bin"
        run(provider="file", url=url)
        assert target.read_bytes() == content
        assert json.loads(target.with_name("a.bin.json").read_text())["sha256"] == hashlib.sha256(content).hexdigest()
        assert "Nothing to be done" in run("-n", provider="file", url=url)
        told = run(check=False, provider="file", url=url, sha256="0" * 64)
        assert f"has {hashlib.sha256(content).hexdigest()}, not {'0' * 64}" in told
        assert not target.exists()


def test_an_interrupted_download_goes_on(tmp_path: Path, sheet: Path, content: bytes, pieces_of_4_kb: None) -> None:
    out = tmp_path / "a.bin"
    with FaultServer(tmp_path / "site", faults=[Fault("503", skip=4)]) as server:
        with pytest.raises(CityHeadsError, match="the server answers 503"):
            fetch(sheet, "file", out, f"{server.url}/a.bin")
        assert not out.exists()
        server.faults.clear()
        # a piece that rots on the disk is fetched again
        (tmp_path / ".a.bin.pieces" / "000001").write_bytes(b"x" * 4096)
        server.requests.clear()
        fetch(sheet, "file", out, f"{server.url}/a.bin")
        assert out.read_bytes() == content
        spans = [span for _, _, span in server.requests]
        assert "bytes=0-4095" not in spans, "what came whole is not asked for again"
        assert "bytes=4096-8191" in spans
        assert "bytes=8192-12287" not in spans


@pytest.mark.parametrize("kind", ["truncated", "short range", "reset", "closed"])
def test_pieces_that_break_off_are_asked_for_again(
    tmp_path: Path, sheet: Path, content: bytes, pieces_of_4_kb: None, kind: str
) -> None:
    with FaultServer(tmp_path / "site", faults=[Fault(kind, skip=3, times=2)]) as server:
        fetch(sheet, "file", tmp_path / "a.bin", f"{server.url}/a.bin")
    assert (tmp_path / "a.bin").read_bytes() == content


def test_a_file_that_changes_meanwhile_is_not_mixed(
    tmp_path: Path, sheet: Path, content: bytes, pieces_of_4_kb: None
) -> None:
    out, newer = tmp_path / "a.bin", bytes(reversed(content)) + b"more"
    with FaultServer(tmp_path / "site", faults=[Fault("503", skip=4)]) as server:
        with pytest.raises(CityHeadsError):
            fetch(sheet, "file", out, f"{server.url}/a.bin")
        (tmp_path / "site" / "a.bin").write_bytes(newer)
        server.faults.clear()
        fetch(sheet, "file", out, f"{server.url}/a.bin")
    assert out.read_bytes() == newer


def test_a_server_without_ranges_sends_it_at_once(tmp_path: Path, sheet: Path, content: bytes) -> None:
    with FaultServer(tmp_path / "site", faults=[Fault("no ranges")]) as server:
        fetch(sheet, "file", tmp_path / "a.bin", f"{server.url}/a.bin")
    assert (tmp_path / "a.bin").read_bytes() == content


def test_refusals_are_one_line(tmp_path: Path, sheet: Path) -> None:
    (tmp_path / "site").mkdir()
    with FaultServer(tmp_path / "site") as server, pytest.raises(CityHeadsError, match="the server answers 404"):
        fetch(sheet, "file", tmp_path / "a.bin", f"{server.url}/absent.bin")
    with pytest.raises(CityHeadsError, match="--provider osm: is none of nyc, overture, file"):
        fetch(sheet, "osm", tmp_path / "a.bin", None)
    with pytest.raises(CityHeadsError, match="--url: name the file"):
        fetch(sheet, "file", tmp_path / "a.bin", None)
    with pytest.raises(CityHeadsError, match="--url: name the folder of an Overture release"):
        fetch(sheet, "overture", tmp_path / "a.bin", None)
    with pytest.raises(CityHeadsError, match="offline"):
        fetch(sheet, "nyc", tmp_path / "a.bin", None, offline=True)


# ------------------------------------------------------------------------------------------- the city's layer, paged


class Socrata:
    """Serves the real block's features the way the city's site does."""

    def __init__(self, features: list[dict[str, Any]]) -> None:
        self.features = features
        self.short = False

    def __call__(self, method: str, path: str, sent: bytes) -> tuple[int, bytes] | None:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        if parts.path == "/resource/5zhs-2jue.json":
            assert query["$select"] == ["count(*)"]
            return 200, json.dumps([{"count": str(len(self.features))}]).encode()
        if parts.path == "/resource/5zhs-2jue.geojson":
            assert query["$order"] == [":id"], "pages are only pages when the rows have an order"
            start, limit = int(query["$offset"][0]), int(query["$limit"][0])
            page = self.features[start : start + limit - (1 if self.short else 0)]
            return 200, json.dumps({"type": "FeatureCollection", "features": page}).encode()
        return None


@pytest.fixture
def socrata(realdata: Path, monkeypatch: pytest.MonkeyPatch) -> Socrata:
    monkeypatch.setattr(providers, "_PAGE_ROWS", 300)
    path = realdata / "nyc_buildings_murrayhill" / "building_footprints.geojson"
    return Socrata(json.loads(path.read_text())["features"])


def test_the_official_layer_page_by_page(tmp_path: Path, sheet: Path, socrata: Socrata, realdata: Path) -> None:
    """Broken off in the middle, resumed, and equal to the real export; then it prepares as the export does."""
    out = tmp_path / "nyc.geojson"
    with FaultServer(tmp_path, answer=socrata, faults=[Fault("truncated", ".geojson", skip=2)]) as server:
        url = f"{server.url}/resource/5zhs-2jue"
        with pytest.raises(CityHeadsError, match="truncated"):
            fetch(sheet, "nyc", out, url)
        assert not out.exists()
        server.faults.clear()
        server.requests.clear()
        fetch(sheet, "nyc", out, url)
        assert server.count("offset=0") == server.count("offset=300") == 0
        assert server.count(".geojson") == 3
    ours = gpd.read_file(out)
    export = gpd.read_file(realdata / "nyc_buildings_murrayhill" / "building_footprints.geojson")
    assert list(ours["bin"]) == list(export["bin"])
    assert shapely.equals(ours.geometry.to_numpy(), export.geometry.to_numpy()).all()
    assert json.loads((tmp_path / "nyc.geojson.json").read_text())["rows"] == 1285
    prepare_footprints(
        make_config(), parents=sheet, label="BUILDINGS", source=out,
        boundary=realdata / "nyc_boroughs" / "nybb_16a.zip", out=tmp_path / "f.parquet",
        boundary_out=tmp_path / "b.parquet", summary=tmp_path / "s.json",
    )  # fmt: skip
    assert json.loads((tmp_path / "s.json").read_text())["area_km2"] == pytest.approx(0.644278, abs=1e-6)


def test_a_short_page_and_a_growing_layer_never_count(
    tmp_path: Path, sheet: Path, socrata: Socrata, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "nyc.geojson"
    with FaultServer(tmp_path, answer=socrata) as server:
        url = f"{server.url}/resource/5zhs-2jue"
        socrata.short = True
        with pytest.raises(CityHeadsError, match="page 1 holds 299 rows of 300; run again"):
            fetch(sheet, "nyc", out, url)
        socrata.short = False
        plain = providers._features

        def growing(page: bytes) -> list[dict[str, Any]]:
            if len(socrata.features) == 1285:
                socrata.features.append(socrata.features[0])
            return plain(page)

        with monkeypatch.context() as patch:
            patch.setattr(providers, "_features", growing)
            with pytest.raises(CityHeadsError, match="grew from 1285 to 1286 rows"):
                fetch(sheet, "nyc", out, url)
        assert not out.exists()
        fetch(sheet, "nyc", out, url)
    assert len(gpd.read_file(out)) == 1286


def test_what_is_no_resource_is_one_line(tmp_path: Path, sheet: Path) -> None:
    with (
        FaultServer(tmp_path, answer=lambda *_: (200, b'{"error": true}')) as server,
        pytest.raises(CityHeadsError, match="does not say how many rows"),
    ):
        fetch(sheet, "nyc", tmp_path / "a.geojson", f"{server.url}/resource/x")


# ------------------------------------------------------------------------------------------------------- Overture


def overture(folder: Path, shapes: list[Any]) -> Path:
    """A release in the shape of Overture's: several files, bbox structs of floats, heights in metres."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    release = folder / "theme=buildings" / "type=building"
    release.mkdir(parents=True)
    for number, part in enumerate((shapes[::2], shapes[1::2])):
        bounds = shapely.bounds(part).astype(np.float32)
        corners = ("xmin", "ymin", "xmax", "ymax")
        box = pa.StructArray.from_arrays([pa.array(bounds[:, i]) for i in range(4)], names=corners)
        columns = {
            "id": pa.array([f"{number}{i}" for i in range(len(part))]), "geometry": pa.array(shapely.to_wkb(part)),
            "bbox": box, "height": pa.array([12.192, *[None] * (len(part) - 1)], pa.float64()),
            "class": pa.array(["residential"] * len(part)), "subtype": pa.array([None] * len(part), pa.string()),
            "sources": pa.array([[{"dataset": "OpenStreetMap"}]] * len(part)),
        }  # fmt: skip
        pq.write_table(pa.table(columns), release / f"part-{number}.parquet")
    return release


def test_overtures_buildings_around_the_parents(tmp_path: Path, sheet: Path, realdata: Path) -> None:
    block = gpd.read_file(realdata / "nyc_buildings_murrayhill" / "building_footprints.geojson").geometry
    shapes = [*block.iloc[:40], *(shapely.box(10 + i, 50, 10.001 + i, 50.001) for i in range(40))]
    out = tmp_path / "overture.parquet"
    fetch(sheet, "overture", out, str(overture(tmp_path / "release", shapes)))
    frame = gpd.read_parquet(out)
    assert len(frame) == 40
    assert sorted(shapely.to_wkb(frame.geometry.to_numpy())) == sorted(shapely.to_wkb(block.iloc[:40].to_numpy()))
    assert frame["height_roof_ft"].dropna().tolist() == pytest.approx([40.0, 40.0])
    prepare_footprints(
        make_config(), parents=sheet, label="BUILDINGS", source=out,
        boundary=realdata / "nyc_boroughs" / "nybb_16a.zip", out=tmp_path / "f.parquet",
        boundary_out=tmp_path / "b.parquet", summary=tmp_path / "s.json",
    )  # fmt: skip
    assert json.loads((tmp_path / "s.json").read_text())["kept"] == 40


def test_releases_that_cannot_be_used(tmp_path: Path, sheet: Path) -> None:
    with pytest.raises(CityHeadsError, match="no such folder"):
        fetch(sheet, "overture", tmp_path / "o.parquet", str(tmp_path / "absent"))
    elsewhere = overture(tmp_path / "release", [shapely.box(10, 50, 11, 51)] * 2)
    with pytest.raises(CityHeadsError, match="no building lies around the parents"):
        fetch(sheet, "overture", tmp_path / "o.parquet", str(elsewhere))
    (elsewhere / "part-1.parquet").write_bytes((elsewhere / "part-1.parquet").read_bytes()[:-50])
    with pytest.raises(CityHeadsError, match="cannot be read as Parquet"):
        fetch(sheet, "overture", tmp_path / "o.parquet", str(elsewhere))
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other" / "a.parquet")
    with pytest.raises(CityHeadsError, match=r"no column bbox; is it Overture's"):
        fetch(sheet, "overture", tmp_path / "o.parquet", str(tmp_path / "other"))
    assert not (tmp_path / "o.parquet").exists()
