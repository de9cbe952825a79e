"""What the comparisons with other libraries are fed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], Any]


class Features(NamedTuple):
    """Two sets of features, `(n, d)` and `(m, d)`, float64."""

    real: NDArray[np.float64]
    synthetic: NDArray[np.float64]


class Segmentations(NamedTuple):
    """Labels `(D, H, W)` uint8 of one case, predicted and true, with its spacing in mm."""

    prediction: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def features(n: int, d: int = 2048, m: int | None = None, seed: int = 0) -> Features:
    """Non-negative features near a manifold of 24 dimensions, as networks give; one set shifted.

    Independent Gaussian features would be useless here: in 2048 dimensions nearest neighbours mean
    nothing and every precision is 0 or 1.
    """
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(24, d)) / np.sqrt(24)

    def draw(count: int, spread: float, shift: float) -> NDArray[np.float64]:
        latent = spread * rng.normal(size=(count, 24)) + shift
        return np.maximum(latent @ basis + 0.1 * rng.normal(size=(count, d)), 0.0)

    return Features(draw(n, 1.0, 0.0), draw(n if m is None else m, 0.95, 0.15))


@cache
def segmentations(side: int) -> Segmentations:
    """A phantom's labels, and the same shrunk, moved and with a false tumour in a corner."""
    from bench.datasets.phantom import phantom_case

    case = phantom_case(4, 1, (side,) * 3)
    index = np.rint((np.arange(side) - side / 2) * 1.06 + side / 2 + 1).clip(0, side - 1)
    prediction = case.label[np.ix_(*[index.astype(int)] * 3)]
    prediction[4:8, 4:8, 4:8] = 4
    return Segmentations(prediction, case.label, case.spacing)


@cache
def images(side: int) -> NDArray[np.float32]:
    """Three phantoms' images `(3, D, H, W)` in [0, 1]."""
    from bench.datasets.phantom import phantom_case

    return np.stack([phantom_case(index, 1, (side,) * 3).image for index in range(3)])


def tensors(data: Sequence[NDArray[Any]]) -> list[Any]:
    """The arrays as torch's tensors, without a copy where they lie in one piece."""
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array)) for array in data]
