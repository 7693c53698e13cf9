"""Signatures of Planetary Computer: fetched when a URL is asked for, kept in memory only."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

from cityheads.archive.http import Client, NetworkError

__all__ = ["sign"]

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
