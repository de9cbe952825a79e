"""Sample a generator: its volume set S."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.cells.context import Context
from bench.cells.fit import make_generator
from bench.generator import Generator
from bench.records import Record
from bench.volumes import Sample, VolumeSet, VolumeSetWriter


class Place(NamedTuple):
    """Where a volume lies, and what is known of it."""

    affine: NDArray[np.float64]  # (4, 4): voxel index to RAS millimetres
    source: Mapping[str, Any] = {}


def run(context: Context) -> list[Record]:
    """Leaves the volume set ``synthetic``; records seconds per volume."""
    train = context.volumes("train")
    spec = context.spec
    generator = make_generator(spec["plugin"], spec["config"])
    count = int(spec["count"])
    own = context.run(train, held=generator.needs_held)
    start = time.perf_counter()
    write_samples(
        context.artefacts / "synthetic",
        generator,
        generator.sample(range(count), own),
        range(count),
        train,
        {"generator": spec["plugin"], "seed": spec["seed"], "labels": generator.labels},
        context.tick,
    )
    seconds = (time.perf_counter() - start) / count
    return [
        Record(metric="seconds_per_volume", value=seconds, n_synthetic=count),
        *(Record(**{**record, "n_synthetic": count}) for record in own.records),
    ]


def write_samples(
    folder: Path,
    generator: Generator,
    samples: Iterable[Sample],
    indices: range,
    train: VolumeSet,
    provenance: Mapping[str, Any],
    tick: Callable[[int, int], None],
    place: Callable[[int], Place] | None = None,
) -> VolumeSet:
    """Write the volumes `indices` as they are drawn, one in memory at a time.

    They are named by generator, seed and index; the k-th lies at `place(k)`, by default where the
    training cases lie on average.

    Raises:
        ValueError: the generator yields more or fewer volumes, or none of the labels it declares.
    """
    name, seed = provenance["generator"], provenance["seed"]
    labelled, count = generator.labels != "none", len(indices)
    usual = Place(_affine(train))
    with VolumeSetWriter(folder, train.grid, train.label_names, dict(provenance)) as writer:
        for k, sample in enumerate(islice(samples, count + 1)):  # one too many is told below
            index = indices.start + k
            if labelled and sample.label is None:
                raise ValueError(
                    f"Sample {index} of {name} has no label, but the generator declares "
                    f"{generator.labels} labels."
                )
            at = usual if place is None else place(k)
            writer.append(
                f"{name}-{seed}-{index:05d}",
                sample.image,
                sample.label if labelled else None,
                at.affine,
                dict(at.source),
            )
            tick(k + 1, count)
    made = VolumeSet.open(folder)
    if len(made) != count:
        raise ValueError(
            f"{name} yielded {len(made)} volumes, asked were {count}; yield one per index."
        )
    return made


def _affine(train: VolumeSet) -> NDArray[np.float64]:
    """The training cases' median voxel size, the origin in the middle of the grid."""
    spacing = np.median([case.spacing for case in train.cases], axis=0)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.asarray(train.grid) - 1) / 2
    return affine
