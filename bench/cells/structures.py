"""Size and number of components of every structure, synthetic against real."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.cells.context import Context
from bench.cells.measure import measured
from bench.cells.segment import first_cases
from bench.records import Record
from bench.volumes import VolumeSet
from metrics.structures import Sizes, compare_sizes, sizes_of_all


def run(context: Context) -> list[Record]:
    """Records means and two-sample tests against the test volumes, per structure.

    Where the set is the real one, the means are the test volumes' own and the tests hold training
    volumes against them: how much two real sets differ. All are measured with the training cases'
    median voxel size, since a generator learns the grid and nothing of the size that its voxels
    had in each case.
    """
    count, train, test = (
        int(context.spec["count"]),
        context.volumes("train"),
        context.volumes("test"),
    )
    real = context.spec["part"] == "real"
    count = min(count, len(train)) if real else count
    volumes = first_cases(train, count) if real else context.synthetic().subset(range(count))
    names = {i: name for i, name in test.label_names.items() if i != 0}
    spacing = np.median([case.spacing for case in train.cases], axis=0)
    found, reference = (measure(these, list(names), spacing) for these in (volumes, test))
    shown = reference if real else found
    values = {
        "structure_volume_ml": shown.volume_ml.mean(axis=0),
        "structure_components": shown.components.mean(axis=0),
        "structure_absent": shown.absent,
    }
    records = [
        Record(metric=metric, label=name, value=float(value), n_synthetic=len(volumes))
        for metric, per_label in values.items()
        for name, value in zip(names.values(), per_label, strict=True)
    ]
    records += [
        Record(metric="structure_volume_of_case_ml", label=name, case=case, value=float(value))
        for case, sizes in zip((test if real else volumes).ids, shown.volume_ml, strict=True)
        for name, value in zip(names.values(), sizes, strict=True)
    ]
    metrics = ["structure_volume_ks", "structure_volume_p"]
    metrics += ["structure_components_ks", "structure_components_p"]
    each = [(metric, name) for metric in metrics for name in names.values()]
    tests = measured(
        [metric for metric, _ in each], lambda: np.concatenate(compare_sizes(found, reference))
    )
    for record, (_, name) in zip(tests, each, strict=True):
        record["label"] = name
    return records + tests


def measure(volumes: VolumeSet, labels: list[int], spacing: NDArray[np.float64]) -> Sizes:
    """Sizes of the labelled structures in every volume, with voxels of `spacing` in mm."""
    label_maps = (volumes.label(i) for i in range(len(volumes)))
    return sizes_of_all(label_maps, labels, [spacing] * len(volumes))
