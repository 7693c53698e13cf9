"""What would fail hours into a run, found before its first download; and what the run will need.

Nothing is downloaded or written. The workflow does it by itself before its first job.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cityheads.config import Config, read_yaml, resolve
from cityheads.config.estimate import Estimate, estimate
from cityheads.config.experiments import read_experiments, with_experiments
from cityheads.config.inputs import check_names, check_results, check_splits
from cityheads.core.errors import CityHeadsError
from cityheads.core.grid import Parent, read_parents
from cityheads.core.layout import Layout

__all__ = ["DEFAULT_CONFIG", "Machine", "Preflight", "check", "machine", "preflight"]

#: What a config that is no whole one is laid over, as the Snakefile does.
DEFAULT_CONFIG = Path("config/config.yaml")

#: When Sentinel-2A's first scenes were taken; nothing is older.
_FIRST_SCENES = datetime(2015, 6, 27, tzinfo=UTC)

_progress = logging.getLogger("cityheads.progress")


@dataclass(frozen=True)
class Machine:
    """What there is to run on.

    Attributes:
        cores: CPU cores that this process may use.
        memory_mb: Main memory in MB; None where the system does not tell.
        gpu_mb: Memory of the largest GPU in MB; None where there is none.
        environment: Environment variables, for credentials.
    """

    cores: int
    memory_mb: float | None
    gpu_mb: float | None
    environment: Mapping[str, str]


@dataclass
class Preflight:
    """What was found.

    Attributes:
        problems: What will fail, a line each.
        warnings: What may fail or is slow, a line each.
        needs: What the run needs; None where the config cannot be read.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    needs: Estimate | None = None

    def attempt(self, action: Callable[[], object]) -> None:
        """Do something that says what is wrong, and write that down."""
        try:
            action()
        except CityHeadsError as error:
            self.problems.append(str(error))


def machine() -> Machine:
    """Look at this machine; the GPU by ``nvidia-smi``, since torch takes seconds to load."""
    try:
        memory: float | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    except (ValueError, OSError):
        memory = None
    gpu: float | None = None
    if shutil.which("nvidia-smi"):
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=30, check=False,
        ).stdout  # fmt: skip
        sizes = [float(line) for line in told.splitlines() if line.strip().isdigit()]
        gpu = max(sizes) * 1.048576 if sizes else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(cores, memory, gpu, dict(os.environ))


def check(*, file: Path) -> None:
    """Check a config and all that it names, and print what a run of it needs.

    Args:
        file: The config; one without ``labels``, ``heads`` and ``runs`` is laid over ``config/config.yaml``.

    Raises:
        CityHeadsError: Something is wrong that would make the run fail; all of it was printed.
    """
    raw = read_yaml(file)
    if not {"labels", "heads", "runs"} <= raw.keys():
        raw = _laid_over(read_yaml(DEFAULT_CONFIG), raw)
    try:
        config = resolve(raw)
    except CityHeadsError as error:
        raise CityHeadsError(f"{file}: {error}") from None
    found = preflight(config, machine())
    for line in found.needs.lines() if found.needs else ():
        _progress.info("needs: %s", line)
    for line in found.warnings:
        _progress.warning("warning: %s", line)
    for line in found.problems[:-1]:
        _progress.error("wrong: %s", line)
    if found.problems:
        raise CityHeadsError(found.problems[-1])
    _progress.info("%s is ready to run: snakemake --configfile %s", config.project.name, file)


def preflight(config: Config, on: Machine, *, now: datetime | None = None) -> Preflight:
    """Find what would fail later.

    Args:
        config: The whole config.
        on: The machine.
        now: The time; default: the clock's.
    """
    found = Preflight()
    parents: list[Parent] = []
    laboratory = config
    if config.experiments:
        sheet = Path(config.experiments)

        def read() -> None:
            nonlocal laboratory
            laboratory = with_experiments(config, read_experiments(sheet))

        found.attempt(read)
    found.attempt(lambda: parents.extend(read_parents(Path(config.parents), config.grid.grid)))
    if parents:
        found.attempt(lambda: check_splits(parents, config.splits))
        found.attempt(lambda: _check_lock(config, parents))
    found.attempt(lambda: check_names(laboratory))
    found.attempt(lambda: check_results(config.results))
    if config.archive.provider != "simulated":
        _check_archive(config, on, now or datetime.now(UTC), found)
    _check_files(config, found)
    if parents:
        found.needs = estimate(config, len(parents), cores=on.cores, gpu=on.gpu_mb is not None)
        _check_room(config, on, found.needs, found)
    return found


def _check_lock(config: Config, parents: list[Parent]) -> None:
    """Compare the squares of a lock with those that will be tested, where that is known already."""
    from cityheads.core.artifacts.splits import PARENT_ASSIGNMENT
    from cityheads.dataset.splits import squares_hash

    lock, assignment = config.splits.test_lock, Layout(Path(config.results)).assignment
    if lock is None:
        return
    given = {parent.parent_id: parent.split for parent in parents}
    if config.splits.method == "search" and None not in given.values():
        tested: dict[str, int | None] = {name: 0 if split == "test" else None for name, split in given.items()}
    elif assignment.exists():
        tested = PARENT_ASSIGNMENT.read(assignment)["tested_in"]
        if tested.keys() != given.keys():
            return
    else:
        return
    squares = squares_hash(parents, config.grid.grid, tested)
    if not lock.startswith(squares):
        raise CityHeadsError(
            f"config key 'splits.test_lock': the tested squares are {squares}, not those of {lock}; undo what changed "
            "them, or lock the new ones"
        )


