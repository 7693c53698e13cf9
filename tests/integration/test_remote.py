"""Reading over HTTP from a server that misbehaves: what is tried again, what fails, and what is said."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fault_server import Fault, FaultServer
from made_archive import MadeArchive, complete, read_config, select_config, sheet

from cityheads.archive import addresses, hrefs, signing
from cityheads.archive import http as remote
from cityheads.archive.addresses import Guard
from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.http import Client, NetworkError
from cityheads.archive.ranges import RangeFile
from cityheads.archive.read.parent import read_parent
from cityheads.config import NetworkConfig
from cityheads.core.errors import CityHeadsError

QUICK: dict[str, Any] = {"attempts": 4, "backoff_s": 0.001, "timeout_s": 5.0, "connections": 4}


def patient(kind: str) -> Client:
    """Give a client that waits long for everything but a server that is to be found silent."""
    return Client(NetworkConfig(**{**QUICK, "timeout_s": 0.3 if kind == "silence" else 5.0}))


@dataclass
class Site:
    """A made archive behind a server."""

    archive: MadeArchive
    server: FaultServer
    folder: Path

    @property
    def catalog(self) -> str:
        return f"{self.server.url}/catalog.json"

    def select(self, **settings: Any) -> dict[str, Any]:
        out = self.folder / "P1.json"
        select_scenes(
            select_config(network=QUICK, **settings),
            parents=sheet(self.folder),
            parent="P1",
            catalog=self.catalog,
            out=out,
        )
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    def read(self, name: str = "P1", **settings: Any) -> Path:
        out = self.folder / "parents" / name
        read_parent(
            read_config(network=QUICK, **settings), parents=sheet(self.folder), parent="P1",
            scenes=self.folder / "P1.json", out=out,
        )  # fmt: skip
        return out


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    archive = complete(tmp_path / "archive")
    archive.write()
    with FaultServer(tmp_path / "archive") as server:
        yield Site(archive, server, tmp_path)


@pytest.fixture
def client() -> Client:
    return Client(NetworkConfig(**QUICK))


def digest(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix == ".tif"}


def test_a_remote_archive_gives_the_bytes_of_the_local_one(site: Site) -> None:
    scenes = site.select()
    assert scenes["layers"]["S2L2A"]["items"][0]["assets"]["B02"] == f"{site.server.url}/assets/S2_A/B02.tif"
    far = digest(site.read())
    out = site.folder / "local.json"
    select_scenes(select_config(), parents=sheet(site.folder), parent="P1", catalog=str(site.archive.catalog), out=out)
    near = site.folder / "near"
    read_parent(read_config(), parents=sheet(site.folder), parent="P1", scenes=out, out=near)
    assert digest(near) == far


def test_without_memory_files_temporary_ones_are_used_and_removed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.select()
    expected = digest(site.read("memory"))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    scratch = site.folder / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert digest(site.read("disk")) == expected
    assert list(scratch.iterdir()) == []


def test_only_the_touched_blocks_are_fetched_each_once(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (1024, 1024)).astype(np.uint16)
    path = tmp_path / "big.tif"
    with rasterio.open(
        path, "w", driver="COG", count=1, height=1024, width=1024, dtype="uint16", crs="EPSG:32618", nodata=0,
        transform=rasterio.transform.from_origin(0, 0, 10, 10), blocksize=128, compress="deflate",
    ) as made:  # fmt: skip
        made.write(pixels, 1)
    with rasterio.open(path) as made:
        blocks = [
            int(made.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1))
            for row in (2, 3, 4)
            for column in (3, 4, 5)
        ]
    from rasterio.windows import Window

    from cityheads.archive.raster import open_raster

    archive = read_config(network=QUICK).archive
    with FaultServer(tmp_path) as server:
        window = Window(400, 300, 300, 300)
        with open_raster(f"{server.url}/big.tif", server.url, archive=archive, where="item X") as source:
            header = server.bytes_sent
            # each block comes with its leader and its trailer, four bytes each
            assert source.cost(window) == sum(blocks) + 8 * len(blocks)
            found = source.read(1, window=window)
            assert np.array_equal(found, pixels[300:600, 400:700])
            fetched = server.bytes_sent - header
            asked = len(server.requests)
            source.read(1, window=window)
            assert len(server.requests) == asked  # the second time comes from memory
    assert sum(blocks) <= fetched <= 1.01 * sum(blocks)
    assert asked == 1 + 3  # the header, and one request per row of blocks


@pytest.mark.parametrize(
    "kind", ["429", "500", "503", "reset", "closed", "silence", "truncated", "short range", "web page"]
)
def test_a_transient_fault_is_tried_again(tmp_path: Path, kind: str) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / "a.bin").write_bytes(content)
    with FaultServer(tmp_path, faults=[Fault(kind, times=2)]) as server:
        answer = patient(kind).get(f"{server.url}/a.bin", span=(1000, 9000))
        assert answer.content == content[1000:9000]
        assert answer.total == len(content)
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("kind", "says", "asked"),
    [
        ("429", "the server answers 429, 4 times", 4),
        ("503", "the server answers 503, 4 times", 4),
        ("reset", "the connection was (reset|closed), 4 times", 4),
        ("silence", "the server is silent, 4 times", 4),
        ("truncated", "the answer is truncated.*, 4 times", 4),
        ("short range", "the answer is truncated.*, 4 times", 4),
        ("web page", "the answer is a web page, not the file, 4 times", 4),
        ("404", "the server answers 404", 1),
        ("403", "the server answers 403", 1),
    ],
)
def test_a_persistent_fault_fails_after_the_allowed_attempts(tmp_path: Path, kind: str, says: str, asked: int) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(5000))
    with FaultServer(tmp_path, faults=[Fault(kind)]) as server:
        with pytest.raises(NetworkError, match=says) as caught:
            patient(kind).get(f"{server.url}/a.bin?sig=secretword", span=(0, 1000))
        assert len(server.requests) == asked
    assert "secretword" not in str(caught.value)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch, as_date: bool
) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(100))
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    value = format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True) if as_date else "7"
    with FaultServer(tmp_path, faults=[Fault("429", times=1, retry_after=value)]) as server:
        client.get(f"{server.url}/a.bin")
    assert len(waits) == 1
    assert 6 <= waits[0] <= 8


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path: Path, client: Client) -> None:
    with FaultServer(tmp_path, faults=[Fault("503", retry_after="3600")]) as server:
        with pytest.raises(NetworkError, match="asks for 3600 s of patience"):
            client.get(f"{server.url}/a.bin")
        assert len(server.requests) == 1


def test_waits_double_and_are_jittered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    with FaultServer(tmp_path, faults=[Fault("500")]) as server:
        for _ in range(3):
            with pytest.raises(NetworkError):
                Client(NetworkConfig(attempts=5, backoff_s=1.0, timeout_s=5.0)).get(f"{server.url}/a.bin")
    for number, wait in enumerate(waits):
        longest = 2 ** (number % 4)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == len(waits)


def test_connections_to_a_host_are_capped(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(4_000_000))
    http = Client(NetworkConfig(connections=3, timeout_s=5.0))
    with FaultServer(tmp_path, latency_s=0.02) as server:
        from concurrent.futures import ThreadPoolExecutor

        def get(number: int) -> int:
            return len(http.get(f"{server.url}/a.bin", span=(number * 1000, number * 1000 + 500)).content)

        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(get, range(24))) == [500] * 24
        assert server.open_most <= 3


def test_sizes_are_bounded(tmp_path: Path, client: Client) -> None:
    (tmp_path / "a.json").write_bytes(b"[" + b" " * 100_000 + b"]")
    with FaultServer(tmp_path) as server, pytest.raises(NetworkError, match="larger than 1000 bytes"):
        client.get(f"{server.url}/a.json", limit=1000)


def test_redirects_are_followed_but_not_out_of_the_allowed_schemes(tmp_path: Path, client: Client) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    with FaultServer(tmp_path) as server:
        server.moved |= {"/good": f"{server.url}/a.json", "/bad": "file:///etc/passwd", "/loop": f"{server.url}/loop"}
        assert client.get_json(f"{server.url}/good") == {"a": 1}
        with pytest.raises(NetworkError, match="scheme that is not allowed"):
            client.get(f"{server.url}/bad")
        with pytest.raises(NetworkError, match="more than 5 redirects"):
            client.get(f"{server.url}/loop")


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, client: Client) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100_000))
    with FaultServer(tmp_path) as server:
        file = RangeFile(client, f"{server.url}/a.bin", None)
        path.write_bytes(bytes(100_001))
        with pytest.raises(NetworkError, match="changed while it was read"):
            file.fetch([(50_000, 60_000)])


@pytest.mark.parametrize("kind", ["web page", "other version"])
def test_one_answer_of_something_else_in_the_middle_of_a_read_is_asked_for_again(
    tmp_path: Path, client: Client, kind: str
) -> None:
    content = np.random.default_rng(1).bytes(100_000)
    (tmp_path / "a.bin").write_bytes(content)
    with FaultServer(tmp_path, faults=[Fault(kind, skip=1, times=2)]) as server:
        file = RangeFile(client, f"{server.url}/a.bin", None)
        assert file.read(50_000, 60_000) == content[50_000:60_000]
        assert len(server.requests) == 4


def test_a_raster_that_is_replaced_while_it_is_read_is_read_from_the_new_file(site: Site) -> None:
    from rasterio.windows import Window

    from cityheads.archive.raster import open_raster

    archive = read_config(network=QUICK).archive
    path = site.folder / "archive" / "assets" / "DEM_A" / "data.tif"
    with open_raster(f"{site.server.url}/assets/DEM_A/data.tif", site.server.url, archive=archive, where="X") as source:
        with rasterio.open(path) as made:
            pixels, profile = made.read(1), made.profile
        # the new file has its blocks elsewhere: bytes of both together would be no raster, or a wrong one
        with rasterio.open(path, "w", **profile | {"compress": "lzw"}) as made:
            made.write(pixels + 1, 1)
        assert np.array_equal(source.read(1, window=Window(0, 0, 200, 200)), pixels[:200, :200] + 1)


def test_any_sequence_of_reads_gives_the_files_bytes(tmp_path: Path, client: Client) -> None:
    rng = np.random.default_rng(4)
    content = rng.integers(0, 256, 200_000).astype(np.uint8).tobytes()
    (tmp_path / "a.bin").write_bytes(content)
    with FaultServer(tmp_path) as server:
        file = RangeFile(client, f"{server.url}/a.bin", None)
        for _ in range(80):
            start, size = int(rng.integers(0, 200_100)), int(rng.integers(0, 9000))
            if rng.random() < 0.3:
                stop = min(start + size, len(content))
                file.fetch([(start, stop)] if start < stop else [])
            assert file.read(start, start + size) == content[start : start + size]


# --- signatures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Make the server ask for signatures as Azure does, and give out tokens as Planetary Computer does."""
    monkeypatch.setattr(signing, "_AZURE", "127.0.0.1")
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{site.server.url}/token")
    monkeypatch.setattr(signing, "_tokens", {})
    site.server.signature = "secretword1"
    return site


