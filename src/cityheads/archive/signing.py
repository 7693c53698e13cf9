"""Signatures, made when a URL is asked for and kept in memory: Planetary Computer's tokens, S3's presigned URLs."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit, urlunsplit

from cityheads.archive.http import REFUSED, Client, NetworkError
from cityheads.core.errors import CityHeadsError

__all__ = ["advice", "presign", "sign", "signer"]

#: Where Planetary Computer gives out read tokens; the variables are those of its own SDK.
_TOKENS = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_KEY = "PC_SDK_SUBSCRIPTION_KEY"

_AZURE = ".blob.core.windows.net"

#: A token that expires sooner than this is renewed before it is used.
_TOKEN_SPARE_S = 120

#: A presigned URL is used at once; the rest is for clocks that differ.
_PRESIGNED_S = 900

_tokens: dict[str, tuple[str, float]] = {}

_tokens_lock = threading.Lock()


def signer(way: str, http: Client) -> Callable[[str, str], str] | None:
    """Give what signs URLs in one way (config key ``archive.sign``), as `Client.get` takes it; None for none.

    Raises:
        CityHeadsError: The credentials that this way needs are not in the environment.
    """
    if way == "planetary-computer":
        return functools.partial(sign, http=http)
    if way == "s3":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            if not os.environ.get(name):
                raise CityHeadsError(
                    f"config key 'archive.sign' is s3, but the environment variable {name} is not set; profiles and "
                    "roles are not read (aws configure export-credentials --format env prints what to set)"
                )
        return lambda url, _: presign(url, datetime.now(UTC))
    return None


def sign(url: str, refused: str, *, http: Client) -> str:
    """Sign a Planetary Computer blob's URL with its container's read token; other URLs stay as they are.

    Args:
        url: Unsigned URL.
        refused: The signed URL that was just refused, or empty; its token is not used again.
        http: Fetches the token.

    Raises:
        NetworkError: No token is to be had; where an account is asked for, the message says how to name it.
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
            if os.environ.get(_KEY):
                headers["Ocp-Apim-Subscription-Key"] = os.environ[_KEY]
            try:
                answer = http.get_json(f"{os.environ.get('PC_SDK_SAS_URL', _TOKENS)}/{container}", headers=headers)
            except NetworkError as error:
                if error.status in REFUSED:
                    raise NetworkError(f"{error}; {advice('planetary-computer')}", error.status) from None
                raise
            try:
                token = str(answer["token"])
                expires = datetime.fromisoformat(str(answer["msft:expiry"])).timestamp()
            except (KeyError, TypeError, ValueError):
                raise NetworkError(f"{_TOKENS}/{container}: the answer is no token") from None
            _tokens[container] = (token, expires)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(filter(None, (parts.query, token))), ""))


def presign(url: str, now: datetime) -> str:
    """Sign the URL of an S3 object with the credentials in the environment (AWS Signature Version 4, in the query).

    Signed are objects of Amazon (``*.amazonaws.com``) and of ``AWS_ENDPOINT_URL_S3``; no other server sees a signature.
    Read are ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION`` (or
    ``AWS_DEFAULT_REGION``; else us-east-1) and ``AWS_REQUEST_PAYER``.

    Args:
        url: Unsigned URL, without a query.
        now: Time of signing, in UTC.
    """
    parts = urlsplit(url)
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3", ""))
    if not (parts.netloc.endswith(".amazonaws.com") or (endpoint.netloc and parts.netloc == endpoint.netloc)):
        return url
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(_PRESIGNED_S),
        "X-Amz-SignedHeaders": "host",
    }
    if os.environ.get("AWS_SESSION_TOKEN"):
        query["X-Amz-Security-Token"] = os.environ["AWS_SESSION_TOKEN"]
    if os.environ.get("AWS_REQUEST_PAYER"):
        query["x-amz-request-payer"] = os.environ["AWS_REQUEST_PAYER"]
    written = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted(query.items()))
    path = quote(parts.path, safe="/%~")
    request = f"GET\n{path}\n{written}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{now:%Y%m%dT%H%M%SZ}\n{scope}\n{digest}"
    key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return urlunsplit((parts.scheme, parts.netloc, path, f"{written}&X-Amz-Signature={signature}", ""))


def advice(way: str) -> str:
    """Say what a refusal asks for, of URLs that are signed in one way."""
    if way == "planetary-computer":
        if os.environ.get(_KEY):
            return f"the account key in the environment variable {_KEY} is not accepted for this collection"
        return f"this collection may want an account: set the environment variable {_KEY} (docs/archive.md)"
    if way == "s3":
        return "the AWS_* credentials may not read this bucket, or AWS_REGION is not its region (docs/archive.md)"
    return "if the source wants credentials, name their kind in the config key 'archive.sign' (docs/archive.md)"
