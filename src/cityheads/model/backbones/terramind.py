"""TerraMind's input side: modalities old and new, subsets of bands, coordinates, and merges of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cityheads.core.errors import CityHeadsError
from cityheads.core.modalities import COORDS
from cityheads.model.backbones.base import S2_NAMES, single_date
from cityheads.model.backbones.weights import download

__all__ = [
    "PIXEL_BANDS",
    "PRETRAINED",
    "AttentionMerge",
    "ConcatMerge",
    "CoordinateTokens",
    "GatedMerge",
    "coordinate_tokens",
    "published_coordinate_tokens",
    "read_coordinate_tokens",
    "select_bands",
    "set_coordinate_tokens",
    "terramind_arguments",
]

#: Bands of the modalities that TerraMind v1 was pretrained on as pixels (TerraTorch 1.2.11,
#: ``terramind_register.PRETRAINED_BANDS``).
PIXEL_BANDS = {"S2L2A": 12, "S2L1C": 13, "S1GRD": 2, "S1RTC": 2, "DEM": 1, "RGB": 3}

#: Inputs that TerraMind v1 was pretrained on. Upstream matches names by substring, so that a misspelt one silently
#: becomes another; here a name is one of these or a new modality.
PRETRAINED = (*PIXEL_BANDS, COORDS)


def terramind_arguments(modalities: Mapping[str, int], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of TerraTorch's TerraMind for a set of modalities.

    Args:
        modalities: Bands per modality; one that TerraMind does not know becomes a new input of that many bands.
        arguments: ``merge_method`` and further arguments, passed on.

    Raises:
        CityHeadsError: A modality's name would be taken for another one by upstream's matching of substrings.
    """
    wanted: list[Any] = []
    for modality, bands in modalities.items():
        if modality in PRETRAINED:
            wanted.append(modality)
            continue
        if modality.lower().startswith(("s1", "s2")) or any(k.lower() in modality.lower() for k in PRETRAINED):
            raise CityHeadsError(
                f"config key 'model.modalities': '{modality}' would be taken for one of {', '.join(PRETRAINED)}; "
                "choose another name"
            )
        wanted.append({modality: bands})
    result = {"modalities": wanted, **arguments}
    if result.get("merge_method") == "none":
        result["merge_method"] = None
    if result.get("use_temporal") and result.get("merge_method", "mean") not in ("mean", "max", "concat"):
        raise CityHeadsError(
            f"merge '{arguments['merge_method']}' does not go with several time steps: TerraTorch's temporal wrapper "
            "takes merged tokens; choose mean, max or concat"
        )
    if result.get("merge_method") == "concat" and not result.get("use_temporal"):
        # upstream appends its token for missing modalities last, so that the channels of all modalities after a
        # missing one move, and leaves it uninitialised: ConcatMerge does it right
        result["merge_method"] = "dict"
    return result


class ConcatMerge(nn.Module):
    """Tokens per modality -> tokens side by side, each modality at its own place, a learnt token where one is missing.

    Args:
        modalities: Names of the image modalities, in the order of the channels.
        dim: Size of one modality's tokens.
    """

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.modalities = list(modalities)
        self.missing = nn.Parameter(torch.empty(dim))
        # as the encoder's own modality embeddings
        nn.init.normal_(self.missing, std=0.02)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Merge {name: (B, N, D)} into (B, N, M * D)."""
        present = next(tokens[name] for name in self.modalities if name in tokens)
        return torch.cat([tokens.get(name, self.missing.expand_as(present)) for name in self.modalities], dim=-1)


class GatedMerge(nn.Module):
    """Tokens per modality -> their mean, weighted place by place by what a head has learnt to look for.

    The gate is one linear score per token, shared by the modalities (each token knows which one it is of), and a
    softmax over those that are there. It starts as the plain mean.

    Args:
        dim: Size of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.score = nn.Linear(dim, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Merge {name: (B, N, D)} into (B, N, D)."""
        stacked = torch.stack(list(tokens.values()), dim=1)
        return (self.score(self.norm(stacked)).softmax(dim=1) * stacked).sum(dim=1)


class AttentionMerge(nn.Module):
    """All tokens of all modalities, those of coordinates too -> one per place, which has attended to every one of them.

    One layer of attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2) from the mean of the image tokens of
    a place to all tokens, added to that mean. It starts as the plain mean.

    Args:
        dim: Size of the tokens, a multiple of 64: attention heads of 64, as in the encoder.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 64:
            raise ValueError(f"attention heads of 64 do not divide tokens of size {dim}")
        self.heads = dim // 64
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Tensor, places: int) -> Tensor:
        """Merge (B, M * N + others, D), the images' tokens first, N = ``places`` each, into (B, N, D)."""
        images = tokens.shape[1] // places
        mean = tokens[:, : images * places].unflatten(1, (images, places)).mean(dim=1)
        query = self.query(self.norm(mean))
        key, value = self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        split = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        attended = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return mean + self.out(attended)


