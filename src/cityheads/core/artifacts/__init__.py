"""What is in the files that one verb writes and another reads: one module for each artifact.

Each module holds a typed shape and an `Artifact` (JSON) or `Table` (Parquet) that reads and writes it. Both check the
shape and the format version, so that a file of another version or a damaged one is refused in one line that names
the command that makes it anew. Names of files are known in `cityheads.core.layout`.
"""
