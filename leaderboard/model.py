"""What the leaderboard is made from (`RunInfo`) and what it is (`Leaderboard`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    *(f"fid_{plane}_{end}" for plane in PLANES for end in ("low", "high")),
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
    "p_value",
    "p_holm",
    "significant",
)

OVERALL_COLUMNS = ("generator", "task", "dice_r", "dice_rs", "gain_relative")

COMPANION_COLUMNS = (
    "kind",
    "generator",
    "segmenter",
    "task",
    "arm",
    "metric",
    "plane",
    "label",
    "value",
    "sd",
    "low",
    "high",
    "n_real",
    "n_synthetic",
    "n_seeds",
    "extractor",
    "extractor_sha256",
    "protocol",
    "reason",
)

STRUCTURE_METRICS = ("volume_ml", "volume_ks", "volume_p", "components", "components_p", "absent")
STRUCTURE_COLUMNS = (
    "generator",
    "label",
    *STRUCTURE_METRICS,
    "volume_ml_real",
    "components_real",
    "absent_real",
    "n_seeds",
    "n_synthetic",
)

RANK_COLUMNS = (
    "by",
    "task",
    "generator",
    "value",
    "rank",
    "rank_low",
    "rank_high",
    "p_first",
    "n_cases",
    "n_seeds",
)

DOSE_COLUMNS = (
    "generator",
    "task",
    "arm",
    "real",
    "ratio",
    "gain",
    "gain_low",
    "gain_high",
    "n_cases",
    "n_segmenters",
)

FIT_COLUMNS = ("generator", "stage", "metric", "label", "value", "sd", "n_seeds", "shared")

CASE_COLUMNS = ("generator", "segmenter", "task", "seed", "case", "dice_r", "dice_rs")

COST_COLUMNS = (
    "kind",
    "name",
    "hours",
    "seconds_per_volume",
    "peak_gib",
    "millions",
    "quality",
    "devices",
)

VOLUME_COLUMNS = ("generator", "label", "seed", "case", "volume_ml")

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
    interval_method: str = ""  # how the intervals of FID were made, one sentence
    # Cells that trained and sampled each generator, in order: stages may be another's as well.
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    controls: Collection[str] = ()  # generators of known quality, beside `names.CONTROLS`
    # What fixes a number; 0 is not told.
    neighbours: int = 0  # k of precision, recall, density and coverage
    tolerance_mm: float = 0.0  # of the surface Dice
    ms_ssim_pairs: int = 0  # drawn at most for a set's MS-SSIM


@dataclass(frozen=True)
class Leaderboard:
    """The numbers of every table, as frames; rows stand in the order they are shown in.

    `generators` has `GENERATOR_COLUMNS`: a row per generator, the floor (`REAL`) last. FID has no
    unit, ``seconds_per_volume`` is in s, ``peak_memory_mb`` in MB.
    `segmentation` has `SEGMENTATION_COLUMNS`: a row per generator, segmenter, task and dose. Dice
    lies in [0, 1], ``gain_relative`` is in percent, the other gains are differences of Dice.
    ``p_holm`` is adjusted over Table 2, over the other doses by themselves, and in both over models
    and controls apart; ``n_seeds`` counts the seeds that both arms have. ``generator`` is
    "" where only arm R was run.
    `overall` has `OVERALL_COLUMNS`: means over the segmenters, at the paper's dose.
    `not_measured` has `NOT_MEASURED_COLUMNS`: a row per cell that left a hole.
    `companions` has `COMPANION_COLUMNS`: every other score in long form, means over seeds (and,
    of arms at the paper's dose, over test cases); a p of several seeds is twice their mean.
    `structures` has `STRUCTURE_COLUMNS`: a row per generator and structure; volumes in ml.
    `ranks` has `RANK_COLUMNS`: ``by`` is "fid", or "dice_gain" on a task.
    `doses` has `DOSE_COLUMNS`: gains over R, means over segmenters; empty with the one dose.
    `fits` has `FIT_COLUMNS`: what was measured of each stage of a generator's fit and of its
    sampling, in long form; ``shared`` names the other generators that need the stage.
    `cases` has `CASE_COLUMNS`: Dice of R and R+S of every test case at the paper's dose, of the
    cases that have a value in both.
    `costs` has `COST_COLUMNS`: a row per generator (hours of all its fits, quality the average FID)
    and per segmenter (hours of one training of R, quality the mean Dice of R over the tasks);
    ``millions`` counts parameters.
    `structure_volumes` has `VOLUME_COLUMNS`: a row per volume and structure, `REAL` the test set.
    Numbers that are missing are nan; nothing is averaged over them.
    """

    info: RunInfo
    generators: pd.DataFrame
    segmentation: pd.DataFrame
    overall: pd.DataFrame
    not_measured: pd.DataFrame
    companions: pd.DataFrame
    structures: pd.DataFrame
    ranks: pd.DataFrame
    doses: pd.DataFrame
    fits: pd.DataFrame
    cases: pd.DataFrame
    costs: pd.DataFrame
    structure_volumes: pd.DataFrame
