"""The diffusion processes against closed forms and MONAI's own steps."""

from __future__ import annotations

import itertools
import sys
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import DDPM, GRID, LDM_VAE, LDM_VQVAE
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, RFlowScheduler
from pydantic import ValidationError
from torch import Tensor

from bench.device import Device
from bench.errors import InputError
from bench.run import Run
from generators.ddpm import DDPM3D
from generators.diffusion import (
    GaussianDiffusion,
    Predict,
    Process,
    ProcessConfig,
    RectifiedFlow,
    TimestepConfig,
    make_process,
)
from generators.diffusion_fit import diffusion_loss
from generators.ldm import LDMVAE, LDMVQVAE
from generators.sampler import SPACINGS, SamplingConfig, check_sampling, chunks, denoise, step

PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow", "flow-sample")


def config(prediction: str, **fields: Any) -> ProcessConfig:
    return ProcessConfig.model_validate({"prediction": prediction, **fields})


def make_run(tmp_path: Any) -> Run:
    return Run(3, tmp_path, GRID, {}, Device(accelerator="cpu", precision="32-true"))


def perfect(process: Process, prediction: str, std: float) -> Predict:
    """The best possible network for data N(0, std²): E[target | x_t], a multiple of x_t.

    For x = a x0 + b n, E[x0 | x] = a std² x / (a² std² + b²) and E[n | x] = b x / (a² std² + b²).
    """

    def predict(x: Tensor, t: Tensor) -> Tensor:
        if isinstance(process, GaussianDiffusion):
            a = process.signal[int(t[0])] ** 0.5
            b = (1 - a * a) ** 0.5
        else:
            b = float(t[0]) / process.timesteps
            a = 1 - b
        total = a * a * std**2 + b * b
        x0, n = a * std**2 / total * x, b / total * x
        velocity = a * n - b * x0
        outputs = {"epsilon": n, "sample": x0, "v_prediction": velocity}
        outputs |= {"flow": x0 - n, "flow-sample": x0}
        return outputs[prediction]

    return predict


@pytest.mark.parametrize(
    ("prediction", "steps", "eta", "std", "tolerance"),
    [
        ("epsilon", 50, 0.0, 1.0, 0.05),
        ("v_prediction", 50, 0.0, 1.0, 0.05),
        ("sample", 50, 0.0, 1.0, 0.05),
        ("epsilon", 1000, 1.0, 1.0, 0.05),
        ("flow", 50, 0.0, 1.0, 0.05),
        ("flow-sample", 50, 0.0, 1.0, 0.05),
        # Narrow data: the few steps of DDIM take more of the spread than all of DDPM or a flow.
        ("epsilon", 50, 0.0, 0.2, 0.22),
        ("epsilon", 1000, 1.0, 0.2, 0.07),
        ("flow", 50, 0.0, 0.2, 0.07),
        ("flow-sample", 50, 0.0, 0.2, 0.07),
    ],
)
def test_perfect_denoiser_keeps_the_spread_of_the_data(
    prediction: str, steps: int, eta: float, std: float, tolerance: float, tmp_path: Any
) -> None:
    process = make_process(config(prediction))
    x = denoise(
        process,
        perfect(process, prediction, std),
        [0],
        (1, 16, 16, 16),
        SamplingConfig(steps=steps, eta=eta),
        make_run(tmp_path),
    )
    # 4096 values know their spread to 1.1 %.
    assert float(x.std()) == pytest.approx(std, rel=tolerance)


def moved(
    process: Any, output: Tensor, x: Tensor, t: int, to: int, eta: float = 0.0, fresh: Any = None
) -> Tensor:
    """One step of sampling."""
    x0 = process.clean(output, x, t)
    return step(x0, x, process.shares(t), process.shares(to), eta, fresh)


