"""HTTP for a hostile network: bounded, retried, signed late, and never quoted with its secrets.

GDAL's own HTTP reader is not used: it retries neither expired signatures nor truncated answers, knows nothing of
``Retry-After``, and asks for more bytes than a window needs.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from cityheads.archive import proxies
from cityheads.archive.addresses import Guard
from cityheads.config import ArchiveConfig, NetworkConfig
from cityheads.core.errors import BadSceneError, CityHeadsError
from cityheads.core.redaction import scrub

__all__ = ["REFUSED", "Answer", "ChangedError", "Client", "GoneError", "NetworkError", "check_online", "client"]

log = logging.getLogger(__name__)

# its debug messages quote URLs with their signatures
logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)

#: Answers after which asking again can help (RFC 9110, RFC 6585).
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Answers that a signature, or a newer one, may change; Azure sends 409 where a container is not public.
REFUSED = frozenset({401, 403, 409})

#: Answers that say that there is no such file, and will be none.
_GONE = frozenset({404, 410})

#: Ranges of another version of a file in a row, before the file has changed.
_CHANGES = 3
_CHANGED = "the file changed while it was read"

#: How a page for people begins, which proxies and portals send with status 200 in place of the file.
_WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)

#: A server may ask for patience; more than this is taken for a refusal.
_MAX_WAIT_S = 120.0

_MAX_BACKOFF_S = 30.0

#: An answer that trickles more slowly than this is given up and asked for again.
_SLOWEST_BYTES_PER_S = 5_000

_MAX_REDIRECTS = 5

#: A server without ranges sends the whole file; more than this is not taken.
_MAX_WHOLE_BYTES = 64 * 2**20


class NetworkError(CityHeadsError):
    """A request that cannot be had; ``status`` is the last answer, if any came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class GoneError(NetworkError, BadSceneError):
    """The server has no such file."""


class ChangedError(NetworkError, BadSceneError):
    """The file is another one than when its reading began."""


