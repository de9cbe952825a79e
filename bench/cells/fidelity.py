"""Do a generator's labels fit its images? What an R-trained segmenter sees, against the label."""

from __future__ import annotations

from bench.cells.context import Context
from bench.cells.labeller import write_labels
from bench.cells.measure import measured
from bench.records import Record
from metrics.fidelity import Fidelity, label_fidelity


def run(context: Context) -> list[Record]:
    """Records the Dice of labels and what is seen, and the same with labels shuffled, per class.

    Where the set is the real one, of the test volumes with their reference labels: what the
    segmenter reaches when labels fit, which no generator can be expected to exceed by much.
    """
    real = context.spec["part"] == "real"
    volumes = context.volumes("test") if real else context.synthetic()
    volumes = volumes.subset(range(int(context.spec["count"])))
    seen = write_labels(context, volumes, context.artefacts / "seen.npy")
    names = {i: name for i, name in volumes.label_names.items() if i != 0}
    found: list[Fidelity] = []

    def overall() -> tuple[float, float]:
        found.append(label_fidelity(seen, volumes.labels(), list(names)))
        return found[0].matched, found[0].shuffled

    metrics = ["label_fidelity", "label_fidelity_shuffled"]
    records = measured(metrics, overall, Record(n_synthetic=len(volumes)))
    for fidelity in found:
        per_label = zip(
            names.values(), fidelity.matched_per_class, fidelity.shuffled_per_class, strict=True
        )
        for name, matched, shuffled in per_label:
            for metric, value in zip(metrics, (matched, shuffled), strict=True):
                records.append(Record(metric=metric, label=name, value=float(value)))
    return records
