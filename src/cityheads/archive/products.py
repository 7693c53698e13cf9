"""Facts about the satellite products as archives hold them, beside those of `cityheads.core.modalities`."""

__all__ = ["OFFSET_BASELINE", "OFFSET_DN", "S1_NODATA"]

#: From this processing baseline on, Level-2A digital numbers carry +1000 (ESA, Sentinel-2 Products Specification
#: Document 14.9, BOA_ADD_OFFSET; introduced on 25 January 2022).
OFFSET_BASELINE = (4, 0)

#: What is added to digital numbers from then on.
OFFSET_DN = 1000

#: Nodata of Sentinel-1 RTC on Planetary Computer, for rasters that do not declare it.
S1_NODATA = -32768.0