#: TerraMind rounds coordinates to quarters of a degree (TerraTorch 1.2.11, ``CoordsTokenizer.encode``).
_STEPS_PER_DEGREE = 4
_LATITUDES, _LONGITUDES = 180 * _STEPS_PER_DEGREE + 1, 360 * _STEPS_PER_DEGREE + 1

#: Longest sequence that the coordinates' embedding takes (TerraTorch 1.2.11, ``MODALITY_INFO``), and marks of the
#: places in it that hold the latitude, the longitude, and nothing.
_LENGTH, _LATITUDE, _LONGITUDE, _NOTHING = 4, -1, -2, -3

#: Token id of the end of a sequence, and the first ids that are free, where there is no published vocabulary
#: (TerraTorch 1.2.11, ``build_blank_wordpiece``).
_END, _FREE = 3, 7


class CoordinateTokens(nn.Module):
    """Longitude and latitude as the token ids that TerraMind reads, kept with the weights.

    TerraTorch asks a vocabulary file for them, and without that file gives every place the same id, "unknown". Here
    the ids of all quarter degrees are buffers, so that a saved model needs no file.

    Args:
        latitude: (721,) id of each quarter degree from -90.
        longitude: (1441,) id of each quarter degree from -180.
        sentence: (4,) ids around them; -1 stands for the latitude, -2 for the longitude, -3 for nothing.
    """

    latitude: Tensor
    longitude: Tensor
    sentence: Tensor

    def __init__(
        self,
        latitude: Sequence[int] = range(_FREE, _FREE + _LATITUDES),
        longitude: Sequence[int] = range(_FREE + _LATITUDES, _FREE + _LATITUDES + _LONGITUDES),
        sentence: Sequence[int] = (_LATITUDE, _LONGITUDE, _END, _NOTHING),
    ) -> None:
        super().__init__()
        self.register_buffer("latitude", torch.tensor(list(latitude), dtype=torch.int64))
        self.register_buffer("longitude", torch.tensor(list(longitude), dtype=torch.int64))
        self.register_buffer("sentence", torch.tensor(list(sentence), dtype=torch.int64))

    def encode(self, coords: Tensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Give the token ids of (B, 2) longitude and latitude in degrees, as TerraMind's encoder takes them.

        Raises:
            ValueError: A coordinate is not a number or is not on Earth.
        """
        lon, lat = coords.float().unbind(1)
        if not bool(((lon.abs() <= 180) & (lat.abs() <= 90)).all()):
            raise ValueError("coords must be longitude and latitude in degrees, within 180 and 90")
        steps = [(degrees * _STEPS_PER_DEGREE).round().long() for degrees in (lat, lon)]
        at_latitude = self.latitude[steps[0] + _LATITUDES // 2]
        at_longitude = self.longitude[steps[1] + _LONGITUDES // 2]
        columns = [
            at_latitude
            if token == _LATITUDE
            else at_longitude
            if token == _LONGITUDE
            else torch.full_like(at_latitude, token)
            for token in self.sentence.tolist()
            if token != _NOTHING
        ]
        ids = torch.stack(columns, dim=1)
        seen = torch.zeros_like(ids, dtype=torch.bool)
        return {"tensor": ids, "input_mask": seen, "target_mask": ~seen, "decoder_attention_mask": seen}


def set_coordinate_tokens(encoder: nn.Module, tokens: CoordinateTokens) -> None:
    """Let an encoder that reads coordinates read these token ids; one that does not is left as it is."""
    for module in list(encoder.modules()):
        if isinstance(module, nn.ModuleDict) and COORDS in module and not hasattr(module[COORDS], "token_emb"):
            module[COORDS] = tokens


def read_coordinate_tokens(path: Path) -> CoordinateTokens:
    """Take the token ids of all quarter degrees from TerraMind's vocabulary file (``tokenizers`` JSON).

    Raises:
        CityHeadsError: The file is missing, is no vocabulary, or has no single token for a coordinate.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise CityHeadsError(f"{path}: no such vocabulary of coordinates")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise CityHeadsError(f"{path}: cannot be read as a vocabulary ({error})") from None

    def encoded(lat: Callable[[int], float], lon: Callable[[int], float], count: int) -> Tensor:
        text = [f"lat={lat(i):.2f} lon={lon(i):.2f} [EOS]" for i in range(count)]
        ids = [one.ids for one in tokenizer.encode_batch(text, add_special_tokens=True)]
        unknown = tokenizer.token_to_id("[UNK]")
        if len({len(one) for one in ids}) != 1 or len(ids[0]) > _LENGTH or any(unknown in one for one in ids):
            raise CityHeadsError(f"{path}: has no single token for each quarter degree; this is not TerraMind's file")
        return torch.tensor(ids)

    def degrees(index: int, count: int) -> float:
        # adding 0 turns the -0.00 of a rounded minus into 0.00
        return (index - count // 2) / _STEPS_PER_DEGREE + 0.0

    by_lat = encoded(lambda i: degrees(i, _LATITUDES), lambda i: 0.0, _LATITUDES)
    by_lon = encoded(lambda i: 0.0, lambda i: degrees(i, _LONGITUDES), _LONGITUDES)
    places = [[p for p in range(ids.shape[1]) if len(ids[:, p].unique()) > 1] for ids in (by_lat, by_lon)]
    if [len(one) for one in places] != [1, 1] or places[0] == places[1]:
        raise CityHeadsError(f"{path}: does not tell coordinates apart; this is not TerraMind's file")
    (row,), (column,) = places
    latitude, longitude = by_lat[:, row], by_lon[:, column]
    if len(latitude.unique()) != _LATITUDES or len(longitude.unique()) != _LONGITUDES:
        raise CityHeadsError(f"{path}: two quarter degrees share a token; this is not TerraMind's file")
    sentence = by_lat[0].tolist() + [_NOTHING] * (_LENGTH - by_lat.shape[1])
    sentence[row], sentence[column] = _LATITUDE, _LONGITUDE
    return CoordinateTokens(latitude.tolist(), longitude.tolist(), sentence)


def coordinate_tokens(vocabulary: str | Path | None) -> CoordinateTokens:
    """Take the token ids that weights were trained with, from a vocabulary file or the published one."""
    return read_coordinate_tokens(Path(vocabulary)) if vocabulary else published_coordinate_tokens()


def published_coordinate_tokens() -> CoordinateTokens:
    """Take them from the published vocabulary, in the Hugging Face cache or by downloading it.

    Raises:
        CityHeadsError: It cannot be had.
    """
    from terratorch.models.backbones.terramind.tokenizer.tokenizer_register import pretrained_weights

    entry = pretrained_weights["terramind_v1_coords_tokenizer"]
    path, _ = download(entry, "config key 'model.modalities': coords", "name a file in model.coords_vocabulary")
    return read_coordinate_tokens(path)


def select_bands(encoder: nn.Module, modality: str, bands: Sequence[str]) -> None:
    """Keep the patch embedding's weights of some bands only, in the given order.

    Args:
        encoder: A TerraMind encoder with the embedding of all bands; changed in place.
        modality: ``S2L2A``, ``S1RTC`` or ``S1GRD``.
        bands: Our band names, such as ``B04`` or ``VV``.
    """
    from terratorch.models.backbones.terramind.model.terramind_register import (
        PRETRAINED_BANDS,
        select_modality_patch_embed_weights,
    )

    names = [S2_NAMES.get(band, band) for band in bands]
    one: Any = single_date(encoder)
    for reader in getattr(one, "readers", [one]):
        select_modality_patch_embed_weights(reader, {modality: names}, PRETRAINED_BANDS)
    if hasattr(one, "generator"):
        one.generator.requires_grad_(False)
