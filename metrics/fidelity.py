"""Label fidelity: does a synthetic image show what its label says?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics.dice import dice_per_class
from metrics.masks import check_label_map, check_labels

N_DERANGEMENTS = 5


class Fidelity(NamedTuple):
    """Dice of what is seen in the images against the labels, matched and shuffled, in [0, 1]."""

    matched: float
    """Mean of `matched_per_class` over the classes expected, 0 for one that no label holds."""
    shuffled: float
    matched_per_class: NDArray[np.float64]
    """``(labels,)``: mean over the volumes whose label holds the class; nan where none does."""
    shuffled_per_class: NDArray[np.float64]


def label_fidelity(
    seen: NDArray[Any],
    given: NDArray[Any],
    labels: Sequence[int],
    seed: int = 0,
    expected: Sequence[int] | None = None,
) -> Fidelity:
    """Dice between the labels of synthetic volumes and what a segmenter sees in their images.

    Dice of each class is averaged over the volumes whose given label holds it, then over the
    classes. Beside it stands the same with the labels shuffled among the volumes, so that none
    keeps its own: images that ignore their labels score alike in both. The shuffled score is the
    mean over 5 shuffles (all N - 1 there are, if fewer): cyclic shifts of one random order, by
    which no pair of volumes comes twice and every label counts equally often in both scores.

    Args:
        seen: ``(N, D, H, W)`` integer labels that a segmenter trained on real volumes predicts;
            may be memory-mapped, volumes are read one after another.
        given: ``(N, D, H, W)`` integer labels of the synthetic volumes.
        labels: the classes, without the background; every voxel is 0 or one of them.
        seed: of the shuffles.
        expected: the classes that real labels hold, all by default; the overall scores are means
            over these. One that no given label holds counts as 0 in both, or a generator that
            leaves out what is hard would score better for it.

    Returns:
        The scores; the overall ones are nan where no class is expected.

    Raises:
        ValueError: arrays of different shapes or not 4D, fewer than 2 volumes, labels that are not
            integers, voxels of another label, no labels or repeated ones.
    """
    if seen.shape != given.shape or seen.ndim != 4:
        raise ValueError(
            f"The seen labels have shape {seen.shape} and the given ones {given.shape}; expected "
            "(N, D, H, W) twice."
        )
    if len(seen) < 2:
        raise ValueError(
            f"The arrays hold {len(seen)} volume(s); labels can be shuffled among at least 2."
        )
    check_labels(labels)
    n = len(seen)
    matched = _mean_dice(seen, given, labels, zip(range(n), range(n), strict=True))
    shuffled = _mean_dice(seen, given, labels, _shuffled_pairs(n, seed))
    wanted = np.isin(labels, labels if expected is None else expected)
    return Fidelity(_mean(matched[wanted]), _mean(shuffled[wanted]), matched, shuffled)


def _shuffled_pairs(n: int, seed: int) -> list[tuple[int, int]]:
    """(volume, volume whose label it gets) of every shuffle; never a volume with itself."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    shifts = 1 + rng.choice(n - 1, size=min(N_DERANGEMENTS, n - 1), replace=False)
    return [
        (int(volume), int(other))
        for shift in shifts
        for volume, other in zip(order, np.roll(order, -shift), strict=True)
    ]


def _mean_dice(
    seen: NDArray[Any],
    given: NDArray[Any],
    labels: Sequence[int],
    pairs: Iterable[tuple[int, int]],
) -> NDArray[np.float64]:
    """Mean Dice of each class over the pairs whose given label holds it."""
    total, count = np.zeros(len(labels)), np.zeros(len(labels))
    for i, j in pairs:
        shown, told = np.asarray(seen[i]), np.asarray(given[j])
        check_label_map(shown, labels, f"seen label map {i}")
        check_label_map(told, labels, f"given label map {j}")
        scores = dice_per_class(shown, told, labels)
        present = ~np.isnan(scores)
        total[present] += scores[present]
        count += present
    mean = np.full(len(labels), np.nan)
    mean[count > 0] = total[count > 0] / count[count > 0]
    return mean


def _mean(per_class: NDArray[np.float64]) -> float:
    return float(np.nan_to_num(per_class).mean()) if per_class.size else float("nan")
