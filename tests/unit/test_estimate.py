"""Estimates of memory and time: the scaling law, the choice of grids, and true measurements."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ran
from generator_cases import LDM_VAE, UNET
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config import RunConfig
from bench.device import Device
from bench.estimate import SAMPLING, Probes, Row, estimate
from bench.few_steps import brief, changed, largest_batch, parts, with_batch
from bench.probe import MEASURED, Job, probe
from bench.registry import GENERATORS, load_plugin
from bench.scaling import Grid, Limits, Work, batched, climb, extrapolate, ladder, volume

WIDTH = 4  # of the toy's convolution
TOY = Path(__file__).parent / "estimated_plugin.py"
LABELS = {0: "background", 1: "organ"}
WIDE = Limits(seconds=900, memory_mb=1e6)
ENDLESS = Limits(seconds=1e9, memory_mb=1e9)
positive = st.floats(0.01, 10.0)


def made_up(grid: Grid, constants: tuple[float, ...]) -> Work:
    """A measurement that follows the law exactly."""
    fixed, rate, f0, f1, q1, q2, c, d, m = constants
    v = volume(grid) / 32**3
    linear, quadratic, matrices = f0 + f1 * v, q1 * v + q2 * v**2, m * v**2
    seconds = fixed + (linear + quadratic) / rate
    return Work(grid, seconds, c + d * v + matrices, c, linear, quadratic, matrices, 5 * seconds)


def cube(side: int) -> Grid:
    return side, side, side


class TestLaw:
    @settings(deadline=None)
    @given(st.tuples(*[positive] * 9))
    def test_two_grids_recover_the_closed_form(self, constants: tuple[float, ...]) -> None:
        works = [made_up(cube(side), constants) for side in (32, 48)]
        truth = made_up(cube(128), constants)
        seconds, memory_mb = extrapolate(works, volume(cube(128)))
        assert seconds == pytest.approx(truth.seconds, rel=1e-6)
        assert memory_mb == pytest.approx(truth.memory_mb, rel=1e-6)

    @settings(deadline=None)
    @given(st.tuples(*[positive] * 9))
    def test_one_grid_recovers_it_without_constant_terms(
        self, constants: tuple[float, ...]
    ) -> None:
        _, rate, _, f1, _, q2, c, d, m = constants
        pure = (0.0, rate, 0.0, f1, 0.0, q2, c, d, m)
        seconds, memory_mb = extrapolate([made_up(cube(32), pure)], volume(cube(64)))
        truth = made_up(cube(64), pure)
        assert seconds == pytest.approx(truth.seconds)
        assert memory_mb == pytest.approx(truth.memory_mb)

    def test_a_measured_grid_is_given_as_it_was_measured(self) -> None:
        work = Work(cube(32), 3.0, 700.0, 1.0, 5.0, 5.0, 5.0, 9.0)
        assert extrapolate([work], volume(cube(32))) == (3.0, 700.0)

    def test_work_that_does_not_grow_is_not_made_to(self) -> None:
        """Fits on patches of one size."""
        works = [Work(cube(s), 2.0, 900.0 - s, 500.0, 1e9, 1e6, 3.0, 9.0) for s in (32, 48)]
        seconds, memory_mb = extrapolate(works, volume(cube(128)))
        assert seconds == pytest.approx(2.0, rel=1e-3)
        assert memory_mb == pytest.approx(852.0)

    def test_a_batch_is_as_many_volumes(self) -> None:
        one = Work(cube(32), 2.0, 900.0, 500.0, 1e9, 1e6, 3.0, 9.0)
        step, drawn = batched(one, 4, per_volume=False), batched(one, 4, per_volume=True)
        assert (step.seconds, step.linear, step.quadratic) == (8.0, 4e9, 4e6)
        assert (drawn.seconds, drawn.linear) == (2.0, 1e9)
        assert step.memory_mb == drawn.memory_mb == 500 + 4 * 400


class TestGrids:
    @pytest.mark.parametrize("full", [cube(128), (48, 64, 48), (256, 256, 128), cube(32)])
    def test_a_ladder_rises_to_the_full_grid_by_sides_that_every_network_takes(
        self, full: Grid
    ) -> None:
        rungs = ladder(full)
        assert rungs[-1] == full
        sizes = [volume(grid) for grid in rungs]
        assert sizes == sorted(set(sizes))
        assert all(
            s % 16 == 0 and 32 <= s <= f for g in rungs for s, f in zip(g, full, strict=True)
        )

    def test_the_paper_s_grid_is_halved_and_halved_again(self) -> None:
        assert {cube(32), cube(64), cube(128)} <= set(ladder(cube(128)))

    def test_a_grid_that_fits_is_measured_itself(self) -> None:
        works, reason = climb(ladder(cube(128)), attempts(1e9), ENDLESS)
        assert works[-1].grid == cube(128)
        assert reason == ""

    def test_a_small_memory_reduces_the_grid_and_still_finds_the_cost_of_the_full_one(self) -> None:
        limits = Limits(seconds=1e9, memory_mb=20_000)
        works, reason = climb(ladder(cube(128)), attempts(20_000), limits)
        assert works[-1].grid == cube(64)  # 96 needs 27 GB
        assert "128x128x128 needs about 80.3 GiB" in reason
        assert extrapolate(works, volume(cube(128)))[1] == pytest.approx(82_200)

    def test_little_time_reduces_it_as_well(self) -> None:
        limits = Limits(seconds=30, memory_mb=1e9)
        works, reason = climb(ladder(cube(128)), attempts(1e9), limits)
        assert works[-1].grid == cube(64)
        assert "s to measure" in reason
        assert extrapolate(works, volume(cube(128)))[0] == pytest.approx(32.2)

    def test_a_grid_that_dies_unexpectedly_is_followed_by_a_smaller_one(self) -> None:
        """The forecast allows all; the device does not."""
        asked: list[Grid] = []
        works, reason = climb(ladder(cube(128)), attempts(20_000, asked), ENDLESS)
        assert cube(128) in asked
        assert asked.index(cube(96)) < asked.index(cube(64))
        assert works[-1].grid == cube(64)
        assert reason == "96x96x96 needs more"

    def test_what_no_grid_allows_is_not_measured(self) -> None:
        works, reason = climb(ladder(cube(64)), attempts(100), WIDE)
        assert works == []
        assert reason == "32x32x32 needs more"


def attempts(memory_mb: float, asked: list[Grid] | None = None) -> Callable[[Grid], Work | str]:
    """A device of so much memory, on which a step takes 0.2 s + 0.5 s and 1 GB + 1.25 GB by 32³."""

    def attempt(grid: Grid) -> Work | str:
        if asked is not None:
            asked.append(grid)
        work = made_up(grid, (0.2, 1.0, 0.0, 0.5, 0.0, 0.0, 1000.0, 1268.75, 0.0))
        return work if work.memory_mb <= memory_mb else "needs more"

    return attempt


class TestFewSteps:
    CONFIG: dict[str, Any] = {  # noqa: RUF012
        "ae": {"training": {"steps": 900, "lr": 1}, "adversarial": {"start": 5000}},
        "sampling": {"steps": 250},
        "steps": 4,
    }

    def test_every_training_is_short_and_what_starts_late_starts_at_once(self) -> None:
        assert brief(self.CONFIG, 5) == {
            "ae": {"training": {"steps": 5, "lr": 1}, "adversarial": {"start": 0}},
            "sampling": {"steps": 250},
            "steps": 4,
        }

    def test_parts_are_found_and_changed_by_their_paths(self) -> None:
        assert list(parts(self.CONFIG, "training")) == ["ae.training"]
        assert list(parts(self.CONFIG, "sampling")) == ["sampling"]
        assert changed(self.CONFIG, "ae.training", "steps", 1)["ae"]["training"]["steps"] == 1
        assert self.CONFIG["ae"]["training"]["steps"] == 900

    def test_batches_are_no_larger_than_asked(self) -> None:
        config = {"training": {"steps": 1, "batch_size": 8}, "b": {"training": {"steps": 1}}}
        assert with_batch(config, "training", 2)["training"]["batch_size"] == 2
        assert with_batch(config, "training", 9) == config
        assert largest_batch(parts(config, "training")) == 8


def toy_run(grid: Grid, **config: Any) -> RunConfig:
    """A run of the toy."""
    load_plugin(TOY)
    values = GENERATORS.get("estimated").Config.model_validate(config).model_dump(mode="json")
    return RunConfig.model_validate(
        {
            "generators": {"estimated": values},
            "data": {"grid": grid},
            "device": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
        }
    )


def estimated(grid: Grid, limits: Limits = WIDE, **config: Any) -> list[Row]:
    """The toy's rows."""
    return estimate(toy_run(grid, **config), LABELS, limits, [TOY])


