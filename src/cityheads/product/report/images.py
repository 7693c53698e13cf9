"""Pictures as URLs that hold them: photographs as JPEG, classes and shares as PNG with a palette."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_rgb
from PIL import Image

from cityheads.core.classes import IGNORE
from cityheads.product.figures import style

__all__ = ["SHARES", "classes", "full_color", "photo", "shares"]

#: Colours of shares from 0 to 1 in equal steps, light to dark: their order holds in any colour vision and in print.
SHARES = ("#f4f1ea", "#f3d9a4", "#eaa35c", "#c8642f", "#8a2f1d", "#42110f")


def photo(picture: np.ndarray) -> Markup:
    """Encode an RGB picture (h, w, 3) of floats in 0 to 1 as JPEG."""
    return _url(Image.fromarray(_bytes(picture)), "jpeg", quality=80, optimize=True)


def full_color(picture: np.ndarray) -> Markup:
    """Encode an RGB picture (h, w, 3) of floats in 0 to 1 without loss, for drawings of few colours."""
    return _url(Image.fromarray(_bytes(picture)).quantize(64, dither=Image.Dither.NONE), "png", optimize=True)


def classes(layer: np.ndarray, palette: Sequence[str]) -> Markup:
    """Encode classes, (h, w) uint8, in their colours; 255 (ignored, or not there) is transparent."""
    picture = Image.fromarray(np.where(layer < len(palette), layer, len(palette)).astype(np.uint8), "P")
    table = [*palette, style.IGNORED]
    picture.putpalette(np.concatenate([_bytes(np.array(to_rgb(color))) for color in table]).tobytes())
    return _url(picture, "png", optimize=True, transparency=len(palette))


def shares(layer: np.ndarray) -> Markup:
    """Encode shares from 0 to 1, (h, w) floats, in the colours of `SHARES`; NaN is transparent."""
    steps = np.minimum(np.nan_to_num(layer) * len(SHARES), len(SHARES) - 1).astype(np.uint8)
    return classes(np.where(np.isnan(layer), IGNORE, steps), SHARES)


def _bytes(picture: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return found


def _url(picture: Image.Image, kind: str, **how: object) -> Markup:
    stream = io.BytesIO()
    picture.save(stream, kind, **how)
    return Markup(f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}")
