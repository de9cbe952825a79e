"""Do a generator's labels fit its images? What an R-trained segmenter sees, against the label."""

from __future__ import annotations

import numpy as np

from bench.cells.context import Context
from bench.cells.labeller import LabelMaps, write_labels
from bench.cells.measure import measured
from bench.records import Record
from bench.volumes import VolumeSet
from metrics.fidelity import Fidelity, label_fidelity

METRICS = ("label_fidelity", "label_fidelity_shuffled")


def run(context: Context) -> list[Record]:
    """Records the Dice of labels and what is seen, and the same with labels shuffled, per class.

    Where the set is the real one, of the test volumes with their reference labels: what the
    segmenter reaches when labels fit, which no generator can be expected to exceed by much.
    """
    count, test = int(context.spec["count"]), context.volumes("test")
    real = context.spec["part"] == "real"
    volumes = (test if real else context.synthetic()).subset(range(count))
    names = {i: name for i, name in test.label_names.items() if i != 0}
    held = [
        label for label in names if any((test.label(i) == label).any() for i in range(len(test)))
    ]
    path = context.store.work(context.cell.key) / "seen.npy"
    seen = write_labels(context, volumes, path)
    found: list[Fidelity] = []

    def overall() -> tuple[float, float]:
        found.append(label_fidelity(seen, given(volumes), list(names), expected=held))
        return found[0].matched, found[0].shuffled

    common = Record(n_synthetic=count)
    records = measured(METRICS, overall, common, undefined="No test label holds any class.")
    for fidelity in found:
        per_class = np.stack([fidelity.matched_per_class, fidelity.shuffled_per_class], axis=1)
        for name, values in zip(names.values(), per_class, strict=True):
            reason = f"No label holds {name}."
            records += measured(
                METRICS, values.tolist, Record(**{**common, "label": name}), undefined=reason
            )
    path.unlink()
    return records


def given(volumes: VolumeSet) -> LabelMaps:
    """The labels of the set, memory-mapped: they lie in one file, in order."""
    rows = volumes.label_rows or ()
    labels: LabelMaps = np.load(rows[0][0], mmap_mode="r", allow_pickle=False)[: len(rows)]
    return labels
