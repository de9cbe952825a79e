"""Sample a generator: its volume set S."""

from __future__ import annotations

import time
from itertools import islice

import numpy as np

from bench.cells.context import Context
from bench.cells.fit import make_generator
from bench.records import Record
from bench.volumes import VolumeSet, VolumeSetWriter


def run(context: Context) -> list[Record]:
    """Leaves the volume set ``synthetic``; records seconds per volume."""
    train = context.volumes("train")
    spec = context.spec
    generator = make_generator(spec["plugin"], spec["config"])
    count = int(spec["count"])
    labelled = generator.labels != "none"
    own = context.run(train, held=generator.needs_held)
    start = time.perf_counter()
    with VolumeSetWriter(
        context.artefacts / "synthetic",
        train.grid,
        train.label_names,
        {"generator": spec["plugin"], "seed": spec["seed"], "labels": generator.labels},
    ) as writer:
        samples = generator.sample(range(count), own)
        for i, sample in enumerate(islice(samples, count + 1)):  # one too many is told below
            if labelled and sample.label is None:
                raise ValueError(
                    f"Sample {i} of {spec['plugin']} has no label, but the generator declares "
                    f"{generator.labels} labels."
                )
            writer.append(
                f"{spec['plugin']}-{spec['seed']}-{i:05d}",
                sample.image,
                sample.label if labelled else None,
                _affine(train),
            )
            context.tick(i + 1, count)
    seconds = (time.perf_counter() - start) / count
    made = len(VolumeSet.open(context.artefacts / "synthetic"))
    if made != count:
        raise ValueError(
            f"{spec['plugin']} yielded {made} volumes, asked were {count}; yield one per index."
        )
    return [
        Record(metric="seconds_per_volume", value=seconds, n_synthetic=count),
        *(Record(**{**record, "n_synthetic": count}) for record in own.records),
    ]


def _affine(train: VolumeSet) -> np.ndarray:
    """The training cases' median voxel size, the origin in the middle of the grid."""
    spacing = np.median([case.spacing for case in train.cases], axis=0)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.asarray(train.grid) - 1) / 2
    return affine
