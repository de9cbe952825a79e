"""What the leaderboard is made from (`RunInfo`) and what it is (`Leaderboard`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

PLANES = ("axial", "sagittal", "coronal", "average")

REAL = "real"
"""Generator name of the floor: a draw of real training volumes scored against the test volumes."""

GENERATOR_COLUMNS = (
    "generator",
    *(f"fid_{plane}" for plane in PLANES),
    "floor_average",
    "n_real",
    "n_synthetic",
    "extractor",
    "extractor_sha256",
    "protocol",
    "label_source",
    "seconds_per_volume",
    "peak_memory_mb",
    "n_seeds",
    "status",
    "reason",
    *(f"fid_{plane}_sd" for plane in PLANES),
)

SEGMENTATION_COLUMNS = (
    "generator",
    "segmenter",
    "task",
    "real",
    "ratio",
    "dice_r",
    "dice_rs",
    "gain_relative",
    "gain_absolute",
    "gain_low",
    "gain_high",
    "n_cases",
    "n_absent",
    "n_seeds",
    "status",
    "reason",
    "arm",
    "dice_r_sd",
    "dice_rs_sd",
)

OVERALL_COLUMNS = ("generator", "task", "dice_r", "dice_rs", "gain_relative")

NOT_MEASURED_COLUMNS = (
    "kind",
    "generator",
    "segmenter",
    "task",
    "arm",
    "real",
    "ratio",
    "seed",
    "status",
    "reason",
)


@dataclass(frozen=True)
class RunInfo:
    """What a run was, for the captions and for the order of rows and columns."""

    dataset: str
    preset: str
    grid: str  # e.g. "32x32x32"
    extractor: str = ""  # in words; "" shows the records' name of it
    seeds: tuple[int, ...] = (0,)
    splits: Mapping[str, int] = field(default_factory=dict)  # e.g. {"train": 12, "test": 8}
    notes: tuple[str, ...] = ()  # e.g. "quick preset: shows the machinery, ranks nothing"
    # The order asked for; what is not named follows in the order of the cells.
    generators: tuple[str, ...] = ()
    segmenters: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    budget: Literal["steps", "epochs"] = "steps"  # what R and R+S have in common in training


@dataclass(frozen=True)
class Leaderboard:
    """The numbers of every table, as frames; rows stand in the order they are shown in.

    `generators` has `GENERATOR_COLUMNS`: a row per generator, the floor (`REAL`) last. FID has no
    unit, ``seconds_per_volume`` is in s, ``peak_memory_mb`` in MB.
    `segmentation` has `SEGMENTATION_COLUMNS`: a row per generator, segmenter, task and dose. Dice
    lies in [0, 1], ``gain_relative`` is in percent, the other gains are differences of Dice.
    ``generator`` is "" where only arm R was run.
    `overall` has `OVERALL_COLUMNS`: means over the segmenters, at the paper's dose.
    `not_measured` has `NOT_MEASURED_COLUMNS`: a row per cell that left a hole.
    Numbers that are missing are nan; nothing is averaged over them.
    """

    info: RunInfo
    generators: pd.DataFrame
    segmentation: pd.DataFrame
    overall: pd.DataFrame
    not_measured: pd.DataFrame
