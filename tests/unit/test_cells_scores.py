"""From features to records: planes, intervals, reasons instead of silent nan, slices."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.cells.measure import UNDEFINED, measured
from bench.cells.score import by_volume, companions, frechet_records
from bench.records import Record
from metrics.frechet import frechet_distance
from metrics.intervals import resampled
from metrics.kernel import kernel_distance
from metrics.manifold import manifold

PLANES = ("axial", "sagittal", "coronal")


def context(resamples: int = 20, neighbours: int = 2) -> Any:
    spec = {"resamples": resamples, "neighbours": neighbours}
    return SimpleNamespace(spec=spec, tick=lambda step, total: None)


def sets(n: int, m: int, d: int = 6, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    real = {plane: rng.normal(size=(n, d)) for plane in PLANES}
    return real, {plane: rng.normal(0.5, size=(m, d)) for plane in PLANES}


def of(records: list[Record], metric: str, plane: str) -> Record:
    found = [r for r in records if r["metric"] == metric and r["plane"] == plane]
    assert len(found) == 1
    return found[0]


def expect_no_silent_nan(records: list[Record]) -> None:
    for record in records:
        assert math.isnan(record["value"]) == bool(record.get("reason"))


def test_each_plane_and_their_mean_with_intervals() -> None:
    real, made = sets(9, 11)
    records = frechet_records(context(), real, made)
    expect_no_silent_nan(records)
    values = [frechet_distance(real[plane], made[plane]) for plane in PLANES]
    for plane, value in zip((*PLANES, "average"), (*values, np.mean(values)), strict=True):
        record = of(records, "fid", plane)
        assert record["value"] == pytest.approx(value)
        assert record["low"] < value < record["high"]


def test_resamples_of_the_average_draw_the_same_volumes_in_every_plane() -> None:
    real, made = sets(9, 11)
    records = frechet_records(context(), real, made)
    kept = [r["value"] for r in records if r["metric"] == "fid_resample"]
    planes = [resampled(frechet_distance, real[p], made[p], 20) for p in PLANES]
    mean = np.mean(planes, axis=0)
    value = of(records, "fid", "average")["value"]
    np.testing.assert_allclose(kept, value + mean - mean.mean(), rtol=1e-6)
    assert [r["case"] for r in records if r["metric"] == "fid_resample"] == list(
        map(str, range(20))
    )


def test_without_resamples_there_is_no_interval_and_no_rank() -> None:
    records = frechet_records(context(resamples=0), *sets(9, 11))
    assert len(records) == 4
    assert all("low" not in record for record in records)


def test_a_plane_that_cannot_be_scored_says_why_and_takes_the_average_with_it() -> None:
    real, made = sets(9, 11)
    made["sagittal"][3, 2] = np.nan
    records = [*frechet_records(context(), real, made), *companions(context(), real, made)]
    expect_no_silent_nan(records)
    for metric in ("fid", "kid", "recall"):
        assert "row 3" in of(records, metric, "sagittal")["reason"]
        assert "row 3" in of(records, metric, "average")["reason"]
        assert math.isfinite(of(records, metric, "axial")["value"])
    assert not [r for r in records if r["metric"] == "fid_resample"]


def test_too_few_volumes_leave_reasons_and_not_numbers() -> None:
    real, made = sets(9, 2)
    records = companions(context(), real, made)
    expect_no_silent_nan(records)
    assert "k is 2" in of(records, "coverage", "axial")["reason"]
    assert "8" in of(records, "fid_extrapolated", "average")["reason"]
    assert math.isfinite(of(records, "kid", "average")["value"])


def test_slices_of_one_volume_are_no_neighbours_of_each_other() -> None:
    """Two sets of one distribution, whose slices vary little within a volume."""
    rng = np.random.default_rng(1)
    real, made = (
        {"axial": rng.normal(size=(20, 1, 8)) + 0.1 * rng.normal(size=(20, 12, 8))}
        for _ in range(2)
    )
    records = companions(context(), real, made)
    means = real["axial"].mean(axis=1), made["axial"].mean(axis=1)
    assert of(records, "recall", "axial")["value"] == manifold(*means, k=2).recall > 0.5
    assert of(records, "kid", "axial")["value"] == pytest.approx(kernel_distance(*means))
    np.testing.assert_array_equal(by_volume(real["axial"]), means[0])
    assert manifold(real["axial"].reshape(-1, 8), made["axial"].reshape(-1, 8), 2).recall < 0.1


def test_what_a_measure_refuses_is_a_reason_and_what_breaks_is_an_error() -> None:
    common = Record(label="HCC")

    def refuse() -> list[float]:
        raise ValueError("too few")

    def fall() -> list[float]:
        raise ZeroDivisionError

    assert measured(["a"], lambda: [0.5], common) == [Record(label="HCC", metric="a", value=0.5)]
    first, second = measured(["a", "b"], refuse, common)
    assert (first["reason"], second["metric"], second["label"]) == ("too few", "b", "HCC")
    assert math.isnan(first["value"])
    [undefined] = measured(["a"], lambda: [math.inf])
    assert undefined["reason"] == UNDEFINED
    with pytest.raises(ZeroDivisionError):
        measured(["a"], fall)
    with pytest.raises(ValueError, match="zip"):
        measured(["a", "b"], lambda: [1.0])
