"""Each fault x each collection x passing or lasting: right bytes or one line, never something in between.

The table in docs/fault-matrix.md is what this test saw. ``CITYHEADS_UPDATE_DOCS=1`` writes it anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import Fault, FaultServer
from made_archive import complete, config, sheet

from cityheads.archive import ranges, signing
from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.read.parent import read_parent
from cityheads.config import Config
from cityheads.core.artifacts.reading import READING
from cityheads.core.errors import CityHeadsError
from cityheads.labels.landcover import rasterize_landcover

pytestmark = pytest.mark.slow

UPDATE = "CITYHEADS_UPDATE_DOCS=1 pytest -m slow tests/integration/test_fault_matrix.py"

NETWORK = {"attempts": 3, "backoff_s": 0.001, "connections": 8}

#: Which request is struck: of a collection's raster, the one for its header, and the one for its pixels.
COLLECTIONS = {
    "catalogue": ("catalog.json", "catalog.json"),
    "sentinel-2-l2a": ("S2_A/B05", "item S2_A: band B05"),
    "sentinel-1-rtc": ("S1_A/vh", "item S1_A: band VH"),
    "cop-dem-glo-30": ("DEM_A/data", "item DEM_A: band DEM"),
    "esa-worldcover": ("WC_A/map", "item WC_A"),
}

FAULTS = {
    "429": "429 Too Many Requests, with Retry-After",
    "500": "500 Internal Server Error",
    "503": "503 Service Unavailable",
    "reset": "connection reset",
    "closed": "connection closed without an answer",
    "silence": "no answer within the time-out",
    "truncated": "body cut off",
    "short range": "range shorter than asked for",
    "garbled": "bytes changed on the way",
    "expired": "403, expired signature",
    "404": "404 Not Found",
}

#: A missing file is not asked for again: that it comes back is not expected of anyone.
FINAL = {"404"}

#: What a garbled or shortened JSON or raster says, and what the others say.
SAYS = {
    "429": "the server answers 429, 3 times",
    "500": "the server answers 500, 3 times",
    "503": "the server answers 503, 3 times",
    "reset": r"the connection was (reset|closed), 3 times",
    "closed": r"the connection was (reset|closed), 3 times",
    "silence": "the server is silent, 3 times",
    "truncated": "the answer is (truncated|broken).*, 3 times",
    "short range": "the answer is (truncated|broken).*, 3 times",
    "garbled": r"(cannot be read|the answer is broken.*, 3 times)",
    "expired": "the server answers 403, 3 times",
    "404": "the server answers 404",
}


class Bench:
    """An archive behind a server, and the artifacts that a run without faults gives."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.folder = folder
        self.server = server
        self.config = self.patient(10.0)
        self.parents = sheet(folder)
        self.good = self.run("good", "all")

    def patient(self, timeout_s: float) -> Config:
        """Give the config that waits so long for a silent server."""
        return config(network={**NETWORK, "timeout_s": timeout_s}, sign="planetary-computer", workers=8)

    def run(self, name: str, collection: str) -> dict[str, str]:
        """Run the verb that reads a collection; give the checksums of what it wrote."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        scenes = self.folder / "scenes.json"
        if collection in ("catalogue", "all"):
            scenes = out / "scenes.json"
            select_scenes(
                self.config, parents=self.parents, parent="P1",
                catalog=f"{self.server.url}/catalog.json", out=scenes,
            )  # fmt: skip
            shutil.copy(scenes, self.folder / "scenes.json")
        if collection in ("sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30", "all"):
            read_parent(
                self.config, parents=self.parents, parent="P1", scenes=scenes,
                out=out / "P1",
            )  # fmt: skip
        if collection in ("esa-worldcover", "all"):
            rasterize_landcover(
                self.config, parents=self.parents, parent="P1", label="LULC",
                scenes=scenes, chips=out / "chips", out=out / "MASK_LULC.tif",
            )  # fmt: skip
        files = (path for path in sorted(out.rglob("*")) if path.is_file())
        return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("matrix")
    complete(folder / "archive").write()
    with FaultServer(folder / "archive", signature="secretword") as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "_AZURE", "127.0.0.1")
        patch.setattr(signing, "_tokens", {})
        # the made rasters are small: without this, their pixels would come with their header
        patch.setattr(ranges, "_HEADER_BYTES", 512)
        patch.setenv("PC_SDK_SAS_URL", f"{server.url}/token")
        yield Bench(folder, server)


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str, str], str]:
    return {}


def strike(fault: str, match: str, times: int | None, skip: int = 0) -> Fault:
    kind = {"expired": "403"}.get(fault, fault)
    return Fault(kind, match=match, times=times, skip=skip, retry_after="0" if fault == "429" else None)


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_changes_nothing_and_a_lasting_one_is_named(
    bench: Bench, table: dict[tuple[str, str, str], str], fault: str, collection: str
) -> None:
    match, named = COLLECTIONS[collection]
    if fault == "expired" and collection == "catalogue":
        table[collection, fault, "passing"] = table[collection, fault, "lasting"] = "not signed"
        return
    # short only where silence is what is tested: a busy machine is not a fault
    bench.config = bench.patient(0.4 if fault == "silence" else 10.0)
    # a raster is asked for twice: its header, then its pixels
    requests = (0,) if collection == "catalogue" else (0, 1)
    table[collection, fault, "passing"] = "fails at once" if fault in FINAL else "same bytes"
    for skip in requests if fault not in FINAL else ():
        bench.server.faults[:] = [strike(fault, match, 1, skip)]
        made = bench.run("passing", collection)
        assert bench.server.faults[0].struck == 1
        assert made
        assert made.items() <= bench.good.items()
    bench.server.faults[:] = [strike(fault, match, None, requests[-1])]
    with pytest.raises(CityHeadsError) as caught:
        bench.run("lasting", collection)
    bench.server.faults.clear()
    message = str(caught.value)
    assert re.search(SAYS[fault], message), message
    assert named in message
    assert "\n" not in message
    assert "secretword" not in message
    # nothing half-written: no result, no temporary sibling
    left = [path for path in (bench.folder / "lasting").rglob("*") if path.is_file()]
    assert left == []
    table[collection, fault, "lasting"] = "fails, named" if collection != "catalogue" else "fails"


def test_the_documented_matrix_is_what_happened(
    bench: Bench, table: dict[tuple[str, str, str], str], repository: Path
) -> None:
    if len(table) < 2 * len(FAULTS) * len(COLLECTIONS):
        pytest.skip("only after the whole matrix")
    lines = [
        "# Fault matrix",
        "",
        "Each fault was made by a web server on loopback in one request for one collection's file (passing; once for",
        "the header, once for the pixels), or in all requests after the header (lasting), with 3 attempts.",
        "*Same bytes*: the verb's files equal those of a run without faults. *Fails, named*: one line that names item",
        "and band, no file left behind, no signature in the message.",
        "",
        f"This page is written by `{UPDATE}`;",
        "the same test fails when it no longer says what happens.",
        "",
        f"| fault | {' | '.join(f'{name}: passing | lasting' for name in COLLECTIONS)} |",
        "|---" * (1 + 2 * len(COLLECTIONS)) + "|",
    ]
    for fault, meaning in FAULTS.items():
        cells = [f"{table[name, fault, 'passing']} | {table[name, fault, 'lasting']}" for name in COLLECTIONS]
        lines.append(f"| {meaning} | {' | '.join(cells)} |")
    lines += [
        "",
        "A 404 is final: it is not asked for again. A 403 is asked for again only where hrefs are signed, each time",
        "with a new signature. Bytes that arrive whole but do not decode are fetched anew twice.",
        "",
    ]
    page = repository / "docs" / "fault-matrix.md"
    text = "\n".join(lines)
    if os.environ.get("CITYHEADS_UPDATE_DOCS"):
        page.write_text(text)
    assert page.read_text() == text, f"run: {UPDATE}"


def test_the_choice_survives_every_passing_fault_at_once(bench: Bench) -> None:
    bench.config = bench.patient(10.0)
    bench.server.faults[:] = [
        strike(fault, match, 1) for fault in ("503", "truncated") for match, _ in COLLECTIONS.values()
    ]
    made: Any = bench.run("storm", "all")
    bench.server.faults.clear()
    assert made == bench.good
    assert set(READING.read(bench.folder / "storm" / "P1" / "reading.json")["layers"]) == {"S2L2A", "S1RTC", "DEM"}