class _AgainError(Exception):
    """This attempt failed in a way that another may not."""

    def __init__(self, reason: str, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.wait_s = wait_s


@dataclass(frozen=True)
class Answer:
    """What a server sent: the bytes, and, of a range, the size and version of the whole."""

    content: bytes
    headers: Mapping[str, str]
    total: int
    version: str


class Client:
    """One process's connections; safe to use from several threads.

    Args:
        network: Patience and number of connections.
        guard: What may be asked, of URLs that a catalogue names; None for those that the user names.
    """

    def __init__(self, network: NetworkConfig, guard: Guard | None = None) -> None:
        self._network = network
        self._guard = guard
        self.bytes_received = 0
        self.requests_sent = 0
        self._count = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self.threads = ThreadPoolExecutor(network.connections, thread_name_prefix="ranges")

    def get(
        self,
        url: str,
        *,
        span: tuple[int, int] | None = None,
        limit: int = _MAX_WHOLE_BYTES,
        sign: Callable[[str, str], str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        check: Callable[[bytes], object] | None = None,
        same: tuple[int, str] | None = None,
        advice: Callable[[], str] | None = None,
    ) -> Answer:
        """Fetch a URL or a range of it, as often as the config allows.

        Args:
            url: Without secrets.
            span: First byte and the one after the last.
            limit: Most bytes taken.
            sign: Gives the URL to ask for; its second argument is the signed URL that was just refused, or empty.
            method: HTTP method.
            body: Body to send.
            headers: Headers to send.
            check: Raises ValueError where the content is broken.
            same: Size and version that the whole file must have: those of its first range.
            advice: Says what may help where the server wants credentials.

        Raises:
            ChangedError: The file is not the same, also when asked for anew.
            GoneError: There is none.
            NetworkError: It cannot be had; the message holds the scrubbed URL and the last reason.
        """
        refused = asked = ""
        reason, status = "", None
        changes = 0
        for attempt in range(1, self._network.attempts + 1):
            try:
                asked = url if sign is None else sign(url, refused)
                answer = self._once(asked, span, limit, method, body, headers or {})
                if check is not None:
                    try:
                        check(answer.content)
                    except ValueError as error:
                        raise _AgainError(f"the answer is broken ({error})") from None
                if same is not None and not _is_same(answer, same):
                    # one stale copy behind a balancer, or a new file: that is for the reader to begin again
                    changes += 1
                    if changes == _CHANGES:
                        raise ChangedError(f"{scrub(url)}: {_CHANGED}")
                    raise _AgainError(_CHANGED)
                return answer
            except _AgainError as error:
                reason, status, wait = str(error), error.status, error.wait_s
                refused = asked if status in REFUSED else ""
                if refused and sign is None:
                    break
                if wait is None:
                    wait = min(_MAX_BACKOFF_S, self._network.backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                elif wait > _MAX_WAIT_S:
                    reason += f", and asks for {wait:.0f} s of patience"
                    break
            if attempt < self._network.attempts:
                log.info("%s: %s; attempt %d follows in %.1f s", scrub(url), reason, attempt + 1, wait)
                time.sleep(wait)
        else:
            reason += f", {self._network.attempts} times"
        if advice is not None and status in REFUSED:
            reason += f"; {advice()}"
        raise NetworkError(f"{scrub(url)}: {reason}", status)

    def get_json(self, url: str, **how: Any) -> Any:
        """Fetch JSON; a document that is cut off is asked for again."""
        return json.loads(self.get(url, check=json.loads, **how).content)

    def _once(
        self,
        url: str,
        span: tuple[int, int] | None,
        limit: int,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer:
        sent = dict(headers)
        if span is not None:
            sent["Range"] = f"bytes={span[0]}-{span[1] - 1}"
            limit = max(limit, span[1] - span[0])
        started = time.monotonic()
        try:
            response = self._open(url, method, body, sent)
            try:
                if response.status not in (200, 206):
                    raise self._refusal(response)
                content = self._drain(response, span, limit, started)
                if response.status == 200 and _WEB_PAGE.match(content[:256]):
                    raise _AgainError("the answer is a web page, not the file")
            except BaseException:
                # what is left of the answer must not be taken for the next one
                response.close()
                response.release_conn()
                raise
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._failed(url, error) from None
        with self._count:
            self.bytes_received += len(content)
        total = _total(response, span, content)
        if span is not None and response.status == 200:
            content = content[span[0] : span[1]]
        # one edge of a network of servers may mark as weak what another does not
        version = response.headers.get("ETag", "").removeprefix("W/")
        return Answer(content, dict(response.headers), total, version)

    def _open(self, url: str, method: str, body: bytes | None, headers: dict[str, str]) -> Any:
        """Send the request, following redirects to other http(s) places."""
        for _ in range(_MAX_REDIRECTS):
            with self._count:
                self.requests_sent += 1
            pool = self._pool(url)
            response = pool.request(
                method,
                url,
                body=body,
                headers={**pool.headers, **headers},
                preload_content=False,
                redirect=False,
            )
            place = response.get_redirect_location()
            if not place:
                return response
            response.drain_conn()
            response.release_conn()
            target = urljoin(url, place)
            if urlsplit(target).scheme.lower() not in ("http", "https"):
                raise NetworkError(f"{scrub(url)}: the server redirects to a scheme that is not allowed")
            url = target
        raise NetworkError(f"{scrub(url)}: more than {_MAX_REDIRECTS} redirects")

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Give the connections by which a URL is asked for: straight, or through the environment's proxy."""
        proxy = proxies.proxy_for(url)
        if proxy is not None and self._guard is not None:
            # the proxy makes the connection, so that nothing but the name can be checked here
            self._guard.check(urlsplit(url).hostname or "")
        with self._count:
            if proxy not in self._pools:
                self._pools[proxy] = self._connections(proxy)
            return self._pools[proxy]

    def _connections(self, proxy: str | None) -> urllib3.PoolManager:
        network = self._network
        # retries are made here, where the answer can be judged; `block` caps the connections to each host
        how: dict[str, Any] = {
            "num_pools": 16,
            "maxsize": network.connections,
            "block": True,
            "retries": False,
            "timeout": urllib3.Timeout(connect=network.timeout_s, read=network.timeout_s),
            "headers": {"User-Agent": "cityheads", "Accept-Encoding": "identity"},
        }
        if proxy is not None:
            login = proxies.credentials(proxy)
            sent = urllib3.make_headers(proxy_basic_auth=login) if login else None
            return urllib3.ProxyManager(proxies.shown(proxy), proxy_headers=sent, **how)
        pools = urllib3.PoolManager(**how)
        if self._guard is not None:
            pools.pool_classes_by_scheme = _guarded(self._guard)
        return pools

    def _failed(self, url: str, error: Exception) -> Exception:
        """Say why there was no answer; a proxy that will not let us through will not the next time either."""
        proxy = proxies.proxy_for(url)
        if proxy is None:
            return _AgainError(_plain(error))
        through = f"through the proxy {proxies.shown(proxy)}"
        refused = re.search(r"tunnel connection failed: (4\d\d)", f"{error} {error.__cause__}", re.IGNORECASE)
        if refused is not None:
            return NetworkError(f"{scrub(url)}: {through}: {_of_proxy(int(refused[1]))}", int(refused[1]))
        return _AgainError(f"{through}: {_plain(error)}")

    def _refusal(self, response: Any) -> Exception:
        status = int(response.status)
        reason = f"the server answers {status}"
        if status in _TRANSIENT:
            return _AgainError(reason, status, _retry_after(response.headers.get("Retry-After")))
        if status in REFUSED:
            return _AgainError(reason, status)
        if status == 407:
            return NetworkError(f"{scrub(response.geturl() or '')}: {_of_proxy(status)}", status)
        return (GoneError if status in _GONE else NetworkError)(f"{scrub(response.geturl() or '')}: {reason}", status)

    def _drain(self, response: Any, span: tuple[int, int] | None, limit: int, started: float) -> bytes:
        parts: list[bytes] = []
        length = 0
        expected = response.headers.get("Content-Length")
        if expected is not None and expected.isdigit() and int(expected) > limit:
            if span is not None and response.status == 200:
                raise NetworkError(f"{scrub(response.geturl() or '')}: the server does not serve byte ranges")
            raise NetworkError(f"{scrub(response.geturl() or '')}: larger than {limit} bytes")
        for part in response.stream(256 * 1024, decode_content=False):
            parts.append(part)
            length += len(part)
            if length > limit:
                raise NetworkError(f"{scrub(response.geturl() or '')}: larger than {limit} bytes")
            elapsed = time.monotonic() - started
            if elapsed > self._network.timeout_s and length / elapsed < _SLOWEST_BYTES_PER_S:
                raise _AgainError(f"only {length} bytes in {elapsed:.0f} s")
        if expected is not None and expected.isdigit() and length != int(expected):
            raise _AgainError(f"the answer is truncated ({length} of {expected} bytes)")
        return b"".join(parts)


def _is_same(answer: Answer, expected: tuple[int, str]) -> bool:
    """Tell whether a range is of the file that is expected; a server may leave the version out."""
    size, version = expected
    return answer.total == size and (answer.version == version or not answer.version or not version)


def _guarded(guard: Guard) -> dict[str, Any]:
    """Give connection pools that look where a name leads before they connect, and again once they are connected."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> Any:
            return _checked(super()._new_conn, self._dns_host)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> Any:
            return _checked(super()._new_conn, self._dns_host)

    def _checked(connect: Callable[[], Any], host: str) -> Any:
        guard.check(host)
        connected = connect()
        try:
            # the name may have led elsewhere meanwhile
            guard.check(host, connected.getpeername()[0])
        except BaseException:
            connected.close()
            raise
        return connected

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _of_proxy(status: int) -> str:
    """Say what a proxy's refusal asks for."""
    if status == 407:
        return "it asks for a login (407); write it into the variable: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
    return f"it does not let this request through ({status}); ask who runs it, or name the host in NO_PROXY"


def _total(response: Any, span: tuple[int, int] | None, content: bytes) -> int:
    """Give the size of the whole file, and check that the range is the one that was asked for."""
    if span is None or response.status == 200:
        return len(content)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    if match is None:
        raise _AgainError("a range came without its place")
    first, last, total = map(int, match.groups())
    if first != span[0] or last + 1 != min(span[1], total) or len(content) != last + 1 - first:
        raise _AgainError(f"the answer is truncated (bytes {first}-{last} of {span[0]}-{span[1] - 1})")
    return total


def _plain(error: Exception) -> str:
    """Say what happened to a connection without library jargon or URLs."""
    text = f"{type(error).__name__} {error}".lower()
    for mark, meaning in (
        ("timeout", "the server is silent"),
        ("timed out", "the server is silent"),
        ("incompleteread", "the answer is truncated"),
        ("reset", "the connection was reset"),
        ("refused", "the connection was refused"),
        ("closed connection", "the connection was closed"),
        ("remotedisconnected", "the connection was closed"),
        ("nameresolution", "the host name cannot be resolved"),
        ("certificate", "the server's certificate cannot be verified"),
    ):
        if mark in text:
            return meaning
    return f"the connection failed ({type(error).__name__})"


def _retry_after(text: str | None) -> float | None:
    """Read ``Retry-After``: seconds, or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


_clients: dict[tuple[NetworkConfig, Guard | None], Client] = {}

_clients_lock = threading.Lock()


def client(network: NetworkConfig, guard: Guard | None = None) -> Client:
    """Give this process's client of this patience: unguarded for URLs that the user names."""
    with _clients_lock:
        if (network, guard) not in _clients:
            _clients[network, guard] = Client(network, guard)
        return _clients[network, guard]


def check_online(archive: ArchiveConfig, what: str) -> None:
    """Fail where the network is needed and the config forbids it.

    Raises:
        CityHeadsError: ``archive.offline`` is set; the message says what is missing.
    """
    if archive.offline:
        raise CityHeadsError(f"offline (config key 'archive.offline'), but {what} is not on this machine")
