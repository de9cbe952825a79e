"""voxelbench: the API of a plug-in author.

    from bench import Generator, GeneratorConfig, Run, Sample, VolumeSet, register_generator
    from bench import SegmenterConfig, register_segmenter
    from bench import register_extractor

Names are resolved when they are first used, so that ``import bench`` imports neither torch nor
monai.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.names import complaint

if TYPE_CHECKING:
    from bench.errors import InputError as InputError
    from bench.extractor import register_extractor as register_extractor
    from bench.generator import Generator as Generator
    from bench.generator import GeneratorConfig as GeneratorConfig
    from bench.generator import Stage as Stage
    from bench.generator import register_generator as register_generator
    from bench.run import Run as Run
    from bench.segmenter import SegmenterConfig as SegmenterConfig
    from bench.segmenter import register_segmenter as register_segmenter
    from bench.training import Batches as Batches
    from bench.training import train as train
    from bench.training_config import TrainingConfig as TrainingConfig
    from bench.volumes import Sample as Sample
    from bench.volumes import VolumeSet as VolumeSet
    from bench.volumes import VolumeSetWriter as VolumeSetWriter

__version__ = "0.1.0"

if _problem := complaint():
    warnings.warn(_problem, RuntimeWarning, stacklevel=2)

# The hub's client reads it once, when it is imported; nobody is to be told that a benchmark runs.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_HOME = {
    "InputError": "errors",
    "register_extractor": "extractor",
    "Generator": "generator",
    "GeneratorConfig": "generator",
    "Stage": "generator",
    "register_generator": "generator",
    "Run": "run",
    "SegmenterConfig": "segmenter",
    "register_segmenter": "segmenter",
    "Batches": "training",
    "TrainingConfig": "training_config",
    "train": "training",
    "Sample": "volumes",
    "VolumeSet": "volumes",
    "VolumeSetWriter": "volumes",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(f"bench.{_HOME[name]}"), name)
