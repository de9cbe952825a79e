"""How the generators were trained: what they recorded of themselves, and stages that they share."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from leaderboard_cases import Made, page, row_of, under

from bench.plan import Cell, Tags
from bench.records import Record, cells_frame, records_frame
from bench.report import stages_of
from bench.runs import StoredRun
from bench.store import Store
from leaderboard import Leaderboard, RunInfo, build, write
from leaderboard.fit_tables import fits

SHARED, CONTROL_NET, VAE_SAMPLE, LLDM_SAMPLE = "aaaa", "bbbb", "cccc", "dddd"
STAGES = {"ldm-vae": (SHARED, VAE_SAMPLE), "3d-lldm": (SHARED, CONTROL_NET, LLDM_SAMPLE)}


class Trained:
    """Records of fits and samples, written by hand."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def note(
        self,
        kind: str,
        cell: str,
        generator: str,
        stage: str,
        values: dict[Any, float],
        seed: int = 0,
    ) -> None:
        for key, value in values.items():
            metric, label = key if isinstance(key, tuple) else (key, "")
            self.records.append(
                Record(
                    kind=kind, cell=cell, generator=generator, stage=stage, seed=seed,
                    metric=metric, label=label, value=value, dataset="phantom", grid="32x32x32",
                )
            )  # fmt: skip

    def board(self, **info: Any) -> Leaderboard:
        told = RunInfo("phantom", "quick", "32x32x32", **info)
        return build(records_frame(self.records), cells_frame([]), told)


@pytest.fixture
def trained() -> Trained:
    made = Trained()
    autoencoder = {"steps": 3000, "seconds": 150.0, "peak_memory_mb": 2048.0, "psnr": 25.13}
    made.note(
        "fit", SHARED, "ldm-vae", "image-autoencoder", {**autoencoder, "psnr_patch_pca": 23.6}
    )
    dice = {("round_trip_dice", "vein"): 0.75, ("round_trip_dice", "liver"): 0.97}
    components = {("round_trip_components", "vein"): 0.5}
    control = {"steps": 700, "stopped_early": 1.0, "seconds": 60.0, "round_trip_dice": 0.86}
    made.note("fit", CONTROL_NET, "3d-lldm", "controlnet", {**control, **dice, **components})
    cost = {"seconds_per_volume": 0.16, "seconds": 9.0, "peak_memory_mb": 512.0}
    made.note("sample", VAE_SAMPLE, "ldm-vae", "", cost)
    made.note("sample", LLDM_SAMPLE, "3d-lldm", "", {**cost, "share_rejected": 0.125})
    return made


def test_a_shared_stage_stands_in_both_generators_rows(trained: Trained) -> None:
    frame = trained.board(stages=STAGES).fits
    for generator, other in (("ldm-vae", "3d-lldm"), ("3d-lldm", "ldm-vae")):
        row = row_of(frame, generator=generator, stage="image-autoencoder", metric="psnr")
        assert row["value"] == 25.13
        assert row["shared"] == other
    alone = row_of(frame, generator="3d-lldm", stage="controlnet", metric="steps")
    assert alone["shared"] == ""
    assert "controlnet" not in set(frame.loc[frame["generator"] == "ldm-vae", "stage"])


def test_the_page_has_the_numbers_in_words(trained: Trained) -> None:
    rows = {tuple(row[:2]): row for row in under(page(trained.board(stages=STAGES)), "How the")}
    first = rows["3D-LDM with VAE", "image-autoencoder (also 3D-LLDM's)"]
    assert first[2:] == ["3000", "2.50", "–", "2.00", "PSNR 25.1 dB (patch-PCA 23.6)"]
    control = rows["3D-LLDM", "controlnet"]
    assert control[2:4] == ["700 (stopped early)", "1.00"]
    assert control[-1] == (
        "round-trip Dice 0.860 (liver 0.970, vein 0.750); components changed (vein 0.50)"
    )
    sampled = rows["3D-LLDM", "sampling"]
    assert sampled[2:] == ["–", "–", "0.160", "0.50", "label maps rejected 12.5 %"]


def test_stages_stand_in_their_order_whatever_the_order_of_the_records(trained: Trained) -> None:
    before = trained.board(stages=STAGES)
    random.Random(0).shuffle(trained.records)
    after = trained.board(stages=STAGES)
    pd.testing.assert_frame_equal(before.fits, after.fits)
    stages = [row[1].partition(" ")[0] for row in fits(after).rows if row[0] == "3D-LLDM"]
    assert stages == ["image-autoencoder", "controlnet", "sampling"]


def test_a_metric_of_a_plug_in_s_own_is_listed_by_its_name(trained: Trained) -> None:
    own = {"discriminator_gap": 0.1234, ("sharpness", "left | lobe"): 2.0}
    trained.note("fit", "eeee", "mine", "mine/fit", own)
    rows = {row[0]: row for row in under(page(trained.board()), "How the")}
    assert rows["mine"][1] == "fit"
    assert rows["mine"][-1] == "discriminator gap 0.123; sharpness left | lobe 2.000"


def test_records_alone_give_each_generator_its_own_rows(trained: Trained) -> None:
    frame = trained.board().fits
    assert set(frame.loc[frame["generator"] == "3d-lldm", "stage"]) == {"controlnet", "sampling"}
    assert set(frame["shared"]) == {""}


def test_values_are_means_over_seeds(trained: Trained) -> None:
    trained.note("fit", "ffff", "ldm-vae", "image-autoencoder", {"psnr": 27.13}, seed=1)
    both = {name: (*cells, "ffff") for name, cells in STAGES.items()}
    row = row_of(trained.board(stages=both, seeds=(0, 1)).fits, generator="3d-lldm", metric="psnr")
    assert row["value"] == pytest.approx(26.13)
    assert row["sd"] == pytest.approx(np.std([25.13, 27.13], ddof=1))
    assert row["n_seeds"] == 2


def test_controls_and_runs_without_fits_have_no_table() -> None:
    made = Trained()
    made.note("sample", "aaaa", "oracle", "", {"seconds_per_volume": 1.0})
    assert len(made.board().fits) == 0
    assert "How the generators" not in page(made.board())
    assert len(Made().board().fits) == 0


def test_the_numbers_are_a_file_as_well(trained: Trained, tmp_path: Any) -> None:
    files = write(trained.board(stages=STAGES), tmp_path)
    assert tmp_path / "fits.csv" in files
    again = pd.read_csv(tmp_path / "fits.csv", keep_default_na=False)
    assert set(again.loc[again["stage"] == "image-autoencoder", "generator"]) == set(STAGES)


def test_the_plan_tells_whose_stages_are_shared() -> None:
    first = Cell("fit", {"n": 1}, {}, Tags(generator="a", stage="common"))
    own = Cell("fit", {"n": 2}, {"stage:common": first.key}, Tags(generator="b", stage="own"))
    needs = {"stage:common": first.key, "data": "x"}
    samples = [
        Cell("sample", {"n": 3}, needs, Tags(generator="a")),
        Cell("sample", {"n": 4}, {**needs, "stage:own": own.key}, Tags(generator="b")),
    ]
    run = {"cells": [cell.to_json() for cell in (first, own, *samples)]}
    keys = [cell.key[:16] for cell in (first, own, *samples)]
    assert stages_of(StoredRun(Store(""), run)) == {
        "a": (keys[0], keys[2]),
        "b": (keys[0], keys[1], keys[3]),
    }
