"""The config: typed, frozen sections, read from YAML and checked before any job starts.

One module per group of sections: each key has its default, its description and the checks that concern it beside it.
The page of keys (docs/configuration.md) and the JSON schema for editors are made from these classes. May import
`cityheads.core` only.
"""

from __future__ import annotations

from cityheads.config.archive import (
    ArchiveConfig,
    CostConfig,
    DemConfig,
    GrdConfig,
    ImageryConfig,
    NetworkConfig,
    OpticalConfig,
    RadarConfig,
    Resampling,
    RtcConfig,
    SimulateConfig,
    SynthesisConfig,
    TogetherConfig,
)
from cityheads.config.base import UndeclaredSectionError
from cityheads.config.config import Config
from cityheads.config.controls import ControlsConfig, ProxyConfig
from cityheads.config.downloads import DownloadConfig
from cityheads.config.evaluation import EvaluationConfig, NoninferiorityConfig
from cityheads.config.grid import CloudMaskConfig, GridConfig, QualityConfig
from cityheads.config.heads import HeadConfig, RunConfig
from cityheads.config.labels import (
    FootprintsLabel,
    Label,
    LabelClass,
    LandcoverClass,
    LandcoverLabel,
    PixelRule,
    RasterClass,
    RasterLabel,
    VectorClass,
    VectorLabel,
)
from cityheads.config.load import load_config, read_yaml, resolve, write_config
from cityheads.config.model import LoraConfig, ModelConfig, TimConfig
from cityheads.config.project import ProjectConfig, ReportConfig
from cityheads.config.splits import FractionsConfig, SplitsConfig
from cityheads.config.train import TrainConfig
from cityheads.config.tuning import TuningConfig

__all__ = [
    "ArchiveConfig",
    "CloudMaskConfig",
    "Config",
    "ControlsConfig",
    "CostConfig",
    "DemConfig",
    "DownloadConfig",
    "EvaluationConfig",
    "FootprintsLabel",
    "FractionsConfig",
    "GrdConfig",
    "GridConfig",
    "HeadConfig",
    "ImageryConfig",
    "Label",
    "LabelClass",
    "LandcoverClass",
    "LandcoverLabel",
    "LoraConfig",
    "ModelConfig",
    "NetworkConfig",
    "NoninferiorityConfig",
    "OpticalConfig",
    "PixelRule",
    "ProjectConfig",
    "ProxyConfig",
    "QualityConfig",
    "RadarConfig",
    "RasterClass",
    "RasterLabel",
    "ReportConfig",
    "Resampling",
    "RtcConfig",
    "RunConfig",
    "SimulateConfig",
    "SplitsConfig",
    "SynthesisConfig",
    "TimConfig",
    "TogetherConfig",
    "TrainConfig",
    "TuningConfig",
    "UndeclaredSectionError",
    "VectorClass",
    "VectorLabel",
    "load_config",
    "read_yaml",
    "resolve",
    "write_config",
]
