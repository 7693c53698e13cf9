"""HTTP for a hostile network: bounded, retried, signed late, and never quoted with its secrets.

GDAL's own HTTP reader is not used: it retries neither expired signatures nor truncated answers, knows nothing of
``Retry-After``, and asks for more bytes than a window needs. Here a raster is a file whose byte ranges are fetched on
demand, and whose blocks for one window are fetched beforehand, all at once.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import urllib3

from cityheads.archive.network import scrub
from cityheads.core.errors import CityHeadsError

__all__ = ["Client", "Policy", "RangeFile", "client", "s3_to_https", "sign"]

log = logging.getLogger(__name__)

# its debug messages quote URLs with their signatures
logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)

#: Answers after which asking again can help (RFC 9110, RFC 6585).
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

#: A server may ask for patience; more than this is taken for a refusal.
_MAX_WAIT_S = 120.0
_MAX_BACKOFF_S = 30.0

#: An answer that trickles more slowly than this is given up and asked for again.
_SLOWEST_BYTES_PER_S = 5_000
_MAX_REDIRECTS = 5

#: First bytes of a raster: the directories of a cloud-optimised GeoTIFF stand at its front.
_HEADER_BYTES = 16 * 1024
#: Ranges with less than this between them are fetched in one request.
_GAP_BYTES = 1024
#: Least bytes of a request on demand.
_PAGE_BYTES = 4 * 1024
#: A server without ranges sends the whole file; more than this is not taken.
_MAX_WHOLE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Policy:
    """How patient a client is (the config's ``archive.network`` section).

    Attributes:
        attempts: Requests for one thing before it has failed.
        backoff_s: First wait; each further one is twice as long, less a random half.
        timeout_s: Longest silence of a server.
        connections: Connections to one host at once.
    """

    attempts: int = 6
    backoff_s: float = 0.5
    timeout_s: float = 30.0
    connections: int = 8


class NetworkError(CityHeadsError):
    """A request that cannot be had; ``status`` is the last answer, if any came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _AgainError(Exception):
    """This attempt failed in a way that another may mend."""

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
    """One process's connections; safe to use from several threads."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.bytes_received = 0
        self.requests_sent = 0
        self._count = threading.Lock()
        # retries are made here, where the answer can be judged; `block` caps the connections to each host
        self._pools = urllib3.PoolManager(
            num_pools=16,
            maxsize=policy.connections,
            block=True,
            retries=False,
            timeout=urllib3.Timeout(connect=policy.timeout_s, read=policy.timeout_s),
            headers={"User-Agent": "cityheads", "Accept-Encoding": "identity"},
        )
        self.threads = ThreadPoolExecutor(policy.connections, thread_name_prefix="ranges")

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
    ) -> Answer:
        """Fetch a URL or a range of it, as often as the policy allows.

        Args:
            url: Without secrets.
            span: First byte and the one after the last.
            limit: Most bytes taken.
            sign: Gives the URL to ask for; its second argument is the signed URL that was just refused, or empty.
            method: HTTP method.
            body: Body to send.
            headers: Headers to send.
            check: Raises ValueError where the content is broken.

        Raises:
            NetworkError: It cannot be had; the message holds the scrubbed URL and the last reason.
        """
        refused = asked = ""
        reason, status = "", None
        for attempt in range(1, self.policy.attempts + 1):
            try:
                asked = url if sign is None else sign(url, refused)
                answer = self._once(asked, span, limit, method, body, headers or {})
                if check is not None:
                    try:
                        check(answer.content)
                    except ValueError as error:
                        raise _AgainError(f"the answer is broken ({error})") from None
                return answer
            except _AgainError as error:
                reason, status, wait = str(error), error.status, error.wait_s
                refused = asked if status in (401, 403) else ""
                if refused and sign is None:
                    break
                if wait is None:
                    wait = min(_MAX_BACKOFF_S, self.policy.backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                elif wait > _MAX_WAIT_S:
                    reason += f", and asks for {wait:.0f} s of patience"
                    break
            if attempt < self.policy.attempts:
                log.info("%s: %s; attempt %d follows in %.1f s", scrub(url), reason, attempt + 1, wait)
                time.sleep(wait)
        else:
            reason += f", {self.policy.attempts} times"
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
            except BaseException:
                # what is left of the answer must not be taken for the next one
                response.close()
                response.release_conn()
                raise
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _AgainError(_plain(error)) from None
        with self._count:
            self.bytes_received += len(content)
        total = _total(response, span, content)
        if span is not None and response.status == 200:
            content = content[span[0] : span[1]]
        version = response.headers.get("ETag", "")
        return Answer(content, dict(response.headers), total, version)

    def _open(self, url: str, method: str, body: bytes | None, headers: dict[str, str]) -> Any:
        """Send the request, following redirects to other http(s) places."""
        for _ in range(_MAX_REDIRECTS):
            with self._count:
                self.requests_sent += 1
            response = self._pools.request(
                method,
                url,
                body=body,
                headers={**self._pools.headers, **headers},
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

    def _refusal(self, response: Any) -> Exception:
        status = int(response.status)
        reason = f"the server answers {status}"
        if status in _TRANSIENT:
            return _AgainError(reason, status, _retry_after(response.headers.get("Retry-After")))
        if status in (401, 403):
            return _AgainError(reason, status)
        return NetworkError(f"{scrub(response.geturl() or '')}: {reason}", status)

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
            if elapsed > self.policy.timeout_s and length / elapsed < _SLOWEST_BYTES_PER_S:
                raise _AgainError(f"only {length} bytes in {elapsed:.0f} s")
        if expected is not None and expected.isdigit() and length != int(expected):
            raise _AgainError(f"the answer is truncated ({length} of {expected} bytes)")
        return b"".join(parts)


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


_clients: dict[Policy, Client] = {}
_clients_lock = threading.Lock()


def client(archive: Mapping[str, Any]) -> Client:
    """Give this process's client for the config's ``archive`` section."""
    policy = Policy(**archive["network"])
    with _clients_lock:
        if policy not in _clients:
            _clients[policy] = Client(policy)
        return _clients[policy]


# --- signatures -------------------------------------------------------------------------------------------------------

#: Where Planetary Computer gives out read tokens; the variable is that of its own SDK.
_TOKENS = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_AZURE = ".blob.core.windows.net"
#: A token that expires sooner than this is renewed before it is used.
_TOKEN_SPARE_S = 120
_tokens: dict[str, tuple[str, float]] = {}
_tokens_lock = threading.Lock()


def sign(url: str, refused: str, *, http: Client) -> str:
    """Sign a Planetary Computer blob's URL with its container's read token; other URLs stay as they are.

    Args:
        url: Unsigned URL.
        refused: The signed URL that was just refused, or empty; its token is not used again.
        http: Fetches the token.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if not host.endswith(_AZURE):
        return url
    container = f"{host.removesuffix(_AZURE)}/{parts.path.split('/')[1]}"
    with _tokens_lock:
        token, expires = _tokens.get(container, ("", 0.0))
        # many requests are refused at once when a token expires; the first one fetches the new token for all
        if (token and token in refused) or expires - time.time() < _TOKEN_SPARE_S:
            headers = {}
            if os.environ.get("PC_SDK_SUBSCRIPTION_KEY"):
                headers["Ocp-Apim-Subscription-Key"] = os.environ["PC_SDK_SUBSCRIPTION_KEY"]
            answer = http.get_json(f"{os.environ.get('PC_SDK_SAS_URL', _TOKENS)}/{container}", headers=headers)
            try:
                token = str(answer["token"])
                expires = datetime.fromisoformat(str(answer["msft:expiry"])).timestamp()
            except (KeyError, TypeError, ValueError):
                raise NetworkError(f"{_TOKENS}/{container}: the answer is no token") from None
            _tokens[container] = (token, expires)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(filter(None, (parts.query, token))), ""))


