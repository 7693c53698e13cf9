"""A remote file of which only the byte ranges that are needed are fetched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cityheads.archive.http import Answer, ChangedError, Client
from cityheads.core.redaction import scrub

__all__ = ["RangeFile"]

#: First bytes of a raster: the directories of a cloud-optimised GeoTIFF stand at its front.
_HEADER_BYTES = 16 * 1024

#: Ranges with less than this between them are fetched in one request.
_GAP_BYTES = 1024

#: Least bytes of a request on demand.
_PAGE_BYTES = 4 * 1024


class RangeFile:
    """A remote file of which only the fetched spans exist, at their places in a sparse file that GDAL opens.

    The sparse file lives in memory where the system can do that, else in the folder for temporary files.
    """

    def __init__(
        self,
        http: Client,
        url: str,
        signer: Callable[[str, str], str] | None,
        advice: Callable[[], str] | None = None,
    ) -> None:
        self._http = http
        self._url = url
        self._signer = signer
        self._advice = advice
        first = self._http.get(url, span=(0, _HEADER_BYTES), sign=signer, advice=advice)
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
            NetworkError: They cannot be had, or are of another file than the first bytes.
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
            NetworkError: One cannot be had, or is of another file than the first bytes.
        """
        wanted = [span for span in spans if not self._has(*span)]
        if any(stop > self.size for _, stop in wanted):
            raise ChangedError(
                f"{scrub(self._url)}: the file is truncated: it has {self.size} bytes and its blocks reach further"
            )
        joined = _join(wanted)
        for (start, _), answer in zip(joined, self._fetch_all(joined), strict=True):
            self._keep(start, answer.content)

    def _fetch_all(self, spans: Sequence[tuple[int, int]]) -> list[Answer]:
        def one(span: tuple[int, int]) -> Answer:
            same = (self.size, self._version)
            return self._http.get(self._url, span=span, sign=self._signer, same=same, advice=self._advice)

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
