"""Autoencoders patch by patch in training and tile by tile afterwards, on any grid they promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import GRID, IMAGE_KL, KL, LABELS, LDM_VQVAE, balls, make_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from generators.autoencoders import (
    ImageAutoencoderConfig,
    KLAutoencoder,
    KLConfig,
    check_autoencoder,
    fit_image_autoencoder,
    latent_grid,
)
from generators.data import images, patches_of_labels, psnr, random_patches
from generators.label_autoencoder import LabelAutoencoderConfig, fit_label_autoencoder
from generators.ldm import decode_images, image_encoder
from generators.tiling import TiledAutoencoder, TiledConfig
from generators.unet import Grid
from generators.vqvae import ImageVQVAE, VQVAEConfig, check_vqvae, fit_vqvae

CPU = torch.device("cpu")
VQ: dict[str, Any] = {**LDM_VQVAE["autoencoder"], "adversarial": {"weight": 0}}


class Local(TiledAutoencoder):
    """Each latent voxel from its own voxels alone, and back: tiles cannot change the result."""

    def latents(self, x: Tensor) -> Tensor:
        means = F.avg_pool3d(x, self.factor)
        return torch.cat([means, F.max_pool3d(x, self.factor) ** 2], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        return F.interpolate(z.sin(), scale_factor=float(self.factor), mode="nearest")


class LocalConfig(TiledConfig):
    side: int = 2

    @property
    def factor(self) -> int:
        return self.side


@settings(max_examples=25, deadline=None)
@given(
    factor=st.sampled_from([1, 2, 3, 4, 6]),
    cells=st.tuples(*[st.integers(1, 7)] * 3),
    tile=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_tiles_of_a_local_network_give_the_whole_volume(
    factor: int, cells: Grid, tile: Grid
) -> None:
    voxels = [side * factor for side in tile]
    whole = Local(LocalConfig(side=factor))
    tiled = Local(LocalConfig.model_validate({"side": factor, "tile": voxels}))
    x = torch.randn(2, 3, *(side * factor for side in cells))
    z = whole.encode_volume(x)
    assert z.shape == (2, 6, *cells)
    torch.testing.assert_close(tiled.encode_volume(x), z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tiled.decode_volume(z), whole.decode_volume(z), atol=1e-5, rtol=1e-4)


class Watch:
    """Sizes of what goes into `latents` and `decode` of a network."""

    def __init__(self, network: TiledAutoencoder) -> None:
        self.seen: dict[str, list[torch.Size]] = {"latents": [], "decode": []}
        for name, sizes in self.seen.items():
            setattr(network, name, self._watched(getattr(network, name), sizes))

    def _watched(
        self, call: Callable[[Tensor], Tensor], sizes: list[torch.Size]
    ) -> Callable[[Tensor], Tensor]:
        def watched(x: Tensor) -> Tensor:
            sizes.append(x.shape)
            return call(x)

        return watched


def built(kind: str, **changes: Any) -> TiledAutoencoder:
    torch.manual_seed(0)
    if kind == "vq":
        network: TiledAutoencoder = ImageVQVAE(VQVAEConfig.model_validate({**VQ, **changes}))
        network(torch.randn(1, 1, *GRID))  # the codebook begins as data
    else:
        config = ImageAutoencoderConfig.model_validate({**IMAGE_KL, **changes})
        network = KLAutoencoder(config, channels=1)
    return network.eval()


@pytest.mark.parametrize("kind", ["kl", "vq"])
@torch.no_grad()
def test_only_tiles_go_through_the_network(kind: str) -> None:
    network = built(kind, tile=[16, 8, 16])
    watch = Watch(network)
    x = torch.randn(1, 1, 32, 24, 48)
    z = network.encode_volume(x)
    assert z.shape == (1, 3, 8, 6, 12)
    assert network.decode_volume(z).shape == x.shape
    assert len(watch.seen["latents"]) > 1
    assert {s[2:].numel() for s in watch.seen["latents"]} == {16 * 8 * 16}
    assert {s[2:].numel() for s in watch.seen["decode"]} == {4 * 2 * 4}


@pytest.mark.parametrize("kind", ["kl", "vq"])
@torch.no_grad()
def test_a_tile_as_large_as_the_volume_is_the_volume(kind: str) -> None:
    network = built(kind, tile=[16, 32, 16])
    watch = Watch(network)
    x = torch.randn(1, 1, *GRID)
    z = network.latents(x)
    assert torch.equal(network.encode_volume(x), z)
    assert torch.equal(network.decode_volume(z), network.decode(z))
    assert len(watch.seen["latents"]) == 2


def test_a_trained_autoencoder_is_nearly_the_same_in_tiles(tmp_path: Path) -> None:
    grid = (32, 16, 24)
    volumes = balls(tmp_path / "set", 6, grid)
    training = {"steps": 40, "batch_size": 2, "learning_rate": 1e-2, "ema_decay": 0}
    config = ImageAutoencoderConfig.model_validate({**IMAGE_KL, "training": training})
    run = make_run(tmp_path / "run", volumes, {})
    state = fit_image_autoencoder(config, volumes, volumes, run)["autoencoder"]
    whole, tiled = (
        KLAutoencoder(config.model_copy(update={"tile": tile}), channels=1).eval()
        for tile in (None, (16, 16, 16))
    )
    whole.load_state_dict(state)
    tiled.load_state_dict(state)
    x = images(volumes, [0], CPU)
    with torch.no_grad():
        a, b = (n.decode_volume(n.encode_volume(x)) for n in (whole, tiled))
    assert not torch.equal(a, b)
    assert float(psnr(b, a)) > float(psnr(a, x)) > 15  # tiles change less than the code loses


def test_encoder_decoder_and_psnr_of_a_stage_work_in_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = balls(tmp_path / "set", 2)
    network = built("kl", tile=[8, 8, 16])
    watch = Watch(network)
    run = make_run(tmp_path, volumes, {})
    with torch.no_grad():
        z = image_encoder(network, run)(volumes, 1)  # type: ignore[arg-type]
    (image,) = decode_images(network, z, run)  # type: ignore[arg-type]
    assert image.shape == GRID
    assert {s[2:].numel() for s in watch.seen["latents"]} == {8 * 8 * 16}
    assert {s[2:].numel() for s in watch.seen["decode"]} == {2 * 2 * 4}

    sizes: list[torch.Size] = []
    encode = KLAutoencoder.encode
    monkeypatch.setattr(
        KLAutoencoder, "encode", lambda self, x: (sizes.append(x.shape), encode(self, x))[1]
    )
    config = {**IMAGE_KL, "tile": [8, 8, 8], "training_patch": [8, 16, 8]}
    fit_image_autoencoder(ImageAutoencoderConfig.model_validate(config), volumes, volumes, run)
    assert {tuple(s) for s in sizes} == {(2, 1, 8, 16, 8), (1, 1, 8, 8, 8)}


FITS: dict[str, tuple[Callable[..., Any], Any]] = {
    "image": (fit_image_autoencoder, ImageAutoencoderConfig.model_validate(IMAGE_KL)),
    "vq": (fit_vqvae, VQVAEConfig.model_validate(VQ)),
    "label": (fit_label_autoencoder, LabelAutoencoderConfig.model_validate(KL)),
}


@pytest.mark.parametrize("name", FITS)
def test_training_sees_patches_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, config = FITS[name]
    volumes = balls(tmp_path / "set", 3)
    sizes = []
    original = nn.Module.__call__

    def watched(self: nn.Module, *inputs: Any) -> Any:
        if isinstance(self, TiledAutoencoder):
            sizes.append(inputs[0].shape[2:])
        return original(self, *inputs)

    monkeypatch.setattr(nn.Module, "__call__", watched)
    patched = config.model_copy(update={"training_patch": (8, 12, 16)})
    fit(patched, volumes, volumes, make_run(tmp_path / "run", volumes, {}))
    assert set(sizes) == {torch.Size((8, 12, 16))}


def test_random_patches_are_boxes_of_their_case_from_anywhere() -> None:
    x = torch.arange(2 * 2 * 4 * 5 * 6).view(2, 2, 4, 5, 6)
    corners = set()
    for seed in range(200):
        torch.manual_seed(seed)
        found = random_patches(x, (2, 5, 3))
        assert found.shape == (2, 2, 2, 5, 3)
        for case, patch in zip(x, found, strict=True):
            d, h, w = (int(i) for i in np.argwhere(case[0].numpy() == int(patch[0, 0, 0, 0]))[0])
            assert torch.equal(patch, case[:, d : d + 2, h : h + 5, w : w + 3])
            corners.add((d, h, w))
    assert corners == {(d, 0, w) for d in range(3) for w in range(4)}
    torch.manual_seed(3)
    first = random_patches(x, (2, 2, 2))
    torch.manual_seed(3)
    assert torch.equal(random_patches(x, (2, 2, 2)), first)
    state = torch.random.get_rng_state()
    assert random_patches(x, None) is x
    assert torch.equal(torch.random.get_rng_state(), state)


def test_half_of_the_label_patches_hold_a_structure_each_as_often_as_the_others() -> None:
    label = np.zeros((2, 32, 32, 32), dtype=np.uint8)
    label[:, :4, :4, :4] = 1
    label[:, 31, 31, 31] = 4  # one voxel in a corner: a random patch holds it once in 15625
    torch.manual_seed(0)
    seen = np.array(
        [[(patch == v).any() for v in (1, 4)] for _ in range(400)
         for patch in patches_of_labels(label, (8, 8, 8))]
    )  # fmt: skip
    assert seen.mean(0) == pytest.approx([0.25, 0.25], abs=0.06)  # 800 draws: 4 deviations
    empty = np.zeros_like(label)
    assert patches_of_labels(empty, (8, 8, 8)).shape == (2, 8, 8, 8)
    assert patches_of_labels(label, None) is label


@pytest.mark.parametrize("field", ["training_patch", "tile"])
@pytest.mark.parametrize("sides", [(16, 6, 16), (16, 0, 16)])
def test_sides_that_are_no_multiples_of_the_factor_are_refused(field: str, sides: Grid) -> None:
    for config in (ImageAutoencoderConfig.model_validate(IMAGE_KL), KLConfig.model_validate(KL)):
        wrong = config.model_copy(update={field: sides})
        with pytest.raises(InputError, match=rf"autoencoder\.{field} is \({sides[0]}, .*factor 4"):
            check_autoencoder(wrong, GRID, "autoencoder")
    wrong_vq = VQVAEConfig.model_validate({**VQ, field: sides})
    with pytest.raises(InputError, match=rf"autoencoder\.{field}"):
        check_vqvae(wrong_vq, GRID, "autoencoder")


def test_patches_larger_than_the_grid_are_refused_and_larger_tiles_are_whole_volumes() -> None:
    config = KLConfig.model_validate({**KL, "training_patch": (16, 20, 16)})
    with pytest.raises(InputError, match=r"training_patch is \(16, 20, 16\), larger than the grid"):
        check_autoencoder(config, GRID, "label_autoencoder")
    check_autoencoder(KLConfig.model_validate({**KL, "tile": (64, 64, 64)}), GRID, "autoencoder")


def test_the_discriminator_must_fit_the_patch_it_sees() -> None:
    small = {"adversarial": {"weight": 0.1, "layers": 2}, "training_patch": (16, 8, 16)}
    for make, check in (
        (lambda c: ImageAutoencoderConfig.model_validate({**IMAGE_KL, **c}), check_autoencoder),
        (lambda c: VQVAEConfig.model_validate({**VQ, **c}), check_vqvae),
    ):
        with pytest.raises(InputError, match="at least 12, the grid is \\(16, 8, 16\\)"):
            check(make(small), GRID, "autoencoder")


sides = st.sampled_from([16, 32, 40, 48, 64])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["kl", "vq"]),
    block=st.sampled_from([2, 4]),
    levels=st.integers(1, 3),
    grid=st.just((32, 48, 64)) | st.just((40, 48, 64)) | st.tuples(sides, sides, sides),
)
def test_what_is_not_refused_works_on_any_grid(
    kind: str, block: int, levels: int, grid: Grid
) -> None:
    widths = {"space_to_depth": block, "channels": [4] * levels}
    config: Any
    if kind == "kl":
        config = ImageAutoencoderConfig.model_validate({**IMAGE_KL, **widths})
    else:
        config = VQVAEConfig.model_validate({**VQ, **widths})
    fits = all(side % config.factor == 0 for side in grid)
    assert fits or config.factor > 16 or any(side % 16 for side in grid)
    check: Any = check_autoencoder if kind == "kl" else check_vqvae
    if not fits:
        with pytest.raises(InputError, match=f"divisible by {config.factor}"):
            check(config, grid, "autoencoder")
        return
    if kind == "kl" and latent_grid(config.factor, grid) == (1, 1, 1):
        with pytest.raises(InputError, match=r"norm_groups is 4.*nothing to normalise"):
            check(config, grid, "autoencoder")
        return
    check(config, grid, "autoencoder")
    network = (KLAutoencoder(config, 1) if kind == "kl" else ImageVQVAE(config)).eval()
    x = torch.randn(1, 1, *grid)
    with torch.no_grad():
        z = network.encode_volume(x)
        assert z.shape[2:] == latent_grid(config.factor, grid)
        assert network.decode_volume(z).shape == x.shape


def test_40_voxels_do_not_go_through_four_halvings() -> None:
    config = KLConfig.model_validate({**KL, "space_to_depth": 8})
    check_autoencoder(config, (32, 48, 64), "autoencoder")
    with pytest.raises(InputError, match=r"divisible by 16.*\(40, 48, 64\)"):
        check_autoencoder(config, (40, 48, 64), "autoencoder")


@pytest.mark.parametrize("field", ["training_patch", "tile"])
def test_one_latent_voxel_needs_groups_of_several_channels(field: str) -> None:
    config = KLConfig.model_validate({**KL, "norm_groups": 8, field: (4, 4, 4)})
    with pytest.raises(InputError, match=r"norm_groups is 8.*\(4, 4, 4\) voxels become one latent"):
        check_autoencoder(config, GRID, "autoencoder")
    fewer = config.model_copy(update={"norm_groups": 4})
    check_autoencoder(fewer, GRID, "autoencoder")
    KLAutoencoder(fewer, channels=1)(torch.randn(1, 1, 4, 4, 4))


def test_label_maps_round_trip_in_tiles(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 2)
    run = make_run(tmp_path / "run", volumes, {})
    config = {**KL, "tile": [8, 16, 8], "training_patch": [8, 8, 8]}
    fit_label_autoencoder(LabelAutoencoderConfig.model_validate(config), volumes, volumes, run)
    assert {r["label"] for r in run.records if r["metric"] == "round_trip_dice"} == {
        "", *(name for value, name in LABELS.items() if value)
    }  # fmt: skip
