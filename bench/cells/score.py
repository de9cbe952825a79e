"""Score a set of synthetic volumes against the real test volumes, on features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.cells.context import Context
from bench.cells.features import weights_sha256
from bench.cells.measure import measured
from bench.records import Record
from metrics.features import pooled
from metrics.fid import AVERAGE
from metrics.frechet import frechet_distance, frechet_extrapolated
from metrics.intervals import centred_interval, frechet_resamples
from metrics.kernel import kernel_distance, rbf_mmd
from metrics.manifold import manifold

Features = NDArray[np.float64]  # (n, d), or (n, slices, d)
Planes = Mapping[str, Features]


def run(context: Context) -> list[Record]:
    """Records every distance between the two sets in each plane, and their means over planes."""
    rows = int(context.spec["rows"])
    real = read_features(context, "real")
    synthetic = {plane: x[:rows] for plane, x in read_features(context, "synthetic").items()}
    first = next(iter(real))
    made = context.store.cell(context.cell.needs["synthetic"])
    common = Record(
        n_real=len(real[first]),
        n_synthetic=len(synthetic[first]),
        extractor=made.spec["extractor"],
        extractor_sha256=weights_sha256(context.store, made),
        protocol=made.spec["protocol"],
    )
    records = [*frechet_records(context, real, synthetic), *companions(context, real, synthetic)]
    return [Record(**{**common, **record}) for record in records]


def read_features(context: Context, role: str) -> dict[str, Features]:
    """Plane -> features of the cell that plays `role`."""
    with np.load(context.needed(role) / "features.npz", allow_pickle=False) as file:
        return {plane: file[plane] for plane in file.files}


def frechet_records(context: Context, real: Planes, synthetic: Planes) -> list[Record]:
    """FID of each plane and their average, with intervals and the resamples ranks are made of."""
    count = int(context.spec["resamples"])
    records, resamples = [], []
    for done, plane in enumerate(real, start=1):
        x, y = real[plane], synthetic[plane]
        distance = partial(frechet_distance, pooled(x), pooled(y))
        [record] = measured(["fid"], values_of(distance), Record(plane=plane))
        if not record.get("reason") and count:
            resamples.append(frechet_resamples(x, y, count))
            record = with_interval(record, resamples[-1])
        records.append(record)
        context.tick(done, len(real))
    if len(real) > 1:
        average = averages(records)[0]
        if len(resamples) == len(real):
            mean = np.mean(resamples, axis=0)  # the same volumes are drawn in every plane
            average = with_interval(average, mean)
            # Resamples repeat volumes, which raises an FID, of one generator more than of another.
            centred = average["value"] + mean - mean.mean()
            records += [
                Record(metric="fid_resample", plane=AVERAGE, case=str(r), value=float(value))
                for r, value in enumerate(centred)
            ]
        records.append(average)
    return records


def with_interval(record: Record, replicates: NDArray[np.float64]) -> Record:
    low, high = centred_interval(record["value"], replicates)
    return Record(**{**record, "low": low, "high": high})


def companions(context: Context, real: Planes, synthetic: Planes) -> list[Record]:
    """What says how far the FID can be trusted: unbiased distances, fidelity, coverage.

    These compare volumes: slices of one volume are no independent draws, and one's nearest
    neighbours are its own. Of features by slice, the mean over a volume's slices stands for it.
    """
    k = int(context.spec["neighbours"])
    unbiased: dict[str, Callable[[Features, Features], float]] = {
        "kid": kernel_distance,
        "mmd_rbf": rbf_mmd,
    }
    records = []
    for plane in real:
        x, y = real[plane], synthetic[plane]
        extrapolated = partial(frechet_extrapolated, x, y)
        records += measured(["fid_extrapolated"], values_of(extrapolated), Record(plane=plane))
        x, y = by_volume(x), by_volume(y)
        for metric, distance in unbiased.items():
            records += measured([metric], values_of(partial(distance, x, y)), Record(plane=plane))
        names = ["precision", "recall", "density", "coverage"]
        records += measured(names, partial(manifold, x, y, k), Record(plane=plane))
    return records + (averages(records) if len(real) > 1 else [])


def by_volume(features: Features) -> Features:
    """One row per volume, ``(n, d)``: the mean of its slices' where features are by slice."""
    return features.mean(axis=1) if features.ndim == 3 else features


def values_of(distance: Callable[[], float]) -> Callable[[], list[float]]:
    """The one value of a distance as the list that `measured` takes."""
    return lambda: [distance()]


def averages(records: list[Record]) -> list[Record]:
    """The mean over planes of each metric; with the reason where a plane has no value."""
    by_metric: dict[str, list[Record]] = {}
    for record in records:
        by_metric.setdefault(record["metric"], []).append(record)
    means = []
    for metric, found in by_metric.items():
        value = float(np.mean([record["value"] for record in found]))  # nan where one is
        reason = next((r["reason"] for r in found if r.get("reason")), "")
        means.append(Record(metric=metric, plane=AVERAGE, value=value, reason=reason))
    return means
