"""3D-LLDM: what guides the ControlNet, what counts in its loss, and which label draws are kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from generator_cases import DIFFUSION, GRID, LABELS, LLDM, balls, draw, fit_stages, make_run
from monai.networks.nets import ControlNet
from torch import Tensor
from torch.nn import functional as F

from bench.errors import InputError
from bench.run import Run
from bench.volumes import VolumeSet, VolumeSetWriter
from generators.condition import Condition, latent_weights, structure_weights, voxel_weighting
from generators.control import ControlNetConfig, build_controlnet, guided
from generators.data import one_hot
from generators.diffusion import ProcessConfig, TimestepConfig, make_process
from generators.diffusion_fit import DiffusionConfig, diffusion_loss
from generators.label_cleaning import judge
from generators.lldm import LLDM3D, LLDM3DConfig
from generators.sampler import SamplingConfig, denoise
from generators.unet import build_unet

CPU = torch.device("cpu")
IDS = (0, 1, 4)
LATENT = {"condition": "latent", "embedding_channels": [4]}
Labels = np.ndarray[Any, np.dtype[np.uint8]]


def make(controlnet: dict[str, Any] | None = None, **changes: Any) -> LLDM3D:
    control = {**LLDM["controlnet"], **(controlnet or {})}
    return LLDM3D(LLDM3DConfig.model_validate({**LLDM, "controlnet": control, **changes}))


class Fitted(NamedTuple):
    """A fitted model, its cases, and the conditions that the ControlNet was given in training."""

    generator: LLDM3D
    volumes: VolumeSet
    states: dict[str, Path]
    folder: Path
    seen: list[Tensor]

    def run(self) -> Run:
        return make_run(self.folder / "sample", self.volumes, self.states)


def spied(act: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
    """What `act` returns, and every condition that a ControlNet was given meanwhile."""
    seen: list[Tensor] = []
    forward = ControlNet.forward

    def spy(self: ControlNet, x: Tensor, t: Tensor, condition: Tensor) -> Any:
        seen.append(condition.detach().clone())
        return forward(self, x, t, condition)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ControlNet, "forward", spy)
        return act(), seen


@pytest.fixture(scope="module", params=["full-resolution", "latent"])
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp(request.param)
    generator = make(LATENT if request.param == "latent" else None)
    generator.check(GRID, LABELS)
    volumes = balls(folder / "set", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # which a preview that fails would be
        states, seen = spied(lambda: fit_stages(generator, volumes, volumes, folder))
    return Fitted(generator, volumes, states, folder, seen)


def test_labels_guide_as_configured(fitted: Fitted) -> None:
    def channels(condition: Tensor) -> tuple[int, ...]:
        return tuple(condition.shape[1:])

    latent = fitted.generator.config.controlnet.condition == "latent"
    expected = (3, 4, 4, 4) if latent else (len(IDS), *GRID)
    samples, seen = spied(lambda: draw(fitted.generator, [0, 1], fitted.run()))
    assert {channels(c) for c in (*fitted.seen, *seen)} == {expected}
    for stage in ("label-ldm", "controlnet"):
        assert (fitted.folder / stage / "previews" / "fit-000002.png").is_file()
    # Labels of one's own guide as those drawn do.
    own = [sample.label for sample in samples]
    again = list(fitted.generator.sample_images(own, [0, 1], fitted.run()))
    for a, b in zip(samples, again, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=1e-6)
    if not latent:
        drawn = torch.stack([c[0] for c in seen])
        np.testing.assert_array_equal(
            drawn, one_hot(np.stack([own[0]] * len(seen)), IDS, CPU).numpy()
        )


def test_latent_condition_has_unit_spread_over_the_training_cases(fitted: Fitted) -> None:
    """As the noisy latents beside it: the scale is found in the fit and kept in its state."""
    state = torch.load(fitted.states["controlnet"], weights_only=True)
    if fitted.generator.config.controlnet.condition == "full-resolution":
        assert state["condition_scale"] == 1
        return
    network = torch.load(fitted.states["label-autoencoder"], weights_only=True)["autoencoder"]
    from generators.autoencoders import KLAutoencoder

    autoencoder = KLAutoencoder(fitted.generator.config.label_autoencoder, channels=len(IDS))
    autoencoder.load_state_dict(network)
    condition = Condition(IDS, CPU, autoencoder.eval(), state["condition_scale"])
    labels = fitted.volumes.labels()
    assert float(condition(labels).std(correction=0)) == pytest.approx(1, rel=1e-3)


def test_what_a_stage_needs_follows_from_the_condition() -> None:
    def stages(controlnet: dict[str, Any] | None = None) -> dict[str, Any]:
        return {s.name: (s.config.model_dump(), s.needs) for s in make(controlnet).stages()}

    full, latent = stages(), stages(LATENT)
    assert "label-autoencoder" not in full["controlnet"][1]
    assert "label-autoencoder" in latent["controlnet"][1]
    weighed = stages({"structure_weight": {"tumour": 50}})
    for other in (latent, weighed):  # a changed ControlNet trains nothing below it again
        assert [name for name in full if full[name] != other[name]] == ["controlnet"]


@pytest.mark.parametrize("condition", ["full-resolution", "latent"])
def test_a_new_controlnet_changes_nothing_at_all(condition: str) -> None:
    ldm = DiffusionConfig.model_validate(DIFFUSION)
    values = {**LLDM["controlnet"], **(LATENT if condition == "latent" else {})}
    torch.manual_seed(0)
    unet = build_unet(ldm.unet, 3).eval()
    torch.nn.init.normal_(unet.out[2].conv.weight)  # a trained network's output is not 0
    controlnet = build_controlnet(ControlNetConfig.model_validate(values), ldm, unet, 3).eval()
    side = 4 if condition == "latent" else 16
    x, t, shown = (
        torch.randn(2, 3, 4, 4, 4),
        torch.tensor([3, 900]),
        torch.randn(2, 3, *(side,) * 3),
    )
    with torch.no_grad():
        alone = unet(x, t)
        assert float(alone.abs().max()) > 0
        assert torch.equal(guided(unet, controlnet, shown)(x, t), alone)
        torch.nn.init.ones_(controlnet.controlnet_mid_block.conv.weight)
        assert not torch.equal(guided(unet, controlnet, shown)(x, t), alone)


def test_a_thin_vessel_is_in_the_condition_and_would_be_lost_at_latent_size() -> None:
    tube = np.zeros((1, *GRID), dtype=np.uint8)
    tube[0, 5, 6, :] = 4  # one voxel thick
    condition = Condition(IDS, CPU)(tube)
    assert condition.shape == (1, 3, *GRID)
    np.testing.assert_array_equal(condition[:, 2].numpy() == 1, tube == 4)
    shrunk = F.interpolate(condition, scale_factor=1 / 4, mode="nearest")
    assert float(shrunk[:, 2].sum()) == 0  # what an inferer of MONAI would give instead
    # Nor does the loss forget it where it weighs structures.
    weights = latent_weights(condition, torch.tensor([1.0, 1.0, 9.0]), 4)
    assert weights[0, 0, 1, 1].tolist() == [9] * 4
    assert float(weights.sum()) == 60 + 4 * 9


def test_embeddings_that_do_not_reach_the_latents_are_refused() -> None:
    make(LATENT).check(GRID, LABELS)
    with pytest.raises(InputError, match="has 2 widths and shrinks the label map 2 times, the"):
        make({"embedding_channels": [4, 4]}).check(GRID, LABELS)
    with pytest.raises(InputError, match="shrinks the label map 16 times, the label autoencoder's"):
        make({**LATENT, "embedding_channels": [4, 4, 4]}).check(GRID, LABELS)
    coarse = {**LLDM["label_autoencoder"], "channels": [8, 8, 8]}
    with pytest.raises(InputError, match="latent, but the label autoencoder shrinks 8 times"):
        make(LATENT, label_autoencoder=coarse).check(GRID, LABELS)
    fine = {**LLDM["label_autoencoder"], "space_to_depth": 1}  # half as coarse: one halving left
    make({**LATENT, "embedding_channels": [4, 4]}, label_autoencoder=fine).check(GRID, LABELS)


def test_unknown_structures_are_refused() -> None:
    with pytest.raises(InputError, match=r"structure_weight names the label 'tumor', .*tumour"):
        make({"structure_weight": {"tumor": 9}}).check(GRID, LABELS)
    with pytest.raises(InputError, match=r"cleaning\.required is 'vein'"):
        make(cleaning={"required": ["vein"]}).check(GRID, LABELS)


def test_a_label_that_no_training_case_has_is_refused_by_the_controlnet(fitted: Fitted) -> None:
    with VolumeSetWriter(fitted.folder / "lacking", GRID, LABELS) as writer:
        for i in range(2):
            label = np.minimum(fitted.volumes.label(i), 1)
            writer.append(f"case-{i}", fitted.volumes.image(i), label)
    lacking = VolumeSet.open(fitted.folder / "lacking")
    stage = next(s for s in fitted.generator.stages() if s.name == "controlnet")
    with pytest.raises(InputError, match="'tumour'"):
        stage.fit(lacking, lacking, fitted.run())


def test_weights_by_frequency_and_by_name() -> None:
    counts = np.array([8000, 500, 5])
    assert structure_weights(counts, LABELS, 0.5, 100, {}).tolist() == [1, 4, 40]
    assert structure_weights(counts, LABELS, 1, 100, {}).tolist() == [1, 16, 100]
    given = structure_weights(counts, LABELS, 0, 100, {"tumour": 250, "background": 0.5})
    assert given.tolist() == [0.5, 1, 250]


def test_weights_have_mean_one_over_the_training_cases(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 3)
    weights = torch.tensor([1.0, 3.0, 20.0])
    weigh = voxel_weighting(volumes, weights, 4, CPU)
    maps = torch.cat([weigh(volumes.labels([i])) for i in range(3)])
    assert maps.shape == (3, 1, 4, 4, 4)
    assert float(maps.mean()) == pytest.approx(1)
    # By hand: a block's weight is that of the heaviest label in it.
    blocks = volumes.labels().reshape(3, 4, 4, 4, 4, 4, 4).transpose(0, 1, 3, 5, 2, 4, 6)
    heaviest = blocks.reshape(3, 4, 4, 4, 64).max(-1)  # ids rise with the weights here
    by_hand = np.select([heaviest == 4, heaviest == 1], [20, 3], 1)
    np.testing.assert_allclose(maps[:, 0], by_hand / by_hand.mean(), rtol=1e-6)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_weighted_loss_is_the_weighted_mean(loss: Any) -> None:
    process = make_process(ProcessConfig(prediction="flow"))
    x0, weight = torch.randn(2, 3, 4, 4, 4), torch.rand(2, 1, 4, 4, 4)

    def value(weight: Tensor | None) -> float:
        torch.manual_seed(0)
        zero = lambda x, t: torch.zeros_like(x)  # noqa: E731
        return float(diffusion_loss(process, zero, x0, TimestepConfig(), loss, weight))

    torch.manual_seed(0)
    error = x0 - torch.randn_like(x0)  # the velocity, of which 0 is predicted
    power = error.abs() if loss == "l1" else error**2
    assert value(weight) == pytest.approx(float((power * weight).mean()), rel=1e-5)
    assert value(torch.ones_like(weight)) == pytest.approx(value(None), rel=1e-6)


def test_equal_weights_train_as_none_and_others_do_not(fitted: Fitted) -> None:
    needs = {k: fitted.states[k] for k in ("image-autoencoder", "image-ldm", "label-autoencoder")}

    def trained(name: str, weight: dict[str, float]) -> dict[str, Tensor]:
        own = fitted.generator.config.controlnet.model_dump(mode="json")
        generator = make({**own, "structure_weight": weight})
        stage = next(s for s in generator.stages() if s.name == "controlnet")
        run = make_run(fitted.folder / name, fitted.volumes, needs)
        state: dict[str, Tensor] = stage.fit(fitted.volumes, fitted.volumes, run)["controlnet"]
        return state

    plain = torch.load(fitted.states["controlnet"], weights_only=True)["controlnet"]
    equal = trained("equal", dict.fromkeys(LABELS.values(), 7.0))
    for key, value in plain.items():
        torch.testing.assert_close(equal[key], value, atol=1e-5, rtol=1e-3)
    heavy = trained("heavy", {"tumour": 100.0})
    assert any(not torch.allclose(heavy[k], plain[k], atol=1e-4) for k in plain)


def test_draws_again_take_noise_that_nothing_else_takes(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    class Watched(Run):
        def noise(self, index: int, shape: tuple[int, ...], stream: int = 0) -> Tensor:
            asked.append((index, stream))
            return torch.zeros(shape)

    run = Watched(
        0, tmp_path, GRID, LABELS, make_run(tmp_path, balls(tmp_path / "s", 1), {}).device_setting
    )
    process = make_process(ProcessConfig(timesteps=6))
    for attempt in range(3):
        for stream in (0, 1):
            sampling = SamplingConfig(steps=6, eta=1)
            denoise(process, lambda x, t: x, [0, 3], (1, 2, 2, 2), sampling, run, stream, attempt)
    assert len(asked) == len(set(asked)) == 3 * 2 * 2 * (1 + 6)
    assert (3, 0) in asked
    assert (3, 1) in asked  # the first attempt's, as if there were no others


ORGAN = np.zeros(GRID, dtype=np.uint8)
ORGAN[4:12, 4:12, 4:12] = 1
ORGAN[6:8, 6:8, 6:8] = 4
LACKING = np.where(ORGAN == 4, 1, ORGAN).astype(np.uint8)
EMPTY = np.zeros(GRID, dtype=np.uint8)


def drawn_from(
    plan: dict[int, list[Labels]], generator: LLDM3D, patch: pytest.MonkeyPatch
) -> list[tuple[list[int], int]]:
    """Have the label LDM draw what `plan` says for each volume and attempt; the calls to come."""
    calls: list[tuple[list[int], int]] = []

    def draw_maps(rows: list[int], attempt: int) -> list[Labels]:
        calls.append((list(rows), attempt))
        return [plan[i][min(attempt, len(plan[i]) - 1)] for i in rows]

    patch.setattr(generator, "_label_sampler", lambda run: draw_maps)
    return calls


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_rejected_map_is_drawn_again_whatever_the_batch(
    batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = balls(tmp_path / "set", 1)
    generator = make(
        cleaning={"organ": "organ", "required": ["tumour"], "min_voxels": 2, "max_draws": 4},
        label_sampling={"steps": 3, "batch_size": batch_size},
    )
    plan = {
        0: [ORGAN],
        1: [EMPTY, LACKING, ORGAN],
        5: [EMPTY, LACKING, EMPTY],  # never good: the map that breaks fewest rules is kept
    }
    drawn_from(plan, generator, monkeypatch)
    run = make_run(tmp_path / "run", volumes, {})
    maps = list(generator.sample_labels([0, 1, 5], run))
    for label, expected in zip(maps, (ORGAN, ORGAN, LACKING), strict=True):
        np.testing.assert_array_equal(label, expected)
    found = {record["metric"]: record["value"] for record in run.records}
    assert found["share_rejected"] == (0 + 2 + 4) / (1 + 3 + 4)
    assert found["share_kept_though_rejected"] == 1 / 3


def test_fitted_models_redraw_the_volume_itself(fitted: Fitted) -> None:
    """After two steps of training maps are noise: all draws are used, and the best one is kept."""
    few = fitted.generator.config.model_dump(mode="json")
    few["cleaning"] = {"organ": "organ", "min_voxels": 2, "max_draws": 3, "max_changed": 0}
    generator = LLDM3D(LLDM3DConfig.model_validate(few))
    run = fitted.run()
    draws = [generator._label_sampler(run)([2], attempt)[0] for attempt in range(3)]
    assert not np.array_equal(draws[0], draws[1])
    judged: Sequence[Any] = [judge(d, LABELS, generator.config.cleaning) for d in draws]
    best = next((c for c in judged if not c.faults), min(judged, key=lambda c: c.badness))
    together = list(generator.sample_labels([0, 2], run))
    np.testing.assert_array_equal(together[1], best.label)