def first_stage(folder: Path, grid: Grid, limits: Limits, **config: Any) -> Row:
    """The row of the toy's first stage alone."""
    run = toy_run(grid, **config)
    values = run.generators["estimated"]
    probes = Probes("estimated", run, LABELS, limits, (TOY,), folder, lambda line: None)
    return probes.stage(probes.generator(values).stages()[0], values, {})[0]


class TestMeasured:
    def test_flops_and_matrices_have_their_closed_form(self) -> None:
        below, above, sampling = estimated(cube(48))
        for row, networks in ((below, 1), (above, 2)):
            assert [work.grid for work in row.measured] == [cube(32), cube(48)]
            for work in row.measured:
                tokens = work.voxels / 8**3
                # The forward pass and the gradient of the weights; the input needs none.
                assert work.linear == networks * 2 * (2 * 2 * WIDTH * 27 * work.voxels)
                # Two products, forward and both gradients, of two volumes.
                assert work.quadratic == networks * 2 * 3 * (2 * 2 * tokens**2 * WIDTH)
                assert work.matrices_mb * 2**20 == networks * 2 * 4 * tokens**2
            assert not row.extrapolated
            assert row.reason == ""
            assert row.batch == 2
            assert row.hours == pytest.approx(2 * row.seconds)  # 7200 steps
        assert below.trained == WIDTH * 27 + WIDTH
        assert above.parameters == {"net0": below.trained, "net1": below.trained}
        assert sampling.part == SAMPLING
        assert math.isnan(sampling.hours)

    def test_a_fit_that_outgrows_the_memory_is_ended_and_measured_smaller(
        self, tmp_path: Path
    ) -> None:
        limits = Limits(seconds=900, memory_mb=1500)
        below = first_stage(tmp_path, cube(64), limits, held_mb=200)
        assert below.measured[-1].grid == cube(32)
        assert below.extrapolated
        assert "GiB" in below.reason
        assert below.memory_mb > below.measured[-1].memory_mb

    def test_where_no_grid_takes_a_batch_one_volume_is_measured(self, tmp_path: Path) -> None:
        limits = Limits(seconds=900, memory_mb=1250)
        below = first_stage(tmp_path, cube(32), limits, held_mb=500)
        assert (below.batch, below.measured_batch) == (2, 1)
        assert below.extrapolated
        assert "a batch of 2 at 32x32x32 needs more than 1.2 GiB" in below.reason
        assert below.measured[0].linear == 2 * (2 * 2 * WIDTH * 27 * 32**3)

    def test_a_fit_that_takes_too_long_or_breaks_is_told_with_all_that_needs_it(self) -> None:
        rows = estimated(cube(32), Limits(seconds=0.5, memory_mb=1e6), wait=60)
        assert "takes longer than 0.5 s" in rows[0].reason
        assert [row.measured for row in rows] == [()] * 3
        assert "needs below" in rows[1].reason
        broken = estimated(cube(32), broken=True)[0]
        assert "ValueError: the toy is broken" in broken.reason

    def test_parameters_are_those_of_the_networks_built_directly(self) -> None:
        from generators.autoencoders import ImageAutoencoderConfig, KLAutoencoder
        from generators.unet import UNetConfig, build_unet

        values = GENERATORS.get("ldm-vae").Config.model_validate(LDM_VAE)
        run = RunConfig.model_validate(
            {
                "generators": {
                    "ldm-vae": values.model_dump(mode="json"),
                    "ldm-vae-again": values.model_dump(mode="json"),
                },
                "data": {"grid": cube(32)},
                "device": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
            }
        )
        GENERATORS.register("ldm-vae-again", GENERATORS.get("ldm-vae"))
        config = ImageAutoencoderConfig.model_validate(LDM_VAE["autoencoder"])
        autoencoder = KLAutoencoder(config, channels=1)
        unet = build_unet(UNetConfig.model_validate(UNET), channels=config.latent_channels)
        rows = estimate(run, LABELS, WIDE)
        first = {row.part: row for row in rows if row.generator == "ldm-vae"}
        assert first["image-autoencoder"].parameters == {"autoencoder": size(autoencoder)}
        assert first["image-ldm"].parameters == {"unet": size(unet)}
        shared = {row.part: row.shared for row in rows if row.generator == "ldm-vae-again"}
        assert shared["image-autoencoder"] == shared["image-ldm"] == "ldm-vae"


