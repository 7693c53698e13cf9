"""Behind a proxy, as on a compute node that has nothing else: what goes through it, and past it as NO_PROXY says."""

from __future__ import annotations

import base64
import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fault_server import FaultServer
from made_archive import complete, read_config, select_config, sheet

from cityheads.archive.choose.scenes import select_scenes
from cityheads.archive.http import Client, NetworkError
from cityheads.archive.proxies import proxy_for
from cityheads.archive.read.parent import read_parent
from cityheads.config import NetworkConfig
from cityheads.core.errors import CityHeadsError

NETWORK: dict[str, Any] = {"attempts": 2, "backoff_s": 0.001, "timeout_s": 5.0, "connections": 4}
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass
class Proxy:
    """A forward proxy that also tunnels; it knows names that nobody else does.

    Attributes:
        names: (host, port) behind each name.
        login: ``user:password`` that it asks for; None for none.
        asked: What it was asked for: ``CONNECT host:port`` or ``GET url``.
    """

    names: dict[str, tuple[str, int]]
    login: str | None = None
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Proxy:
        outer = self

        class Handler(_ProxyHandler):
            state = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Proxy

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def _welcome(self, asked: str) -> bool:
        self.state.asked.append(asked)
        if self.state.login is not None:
            expected = "Basic " + base64.b64encode(self.state.login.encode()).decode()
            if self.headers.get("Proxy-Authorization") != expected:
                self.send_response(407)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return False
        return True

    def do_CONNECT(self) -> None:
        if not self._welcome(f"CONNECT {self.path}"):
            return
        name = self.path.rpartition(":")[0]
        if name not in self.state.names:
            return self.send_error(403)
        with socket.create_connection(self.state.names[name]) as behind:
            self.send_response(200)
            self.end_headers()
            ends = (self.connection, behind)
            with contextlib.suppress(OSError):
                while True:
                    for ready in select.select(ends, [], [], 10)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        (behind if ready is self.connection else self.connection).sendall(data)

    def do_GET(self) -> None:
        if not self._welcome(f"GET {self.path}"):
            return
        parts = urlsplit(self.path)
        behind = HTTPConnection(*self.state.names[parts.hostname or ""], timeout=10)
        sent = {key: value for key, value in self.headers.items() if not key.lower().startswith("proxy-")}
        behind.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=sent)
        answer = behind.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for key in ("Content-Range", "ETag", "Accept-Ranges"):
            if answer.headers.get(key):
                self.send_header(key, answer.headers[key])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        behind.close()


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def behind(server: FaultServer) -> dict[str, tuple[str, int]]:
    parts = urlsplit(server.url)
    return {"archive.example": (str(parts.hostname), int(parts.port or 0))}


def test_search_and_reading_go_through_the_proxy_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(tmp_path / "archive").write()
    choice = tmp_path / "P1.json"
    with FaultServer(tmp_path / "archive") as server, Proxy(behind(server), login="ann:pass word") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:pass%20word@{proxy.place}")
        how = {"network": NETWORK, "catalog": "http://archive.example/catalog.json"}
        select_scenes(select_config(**how), parents=sheet(tmp_path), parent="P1", out=choice)
        read_parent(
            read_config(network=NETWORK), parents=sheet(tmp_path), parent="P1", scenes=choice, out=tmp_path / "P1"
        )
        # the name is known to nobody but the proxy: nothing went past it
        assert len(server.requests) == len(proxy.asked)
        assert any(asked.endswith("/catalog.json") for asked in proxy.asked)
        assert any("S2_A/B05" in asked for asked in proxy.asked)
    assert (tmp_path / "P1" / "reading.json").is_file()
    assert "word" not in choice.read_text()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing, which makes the certificate of this test")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=archive.example",
         "-addext", "subjectAltName=DNS:archive.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_https_is_tunnelled(tmp_path: Path, tls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(250)))
    monkeypatch.setenv("SSL_CERT_FILE", str(tls / "cert.pem"))
    with FaultServer(tmp_path) as server, Proxy(behind(server), login="ann:word") as proxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "cert.pem", tls / "key.pem")
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        monkeypatch.setenv("https_proxy", proxy.place.replace("127.", "ann:word@127."))
        answer = Client(NetworkConfig(**NETWORK)).get("https://archive.example/a.bin", span=(10, 20))
        assert answer.content == bytes(range(10, 20))
        assert proxy.asked == ["CONNECT archive.example:443"]
        # what a proxy refuses is not asked for again, and the message says whose refusal it is
        with pytest.raises(NetworkError, match=rf"through the proxy http://{proxy.place}: .*\(403\).*NO_PROXY"):
            Client(NetworkConfig(**NETWORK)).get("https://other.example/a.bin")
        monkeypatch.setenv("https_proxy", f"http://ann:wrong@{proxy.place}")
        with pytest.raises(NetworkError, match=r"asks for a login \(407\)") as caught:
            Client(NetworkConfig(**NETWORK)).get("https://archive.example/a.bin")
        assert "wrong" not in str(caught.value)
        assert len(proxy.asked) == 3


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("HTTP_PROXY", f"http://ann:secretword@{place}")
    with pytest.raises(NetworkError, match=f"through the proxy http://{place}: the connection was refused") as caught:
        Client(NetworkConfig(**NETWORK)).get("http://archive.example/a.bin")
    assert "secretword" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "through"),
    [
        ("http://a.example/x", "", True),
        ("http://a.example/x", "example", False),
        ("http://a.example/x", ".example", False),
        ("http://badexample/x", "example", True),
        ("http://a.example:8080/x", "a.example:8080", False),
        ("http://a.example/x", "a.example:8080", True),
        ("http://a.example/x", "other, *", False),
        ("http://10.1.2.3/x", "10.0.0.0/8", False),
        ("http://11.1.2.3/x", "10.0.0.0/8", True),
        ("http://localhost:99/x", "", False),
        ("http://127.0.0.1/x", "", False),
        ("https://a.example/x", "", False),  # HTTP_PROXY is for http alone
    ],
)
def test_which_requests_go_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, through: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(url) == ("http://proxy.example:3128" if through else None)


def test_a_proxy_of_another_kind_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://ann:secretword@proxy.example:1080")
    with pytest.raises(CityHeadsError, match=r"HTTPS_PROXY.*'socks5://proxy\.example:1080' is no http") as caught:
        proxy_for("https://a.example/x")
    assert "secretword" not in str(caught.value)
