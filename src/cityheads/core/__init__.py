"""What everything else stands on; it knows nothing of the rest.

Words (`grid`, `modalities`, `classes`, `times`), files that are whole or not there (`files`, `raster`), where every
file lies (`layout`) and what is in it (`artifacts`), counting of hits and errors (`confusion`), how numbers are written
(`text`), what made an artifact (`environment`, `version`), and the one error that users are meant to read (`errors`).
Imports nothing of the package.
"""
