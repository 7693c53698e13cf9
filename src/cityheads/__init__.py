"""CityHeads: one geospatial foundation model, many maps of a city.

Everything in ``__all__`` is public and stays; all else may move. Importing the package is cheap on purpose: a name is
loaded when it is first used, so that nothing here imports torch, rasterio or geopandas by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cityheads.core.errors import CityHeadsError
from cityheads.core.layout import Layout
from cityheads.core.version import VERSION

if TYPE_CHECKING:
    from cityheads.config import Config, load_config
    from cityheads.dataset.datamodule import ChipDataModule
    from cityheads.model.builder import load_model
    from cityheads.model.factory import MultiHeadModelFactory
    from cityheads.model.multihead import MultiHeadModel
    from cityheads.product.predict import fetch, predict_parent
    from cityheads.training.task import MultiHeadTask

__all__ = [
    "ChipDataModule",
    "CityHeadsError",
    "Config",
    "Layout",
    "MultiHeadModel",
    "MultiHeadModelFactory",
    "MultiHeadTask",
    "__version__",
    "fetch",
    "load_config",
    "load_model",
    "predict_parent",
]

__version__ = VERSION

#: Module of each name that is loaded when it is used.
_HOME = {
    "ChipDataModule": "cityheads.dataset.datamodule",
    "Config": "cityheads.config",
    "MultiHeadModel": "cityheads.model.multihead",
    "MultiHeadModelFactory": "cityheads.model.factory",
    "MultiHeadTask": "cityheads.training.task",
    "fetch": "cityheads.product.predict",
    "load_config": "cityheads.config",
    "load_model": "cityheads.model.builder",
    "predict_parent": "cityheads.product.predict",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cityheads' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