def test_hrefs_are_signed_at_reading_and_the_signature_is_written_nowhere(
    signed_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    signed_site.server.faults.append(Fault("503", match="B05", times=1))
    signed_site.select(sign="planetary-computer")
    out = signed_site.read(sign="planetary-computer")
    assert signed_site.server.count("sig=secretword1") > 10
    assert signed_site.server.tokens_given == 1
    written = b"".join(path.read_bytes() for path in signed_site.folder.rglob("*.json")) + caplog.text.encode()
    assert b"attempt 2 follows" in written
    assert b"secretword" not in written
    assert (out / "reading.json").exists()


def test_an_expired_signature_is_signed_again(signed_site: Site) -> None:
    signed_site.select(sign="planetary-computer")
    signed_site.server.signature = "secretword2"
    signed_site.read(sign="planetary-computer")
    assert signed_site.server.count("sig=secretword2") > 10
    assert signed_site.server.tokens_given == 2  # one for all, however many were refused


def test_a_scene_that_goes_bad_after_the_choice_is_named_with_the_mend(site: Site) -> None:
    site.select()
    site.server.requests.clear()
    site.server.faults.append(Fault("404", match="S2_A/B11"))
    with pytest.raises(CityHeadsError, match=r"item S2_A: band B11: .*answers 404; .*'archive\.exclude'"):
        site.read()
    assert site.server.count("S2_A/B11") == 1


def test_a_signature_that_is_never_accepted_names_item_and_band(signed_site: Site) -> None:
    signed_site.select(sign="planetary-computer")
    signed_site.server.faults.append(Fault("403", match="B11"))
    with pytest.raises(CityHeadsError, match=r"item S2_A: band B11: .*the server answers 403, 4 times") as caught:
        signed_site.read(sign="planetary-computer")
    assert "secretword" not in str(caught.value)


def test_without_signing_a_refusal_fails_at_once(signed_site: Site) -> None:
    with pytest.raises(CityHeadsError, match=r"item S2_A: band SCL: .*the server answers 403"):
        signed_site.select()


def test_only_blobs_of_azure_are_signed(client: Client) -> None:
    for url in (
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
        "https://blob.core.windows.net.evil.example/a",
    ):
        assert signing.sign(url, "", http=client) == url


@pytest.mark.parametrize("status", [401, 403, 409])
def test_a_refused_token_names_the_key_of_an_account(
    signed_site: Site, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    signed_site.server.signature = None
    signed_site.server.answer = lambda _, path, __: (status, b"no") if path.startswith("/refused/") else None
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{signed_site.server.url}/refused")
    monkeypatch.delenv("PC_SDK_SUBSCRIPTION_KEY", raising=False)
    with pytest.raises(CityHeadsError, match=rf"answers {status}; .* set the environment variable PC_SDK_SUBSCRIPTION"):
        signed_site.select(sign="planetary-computer")
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "secretword")
    with pytest.raises(CityHeadsError, match="PC_SDK_SUBSCRIPTION_KEY is not accepted") as caught:
        signed_site.select(sign="planetary-computer")
    assert "secretword" not in str(caught.value)


def test_s3_urls_are_presigned_as_amazons_documentation_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    for name in ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_REQUEST_PAYER", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(signing, "_PRESIGNED_S", 86400)
    url = "https://examplebucket.s3.amazonaws.com/test.txt"
    made = signing.presign(url, datetime(2013, 5, 24, tzinfo=UTC))
    expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert made.endswith(f"X-Amz-Signature={expected}")
    # no other server is shown a signature
    assert signing.presign("https://elsewhere.example/a.tif", datetime.now(UTC)) == "https://elsewhere.example/a.tif"


def test_s3_without_credentials_names_the_variable(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(CityHeadsError, match=r"'archive\.sign' is s3, but .*AWS_ACCESS_KEY_ID is not set"):
        site.select(sign="s3")


def test_s3_with_credentials_is_read_at_an_endpoint(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secretword")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", site.server.url)
    for items in site.archive.items.values():
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = asset["href"].replace("../../assets/", "s3://assets/")
    site.archive.write()
    scenes = site.select(sign="s3")
    site.read(sign="s3")
    rasters = [path for _, path, _ in site.server.requests if ".tif" in path]
    assert rasters
    assert all("X-Amz-Signature=" in path for path in rasters)
    assert scenes["layers"]["S2L2A"]["items"][0]["assets"]["B02"] == "s3://assets/S2_A/B02.tif"
    assert "X-Amz" not in json.dumps(scenes)


def test_an_answer_that_is_no_token_is_said_so(signed_site: Site, client: Client) -> None:
    (signed_site.folder / "archive" / "no").mkdir()
    (signed_site.folder / "archive" / "no" / "assets").write_text('{"message": "busy"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PC_SDK_SAS_URL", f"{signed_site.server.url}/no")
        patch.setattr(signed_site.server, "signature", None)
        with pytest.raises(NetworkError, match="the answer is no token"):
            signing.sign(f"{signed_site.server.url}/assets/a.tif", "", http=client)


# --- offline, frozen choices, untrusted servers -----------------------------------------------------------------------


def test_offline_fails_fast_and_names_what_is_missing(site: Site) -> None:
    site.select()
    asked = len(site.server.requests)
    with pytest.raises(CityHeadsError, match=r"offline .*the catalogue http://127"):
        site.select(offline=True)
    with pytest.raises(CityHeadsError, match=r"offline .*item S2_A: band B01"):
        site.read(offline=True)
    assert len(site.server.requests) == asked


def test_offline_a_local_archive_is_read(site: Site) -> None:
    out = site.folder / "P1.json"
    settings = {"offline": True}
    select_scenes(
        select_config(**settings), parents=sheet(site.folder), parent="P1", catalog=str(site.archive.catalog), out=out
    )
    read_parent(read_config(**settings), parents=sheet(site.folder), parent="P1", scenes=out, out=site.folder / "o")
    assert site.server.requests == []


def test_a_shipped_choice_is_taken_without_searching(site: Site) -> None:
    chosen = site.select()
    shipped = site.folder / "shipped"
    shipped.mkdir()
    (shipped / "P1.json").write_text(json.dumps(chosen))
    site.server.requests.clear()
    assert site.select(frozen_scenes=str(shipped)) == chosen
    assert site.server.requests == []


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda scenes: scenes["layers"].pop("DEM"), r"shipped/P1\.json: the shipped choice has no layer DEM"),
        (lambda scenes: scenes["layers"]["S1RTC"]["items"][0]["assets"].pop("VH"), r"item S1_A: no band VH"),
        (lambda scenes: scenes["layers"]["S2L2A"]["items"][0].pop("offset_dn"), r"item S2_A: no offset_dn"),
        (lambda scenes: scenes["parent"].update(left=0), r"config key 'archive\.frozen_scenes': .* chosen for P1 at 0"),
        (lambda scenes: scenes.update(format_version=9), r"has format version 9, and .* reads 1"),
    ],
)
def test_a_shipped_choice_that_does_not_fit_is_refused(
    site: Site, spoil: Callable[[dict[str, Any]], Any], says: str
) -> None:
    chosen = site.select()
    spoil(chosen)
    shipped = site.folder / "shipped"
    shipped.mkdir()
    (shipped / "P1.json").write_text(json.dumps(chosen))
    with pytest.raises(CityHeadsError, match=says):
        site.select(frozen_scenes=str(shipped))
    with pytest.raises(CityHeadsError, match=r"empty/P1\.json: no such file"):
        site.select(frozen_scenes=str(site.folder / "empty"))