def s3_to_https(url: str) -> str:
    """Give the HTTPS address of an object in a public S3 bucket (or at ``AWS_ENDPOINT_URL_S3``)."""
    parts = urlsplit(url)
    if parts.scheme.lower() != "s3":
        return url
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3")
    if endpoint:
        return f"{endpoint.rstrip('/')}/{parts.netloc}{parts.path}"
    return f"https://{parts.netloc}.s3.amazonaws.com{parts.path}"


# --- files by range ---------------------------------------------------------------------------------------------------


class RangeFile:
    """A remote file of which only the fetched spans exist, at their places in a sparse file that GDAL opens.

    The sparse file lives in memory where the system can do that, else in the folder for temporary files.
    """

    def __init__(self, http: Client, url: str, signer: Callable[[str, str], str] | None) -> None:
        self._http = http
        self._url = url
        self._signer = signer
        first = self._http.get(url, span=(0, _HEADER_BYTES), sign=signer)
        self.size = first.total
        self._version = first.version
        self._have: list[tuple[int, int]] = []
        if hasattr(os, "memfd_create"):
            self._file = os.memfd_create("cityheads")
            self.path = f"/proc/self/fd/{self._file}"
        else:
            self._file, self.path = tempfile.mkstemp(prefix="cityheads-", suffix=".tif")
        self._named = not self.path.startswith("/proc/")
        os.ftruncate(self._file, self.size)
        self._keep(0, first.content)

    def close(self) -> None:
        """Forget the bytes."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._named:
                Path(self.path).unlink(missing_ok=True)

    def read(self, start: int, stop: int) -> bytes:
        """Give bytes, fetching them if need be; fewer where the file ends.

        Raises:
            NetworkError: They cannot be had.
        """
        stop = min(stop, self.size)
        if stop <= start:
            return b""
        if not self._has(start, stop):
            self.fetch([(start, max(stop, min(start + _PAGE_BYTES, self.size)))])
        return os.pread(self._file, stop - start, start)

    def fetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Fetch spans that are not there yet, neighbours together, several at once.

        Raises:
            NetworkError: One cannot be had.
        """
        wanted = [span for span in spans if not self._has(*span)]
        if any(stop > self.size for _, stop in wanted):
            raise NetworkError(
                f"{scrub(self._url)}: the file is truncated: it has {self.size} bytes and its blocks reach further"
            )
        joined = _join(wanted)
        for (start, _), answer in zip(joined, self._fetch_all(joined), strict=True):
            if answer.total != self.size or answer.version != self._version:
                raise NetworkError(f"{scrub(self._url)}: the file changed while it was read")
            self._keep(start, answer.content)

    def _fetch_all(self, spans: Sequence[tuple[int, int]]) -> list[Answer]:
        def one(span: tuple[int, int]) -> Answer:
            return self._http.get(self._url, span=span, sign=self._signer)

        if len(spans) < 2:
            return [one(span) for span in spans]
        return list(self._http.threads.map(one, spans))

    def _keep(self, start: int, content: bytes) -> None:
        os.pwrite(self._file, content, start)
        self._have = _join([*self._have, (start, start + len(content))], gap=0)

    def _has(self, start: int, stop: int) -> bool:
        return any(first <= start and stop <= last for first, last in self._have)


def _join(spans: Iterable[tuple[int, int]], gap: int = _GAP_BYTES) -> list[tuple[int, int]]:
    """Put spans together that overlap or have at most ``gap`` bytes between them."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined
