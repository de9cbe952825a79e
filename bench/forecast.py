"""What a plan takes on this device and leaves on its disk, from rows of `bench.estimate`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.config import RunConfig, plugin_config
from bench.few_steps import largest_batch, parts
from bench.plan import Cell
from bench.reached import planned_steps
from bench.registry import EXTRACTORS, SEGMENTERS
from bench.scaling import volume

if TYPE_CHECKING:
    from bench.estimate import Row
    from bench.harness import Plan

KINDS = {"fit": "fits", "sample": "volumes", "segment": "segmenters", "labeller": "segmenters"}
"""Kinds of cells whose time is told, and the word for them."""
IMAGE_BYTES, LABEL_BYTES, FEATURE_BYTES, WEIGHT_BYTES = 2, 1, 8, 4
COPIES = 5
"""Weights in a fit's checkpoints: last, its two moments of Adam, average, best."""
FREE_VOXELS = 1e9
"""Voxels through networks below which a run is taken to last less than an hour: twice those of the
preset quick with everything, which takes 8 minutes on two cores."""


@dataclass(frozen=True)
class Forecast:
    """Hours by what they are spent on, and bytes."""

    hours: dict[str, float]  # one cell after another
    memory_gib: float  # of the greediest cell that was measured
    disk_gb: float  # left at the end, at most
    checkpoints_gb: float  # of the largest fit, while it runs
    unknown: tuple[str, ...] = ()  # titles of cells that were not measured

    @property
    def total(self) -> float:
        """Hours of all that was measured."""
        return sum(self.hours.values())


def forecast(plan: Plan, cells: Sequence[Cell], rows: Sequence[Row]) -> Forecast:
    """Sum up the cells that are still to run.

    Features, scores, preparation, validation during fits and encoding of training cases come on
    top of the hours.
    """
    known = {(row.generator, row.part): row for row in rows if row.measured}
    hours: dict[str, float] = {}
    unknown = []
    for cell in cells:
        if cell.kind not in KINDS:
            continue
        row = known.get(_row_of(cell))
        if row is None:
            unknown.append(cell.title)
            continue
        word = KINDS[cell.kind]
        hours[word] = hours.get(word, 0.0) + row.seconds * _repeats(cell, plan) / 3600
    used = [known[key] for key in {_row_of(c) for c in cells if c.kind in KINDS} if key in known]
    return Forecast(
        hours,
        max((row.memory_mb / 1024 for row in used), default=0.0),
        sum(disk_bytes(plan, cell, known.get(_row_of(cell))) for cell in cells) / 1e9,
        max((COPIES * WEIGHT_BYTES * row.trained / 1e9 for row in used), default=0.0),
        tuple(unknown),
    )


def to_measure(plan: Plan) -> RunConfig:
    """The run's configuration, the labelling segmenter among its segmenters if it has one."""
    config, name = plan.config, plan.config.labeller.segmenter
    if name in config.segmenters or all(cell.kind != "labeller" for cell in plan.cells):
        return config
    values = plugin_config(SEGMENTERS, name, config.labeller.config, "segmenters")
    return config.model_copy(update={"segmenters": {**config.segmenters, name: values}})


def _row_of(cell: Cell) -> tuple[str, str]:
    """(plug-in, part) of the row that a cell's cost is told by."""
    if cell.kind in ("segment", "labeller"):
        return cell.tags.segmenter, "segmenting"
    return cell.tags.generator, cell.tags.stage if cell.kind == "fit" else "sampling"


def _repeats(cell: Cell, plan: Plan) -> float:
    """Steps of a fit, or volumes of a sample."""
    if cell.kind == "sample":
        return float(cell.spec["count"])
    steps = float(planned_steps(cell.spec))
    if cell.spec.get("equal") == "epochs":
        used = plan.data.n_train if cell.spec["real"] == "all" else int(cell.spec["real"])
        steps *= (used + int(cell.spec["synthetic"])) / plan.data.n_train
    return steps


def disk_bytes(plan: Plan, cell: Cell, row: Row | None) -> float:
    """What a cell leaves, at most: arrays that are compressed count in full."""
    data, voxels = plan.data, volume(plan.config.data.grid)
    one = voxels * (IMAGE_BYTES + LABEL_BYTES)
    if cell.kind == "prepare":
        return float(one * (data.n_train + data.n_val + data.n_test + data.n_held))
    if cell.kind == "sample":
        return float(one * int(cell.spec["count"]))
    if cell.kind == "segment":
        kept = row.state_mb * 2**20 if row and cell.spec["keep_weights"] else 0.0
        return data.n_test * voxels * LABEL_BYTES + kept
    if cell.kind in ("fit", "labeller"):
        return row.state_mb * 2**20 if row else 0.0
    if cell.kind == "features" and cell.spec["plugin"] in EXTRACTORS.names():
        return 2.0 * FEATURE_BYTES * int(cell.spec["count"]) * _features(plan, cell.spec)
    return 0.0


def _features(plan: Plan, spec: Any) -> int:
    """Numbers that a volume's features are, over all planes; they are kept twice."""
    dim = int(EXTRACTORS.get(spec["plugin"]).dim)
    return dim * (sum(plan.config.data.grid) if spec["protocol"] == "2.5d" else 3)


def voxels_to_learn(plan: Plan, cells: Iterable[Cell]) -> float:
    """Voxels that pass the networks' training in these cells: steps times batch times grid."""
    seen = 0
    for cell in cells:
        for part in parts(cell.spec, "training").values():
            seen += int(part["steps"]) * largest_batch({"": part})
    return float(seen * volume(plan.config.data.grid))