def test_clipping_is_off_for_latents_and_would_shrink_them(tmp_path: Any) -> None:
    spreads = []
    for clip in (None, (-1.0, 1.0)):
        process = make_process(ProcessConfig(), clip)
        sampling = SamplingConfig(steps=50)
        x = denoise(
            process,
            perfect(process, "epsilon", 1.0),
            [0],
            (1, 16, 16, 16),
            sampling,
            make_run(tmp_path),
        )
        spreads.append(float(x.std()))
    process = make_process(ProcessConfig())
    assert isinstance(process, GaussianDiffusion)
    assert process.clip is None
    assert not process.scheduler.clip_sample
    assert spreads[0] >= 0.95
    assert spreads[1] < 0.8  # what MONAI's default does to unit-variance data


@pytest.mark.parametrize(
    ("model", "config", "stage", "bounds"),
    [
        (DDPM3D, DDPM, "pixel-ddpm", (-1.0, 1.0)),
        (LDMVAE, LDM_VAE, "image-ldm", None),
        (LDMVQVAE, LDM_VQVAE, "vq-ldm", None),
    ],
)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_pixels_are_clipped_and_latents_are_not(
    model: Any,
    config: Any,
    stage: str,
    bounds: Any,
    prediction: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    part = "diffusion" if model is DDPM3D else "ldm"
    changed = {**config[part], "process": {"prediction": prediction}}
    generator = model(model.Config.model_validate({**config, part: changed}))
    seen: list[Any] = []

    class Seen(Exception):
        """The process is known; no volume is needed."""

    def spy(process: Any, *rest: Any) -> Tensor:
        seen.append(process.clip)
        raise Seen

    monkeypatch.setattr(sys.modules[model.__module__], "denoise", spy)
    for name in ("loaded", "image_autoencoder", "image_vqvae"):
        if hasattr(sys.modules[model.__module__], name):
            monkeypatch.setattr(sys.modules[model.__module__], name, lambda *_: None)
    run = make_run(tmp_path)
    monkeypatch.setattr(run, "state", lambda _: {"unet": {}, "scale": 1.0})
    with pytest.raises(Seen):
        next(generator.sample([0], run))
    assert seen == [bounds]


class Noisy:
    """A run whose noise are the numbers of one direction of space."""

    device = torch.device("cpu")

    def noise(self, index: int, shape: tuple[int, ...], stream: int = 0) -> Tensor:
        return torch.ones(shape)

    def autocast(self) -> Any:
        return nullcontext()


def kept(prediction: str, std: float, **sampling: Any) -> float:
    """The share of the spread `std` that sampling with a perfect denoiser keeps.

    The denoiser is linear, so what becomes of one number tells what becomes of all.
    """
    process = make_process(config(prediction))
    settings = SamplingConfig.model_validate(sampling)
    run: Any = Noisy()
    x = denoise(process, perfect(process, prediction, std), [0], (1, 1, 1, 1), settings, run)
    return abs(float(x)) / std


@pytest.mark.parametrize(
    ("prediction", "std"),
    [
        *itertools.product(["flow", "flow-sample"], [0.05, 0.2, 1.0, 5.0, 30.0]),
        # Its first and last timesteps have a little signal and a little noise.
        *itertools.product(["v_prediction"], [0.2, 1.0]),
    ],
)
def test_second_order_and_cosine_spacing_keep_spread_in_few_steps(
    prediction: str, std: float
) -> None:
    """Spreads are those of components of data: grain has little, the layout of a volume much."""
    better = kept(prediction, std, steps=30, solver="dpm++2m", spacing="cosine")
    assert better == pytest.approx(1, abs=0.1)
    if prediction != "v_prediction" and std in (0.05, 30.0):
        assert kept(prediction, std, steps=30) < 0.8


@pytest.mark.parametrize("prediction", ["flow", "v_prediction"])
@pytest.mark.parametrize("spacing", ["uniform", "cosine"])
def test_the_solver_named_second_order_is(prediction: str, spacing: str) -> None:
    """Twice the steps: the error of DDIM halves, that of DPM-Solver++(2M) becomes a quarter."""
    limit = kept(prediction, 3.0, steps=1000, spacing="uniform", solver="dpm++2m")
    for solver, order in (("ddim", 1), ("dpm++2m", 2)):
        errors = [
            abs(kept(prediction, 3.0, steps=n, spacing=spacing, solver=solver) - limit)
            for n in (20, 40)
        ]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5), solver


