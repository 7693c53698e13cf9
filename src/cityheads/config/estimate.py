"""What a run will need, before it starts: bytes, disk, memory and time, each with how it is estimated.

None of it is exact. The constants were measured on real and simulated data on two CPU cores, as said at each; what
scales with the config is scaled, and what was never measured (a GPU's speed) is assumed and named so.
"""

from __future__ import annotations

from dataclasses import dataclass

from cityheads.config.config import Config
from cityheads.core.modalities import MODALITIES
from cityheads.core.text import duration, number

__all__ = ["Estimate", "estimate"]

#: Side of a compressed block of a cloud-optimised GeoTIFF, in pixels: what a window is rounded up to.
_BLOCK_PX = 512
#: Compressed bytes per pixel and band, of files of the Planetary Computer: uint16 reflectance, float32 backscatter.
_S2_BYTES, _S1_BYTES = 1.7, 3.6
#: Sentinel-2 bands of 10, 20 and 60 m, the scene classification (20 m, one byte) left out.
_S2_BANDS = {10: 4, 20: 6, 60: 2}
#: Candidates whose scene classification is looked at for each parent.
_CANDIDATES = 8
#: Compressed GeoTIFFs of parents and sub-chips, as a share of the raw pixels: 22 parents of 896 px took this much.
_GEOTIFF_SHARE = 0.85
#: CPU seconds of all that comes before the dataset, per megapixel of the parents: 186 s for 22 parents of 896 px.
_CPU_S_PER_MPX = 10.5
#: Trained sub-chip pixels a second on two cores: terramind_v1_tiny, decoders of (128, 64, 32, 16), 31 chips of 64 px.
_CPU_PX_PER_S = 31 * 64 * 64
#: Memory of a process that has loaded torch and TerraTorch, and of each loader process, in MB.
_PROCESS_MB, _WORKER_MB = 1500, 1200
#: Activations in bytes per pixel of a batch and head, for decoders that end in 64 channels.
_ACTIVATION_BYTES = 11_000
#: How much faster than two cores a GPU trains: assumed, never measured here.
_GPU_FACTOR = 40.0
#: Millions of parameters of the encoders by the size in their name (ViT-Ti, -S, -B, -L).
_PARAMETERS_M = {"tiny": 6.0, "small": 22.0, "base": 87.0, "large": 304.0}
#: Assumed where neither is known: speed of the network, price of a GPU.
_MB_PER_S, _USD_PER_GPU_H = 10.0, 2.0


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Attributes:
        download_mb: Imagery and land cover from a real archive, in MB; 0 for the simulated one.
        disk_mb: All that the results folder will hold, in MB.
        memory_mb: Most memory of one training, its loaders included, in MB; on a GPU that of the GPU.
        host_mb: Most main memory of one training, its loaders included, in MB.
        prepare_s: Time of everything before the trainings on ``cores``, download included, in seconds.
        train_s: Time of all trainings one after the other, in seconds.
        trainings: Number of trainings, those of the controls included.
        gpu: Whether the trainings are assumed to run on a GPU.
    """

    download_mb: float
    disk_mb: float
    memory_mb: float
    host_mb: float
    prepare_s: float
    train_s: float
    trainings: int
    gpu: bool

    def lines(self) -> list[str]:
        """Say it in sentences, each with how it is estimated."""
        where = f"a GPU, assumed {_GPU_FACTOR:g} times as fast as two cores" if self.gpu else "two cores"
        memory = "GPU memory" if self.gpu else "memory"
        lines = [
            f"download {_size(self.download_mb)} (whole {_BLOCK_PX} px blocks of one scene per parent and sensor, "
            f"twice with archive.verify pixels, and the scene classification of {_CANDIDATES} candidates)"
            if self.download_mb
            else "download nothing: the archive is simulated",
            f"disk {_size(self.disk_mb)} (parents, sub-chips and store by their pixels, models by their parameters)",
            f"{memory} {_size(self.memory_mb)} for one training (pixels of a batch times channels of the decoders)",
            f"time {duration(self.prepare_s)} before the trainings (measured per pixel; {_MB_PER_S:g} MB/s assumed), "
            f"then {duration(self.train_s)} for {self.trainings} trainings on {where}",
        ]
        if self.gpu:
            hours = self.train_s / 3600
            lines.append(f"cost {number(hours * _USD_PER_GPU_H)} USD at {_USD_PER_GPU_H:g} USD an hour of GPU, assumed")
        return lines


def _size(mb: float) -> str:
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"


def estimate(config: Config, parents: int, *, cores: int, gpu: bool) -> Estimate:
    """Estimate what a run from nothing needs.

    Args:
        config: The whole config.
        parents: Number of parents.
        cores: CPU cores.
        gpu: Whether there is a GPU; it counts where ``train.accelerator`` allows it.
    """
    grid, gpu = config.grid.grid, gpu and config.train.accelerator != "cpu"
    mpx = parents * grid.parent_px**2 / 1e6
    names = config.archive.imagery.names
    stored = sum(len(MODALITIES[name].bands) * (2 if MODALITIES[name].dtype == "uint16" else 4) for name in names)
    labels = len(config.labels)
    raw_mb = mpx * (stored + labels)
    tuned = len(config.tuned_runs) * len(config.tuning.candidates) * len(config.folds)
    trainings = len(config.folds) * (
        len(config.runs) * len(config.seeds) + len(config.trained_controls) * len(config.control_seeds)
    )
    download_mb = 0.0 if config.archive.provider == "simulated" else parents * _parent_mb(config)
    prepare_s = mpx * _CPU_S_PER_MPX / max(1, cores) + download_mb / _MB_PER_S
    sizes = _parameters_m(config.model.backbone)
    channels = config.model.decoder_channels[-1] / 64
    heads = max(len(run.heads) for run in config.runs.values())
    activations = config.train.batch_size * grid.chip_px**2 * heads * _ACTIVATION_BYTES * max(channels, 0.25) / 1e6
    if gpu and config.train.precision != "32-true":
        activations /= 2
    # weights, gradients and AdamW's two moments
    state = 4 * 4 * (sizes + 5 * heads)
    host = _PROCESS_MB + config.train.workers * _WORKER_MB
    memory = activations + state + (500 if gpu else host)
    train_share = 0.6 if config.splits.method != "folds" else 1 - 2 / config.splits.folds
    pixels = mpx * 1e6 * train_share * config.train.epochs * (trainings + tuned)
    slower = max(1.0, sizes / _PARAMETERS_M["tiny"]) ** 0.7 * max(1.0, channels * 4)
    train_s = pixels / _CPU_PX_PER_S * slower / (_GPU_FACTOR if gpu else 1)
    models_mb = (trainings + tuned) * 4 * (sizes + 5 * heads)
    return Estimate(
        download_mb=download_mb,
        disk_mb=raw_mb * (1 + 2 * _GEOTIFF_SHARE) + models_mb + (raw_mb if not download_mb else 0),
        memory_mb=memory,
        host_mb=host if gpu else memory,
        prepare_s=prepare_s,
        train_s=train_s,
        trainings=trainings + tuned,
        gpu=gpu,
    )


def _parent_mb(config: Config) -> float:
    """Give the MB that reading one parent takes: windows rounded up to whole blocks of the files."""
    side_m = config.grid.grid.side_m

    def window(resolution_m: float) -> float:
        # a window lies somewhere in the file's blocks: half a block more on either side, on average
        return (side_m / resolution_m + _BLOCK_PX) ** 2

    s2 = sum(count * window(resolution) * _S2_BYTES for resolution, count in _S2_BANDS.items())
    scl = _CANDIDATES * window(20) * 0.3
    radar = 2 * window(10) * _S1_BYTES if len(config.archive.imagery.names) > 2 else 0
    # what is about to be chosen is read once to try it, and again by the reading
    tried = 2 if config.archive.verify == "pixels" else 1
    return (tried * (s2 + radar) + scl + window(30) * 3) / 1e6


def _parameters_m(backbone: str) -> float:
    """Give the encoder's parameters in millions by the size in its name; a base model's where it names none."""
    return next((value for name, value in _PARAMETERS_M.items() if name in backbone), _PARAMETERS_M["base"])
