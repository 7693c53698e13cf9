"""A web server on loopback that serves byte ranges of a folder, and misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

FAULTS = (
    "429", "500", "503", "403", "404", "reset", "closed", "silence", "truncated", "short range", "garbled", "no ranges",
    "web page", "other version",
)  # fmt: skip


@dataclass
class Fault:
    """One way to misbehave.

    Attributes:
        kind: One of `FAULTS`.
        match: Part of the paths that it strikes.
        times: How often; None for ever.
        skip: Matching requests that are answered well before it strikes.
        retry_after: Value of that header, where the kind sends one.
    """

    kind: str
    match: str = ""
    times: int | None = None
    skip: int = 0
    retry_after: str | None = None
    struck: int = 0


@dataclass
class FaultServer:
    """Serves ``folder`` at ``url`` while it is entered.

    Attributes:
        folder: What is served.
        latency_s: Wait before each answer.
        signature: Only requests with ``?sig=`` this are answered, except for JSON; None asks for none.
        moved: Where paths are redirected to.
        answer: Gives (status, body, headers) of paths that are no files; None for 404.
    """

    folder: Path
    latency_s: float = 0.0
    signature: str | None = None
    faults: list[Fault] = field(default_factory=list)
    answer: Callable[[str, str, bytes], tuple[int, bytes] | None] | None = None
    moved: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    bytes_sent: int = 0
    open_now: int = 0
    open_most: int = 0
    tokens_given: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> FaultServer:
        outer = self

        class Handler(_Handler):
            server_state = outer

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def strike(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.match in path:
                    if fault.skip:
                        fault.skip -= 1
                    elif fault.times is None or fault.struck < fault.times:
                        fault.struck += 1
                        return fault
        return None

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.open_now += 1
            self.open_most = max(self.open_most, self.open_now)
        try:
            yield
        finally:
            with self.lock:
                self.open_now -= 1

    def count(self, part: str) -> int:
        return sum(part in path for _, path, _ in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: FaultServer

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_HEAD(self) -> None:
        self._serve(b"")

    def _serve(self, sent: bytes) -> None:
        state = self.server_state
        with state.counted():
            self._answer(state, sent)

    def _answer(self, state: FaultServer, sent: bytes) -> None:
        if state.latency_s:
            time.sleep(state.latency_s)
        parts = urlsplit(self.path)
        with state.lock:
            state.requests.append((self.command, self.path, self.headers.get("Range", "")))
        if parts.path in state.moved:
            return self._send(302, b"", {"Location": state.moved[parts.path]})
        fault = state.strike(parts.path)
        if fault is not None and fault.kind in ("429", "500", "503", "403", "404"):
            extra = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            return self._send(int(fault.kind), b"no", extra)
        if fault is not None and fault.kind == "reset":
            # a zero linger makes the kernel send RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return self.connection.close()
        if fault is not None and fault.kind == "closed":
            self.close_connection = True
            return None
        if fault is not None and fault.kind == "silence":
            time.sleep(1.0)
            self.close_connection = True
            return None
        if fault is not None and fault.kind == "web page":
            return self._send(200, b"<!DOCTYPE html><html>We will be back soon</html>", {"Content-Type": "text/html"})
        if parts.path.startswith("/token/"):
            return self._token(state)
        if state.signature is not None and not parts.path.endswith(".json"):
            given = parse_qs(parts.query).get("sig", [""])[0]
            if given != state.signature:
                return self._send(403, b"Signature not valid in the specified time frame", {})
        if state.answer is not None:
            made = state.answer(self.command, self.path, sent)
            if made is not None:
                return self._body(made[1], made[0], fault)
        path = (state.folder / parts.path.lstrip("/")).resolve()
        if not path.is_file() or not path.is_relative_to(state.folder.resolve()):
            return self._send(404, b"not found", {})
        return self._body(path.read_bytes(), 200, fault)

    def _token(self, state: FaultServer) -> None:
        with state.lock:
            state.tokens_given += 1
        expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        self._send(200, json.dumps({"token": f"sig={state.signature}", "msft:expiry": expiry}).encode(), {})

    def _body(self, content: bytes, status: int, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        headers = {"ETag": '"another"' if kind == "other version" else f'"{len(content)}"', "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is not None and kind != "no ranges":
            start, stop = int(match[1]), min(int(match[2]) + 1, len(content))
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            if kind == "short range":
                stop = start + (stop - start) // 2
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        elif kind == "short range":
            content = content[: len(content) // 2]
        if kind == "garbled":
            content = bytes(byte ^ 0x5A for byte in content)
        if kind == "truncated":
            headers["Content-Length"] = str(len(content))
            content = content[: len(content) // 2]
            self.close_connection = True
        self._send(status, content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with self.server_state.lock:
                self.server_state.bytes_sent += len(content)
            self.wfile.write(content)