def test_second_order_adds_no_noise() -> None:
    with pytest.raises(ValidationError, match=r"dpm\+\+2m adds no noise, eta is 0.5"):
        SamplingConfig(solver="dpm++2m", eta=0.5)


@pytest.mark.parametrize("prediction", ["flow", "epsilon"])
def test_fresh_noise_keeps_the_spread_too(prediction: str, tmp_path: Any) -> None:
    process = make_process(config(prediction))
    sampling = SamplingConfig(steps=200, eta=1.0)
    predict = perfect(process, prediction, 0.5)
    x = denoise(process, predict, [0], (1, 16, 16, 16), sampling, make_run(tmp_path))
    assert float(x.std()) == pytest.approx(0.5, rel=0.1)


def test_strided_ancestral_steps_keep_narrow_data_narrow(tmp_path: Any) -> None:
    """50 of 1000 steps with fresh noise; MONAI's DDPM step cannot be strided."""
    process = make_process(config("epsilon", schedule="cosine"))
    predict = perfect(process, "epsilon", 0.2)
    shape, run = (1, 16, 16, 16), make_run(tmp_path)
    x = denoise(process, predict, [0], shape, SamplingConfig(steps=50, eta=1.0), run)
    assert float(x.std()) == pytest.approx(0.2, rel=0.16)

    monai = DDPMScheduler(1000, "cosine", clip_sample=False)
    monai.set_timesteps(50)
    y = run.noise(0, (1, *shape))
    for t in monai.timesteps:
        y, _ = monai.step(predict(y, torch.full((1,), int(t))), t, y)
    assert float(y.std()) > 0.4  # what strides do to it


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_full_chain_step_is_monais_ddpm_step(prediction: str, clip: bool, t: int) -> None:
    process = GaussianDiffusion(
        ProcessConfig.model_validate({"prediction": prediction}), (-1, 1) if clip else None
    )
    monai = DDPMScheduler(
        1000,
        "scaled_linear_beta",
        prediction_type=prediction,
        clip_sample=clip,
        beta_start=0.0015,
        beta_end=0.0195,
    )
    x, output = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 2, 4, 4, 4)
    torch.manual_seed(0)
    expected, _ = monai.step(output, t, x)
    torch.manual_seed(0)
    noise = torch.randn(x.shape)
    torch.testing.assert_close(
        moved(process, output, x, t, t - 1, 1.0, noise), expected, atol=1e-4, rtol=1e-4
    )


def test_ddim_step_is_monais_where_its_spacing_holds() -> None:
    process = GaussianDiffusion(ProcessConfig())
    monai = DDIMScheduler(
        1000, "scaled_linear_beta", clip_sample=False, beta_start=0.0015, beta_end=0.0195
    )
    monai.set_timesteps(50)
    x, output = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 2, 4, 4, 4)
    for t in (999, 519, 19):
        expected, _ = monai.step(output, t, x)
        torch.testing.assert_close(
            moved(process, output, x, t, t - 20), expected, atol=1e-5, rtol=1e-5
        )