def test_a_volume_takes_all_its_steps_and_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a clock that only sleeping moves: 50 steps, and as long as two more to decode."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    load_plugin(TOY)
    torch.save({}, tmp_path / "state.pt")
    config: dict[str, Any] = {"pause": 0.02, "sampling": {"steps": 1}}
    longer = {"steps": 50, "config": {**config, "sampling": {"steps": 3}}}
    job = Job(
        plugin="estimated",
        config=config,
        stage="",
        grid=cube(32),
        label_names={1: "organ"},
        batch=2,
        folder=tmp_path,
        device=Device(accelerator="cpu", precision="32-true", threads=1),
        memory_mb=1e6,
        states={"above": tmp_path / "state.pt"},
        sampling={"sampling": longer},
    )
    probe(job)
    measured = json.loads((tmp_path / MEASURED).read_text(encoding="utf-8"))
    assert measured["seconds"] == pytest.approx(0.02 * (50 + 2))


def size(network: torch.nn.Module) -> int:
    return sum(np.prod(parameter.shape, dtype=int) for parameter in network.parameters())


def test_the_command_writes_what_it_shows(bench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = bench(
        *("estimate", "--plugin", TOY, "--generators", "estimated", "--preset", "quick"),
        *("--segmenters", "none", "--set", "labeller.config.channels=[4,8]"),
        *("--set", "data.grid=[32,32,32]", "--device", "cpu", "--json", tmp_path / "costs.json"),
    )
    assert ran.code == 0, ran.err
    assert "above" in ran.out
    content = json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    parts = [row["part"] for row in content["rows"]]
    assert parts == ["below", "above", "sampling", "segmenting"]  # the last is the labeller's
    assert {"fits", "volumes", "segmenters"} == set(content["run"]["hours"])
    assert content["run"]["disk_gb"] > 0
    assert "The whole run" in ran.out
    assert content["rows"][0]["seconds"] > 0
    assert "Extrapolated" in content["law"]
