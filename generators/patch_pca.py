"""A linear code of patches: what an autoencoder of the same code size must do better than."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.networks.utils import pixelshuffle, pixelunshuffle
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from generators.data import images, psnr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.volumes import VolumeSet

PATCHES = 20_000  # at most, in a fit
VALUES = 2**25  # in these patches, at most: 256 MiB in float64
CASES = 200  # that they are drawn from, at most
CPU = torch.device("cpu")


@dataclass(frozen=True)
class PatchPCA:
    """Principal components of non-overlapping patches of side³ voxels of images in [-1, 1]."""

    side: int
    mean: Tensor  # (side³,)
    axes: Tensor  # (side³, components), orthonormal, the first of largest variance
    spread: Tensor  # (components,): standard deviation of each component over the patches

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (B, 1, D, H, W) from the components of their patches alone."""
        patches = pixelunshuffle(x, 3, self.side).movedim(1, -1) - self.mean
        back = patches @ self.axes @ self.axes.T + self.mean
        whole: Tensor = pixelshuffle(back.movedim(-1, 1), 3, self.side)
        return whole

    def psnr(self, volumes: VolumeSet, cases: Sequence[int]) -> float:
        """PSNR in dB of the reconstruction, mean over `cases`."""
        each = [psnr(self.reconstruct(x), x) for x in (images(volumes, [i], CPU) for i in cases)]
        return float(torch.cat(each).mean())


def fit_patch_pca(volumes: VolumeSet, side: int, components: int, seed: int) -> PatchPCA:
    """PCA of patches drawn from `volumes`: `components` numbers for side³ voxels.

    An autoencoder with latents `side` times coarser and `components` channels has the same code
    size. About `PATCHES` patches at most, an equal share from each of at most `CASES` random cases.
    More components than voxels in a patch are as many as voxels.
    """
    patches = _draw(volumes, side, np.random.default_rng(seed))
    mean = patches.mean(axis=0)
    centred = patches - mean
    n = side**3
    first = n - min(components, n)
    squares, axes = eigh(centred.T @ centred, subset_by_index=[first, n - 1])
    spread = np.sqrt(squares.clip(min=0) / len(patches))
    return PatchPCA(
        side,
        torch.from_numpy(mean).float(),
        torch.from_numpy(axes[:, ::-1].copy()).float(),
        torch.from_numpy(spread[::-1].copy()).float(),
    )


def _draw(volumes: VolumeSet, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    cases = rng.permutation(len(volumes))[:CASES]
    share = -(-min(PATCHES, VALUES // side**3) // len(cases))
    drawn = []
    for case in cases:
        blocks = pixelunshuffle(images(volumes, [int(case)], CPU), 3, side)
        rows = blocks.flatten(2)[0].T.numpy()
        drawn.append(rows[rng.permutation(len(rows))[:share]])
    return np.concatenate(drawn).astype(np.float64)
