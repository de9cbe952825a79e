"""The label autoencoder and the gate on its round trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generator_cases import (
    GRID,
    KL,
    LABELS,
    balls,
    make_run,
)

from bench.errors import InputError
from bench.run import Run
from bench.volumes import VolumeSet, VolumeSetWriter
from generators.label_autoencoder import (
    LabelAutoencoderConfig,
    RoundTripError,
    balanced,
    fit_label_autoencoder,
    judge,
    require,
    round_trip,
    voxel_counts,
)
from generators.tiling import TiledAutoencoder, TiledConfig


def records(run: Run, label: str = "") -> dict[str, float]:
    return {r["metric"]: r["value"] for r in run.records if r["label"] == label}


def test_rare_classes_weigh_more(tmp_path: Path) -> None:
    volumes = balls(tmp_path, 3)
    counts = voxel_counts(volumes, (0, 1, 4))
    for case, row in zip(volumes.labels(range(3)), counts, strict=True):
        assert row.tolist() == [int((case == v).sum()) for v in (0, 1, 4)]
    background, organ, tumour = balanced(counts.sum(0), 0.5).tolist()
    assert background < organ < tumour
    assert organ / tumour == pytest.approx((counts[:, 2].sum() / counts[:, 1].sum()) ** 0.5)
    assert balanced(counts.sum(0), 0.0).tolist() == [1.0, 1.0, 1.0]


def test_label_autoencoder_learns_the_round_trip_and_its_gate_holds(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 4)
    config = {
        **KL,
        "training": {"steps": 40, "batch_size": 4, "learning_rate": 1e-2, "ema_decay": 0},
    }
    run = make_run(tmp_path / "run", volumes, {})
    good = LabelAutoencoderConfig.model_validate(config)
    fit_label_autoencoder(good, volumes, volumes, run)
    organ, tumour = (records(run, name)["round_trip_dice"] for name in ("organ", "tumour"))
    assert organ > 0.6
    assert records(run)["round_trip_dice"] == pytest.approx((organ + tumour) / 2)
    assert set(records(run, "organ")) == {"round_trip_dice", "round_trip_components"}
    strict = LabelAutoencoderConfig.model_validate(
        {**config, "required_dice": 0.999, "training": {"steps": 1}}
    )
    with pytest.raises(RoundTripError, match=r"of 'organ' is 0\.\d+, below required_dice 0\.999"):
        fit_label_autoencoder(strict, volumes, volumes, make_run(tmp_path / "other", volumes, {}))


class Damaged(TiledAutoencoder):
    """A round trip that drops the channels' voxels beyond row 8 and adds nothing."""

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        logits = z.clone()
        logits[:, 1:, 8:] = 0
        logits[:, 0, 8:] = 1
        return logits


def damaged() -> Damaged:
    class Whole(TiledConfig):
        @property
        def factor(self) -> int:
            return 1

    return Damaged(Whole())


def labelled(folder: Path, maps: list[dict[int, list[tuple[int, int, int]]]]) -> VolumeSet:
    """Cases whose label maps have the named voxels, one case for each of `maps`."""
    with VolumeSetWriter(folder, GRID, LABELS) as writer:
        for i, voxels in enumerate(maps):
            label = np.zeros(GRID, dtype=np.uint8)
            for value, places in voxels.items():
                for place in places:
                    label[place] = value
            writer.append(f"case-{folder.name}-{i}", np.zeros(GRID), label)
    return VolumeSet.open(folder)


def test_round_trip_counts_voxels_and_parts(tmp_path: Path) -> None:
    corner = [(1, 1, 1), (2, 2, 2)]  # touch at a corner: one part
    volumes = labelled(
        tmp_path / "set",
        [
            {1: [*corner, (5, 5, 5), (12, 3, 3)], 4: [(0, 0, 15)]},
            {1: [(9, 1, 1), (11, 1, 1), (3, 3, 3)]},
        ],
    )
    run = make_run(tmp_path / "run", volumes, {})
    found = round_trip(damaged(), [(volumes, 0), (volumes, 1)], run)
    assert found.dice == {"organ": pytest.approx(2 * 4 / (7 + 4)), "tumour": 1.0}
    assert found.components == {"organ": (1 + 2) / 2, "tumour": 0.0}
    alone = round_trip(damaged(), [(volumes, 1)], run)
    assert alone.dice == {"organ": pytest.approx(2 / 4)}


def test_gate_names_structure_value_bar_and_remedy(tmp_path: Path) -> None:
    volumes = labelled(tmp_path / "set", [{1: [(3, 3, 3), (9, 9, 9), (11, 3, 3)], 4: [(1, 1, 1)]}])
    found = round_trip(damaged(), [(volumes, 0)], make_run(tmp_path / "run", volumes, {}))
    assert found.components["organ"] == 2
    config = LabelAutoencoderConfig(required_dice=0.5)
    require(found, config)  # Dice is exactly at the bar; components are not looked at
    require(found, config.model_copy(update={"component_tolerance": 2.0}))
    with pytest.raises(RoundTripError, match=r"'organ' by 2\.00.*component_tolerance 1\.5; train"):
        require(found, config.model_copy(update={"component_tolerance": 1.5}))
    with pytest.raises(RoundTripError, match=r"'organ' is 0\.500, below required_dice 0\.6; train"):
        require(found, config.model_copy(update={"required_dice": 0.6}))


def test_structures_without_validation_cases_are_judged_on_training_cases(tmp_path: Path) -> None:
    train = labelled(
        tmp_path / "train", [{1: [(3, 3, 3)]}, {1: [(3, 3, 3)], 4: [(1, 1, 1), (9, 1, 1)]}]
    )
    late = [{1: [(3, 3, 3)]}] * 17 + [{4: [(2, 2, 2)]}]  # beyond the cases that are looked at
    run = make_run(tmp_path / "run", train, {})
    counts = voxel_counts(train, (0, 1, 4))
    val = labelled(tmp_path / "val", late)
    assert judge(damaged(), train, counts, val, run).dice == {"organ": 1.0, "tumour": 1.0}
    lacking = judge(damaged(), train, counts, val.subset(range(17)), run)
    assert lacking.dice == {"organ": 1.0, "tumour": pytest.approx(2 / 3)}
    assert lacking.components == {"organ": 0.0, "tumour": 1.0}
    assert judge(damaged(), train, counts, val.subset([]), run) == lacking


def test_a_class_that_no_training_case_has_is_named(tmp_path: Path) -> None:
    val = labelled(tmp_path / "val", [{4: [(1, 1, 1)]}])
    train = labelled(tmp_path / "train", [{1: [(1, 1, 1)]}, {1: [(2, 1, 1)]}])
    config = LabelAutoencoderConfig.model_validate(KL)
    with pytest.raises(
        InputError, match=r"None of the 2 training cases has the label 'tumour' \(4\)"
    ):
        fit_label_autoencoder(config, train, val, make_run(tmp_path / "run", train, {}))
