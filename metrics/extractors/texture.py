"""An untrained multi-scale texture descriptor: realism without pretrained weights.

It replaces MedicalNet where its weights cannot be had. It has no random or learned weights (random
weights in a ResNet rank noise above blur) and sees sharpness, noise and contrast, not anatomy.

The volume is read as the **stack of slices** of one plane, the first spatial axis being the
plane's normal. Every filter and every halving of the pyramid works inside the slices. Filters in
three dimensions would be of no use here: turning the volume would merely permute their features,
the Fréchet distance is invariant to that, and the three planes would always score the same. Read as
slices, each plane scores what is seen in it: slices that jump in brightness or position leave their
own plane nearly untouched and show as streaks in the other two.

Per level of the pyramid (full resolution and three halvings), each of four responses (the slice
less its 3 x 3 binomial blur, the differences along both in-plane axes, and their mixed difference)
gives the log of its mean magnitude in every cell of a 3 x 3 x 3 grid, its log energy and its log
kurtosis. On top come how much of each response's energy is lost from a level to the next, and the
mean intensities of the volume's cells: 4 x 4 x (27 + 1 + 1) + 3 x 4 + 27 = 503 features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 4
GRID = 3
RESPONSES = 4
DIM = LEVELS * RESPONSES * (GRID**3 + 2) + (LEVELS - 1) * RESPONSES + GRID**3
MIN_SIDE = 4

# Added to magnitudes (of intensities in [0, 1]) before the log. What lies well below one percent of
# the range stops counting: else flat regions, the exact zeros of padded scans above all, would lie
# far from a generator's almost zeros, and blur would outweigh any noise.
FLOOR = 1e-2
# The logs are natural units (0.1 is 10 % of contrast), so fixed weights do, and the features of a
# volume depend on no other volume. Mean intensities vary less between scans than log magnitudes and
# are few: the weight gives the 27 between a twentieth and a fifth of the features' variance.
MEAN_WEIGHT = 5.0
# The ratio of two levels' energies does not depend on a scan's contrast and hardly on its anatomy,
# so real scans vary little in it, while blur and noise change it first. At this weight, the 12 are
# a sixth of the distance between two sets of real scans; without them a slight blur is lost among
# scans of unequal sharpness.
DECAY_WEIGHT = 10.0
# One global factor, so that distances (which grow with its square) are readable without exponents.
SCALE = 3.0


class TextureExtractor:
    """An untrained texture descriptor of slices: needs no weights, the offline default."""

    name = "texture"
    version = "2"  # raised with every change of the features
    protocol = "reorient"
    needs_weights = False
    preprocessings: tuple[str, ...] = ()
    sha256 = ""
    dim = DIM

    def __init__(self, weights: None = None, device: str = "cpu", preprocess: str = "") -> None:
        if weights is not None or preprocess:
            raise ValueError("The texture descriptor takes neither weights nor preprocessing.")
        self._device = device

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float64]:
        """Features ``(B, 503)`` of volumes ``(B, D, H, W)`` in [0, 1], slices along D.

        Raises:
            ValueError: not four axes, or a side of less than 4 voxels.
        """
        import torch

        if volumes.ndim != 4 or min(volumes.shape[1:]) < MIN_SIDE:
            raise ValueError(
                f"Volumes have shape {volumes.shape}; the texture descriptor needs (B, D, H, W) "
                f"with sides of at least {MIN_SIDE} voxels."
            )
        rows = []
        for volume in volumes:
            level = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
            rows.append(_describe(level.to(self._device)).cpu().numpy())
        return SCALE * np.stack(rows).astype(np.float64)


def _describe(level: Tensor) -> Tensor:
    """The 503 features of one volume ``(D, H, W)``, before the global scale."""
    import torch

    features = [MEAN_WEIGHT * _grid_means(level)]
    energies = []
    for _ in range(LEVELS):
        statistics = [_statistics(response) for response in _responses(level)]
        features += [value for row in statistics for value in row]
        energies.append(torch.cat([energy for _, energy, _ in statistics]))
        level = _halve(level)
    decay = torch.stack(energies).diff(dim=0)
    return torch.cat([*features, DECAY_WEIGHT * decay.flatten()])


def _halve(level: Tensor) -> Tensor:
    """Average pairs along the in-plane axes, but not along one too short for another halving.

    The number of features is thereby the same on every grid, however anisotropic.
    """
    from torch.nn.functional import avg_pool2d

    height, width = (2 if side >= 2 * MIN_SIDE else 1 for side in level.shape[1:])
    return avg_pool2d(level[:, None], (height, width))[:, 0]


def _responses(level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """High-pass, vertical, horizontal and mixed differences of every slice."""
    from torch.nn.functional import avg_pool2d, pad

    # Two 2 x 2 means are the 3 x 3 binomial blur.
    blurred = avg_pool2d(pad(level[:, None], (1, 1, 1, 1), mode="replicate"), 2, stride=1)
    blurred = avg_pool2d(blurred, 2, stride=1)[:, 0]
    vertical, horizontal = level.diff(dim=1), level.diff(dim=2)
    return level - blurred, vertical, horizontal, vertical.diff(dim=2)


def _statistics(response: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log mean magnitude per cell ``(27,)``, log energy ``(1,)`` and log kurtosis ``(1,)``."""
    magnitude = (_grid_means(response.abs()) + FLOOR).log()
    square = response.square()
    second, fourth = square.mean(), square.square().mean()
    # Both moments of a Gaussian of the floor's size are added: a flat volume has its kurtosis, 3.
    energy = second + FLOOR**2
    kurtosis = (fourth + 3 * FLOOR**4) / energy**2
    return magnitude, 0.5 * energy.log().reshape(1), kurtosis.log().reshape(1)


def _grid_means(level: Tensor) -> Tensor:
    """Means of the 3 x 3 x 3 cells of a volume ``(D, H, W)``, flattened to ``(27,)``."""
    from torch.nn.functional import adaptive_avg_pool3d

    return adaptive_avg_pool3d(level[None], GRID).flatten()
