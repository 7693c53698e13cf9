"""Encoders of TerraTorch's registry: ``build`` builds them, ``weights`` fills them, ``tuning`` trains them with less.

``base`` is what all of them share and imports none of them; ``prithvi``, ``terramind`` and ``tim`` are what is special
about one kind. Imports from ``core`` only.
"""
