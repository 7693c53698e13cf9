"""Label layers: rasters and polygons become class ids on a parent's grid (``MASK_{label}.tif``, 255 = ignore).

One module per kind of source (``landcover``, ``footprints`` after ``preparation``, ``custom``) on top of ``rasterize``
(polygons to pixels), ``vector_files`` (any vector file, batch by batch), ``columns``, ``shapes`` and ``losses`` (what
becomes of its rows), ``geoparquet`` (prepared files), ``section`` (a label's part of the config) and ``masks`` (what is
written); ``download`` fetches footprints, ``cover`` finds the parents of a city. Imports ``core``, ``config`` and
``archive``; knows nothing of splits, stores or models.
"""
