"""From a STAC catalogue to rasters on the parents' grid. Imports core, config and, for generated layers, model.

From below: `hrefs` (text only), `http`, `signing`, `ranges` and `tiff` (which bytes), `raster` (which pixels), `warp`
(onto a grid); then `catalogues`, `choose` and `read`.
"""
