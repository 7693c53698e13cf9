"""A simulated archive in the shape of the real ones, so that nothing after it can tell. Imports archive and above.

The verb (`archive`) plans the city (`plan`), makes one world for each place (`world`, `buildings`), looks at it with
every sensor (`pixels`, `spectra`), and describes the rasters as Planetary Computer does (`catalog`). What is simulated
and where the numbers come from: docs/simulated-archive.md.
"""