def test_a_remote_catalogue_cannot_name_local_files(site: Site) -> None:
    document = json.loads(site.archive.catalog.read_text())
    document["links"].append({"rel": "child", "href": "file:///etc/passwd"})
    site.archive.catalog.write_text(json.dumps(document))
    with pytest.raises(CityHeadsError, match=r"link 'file:///etc/passwd' has a scheme that is not allowed"):
        site.select()


@pytest.mark.parametrize("host", ["169.254.169.254", "10.1.2.3", "[fd00:ec2::254]", "metadata.example"])
def test_a_catalogue_cannot_name_private_addresses_besides_its_own(
    site: Site, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    known = addresses.socket.getaddrinfo

    def resolve(name: str, *how: Any, **more: Any) -> Any:
        return known("169.254.169.254" if name == "metadata.example" else name, *how, **more)

    monkeypatch.setattr(addresses.socket, "getaddrinfo", resolve)
    addresses.resolve.cache_clear()
    site.archive.items["sentinel-2-l2a"][0]["assets"]["SCL"]["href"] = f"http://{host}/latest/meta-data"
    site.archive.write()
    with pytest.raises(
        CityHeadsError, match=r"item S2_A: band SCL: .* has the (link-local|private) address .*trusted_hosts"
    ):
        site.select()


def test_neither_can_a_redirect(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # the catalogue's own place is made a public one; the redirect leads back to this machine
    home = site.server.url.rpartition(":")[2]
    monkeypatch.setattr(addresses, "kind_of", lambda address: "public" if address == "127.0.0.1" else "loopback")
    addresses.resolve.cache_clear()
    guard = Guard.of(read_config().archive, site.server.url)
    http = Client(NetworkConfig(**QUICK), guard)
    assert http.get_json(f"{site.server.url}/catalog.json")["id"] == "made"
    site.server.moved["/moved"] = f"http://127.0.0.2:{home}/catalog.json"
    with pytest.raises(CityHeadsError, match=r"127\.0\.0\.2 has the loopback address"):
        http.get(f"{site.server.url}/moved")
    trusting = Guard.of(read_config(trusted_hosts=["127.0.0.2"]).archive, site.server.url)
    trusting.check("127.0.0.2")


def test_the_bytes_to_come_are_announced(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cityheads.progress")
    site.select()
    site.read()
    assert "P1: 0.1 MB to fetch from 16 rasters" in caplog.text
    assert "P1: 100 % of 0.1 MB" in caplog.text


def test_public_buckets_are_read_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert hrefs.s3_to_https("s3://sentinel-cogs/a/b.tif") == "https://sentinel-cogs.s3.amazonaws.com/a/b.tif"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000/")
    assert hrefs.s3_to_https("s3://bucket/a/b.tif") == "http://127.0.0.1:9000/bucket/a/b.tif"
    assert hrefs.s3_to_https("https://host/a.tif") == "https://host/a.tif"
