"""Label fidelity: faithful images, images that ignore their labels, and exact shuffles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from metrics.fidelity import _shuffled_pairs, label_fidelity

LABELS = (1, 2)
Labels = NDArray[np.uint8]


def volumes(n: int, seed: int = 0) -> Labels:
    return np.random.default_rng(seed).integers(0, 3, (n, 4, 5, 6)).astype(np.uint8)


def f1(seen: Labels, given: Labels) -> NDArray[np.float64]:
    """Dice of both classes, by scikit-learn; nan where the given label lacks the class."""
    scores = f1_score(given.ravel(), seen.ravel(), labels=LABELS, average=None, zero_division=0)
    return np.where([(given == c).any() for c in LABELS], scores, np.nan)


def test_both_means_equal_those_of_scikit_learn() -> None:
    """With 5 shuffles of 6 volumes every pair of different volumes comes once."""
    seen, given = volumes(6, 0), volumes(6, 1)
    given[2][given[2] == 2] = 0
    result = label_fidelity(seen, given, LABELS, seed=3)
    matched = np.nanmean([f1(s, g) for s, g in zip(seen, given, strict=True)], axis=0)
    pairs = [f1(seen[i], given[j]) for i in range(6) for j in range(6) if i != j]
    shuffled = np.nanmean(pairs, axis=0)
    np.testing.assert_allclose(result.matched_per_class, matched)
    np.testing.assert_allclose(result.shuffled_per_class, shuffled)
    assert result.matched == pytest.approx(matched.mean())
    assert result.shuffled == pytest.approx(shuffled.mean())


def test_faithful_images_stand_out_and_indifferent_ones_do_not() -> None:
    given = volumes(12)
    faithful = label_fidelity(given, given, LABELS)
    assert faithful.matched == 1.0
    assert faithful.shuffled < 0.5
    indifferent = label_fidelity(np.repeat(given[:1], 12, axis=0), given, LABELS)
    gap = indifferent.matched - indifferent.shuffled
    assert abs(gap) < 0.1
    # Labels given to another volume: the images are as good, their labels are not.
    mislabelled = label_fidelity(given, np.roll(given, 1, axis=0), LABELS)
    assert mislabelled.matched < 0.5


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 40])
def test_every_shuffle_is_a_derangement(n: int) -> None:
    for seed in range(5):
        pairs = np.array(_shuffled_pairs(n, seed)).reshape(-1, n, 2)
        assert len(pairs) == min(5, n - 1)
        for shuffle in pairs:
            assert (shuffle[:, 0] != shuffle[:, 1]).all()
            for column in shuffle.T:
                np.testing.assert_array_equal(np.sort(column), np.arange(n))
        assert len({tuple(pair) for pair in pairs.reshape(-1, 2)}) == pairs.size / 2
    assert n <= 6 or _shuffled_pairs(n, 0) != _shuffled_pairs(n, 1)
    assert _shuffled_pairs(n, 0) == _shuffled_pairs(n, 0)


def test_the_mean_is_over_volumes_that_have_the_class_then_over_classes() -> None:
    given = np.zeros((4, 1, 1, 8), dtype=np.uint8)
    given[:, ..., :4] = 1
    given[0, ..., 4:] = 2  # the only volume with class 2
    seen = given.copy()
    seen[0, ..., 4:] = 0
    seen[1, ..., 6:] = 2  # seen where no label is: not punished
    result = label_fidelity(seen, given, (1, 2, 3), expected=(1, 2))
    np.testing.assert_array_equal(result.matched_per_class, [1.0, 0.0, np.nan])
    assert result.matched == 0.5
    # A class that real labels hold and no given one does counts as 0.
    assert label_fidelity(seen, given, (1, 2, 3)).matched == pytest.approx(1 / 3)
    # Leaving out what is hard does not pay.
    easy = np.where(given == 2, 0, given)
    assert label_fidelity(easy, easy, (1, 2), expected=(1, 2)).matched == 0.5
    assert np.isnan(label_fidelity(seen, given, (1, 2, 3), expected=()).matched)


def test_labels_that_are_all_background_fit_nothing() -> None:
    seen = volumes(3)
    result = label_fidelity(seen, np.zeros_like(seen), LABELS)
    assert (result.matched, result.shuffled) == (0.0, 0.0)
    assert np.isnan(result.matched_per_class).all()
    assert np.isnan(result.matched_per_class).all()


def test_memory_mapped_volumes_are_read_one_by_one(tmp_path: Path) -> None:
    class Counted(np.memmap):  # type: ignore[type-arg]
        def __getitem__(self, index: object) -> object:
            assert isinstance(index, int)
            return np.asarray(self)[index]

    seen, given = volumes(5, 0), volumes(5, 1)
    mapped = []
    for name, array in (("seen", seen), ("given", given)):
        np.save(tmp_path / f"{name}.npy", array)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r").view(Counted))
    from_disk = label_fidelity(*mapped, LABELS, seed=1)
    from_memory = label_fidelity(seen, given, LABELS, seed=1)
    np.testing.assert_array_equal(from_disk.shuffled_per_class, from_memory.shuffled_per_class)
    assert from_disk[:2] == from_memory[:2]


def test_refuses() -> None:
    seen = volumes(3)
    with pytest.raises(ValueError, match=r"seen labels have shape \(3, 4, 5, 6\) and the given"):
        label_fidelity(seen, seen[:2], LABELS)
    with pytest.raises(ValueError, match=r"expected \(N, D, H, W\) twice"):
        label_fidelity(seen[0], seen[0], LABELS)
    for n in (0, 1):
        with pytest.raises(ValueError, match=f"hold {n} volume"):
            label_fidelity(seen[:n], seen[:n], LABELS)
    with pytest.raises(ValueError, match="seen label map 0 has dtype float64"):
        label_fidelity(seen.astype(float), seen, LABELS)
    with pytest.raises(ValueError, match=r"given label map 0 holds the labels \[2\]"):
        label_fidelity(np.minimum(seen, 1), seen, (1,))
    with pytest.raises(ValueError, match="no labels"):
        label_fidelity(seen, seen, ())
