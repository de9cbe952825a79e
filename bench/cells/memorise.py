"""Does a generator repeat its training volumes? Distances of features, and the nearest pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.cells.context import Context
from bench.cells.measure import measured
from bench.cells.score import Features, Planes, by_volume, read_features
from bench.cells.segment import first_cases
from bench.records import Record
from bench.volumes import VolumeSet
from metrics.memorisation import Memorisation, memorisation

SHOWN = 6
"""Nearest pairs that are kept as pictures."""


def run(context: Context) -> list[Record]:
    """Leaves ``pairs.npz``, slices of the nearest pairs; records distances and near copies."""
    train, test, made = (
        side_by_side(read_features(context, role)) for role in ("train", "test", "features")
    )
    found: list[Memorisation] = []

    def values() -> list[float]:
        m = memorisation(train, test, made)
        found.append(m)
        ratio = m.median_synthetic / m.median_test
        shares = (m.near_copies, m.near_copies_test)
        return [m.median_synthetic, m.median_test, ratio, *shares, m.p_value]

    names = ["memorisation_distance", "memorisation_distance_test", "memorisation_ratio"]
    names += ["near_copies", "near_copies_test", "memorisation_p"]
    records = measured(names, values, Record(n_real=len(train), n_synthetic=len(made)))
    if found:
        volumes = VolumeSet.open(context.needed("synthetic") / "synthetic")
        every = context.volumes("train")
        keep_pairs(context, found[0], volumes, first_cases(every, len(every)))
    return records


def side_by_side(features: Planes) -> Features:
    """One row per volume: the features of all planes."""
    return np.concatenate([by_volume(x) for x in features.values()], axis=1)


def keep_pairs(
    context: Context, found: Memorisation, synthetic: VolumeSet, train: VolumeSet
) -> None:
    """The pairs of least distance, each as the axial slice in the middle of both volumes."""
    order = np.argsort(found.distance, kind="stable")[:SHOWN]
    nearest = found.nearest[order]
    np.savez_compressed(
        context.artefacts / "pairs.npz",
        synthetic=np.stack([axial(synthetic, i) for i in order]),
        train=np.stack([axial(train, i) for i in nearest]),
        synthetic_ids=np.array([synthetic.ids[i] for i in order]),
        train_ids=np.array([train.ids[i] for i in nearest]),
        distance=found.distance[order],
    )


def axial(volumes: VolumeSet, index: int) -> NDArray[np.float16]:
    image = volumes.image(index)
    return image[:, :, image.shape[2] // 2].astype(np.float16)
