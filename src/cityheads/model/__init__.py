"""The model: one encoder and a head for each task, built in one place (``builder``) from one specification.

``factory`` is its entrance for TerraTorch, ``backbones`` holds the encoders, ``synthesis`` makes modalities of others.
Imports from ``core`` and ``config`` only: it knows nothing of the dataset.
"""
