"""What a page, a log or a bundle may not tell: credentials in URLs, and the folders of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["portable", "scrub", "shown"]

#: A user's part may hold an unescaped @: it ends at the last one before the path.
_URL = re.compile(
    r"\b([a-z][a-z0-9+.-]{0,15}://)(?:[^\s/?#\"'<>]*@)?([^\s?#\"'<>]*)(?:[?#][^\s\"'<>]*)?", re.IGNORECASE
)

#: Queries also stand alone in messages of HTTP libraries ("/path?sig=...").
_QUERY = re.compile(r"\?[^\s\"'<>]*=[^\s\"'<>]*")

#: An absolute path of two parts or more inside a text; a slash between words, numbers or units starts none.
_ABSOLUTE = re.compile(r"(?<![\w.:/~)\]])~?/(?:[^\s/\"'<>,;()]+/)+([^\s/\"'<>,;()]*)")


def scrub(text: str) -> str:
    """Take user names and queries, where signatures live, out of every URL in a text."""
    return _QUERY.sub("", _URL.sub(r"\1\2", text))


def shown(text: str) -> str:
    """Give a text as a page may show it: URLs without credentials, files of this machine without their folders."""
    return _without_folders(scrub(text), "\N{HORIZONTAL ELLIPSIS}/")


def portable(value: Any) -> Any:
    """Strip from the values of a config what others must not or cannot use: credentials, and folders of this machine.

    Args:
        value: Mappings, lists and plain values. A text that is an absolute path becomes the file's name.
    """
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [portable(item) for item in value]
    return _without_folders(scrub(value), "") if isinstance(value, str) else value


def _without_folders(text: str, mark: str) -> str:
    """Leave of every absolute path its last part, after ``mark``."""
    whole = urlsplit(text).path if text.lower().startswith("file://") else text
    if whole.startswith(("/", "~/")) and "\n" not in whole and len(Path(whole).parts) > 1:
        return mark + Path(whole).name
    return _ABSOLUTE.sub(lambda found: mark + (found[1] or Path(found[0]).name), text)
