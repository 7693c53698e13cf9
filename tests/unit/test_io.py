"""Files are whole or not there."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import atomic_path, canonical_json, read_json, write_json
from cityheads.core.raster import read_raster, write_raster

BOX = GeoBox((32, 48), rasterio.transform.from_origin(500000, 4500000, 10, 10), "EPSG:32618")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"new": float("nan")})
    with pytest.raises(ZeroDivisionError), atomic_path(path) as part:
        part.write_text(f"half {1 / 0}")
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "cannot be written")])
def test_a_full_disk_or_a_closed_folder_is_one_line_that_names_the_file(tmp_path: Path, number: int, says: str) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(CityHeadsError, match=says) as caught, atomic_path(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs of its own in a user namespace")
def test_a_really_full_disk_stops_a_raster_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import numpy as np, os, sys
from pathlib import Path
from odc.geo.geobox import GeoBox
from affine import Affine
from cityheads.core.errors import CityHeadsError
from cityheads.core.raster import write_raster
noise = np.random.default_rng(0).integers(0, 65535, (12, 256, 256), np.uint16)
box = GeoBox((256, 256), Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
try:
    write_raster(Path("{tmp_path}/a.tif"), noise, box, nodata=0)
except CityHeadsError as error:
    print("LINE", error, os.listdir("{tmp_path}"))
"""
    mounted = f"mount -t tmpfs -o size=256k none {tmp_path} && exec {sys.executable} -c '{script}'"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert "no space left on the device" in done.stdout, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("[]")


def test_what_a_killed_writer_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    (tmp_path / ".a.part.json").write_text("something much longer than what comes")
    write_json(path, 1)
    assert path.read_text() == "1\n"
    assert os.listdir(tmp_path) == ["a.json"]


def _write_slowly(path: Path, letter: str) -> None:
    for _ in range(20):
        with atomic_path(path) as part, part.open("w") as stream:
            for _ in range(50):
                stream.write(letter * 100)
                stream.flush()


def test_two_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_slowly, args=(path, letter)) for letter in "xy"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    text = path.read_text()
    assert len(text) == 5000
    assert len(set(text)) == 1
    assert os.listdir(tmp_path) == ["a.txt"]


def test_rasters_come_back_as_they_were_and_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(2, 32, 48)).astype("float32")
    array[0, 3, 4] = np.nan
    for name in ("a.tif", "b.tif"):
        write_raster(tmp_path / name, array, BOX, nodata=np.nan, bands=["VV", "VH"], tags={"b": "2", "a": "1"})
    back, box = read_raster(tmp_path / "a.tif")
    np.testing.assert_array_equal(back, array)
    assert box == BOX
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.descriptions == ("VV", "VH")
        assert np.isnan(source.nodata)
        assert source.crs.to_epsg() == 32618


def test_masks_carry_their_colours(tmp_path: Path) -> None:
    mask = np.arange(32 * 48, dtype="uint8").reshape(32, 48) % 2
    write_raster(tmp_path / "m.tif", mask, BOX, nodata=255, colors={0: "#000000", 1: "#ff8000"})
    with rasterio.open(tmp_path / "m.tif") as source:
        assert source.colormap(1)[1] == (255, 128, 0, 255)
        assert source.nodata == 255


def test_broken_files_are_named(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9999, (12, 32, 48), dtype="uint16")
    path = tmp_path / "a.tif"
    write_raster(path, array, BOX, nodata=0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CityHeadsError, match=r"a\.tif: cannot be read as a raster"):
        read_raster(path)
    with pytest.raises(CityHeadsError, match="no such file"):
        read_raster(tmp_path / "none.tif")
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(CityHeadsError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == canonical_json({"a": None, "b": [1, 2.5]})