def test_flow_step_is_monais_and_the_same_from_velocity_and_from_clean_volume() -> None:
    monai = RFlowScheduler(num_train_timesteps=1000)
    monai.set_timesteps(20)  # which its step insists on
    x, x0 = torch.randn(2, 2, 4, 4, 4), torch.randn(2, 2, 4, 4, 4)
    processes = [RectifiedFlow(config("flow")), RectifiedFlow(config("flow-sample"))]
    for now, after in ((1000, 950), (420, 35), (10, 0)):
        velocity = (x0 - x) * 1000 / now
        expected, _ = monai.step(velocity, now, x, after)
        for process, output in zip(processes, (velocity, x0), strict=True):
            torch.testing.assert_close(
                moved(process, output, x, now, after), expected, atol=1e-5, rtol=1e-5
            )


def test_clipping_bounds_the_clean_volume_of_every_process() -> None:
    x, output = 3 * torch.randn(1, 1, 4, 4, 4), 3 * torch.randn(1, 1, 4, 4, 4)
    for prediction in PREDICTIONS:
        process = make_process(config(prediction), clip=(-1.0, 1.0))
        last = process.times(10, SPACINGS["uniform"])[-2:]
        bounded = moved(process, output, x, *last)
        assert float(bounded.abs().max()) <= 1, prediction
        free = moved(make_process(config(prediction)), output, x, *last)
        assert float(free.abs().max()) > 1, prediction


# Losses


def loss_by_hand(prediction: str, weight: str, t: Tensor, wrong: Tensor) -> Tensor:
    """The squared error of x0 that a network wrong by `wrong` in its output makes, weighted."""
    signal = GaussianDiffusion(ProcessConfig()).scheduler.alphas_cumprod[t].view(-1, 1, 1, 1, 1)
    share = (t / 1000).view(-1, 1, 1, 1, 1)
    if prediction == "flow-sample":  # the error of the velocity (x0 - x_t) / s
        return ((wrong / share.clamp(min=0.05)) ** 2).mean()
    if weight == "none":
        return (wrong**2).mean()
    of_x0 = {"sample": 1.0, "epsilon": ((1 - signal) / signal).sqrt()}
    of_x0["v_prediction"] = (1 - signal).sqrt()
    snr = signal / (1 - signal)
    return (torch.minimum(snr, torch.tensor(5.0)) * (of_x0[prediction] * wrong) ** 2).mean()


@pytest.mark.parametrize(
    ("prediction", "weight"),
    [
        *((p, w) for p in ("epsilon", "v_prediction", "sample") for w in ("none", "min-snr")),
        ("flow", "none"),
        ("flow-sample", "none"),
    ],
)
def test_loss_weights_are_of_the_error_of_the_clean_volume(prediction: str, weight: str) -> None:
    process = make_process(config(prediction, loss_weight=weight))
    x0 = torch.randn(6, 1, 2, 2, 2)
    t, wrong = torch.tensor([0, 10, 49, 50, 500, 999]), torch.randn(6, 1, 2, 2, 2)

    class Fixed(TimestepConfig):
        def draw(self, n: int, timesteps: int, device: torch.device) -> Tensor:
            return t

    def predict(x: Tensor, seen: Tensor) -> Tensor:
        torch.manual_seed(0)
        return process.target(x0, torch.randn_like(x0), seen) + wrong

    torch.manual_seed(0)
    found = diffusion_loss(process, predict, x0, Fixed())
    torch.testing.assert_close(found, loss_by_hand(prediction, weight, t, wrong))
    torch.manual_seed(0)
    distance = diffusion_loss(process, predict, x0, Fixed(), "l1")
    if weight == "none" and prediction != "flow-sample":
        torch.testing.assert_close(distance, wrong.abs().mean())


def test_min_snr_belongs_to_gaussian_diffusion() -> None:
    with pytest.raises(ValidationError, match="min-snr is of Gaussian diffusion"):
        config("flow", loss_weight="min-snr")


