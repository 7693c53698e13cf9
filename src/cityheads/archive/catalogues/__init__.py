"""Clients of STAC catalogues: web APIs, and linked documents.

They give items (`item`) that lie over a polygon; what makes a good scene is known in `cityheads.archive.choose`.
"""
