"""The linear code of patches that an autoencoder is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generator_cases import balls
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from bench.volumes import VolumeSet, VolumeSetWriter
from generators import patch_pca
from generators.data import psnr
from generators.patch_pca import fit_patch_pca


def noisy(folder: Path, n: int, grid: tuple[int, int, int], rank: int = 64) -> VolumeSet:
    """Random volumes whose 4³ patches have at most `rank` degrees of freedom about their mean."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(rank, 64))
    with VolumeSetWriter(folder, grid, {}) as writer:
        for i in range(n):
            d, h, w = (side // 4 for side in grid)
            patches = rng.normal(size=(d, h, w, rank)) @ axes
            x = patches.reshape(d, h, w, 4, 4, 4).transpose(0, 3, 1, 4, 2, 5).reshape(grid)
            writer.append(f"case-{i}", np.clip(0.5 + 0.01 * x, 0, 1))
    return VolumeSet.open(folder)


def patches_of(volumes: VolumeSet, side: int) -> NDArray[np.float64]:
    """All patches of all volumes, cut by numpy: (patches, side³)."""
    cut = []
    for i in range(len(volumes)):
        x = volumes.image(i).astype(np.float64)
        d, h, w = (s // side for s in x.shape)
        blocks = x.reshape(d, side, h, side, w, side).transpose(0, 2, 4, 1, 3, 5)
        cut.append(blocks.reshape(-1, side**3))
    return np.concatenate(cut)


@pytest.mark.parametrize("components", [1, 4, 20])
def test_equals_the_singular_value_decomposition_and_scikit_learn(
    components: int, tmp_path: Path
) -> None:
    volumes = noisy(tmp_path, 3, (16, 8, 12))
    found = fit_patch_pca(volumes, 4, components, seed=0).psnr(volumes, [0, 2])

    patches = patches_of(volumes, 4)
    centred = patches - patches.mean(0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    lost = centred - (u[:, :components] * s[:components]) @ vt[:components]
    each = (lost**2).reshape(3, -1).mean(1)
    assert found == pytest.approx(np.mean(-10 * np.log10(each[[0, 2]])), abs=1e-3)

    pca = PCA(components).fit(patches)
    errors = (pca.inverse_transform(pca.transform(patches)) - patches) ** 2
    expected = -10 * np.log10(errors.reshape(3, -1).mean(1)[[0, 2]])
    assert found == pytest.approx(expected.mean(), abs=1e-3)


def test_as_many_components_as_voxels_lose_nothing(tmp_path: Path) -> None:
    volumes = noisy(tmp_path, 2, (16, 16, 16))  # 128 patches, more than a patch has voxels
    assert fit_patch_pca(volumes, 4, 63, seed=0).psnr(volumes, [0, 1]) < 90
    for components in (64, 100):
        assert fit_patch_pca(volumes, 4, components, seed=0).psnr(volumes, [0, 1]) == 100


def test_as_many_components_as_the_data_have_lose_only_their_rounding(tmp_path: Path) -> None:
    volumes = noisy(tmp_path, 3, (16, 16, 8), rank=3)
    short, enough = (fit_patch_pca(volumes, 4, k, seed=0).psnr(volumes, [1]) for k in (2, 3))
    assert short < 50
    assert enough > 70  # the set holds float16


def test_patches_are_bounded_drawn_from_many_cases_and_seeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = balls(tmp_path, 6)
    monkeypatch.setattr(patch_pca, "PATCHES", 40)
    monkeypatch.setattr(patch_pca, "CASES", 4)
    drawn = patch_pca._draw(volumes, 2, np.random.default_rng(0))
    assert drawn.shape == (40, 8)
    first, again, other = (fit_patch_pca(volumes, 2, 3, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.axes, again.axes)
    assert not torch.equal(first.axes, other.axes)
    torch.testing.assert_close(first.axes.T @ first.axes, torch.eye(3), atol=1e-5, rtol=0)
    monkeypatch.setattr(patch_pca, "VALUES", 64)
    assert len(patch_pca._draw(volumes, 2, np.random.default_rng(0))) == 8


def test_psnr_is_that_of_images_between_0_and_1() -> None:
    x = torch.zeros(2, 1, 4, 4, 4)
    y = torch.stack([x[0] + 0.2, x[1] + 2.0])  # 0.1 off, and clipped to 0.5 off
    assert psnr(y, x).tolist() == pytest.approx([20.0, -20 * np.log10(0.5)], abs=1e-4)
