"""``environment.json``: versions, machine and revision of the code behind a training."""

from __future__ import annotations

from typing_extensions import TypedDict

from cityheads.core.artifacts.base import Artifact

__all__ = ["ENVIRONMENT", "Environment", "Versions"]


class Versions(TypedDict):
    """What code ran.

    Attributes:
        python: Version of Python.
        platform: System and processor.
        packages: Version of each package; None where it is not installed.
        revision: Commit of the checkout; None where the package does not run from one.
    """

    python: str
    platform: str
    packages: dict[str, str | None]
    revision: str | None


class Environment(Versions):
    """Where a training ran.

    Attributes:
        device: ``cpu``, or the name of the CUDA device.
        threads: CPU threads.
        weights: Where the encoder's first weights came from: ``repository``, ``file`` and ``revision``, or ``file`` and
            ``sha256``; None for random ones.
        wall_s: Seconds that the training took; of one that was resumed, of all its parts as far as their work was kept.
        peak_memory_mb: Most memory that its process held, in MB (10^6 bytes); None where the system does not tell.
        peak_gpu_memory_mb: Most memory that its tensors took on the CUDA device, likewise; None without one.
        cpu_energy_j: Energy in joules of the machine's processor packages meanwhile, whatever else ran on them; None
            where it cannot be read.
        inference_chips_per_s: Sub-chips that a pass over the validation split took in a second, losses and scores
            included, in the fastest epoch.
    """

    device: str
    threads: int
    weights: dict[str, str] | None
    wall_s: float
    peak_memory_mb: float | None
    peak_gpu_memory_mb: float | None
    cpu_energy_j: float | None
    inference_chips_per_s: float


ENVIRONMENT = Artifact("record of an environment", "train", 2, Environment)
