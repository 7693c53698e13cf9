"""TEMPORARY, until every verb reads typed sections: sections that answer like the dicts of before.

Nothing new may use this module. It goes when nothing under src and tests imports it or reads ``settings["key"]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LikeDict"]

#: Keys of before that have another name now.
_NEW = {
    "gate": "noninferiority",
    "strong_pp": "strong_margin_pp",
    "acceptable_pp": "acceptable_margin_pp",
    "recompute": "gradient_checkpointing",
    "thinking": "tim",
    "without_modalities": "modality_ablation",
    "s2_noise": "s2_noise_reflectance",
}


class LikeDict:
    """``section["key"]``, ``.get``, ``in``, ``.items()``: the attributes of a section as a mapping."""

    def __getitem__(self, key: str) -> Any:
        value: Any = self
        for part in key.split("."):
            value = value._present()[_NEW.get(part, part)] if isinstance(value, LikeDict) else value[part]
        return value

    def _present(self) -> dict[str, Any]:
        absent = getattr(type(self), "null_is_absent", False)
        return {name: value for name, value in self.__dict__.items() if not (absent and value is None)}

    def get(self, key: str, default: Any = None) -> Any:
        """Give the value of a key, or a default."""
        return self[key] if key in self else default  # noqa: SIM401

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _NEW.get(key, key) in self._present()

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def keys(self) -> Any:
        """Give the keys."""
        return self._present().keys()

    def items(self) -> Any:
        """Give keys and values."""
        return self._present().items()

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.items()) | dict(other)
