"""CityHeads: one geospatial foundation model, many maps of a city.

Importing the package is cheap on purpose: nothing here imports torch, rasterio or geopandas.
"""

from cityheads.core.errors import CityHeadsError

__all__ = ["CityHeadsError", "__version__"]

__version__ = "0.1.0"
