"""What a bundle is: its files, its checksums, and what may not be in it.

Nothing in the folder is executable when loaded: weights are safetensors, the rest is text. ``SHA256SUMS`` is written
last and lists every other file, so that a bundle is either whole or not a bundle.
"""

from __future__ import annotations

from pathlib import Path

from cityheads.core.errors import CityHeadsError
from cityheads.core.files import sha256_file, write_bytes
from cityheads.core.layout import BundleFolder

__all__ = ["FILES", "OPTIONAL", "seal", "unseal", "verify_bundle"]

#: What a bundle holds, besides its checksums.
FILES = tuple(
    getattr(BundleFolder(Path()), name).name
    for name in ("weights", "model", "classes", "recipe", "parents", "splits", "metrics", "gate", "card")
)

#: What it may hold besides.
OPTIONAL = (BundleFolder(Path()).calibration.name,)


def unseal(bundle: BundleFolder) -> None:
    """Take the checksums away before files are replaced; refuse a folder that holds anything else.

    Raises:
        CityHeadsError: The folder holds a file that is no part of a bundle.
    """
    # Snakemake's mark of a folder that a rule has made
    known = {*FILES, *OPTIONAL, bundle.checksums.name, ".snakemake_timestamp"}
    there = sorted(path.name for path in bundle.root.iterdir()) if bundle.root.exists() else []
    foreign = [name for name in there if name not in known]
    if foreign:
        raise CityHeadsError(f"{bundle.root}: holds {foreign[0]}, which is no part of a bundle; name an empty folder")
    bundle.checksums.unlink(missing_ok=True)
    # one of an earlier model must not stay beside the next
    for name in OPTIONAL:
        (bundle.root / name).unlink(missing_ok=True)


def seal(bundle: BundleFolder) -> None:
    """Write the checksums of all files, which makes the folder a bundle."""
    there = [*FILES, *(name for name in OPTIONAL if (bundle.root / name).is_file())]
    lines = [f"{sha256_file(bundle.root / name)}  {name}\n" for name in sorted(there)]
    write_bytes(bundle.checksums, "".join(lines).encode())


def verify_bundle(folder: Path) -> None:
    """Compare every file of a bundle with its checksum.

    Raises:
        CityHeadsError: It is no bundle, or a file is missing or has other bytes than when it was published.
    """
    bundle = BundleFolder(folder)
    sums = bundle.checksums
    if not sums.is_file():
        raise CityHeadsError(f"{bundle.root}: is no bundle ({sums.name} is missing); make one with 'cityheads publish'")
    pairs = [line.partition("  ") for line in sums.read_text().splitlines()]
    recorded = {name: digest for digest, _, name in pairs}
    absent = [name for name in FILES if name not in recorded]
    if absent:
        raise CityHeadsError(f"{sums}: does not list {absent[0]}; publish again")
    for name, digest in recorded.items():
        path = bundle.root / name
        if Path(name).name != name or not path.is_file():
            raise CityHeadsError(f"{path}: no such file, though {sums.name} lists it; publish or download again")
        if sha256_file(path) != digest:
            raise CityHeadsError(f"{path}: its bytes are not those that were published; publish or download again")
