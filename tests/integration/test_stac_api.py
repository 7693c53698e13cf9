"""STAC APIs: recorded answers of the two public ones, and a real server on a real database."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import shapely
import yaml
from fault_server import Fault, FaultServer
from made_archive import MadeArchive, complete, select_config, sheet

from cityheads.archive.catalogues.api import ApiCatalog
from cityheads.archive.catalogues.open import open_catalog
from cityheads.archive.choose.scenes import select_scenes
from cityheads.config import ArchiveConfig
from cityheads.core.errors import CityHeadsError

QUICK = {"attempts": 4, "backoff_s": 0.001, "timeout_s": 5.0, "connections": 4}
WORLD = shapely.box(-180, -90, 180, 90)
PC = "https://planetarycomputer.microsoft.com/api/stac/v1"
EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"


# --- recorded answers -------------------------------------------------------------------------------------------------


def interactions(path: Path) -> list[tuple[str, str, Any, Any]]:
    """Give (method, path, request body, response body) of a cassette."""
    recorded = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["interactions"]
    found = []
    for entry in recorded:
        request = entry["request"]
        body = json.loads(request["body"]) if request["body"] else None
        found.append((request["method"], request["uri"], body, json.loads(entry["response"]["body"]["string"])))
    return found


class Replay:
    """Answers as the recorded API did; the last recorded page of a search ends it."""

    def __init__(self, base: str, landing: Any, search: list[tuple[str, str, Any, Any]]) -> None:
        self.base = base
        self.landing = landing
        self.pages: dict[str, Any] = {}
        self.url = ""
        posts = [entry for entry in search if entry[0] == "POST"]
        for _, _, body, answer in posts:
            self.pages.setdefault(str(body.get("token") or body.get("next") or ""), answer)
        last = posts[-1][3]
        last["links"] = [link for link in last.get("links", []) if link["rel"] != "next"]
        self.collections = {item["collection"] for page in self.pages.values() for item in page["features"]}

    def ids(self, collection: str) -> set[str]:
        items = [item for page in self.pages.values() for item in page["features"]]
        return {item["id"] for item in items if item["collection"] == collection}

    def __call__(self, method: str, target: str, sent: bytes) -> tuple[int, bytes] | None:
        path = urlsplit(target).path.rstrip("/")
        if path == "/api":
            answer: Any = self.landing
        elif path == "/api/search":
            body = json.loads(sent)
            answer = self.pages[str(body.get("token") or body.get("next") or "")]
        elif path.startswith("/api/collections/"):
            name = path.rpartition("/")[2]
            if name not in self.collections:
                return 404, b'{"code": "NotFoundError"}'
            answer = described(name)
        else:
            return None
        # links of the recording lead to the internet; here they must lead back
        text = json.dumps(answer).replace(f'"{self.base}"', f'"{self.url}/api"')
        return 200, text.replace(f"{self.base}/", f"{self.url}/api/").encode()


def described(name: str) -> dict[str, Any]:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]}}
    return {
        "type": "Collection",
        "id": name,
        "stac_version": "1.0.0",
        "description": name,
        "license": "various",
        "links": [],
        "extent": extent,
    }


def replayed(realdata: Path, tmp_path: Path, base: str, landing: str, search: str) -> tuple[FaultServer, Replay]:
    root = next(body for method, uri, _, body in interactions(realdata / landing) if uri.rstrip("/") == base)
    replay = Replay(base, root, interactions(realdata / search))
    server = FaultServer(tmp_path, answer=replay)
    return server, replay


@pytest.fixture(params=["planetary-computer", "earth-search"])
def recorded(
    request: pytest.FixtureRequest, realdata: Path, tmp_path: Path
) -> Iterator[tuple[FaultServer, Replay, str]]:
    base, landing, search, collection = {
        "planetary-computer": (PC, "stac_pc/cassette_smoke_sentinel-2-l2a.yaml",
                               "stac_client_cassettes/pc_search_paging_token_naip.yaml", "naip"),
        "earth-search": (EARTH_SEARCH, "stac_client_cassettes/earthsearch_filter_cql2_cloudcover_paging.yaml",
                         "stac_client_cassettes/earthsearch_filter_cql2_cloudcover_paging.yaml", "sentinel-2-l2a"),
    }[request.param]  # fmt: skip
    server, replay = replayed(realdata, tmp_path, base, landing, search)
    with server:
        replay.url = server.url
        yield server, replay, collection


def archive(**more: Any) -> ArchiveConfig:
    return select_config(network=QUICK, **more).archive


def test_recorded_searches_are_paged_to_their_end(recorded: tuple[FaultServer, Replay, str]) -> None:
    server, replay, collection = recorded
    catalog = open_catalog(f"{server.url}/api", archive())
    assert isinstance(catalog, ApiCatalog)
    found = {item.id for item in catalog.search(collection, WORLD, None)}
    assert found == replay.ids(collection)
    assert len(found) >= 5
    assert server.count("/search") == len(replay.pages)


@pytest.mark.parametrize("kind", ["429", "503", "reset", "truncated", "garbled"])
def test_paging_is_taken_up_where_it_broke(recorded: tuple[FaultServer, Replay, str], kind: str) -> None:
    server, replay, collection = recorded
    catalog = open_catalog(f"{server.url}/api", archive())
    server.faults.append(Fault(kind, match="/search", skip=1, times=2))
    found = {item.id for item in catalog.search(collection, WORLD, None)}
    assert found == replay.ids(collection)
    # the broken page is asked for again, those before it are not
    assert server.count("/search") == len(replay.pages) + 2


def test_a_search_that_fails_is_never_an_empty_result(recorded: tuple[FaultServer, Replay, str]) -> None:
    server, _, collection = recorded
    catalog = open_catalog(f"{server.url}/api", archive())
    server.faults.append(Fault("503", match="/search", skip=1))
    with pytest.raises(CityHeadsError, match=rf"collection '{collection}': the search fails: .*503, 4 times"):
        catalog.search(collection, WORLD, None)
    with pytest.raises(CityHeadsError, match="collection 'no-such': there is no such collection"):
        catalog.search("no-such", WORLD, None)


def test_recorded_earth_search_items_say_whether_the_offset_is_applied(realdata: Path, tmp_path: Path) -> None:
    from cityheads.archive.choose.sentinel2 import offset_dn

    server, replay = replayed(
        realdata, tmp_path, EARTH_SEARCH, "stac_client_cassettes/earthsearch_cop-dem-glo-30.yaml",
        "stac_client_cassettes/earthsearch_sentinel-2-l2a_multi.yaml",
    )  # fmt: skip
    raw = yaml.safe_load((Path(__file__).parents[2] / "config" / "nyc-earth-search.yaml").read_text())
    rule = raw["archive"]["imagery"]["S2L2A"]
    with server:
        replay.url = server.url
        items = open_catalog(f"{server.url}/api", archive()).search("sentinel-2-l2a", WORLD, None)
    items = [item for item in items if item.raw["collection"] == "sentinel-2-l2a"]
    assert [item.id for item in items] == ["S2A_13TDE_20231008_0_L2A"]
    assert offset_dn(items[0], "item") == 0  # its flag says that it is applied
    assert offset_dn(items[0], "baseline") == 1000  # which the baseline alone cannot know
    for key in [*rule["assets"].values(), rule["scl_asset"]]:
        assert items[0].raw["assets"][key]["href"].startswith("https://sentinel-cogs.s3.us-west-2.amazonaws.com/")


def test_a_recorded_search_of_one_answer_gives_all_its_items(realdata: Path, tmp_path: Path) -> None:
    server, replay = replayed(
        realdata, tmp_path, PC, "stac_pc/cassette_smoke_sentinel-2-l2a.yaml",
        "stac_client_cassettes/pc_search_sentinel-2-l2a_33items.yaml",
    )  # fmt: skip
    with server:
        replay.url = server.url
        items = open_catalog(f"{server.url}/api", archive()).search("sentinel-2-l2a", WORLD, None)
    assert len(items) == 33
    assert all(item.when.year == 2019 for item in items)


# --- a real API -------------------------------------------------------------------------------------------------------


def missing() -> str | None:
    """Say which part of the real API is not on this machine."""
    if not postgres("initdb"):
        return "no PostgreSQL server (Debian: postgresql-15)"
    extensions = subprocess.run(["pg_config", "--sharedir"], capture_output=True, text=True, check=False).stdout.strip()
    if not (Path(extensions) / "extension" / "postgis.control").exists():
        return "no PostGIS (Debian: postgresql-15-postgis-3)"
    try:
        check = subprocess.run([python(), "-c", "import pypgstac, stac_fastapi.pgstac, uvicorn, psycopg"],
                               capture_output=True, check=False)  # fmt: skip
    except OSError:
        return f"no Python at {python()}"
    if check.returncode:
        return (
            "no stac-fastapi.pgstac (pip install 'stac-fastapi.pgstac==7.2.0' 'pypgstac[psycopg]==0.10.0' uvicorn "
            "in a virtual environment, and CITYHEADS_PGSTAC_PYTHON=its python)"
        )
    return None


def postgres(tool: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    return shutil.which(tool, path=path)


def python() -> str:
    return os.environ.get("CITYHEADS_PGSTAC_PYTHON", sys.executable)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def as_server_user(command: list[str]) -> list[str]:
    # PostgreSQL refuses to run as root
    return (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        if os.geteuid() == 0
        else command
    )


REAL = ("sentinel-2-l2a", "sentinel-1-rtc", "cop-dem-glo-30", "io-lulc-annual-v02")


def real_items() -> list[dict[str, Any]]:
    """Give Planetary Computer's real items, where the samples are on this machine.

    One land-cover tile at the antimeridian has a geometry that crosses itself; PostGIS refuses to search it.
    """
    place = Path(os.environ.get("CITYHEADS_REALDATA", Path(__file__).parents[3] / "shared" / "realdata")) / "stac_pc"
    if not place.is_dir():
        return []
    items = [item for name in REAL for item in json.loads((place / f"{name}-pc.json").read_text())]
    return [item for item in items if shapely.geometry.shape(item["geometry"]).is_valid]


@dataclass
class Api:
    """A running API, an archive that it knows, and a server in front of both that can misbehave."""

    front: FaultServer
    archive: MadeArchive
    folder: Path

    @property
    def url(self) -> str:
        return f"{self.front.url}/api"

    def select(self, name: str, catalog: str, **settings: Any) -> dict[str, Any]:
        out = self.folder / f"{name}.json"
        select_scenes(
            select_config(network=QUICK, **settings),
            parents=sheet(self.folder),
            parent="P1",
            catalog=catalog,
            out=out,
        )
        found: dict[str, Any] = json.loads(out.read_text())
        return found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("api")
    made = busy_archive(folder / "archive")
    home = Path(tempfile.mkdtemp(prefix="cityheads-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(home, "postgres")
        port, api_port = free_port(), free_port()
        data = home / "data"
        run = {"capture_output": True, "check": True, "cwd": home}
        subprocess.run(
            as_server_user([str(postgres("initdb")), "-D", str(data), "-A", "trust", "-U", "postgres"]), **run
        )  # type: ignore[call-overload]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
        control = [str(postgres("pg_ctl")), "-D", str(data), "-w", "-l", str(home / "log")]
        subprocess.run(
            as_server_user([*control, "-o", options, "start"]), stdout=subprocess.DEVNULL, check=True, cwd=home
        )
        try:
            with FaultServer(folder / "archive") as front:
                load(folder, made, front, f"postgresql://postgres@127.0.0.1:{port}/postgres")
                settings = {"PGUSER": "postgres", "PGPASSWORD": "none", "PGHOST": "127.0.0.1", "PGPORT": str(port),
                            "PGDATABASE": "postgres"}  # fmt: skip
                command = [
                    python(),
                    "-m",
                    "uvicorn",
                    "--factory",
                    "stac_fastapi.pgstac.app:create_app",
                    "--port",
                    str(api_port),
                ]
                with (folder / "api.log").open("wb") as log:
                    process = subprocess.Popen(
                        command, env={**os.environ, **settings}, stdout=log, stderr=log, cwd=folder
                    )
                try:
                    wait_for(api_port, process, folder / "api.log")
                    front.answer = forward(api_port, f"{front.url}/api")
                    yield Api(front, made, folder)
                finally:
                    process.terminate()
                    process.wait(20)
        finally:
            subprocess.run(
                as_server_user([*control, "-m", "immediate", "stop"]), stdout=subprocess.DEVNULL, check=False, cwd=home
            )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def busy_archive(folder: Path) -> MadeArchive:
    """Make an archive with more items over the parent than one page of a search holds."""
    made = complete(folder)
    first = made.items["sentinel-2-l2a"][0]
    for number in range(130):
        day = f"2024-{6 + number // 28:02d}-{number % 28 + 1:02d}T15:50:00Z"
        cloud = 50.0 if number % 3 else 9.5  # as text, 9.5 is above 40
        properties = {**first["properties"], "datetime": day, "eo:cloud_cover": cloud}
        made.items["sentinel-2-l2a"].append({**first, "id": f"S2_{number:03d}", "properties": properties})
    made.write()
    return made


def load(folder: Path, made: MadeArchive, front: FaultServer, dsn: str) -> None:
    """Put the archive's collections and items into the database."""
    collections, items = folder / "collections.ndjson", folder / "items.ndjson"
    with collections.open("w") as stream:
        for name in sorted({*made.items, *REAL}):
            stream.write(json.dumps(described(name)) + "\n")
    with items.open("w") as stream:
        for group in made.items.values():
            for item in group:
                assets = {
                    key: {"href": f"{front.url}/{asset['href'].removeprefix('../../')}"}
                    for key, asset in item["assets"].items()
                }
                bbox = shapely.geometry.shape(item["geometry"]).bounds
                stream.write(json.dumps({**item, "stac_version": "1.0.0", "bbox": bbox, "assets": assets}) + "\n")
        for item in real_items():
            stream.write(json.dumps(item) + "\n")
    for step in (["migrate"], ["load", "collections", str(collections)], ["load", "items", str(items)]):
        done = subprocess.run(
            [python(), "-m", "pypgstac.pypgstac", *step, "--dsn", dsn], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def forward(port: int, front: str) -> Any:
    """Pass ``/api`` on to the real server, under the name of the one in front, so that paging links come back here."""

    def answer(method: str, target: str, sent: bytes) -> tuple[int, bytes] | None:
        if not target.startswith("/api"):
            return None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, target.removeprefix("/api") or "/", sent, {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body.replace(f"http://127.0.0.1:{port}".encode(), front.encode())

    return answer


@pytest.mark.slow
def test_a_real_api_gives_the_choice_of_the_static_catalogue(api: Api) -> None:
    from_api = api.select("api", api.url)
    from_files = api.select("files", f"{api.front.url}/catalog.json")
    for scenes in (from_api, from_files):
        for layer in scenes["layers"].values():
            for item in layer["items"]:
                assert item.pop("self").startswith(scenes["catalog"].removesuffix("/catalog.json"))
    rest = {"S2L2A": from_api["layers"]["S2L2A"]}
    assert from_api["layers"] == from_files["layers"] | rest
    chosen, expected = from_api["layers"]["S2L2A"], from_files["layers"]["S2L2A"]
    assert chosen["items"] == expected["items"]
    # the API answers for the period only, the files are all looked at
    assert chosen["considered"] <= expected["considered"]
    assert chosen["considered"] > 100


@pytest.mark.slow
def test_a_real_api_is_paged_through_faults(api: Api) -> None:
    calm = api.select("calm", api.url)
    api.front.requests.clear()
    api.front.faults[:] = [
        Fault(kind, match="/api/search", skip=skip, times=1) for kind, skip in (("503", 1), ("truncated", 2))
    ]
    assert api.select("storm", api.url) == calm
    assert all(fault.struck == 1 for fault in api.front.faults)
    api.front.faults[:] = [Fault("500", match="/api/search", skip=1)]
    with pytest.raises(CityHeadsError, match=r"collection 'sentinel-2-l2a': the search fails"):
        api.select("dead", api.url)
    api.front.faults.clear()


@pytest.mark.slow
def test_a_real_api_without_the_collection_or_without_items_says_so(api: Api) -> None:
    with pytest.raises(CityHeadsError, match="collection 'sentinel-2-l1c': there is no such collection"):
        api.select("none", api.url, S2L2A={"collection": "sentinel-2-l1c"})
    with pytest.raises(CityHeadsError, match="'sentinel-2-l2a': no item covers the parent"):
        api.select("none", api.url, S2L2A={"datetime": "2001-01-01/2001-12-31"})


@pytest.mark.slow
def test_a_real_api_gives_back_planetary_computers_items(api: Api) -> None:
    items = real_items()
    if not items:
        pytest.skip("no real samples on this machine (set CITYHEADS_REALDATA to their folder)")
    catalog = open_catalog(api.url, archive())
    for raw in items:
        place = shapely.geometry.shape(raw["geometry"]).representative_point().buffer(0.001)
        place = place.intersection(WORLD)
        found = {item.id: item for item in catalog.search(raw["collection"], place, None)}
        assert raw["id"] in found
        item = found[raw["id"]]
        assert {key: asset["href"] for key, asset in item.raw["assets"].items()} == {
            key: asset["href"] for key, asset in raw["assets"].items()
        }
        assert item.footprint.equals_exact(shapely.geometry.shape(raw["geometry"]), 1e-9)