@pytest.mark.parametrize("spacing", ["uniform", "cosine"])
@pytest.mark.parametrize("steps", [1, 7, 50, 250, 1000])
def test_times_fall_from_noise_to_data_in_the_asked_steps(steps: int, spacing: str) -> None:
    gaussian = GaussianDiffusion(ProcessConfig()).times(steps, SPACINGS[spacing])
    flow = RectifiedFlow(ProcessConfig(prediction="flow")).times(steps, SPACINGS[spacing])
    for times, first, last in ((gaussian, 999, -1), (flow, 1000, 0)):
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (first, last)
        assert all(a > b for a, b in pairwise(times))


def test_times_of_a_flow_are_monais() -> None:
    monai = RFlowScheduler(num_train_timesteps=1000)
    monai.set_timesteps(30)
    times = RectifiedFlow(ProcessConfig(prediction="flow")).times(30, SPACINGS["uniform"])
    assert times == [*monai.timesteps.tolist(), 0]


def test_cosine_times_are_dense_at_both_ends() -> None:
    times = RectifiedFlow(ProcessConfig(prediction="flow")).times(30, SPACINGS["cosine"])
    moves = [a - b for a, b in pairwise(times)]
    assert max(moves[0], moves[-1]) < 5 < 45 < moves[15]


def test_target_undoes_the_noise() -> None:
    x0, noise, t = (
        torch.randn(4, 1, 2, 2, 2),
        torch.randn(4, 1, 2, 2, 2),
        torch.tensor([0, 9, 500, 999]),
    )
    flow = RectifiedFlow(ProcessConfig(prediction="flow"))
    share = (t / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(flow.noisy(x0, noise, t) + share * flow.target(x0, noise, t), x0)
    gaussian = GaussianDiffusion(ProcessConfig(prediction="v_prediction"))
    a = gaussian.scheduler.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1, 1)
    x = gaussian.noisy(x0, noise, t)
    v = gaussian.target(x0, noise, t)
    torch.testing.assert_close(a * x - (1 - a * a).sqrt() * v, x0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_volume_depends_on_its_index_alone(eta: float, tmp_path: Any) -> None:
    process = make_process(ProcessConfig())
    torch.manual_seed(0)
    network = torch.nn.Conv3d(2, 2, 3, padding=1).double()  # whose rounding no batch size shows
    sampling = SamplingConfig(steps=5, eta=eta)

    def volumes(indices: list[int]) -> Tensor:
        predict = lambda x, t: network(x.double()).float()  # noqa: E731
        return denoise(process, predict, indices, (2, 4, 4, 4), sampling, make_run(tmp_path))

    together = volumes([0, 1, 2, 7])
    torch.testing.assert_close(volumes([7])[0], together[3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(volumes([2, 1])[0], together[2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_streams_differ_even_with_ancestral_noise(tmp_path: Any) -> None:
    process = make_process(ProcessConfig())
    draws = [
        denoise(
            process,
            lambda x, t: x,
            [0],
            (1, 4, 4, 4),
            SamplingConfig(steps=2, eta=1),
            make_run(tmp_path),
            s,
        )
        for s in (0, 1)
    ]
    assert not torch.allclose(draws[0], draws[1], atol=1e-2)


def test_logit_normal_timesteps_lean_towards_noise() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    t = TimestepConfig(distribution="logit-normal", loc=1.0).draw(20_000, 1000, cpu)
    assert t.dtype == torch.long
    assert int(t.min()) >= 0
    assert int(t.max()) <= 999
    # The median of a logit-normal is the sigmoid of its location.
    assert float(t.float().median()) == pytest.approx(1000 / (1 + torch.e**-1), rel=0.02)
    uniform = TimestepConfig().draw(20_000, 1000, cpu)
    assert float(uniform.float().mean()) == pytest.approx(499.5, rel=0.02)


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(InputError, match=r"sampling\.steps is 21"):
        check_sampling(SamplingConfig(steps=21), ProcessConfig(timesteps=20))


def test_chunks_cover_in_order() -> None:
    assert chunks([5, 3, 9, 1, 0], 2) == [[5, 3], [9, 1], [0]]
