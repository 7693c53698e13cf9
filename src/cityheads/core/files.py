"""Files that are either whole or not there.

Every artifact is written to a temporary sibling and renamed, so that a process killed at any moment leaves nothing
that looks finished. The temporary name is fixed per target (``.NAME.part``): a later run of the same job overwrites
what an earlier, killed one left behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cityheads.core.errors import CityHeadsError

__all__ = [
    "append_line",
    "atomic_path",
    "canonical_json",
    "read_json",
    "sha256_bytes",
    "sha256_file",
    "write_bytes",
    "write_json",
]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``path`` that becomes ``path`` when the block ends without an error.

    The temporary file keeps the suffix (``.chips.part.parquet``), for writers that look at it. It is locked while it
    is being written: two processes that make the same file take turns, so that neither renames the other's half.

    Raises:
        CityHeadsError: The disk is full, or the place cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    descriptor = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(part)
        yield part
        os.fsync(descriptor)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CityHeadsError(f"{path}: no space left on the device; free some and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CityHeadsError(f"{path}: cannot be written ({error.strerror}); check the folder's rights") from error
        raise
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open_locked(part: Path) -> int:
    """Open ``part`` empty and locked; the kernel lets go of the lock when the process ends, however it ends."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if part.stat().st_ino == os.fstat(descriptor).st_ino:
                os.ftruncate(descriptor, 0)
                return descriptor
        except FileNotFoundError:
            pass
        # whoever held the lock has renamed or removed that file meanwhile: take a new one
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def append_line(path: Path, text: str) -> None:
    """Add a line to a log that several processes write to; one that a killed process left unfinished is closed first.

    Raises:
        CityHeadsError: The place cannot be written, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as stream:
            # the kernel lets go of the lock when the process ends, however it ends
            fcntl.flock(stream, fcntl.LOCK_EX)
            end = stream.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(stream.fileno(), 1, end - 1) != b"\n"
            stream.write((b"\n" if torn else b"") + text.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise CityHeadsError(f"{path}: cannot be written ({error.strerror}); check its rights and the disk") from error


def canonical_json(value: Any) -> str:
    """Give one text for one value: sorted keys, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline; NaN and infinities are refused."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        CityHeadsError: The file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise CityHeadsError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CityHeadsError(f"{path}: not valid JSON ({error}); delete it and run again") from None


def sha256_bytes(content: bytes) -> str:
    """Give the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes in hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