def _check_archive(config: Config, on: Machine, now: datetime, found: Preflight) -> None:
    archive = config.archive
    start, end = archive.imagery.s2.period
    period = archive.imagery.s2.datetime
    if start is not None and start > now:
        found.problems.append(f"config key 'archive.imagery.S2L2A.datetime': {period} has not begun yet")
    elif end is not None and end > now:
        found.warnings.append(
            f"config key 'archive.imagery.S2L2A.datetime': {period} is not over; scenes are chosen among those that "
            "there are now, and later ones change nothing"
        )
    if end is not None and end < _FIRST_SCENES:
        found.problems.append(
            f"config key 'archive.imagery.S2L2A.datetime': {period} is before Sentinel-2's first scenes "
            f"({_FIRST_SCENES:%Y-%m-%d})"
        )
    catalog = str(archive.catalog)
    if "://" not in catalog and not Path(catalog).is_file():
        found.problems.append(f"config key 'archive.catalog': {catalog}: no such file")
    if archive.offline:
        found.problems += [
            f"config key 'archive.offline': true, and {path} would be downloaded"
            for path in config.downloads
            if not Path(path).exists()
        ]
    if "://" in catalog and archive.offline:
        found.problems.append(f"config key 'archive.offline': true, and the catalogue {catalog} is on the network")
    if (
        archive.sign == "planetary-computer"
        and "S1RTC" in archive.imagery.names
        and not on.environment.get("PC_SDK_SUBSCRIPTION_KEY")
    ):
        found.warnings.append(
            "the Planetary Computer may ask for an account to read sentinel-1-rtc; where it does, set "
            "PC_SDK_SUBSCRIPTION_KEY"
        )
    if archive.sign == "s3":
        found.problems += [
            f"config key 'archive.sign' is s3, but the environment variable {name} is not set"
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            if not on.environment.get(name)
        ]


def _check_files(config: Config, found: Preflight) -> None:
    """See that files that the config names are there, and what some choices need besides."""
    named = {f"labels.{name}.{key}": getattr(label, key, None) for name, label in config.labels.items()
             for key in ("source", "boundary")}  # fmt: skip
    named["model.weights"] = config.model.weights
    named["model.coords_vocabulary"] = config.model.coords_vocabulary
    for key, path in named.items():
        if path and path not in config.downloads and "://" not in path and not Path(path).exists():
            found.problems.append(f"config key '{key}': {path}: no such file or folder")
    if config.model.pretrained and not config.model.weights:
        cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache/huggingface")) / "hub"
        cached = list(cache.glob("models--*")) if cache.is_dir() else []
        if os.environ.get("HF_HUB_OFFLINE") == "1" and not cached:
            found.problems.append(
                f"config key 'model.pretrained': HF_HUB_OFFLINE is set and {cache} holds no weights; load them first, "
                "or name a file in model.weights"
            )
    decoders = [head.decoder or "" for head in config.heads.values()]
    if any(name.startswith("mmseg_") for name in decoders) and importlib.util.find_spec("mmseg") is None:
        found.problems.append("a decoder mmseg_* needs mmsegmentation, which is not installed")


def _check_room(config: Config, on: Machine, needs: Estimate, found: Preflight) -> None:
    place = Path(config.results).absolute()
    while not place.exists():
        place = place.parent
    free_mb = shutil.disk_usage(place).free / 1e6
    if free_mb < needs.disk_mb:
        # of a run that was begun, part is there already
        (found.warnings if Path(config.results).exists() else found.problems).append(
            f"config key 'results': about {needs.disk_mb / 1000:.1f} GB are needed and {place} has "
            f"{free_mb / 1000:.1f} GB free; free some, or name a folder elsewhere"
        )
    if config.train.accelerator == "cuda" and on.gpu_mb is None:
        found.warnings.append(
            "config key 'train.accelerator': cuda, and this machine shows no GPU (nvidia-smi); it is right if the "
            "trainings run elsewhere"
        )
    if config.train.accelerator == "auto" and on.gpu_mb is None and needs.train_s > 24 * 3600:
        found.warnings.append(
            f"no GPU here (nvidia-smi): {needs.trainings} trainings would take about {needs.train_s / 86400:.0f} days "
            "on two cores"
        )
    there = on.gpu_mb if needs.gpu else on.memory_mb
    if there is not None and needs.memory_mb > there:
        found.warnings.append(
            f"a training needs about {needs.memory_mb / 1000:.0f} GB and there are {there / 1000:.0f} GB; lower "
            "train.batch_size (with train.accumulate the steps stay as they are), or set train.gradient_checkpointing"
        )


def _laid_over(below: dict[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Lay one mapping over another at every depth, as Snakemake does with ``--configfile``."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged
