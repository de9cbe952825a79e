"""Scalars and pictures of a fit."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.curve import Curve, mosaic, write_preview
from bench.device import Device
from bench.run import Run
from bench.training import Networks, Preview, train
from bench.training_config import TrainingConfig


def fit(folder: Path, preview: Preview | None = None) -> dict[str, Tensor]:
    """A network with all that a look at it could disturb: dropout, statistics, an average."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))

    def losses(networks: Networks, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "all", (networks["net"](x) - x).square().mean()

    return train(
        Run(0, folder, (8, 8, 8), {}, Device(accelerator="cpu", precision="32-true")),
        {"net": net},
        losses,
        lambda step: torch.randn(6, 3),
        TrainingConfig(steps=5, learning_rate=0.1, ema_decay=0.5, validate_every=2, clip_norm=1e-3),
        average=["net"],
        preview=preview,
        name="toy",
    )["net"]


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "previews").glob("*"))


def test_a_preview_changes_no_weight(tmp_path: Path) -> None:
    seen = []

    def preview(networks: Networks) -> NDArray[np.float32]:
        net = networks["net"]
        assert not net.training
        assert not torch.is_grad_enabled()
        seen.append(net[0].weight.clone())  # type: ignore[index]
        return torch.rand(2, 4, 5, 6).numpy() + 0 * float(net(torch.randn(2, 3)).sum())

    kept = fit(tmp_path / "with", preview)
    plain = fit(tmp_path / "without")
    assert all(torch.equal(kept[key], plain[key]) for key in plain)
    assert pictures(tmp_path / "with") == [f"toy-00000{step}.png" for step in (2, 4, 5)]
    assert torch.equal(seen[-1], kept["0.weight"])  # the average, and not the last weights
    assert not (tmp_path / "without" / "previews").exists()


def broken(networks: Networks) -> NDArray[np.float32]:
    raise ZeroDivisionError("the decoder broke")


@pytest.mark.parametrize(
    ("preview", "told"),
    [
        (broken, "step 2: ZeroDivisionError: the decoder broke"),
        (lambda _: np.zeros((4, 4, 4), np.float32), r"shape \(4, 4, 4\), expected \(n, D, H, W\)"),
        (lambda _: np.zeros((0, 4, 4, 4), np.float32), "No picture at step"),
    ],
)
def test_a_preview_that_fails_is_a_warning(tmp_path: Path, preview: Preview, told: str) -> None:
    with pytest.warns(RuntimeWarning, match=told):
        kept = fit(tmp_path / "with", preview)
    plain = fit(tmp_path / "without")
    assert all(torch.equal(kept[key], plain[key]) for key in plain)


def test_a_mosaic_shows_the_three_middle_slices_of_every_volume() -> None:
    volumes = np.random.default_rng(0).random((2, 4, 6, 8), dtype=np.float32)
    picture = mosaic(volumes)
    assert picture.shape == (2 * 6 + 1, 8 + 8 + 6 + 2)
    np.testing.assert_array_equal(picture[:6, :8], volumes[0, 2])
    np.testing.assert_array_equal(picture[8:12, 9:17], volumes[1, :, 3])
    np.testing.assert_array_equal(picture[8:12, 18:24], volumes[1, :, :, 4])
    assert (picture[[7, 12], 9:17] == 0).all()  # a lower slice is centred
    assert (picture[:, [8, 17]] == 1).all()
    assert (picture[6] == 1).all()


def test_a_picture_is_grey_enlarged_and_within_its_range(tmp_path: Path) -> None:
    volumes = np.full((1, 4, 4, 4), 0.5, np.float32)
    volumes[0, 2] = [[np.nan, -3, 0, 0], [2, 1, 0.25, 0], [0] * 4, [0] * 4]
    write_preview(tmp_path / "new" / "a.png", volumes)
    read = matplotlib.image.imread(tmp_path / "new" / "a.png")[..., :3]
    assert read.shape[1] >= 600
    assert (read.max(axis=2) == read.min(axis=2)).all()
    scale = read.shape[0] // 4
    small = read[scale // 2 :: scale, scale // 2 :: scale, 0]
    np.testing.assert_allclose(small[:2, :4], [[0, 0, 0, 0], [1, 1, 0.25, 0]], atol=1 / 255)


def rows(path: Path) -> list[tuple[int, str, float]]:
    with path.open(newline="") as stream:
        return [(int(s), n, float(v)) for s, n, v in list(csv.reader(stream))[1:]]


def test_a_curve_goes_on_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "fit.csv"
    with Curve(path, 0) as curve:
        for step in (1, 2, 3):
            curve.write(step, {"loss/a": 0.1 * step})
    path.write_text(path.read_text() + "4,lo")  # cut by a power failure
    with Curve(path, 2) as curve:
        curve.write(3, {"loss/a": 0.5})
    assert rows(path) == [(1, "loss/a", 0.1), (2, "loss/a", 0.2), (3, "loss/a", 0.5)]


def test_gradient_norm_and_learning_rate_are_scalars(tmp_path: Path) -> None:
    fit(tmp_path)
    found = rows(tmp_path / "toy.csv")
    assert [value for _, name, value in found if name == "lr/all"] == [0.1] * 5
    norms = [value for _, name, value in found if name == "grad_norm/all"]
    assert len(norms) == 5
    assert min(norms) > 1e-2  # as it was before it was clipped


def test_the_gradient_norm_is_that_of_all_weights(tmp_path: Path) -> None:
    net = nn.Linear(1, 1)
    train(
        Run(0, tmp_path, (8, 8, 8), {}, Device(accelerator="cpu", precision="32-true")),
        {"net": net},
        lambda networks, x: iter([("all", networks["net"](x).sum())]),  # gradient (3, 1)
        lambda step: torch.full((1, 1), 3.0),
        TrainingConfig(steps=1),
    )
    norm = next(value for _, name, value in rows(tmp_path / "fit.csv") if name == "grad_norm/all")
    assert norm == pytest.approx(10**0.5)


def test_tensorboard_has_the_same_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "fit.csv"
    for begin, end in ((0, 4), (2, 6)):  # stopped behind its checkpoint at 2
        with Curve(path, begin) as curve:
            for step in range(begin + 1, end + 1):
                curve.write(step, {"loss/a": step + 0.5 * begin})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "fit"))
    events.Reload()
    shown = [(event.step, "loss/a", event.value) for event in events.Scalars("loss/a")]
    assert shown == rows(path)


def test_without_tensorboard_there_is_the_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    fit(tmp_path)
    assert rows(tmp_path / "toy.csv")
    assert not (tmp_path / "tensorboard").exists()


class Full:
    """A writer of events whose disk is full."""

    def add_scalar(self, *_: Any) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_under_tensorboard_ends_no_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.curve._tensorboard", lambda folder, step: Full())
    fit(tmp_path)
