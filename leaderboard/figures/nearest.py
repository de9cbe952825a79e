"""The nearest pairs of synthetic and training volumes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from numpy.typing import ArrayLike

from leaderboard.figures.canvas import canvas, plain, png, replace_file


def nearest_pairs(pairs: Sequence[tuple[ArrayLike, ArrayLike, str]], path: Path) -> Path:
    """Draw synthetic slices over the slices of their nearest training volumes.

    Args:
        pairs: a synthetic slice ``(H, W)``, a training slice ``(H, W)``, intensities in [0, 1],
            and the text above the two, e.g. the distance.
        path: the PNG, written in one piece or not at all.

    Returns:
        The path.

    Raises:
        ValueError: no pairs, or a slice that is not two-dimensional.
    """
    if not pairs:
        raise ValueError("There are no pairs to draw; give at least one.")
    slices = [(np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b, _ in pairs]
    wrong = [image.shape for pair in slices for image in pair if image.ndim != 2 or not image.size]
    if wrong:
        raise ValueError(f"A slice has shape {wrong[0]}; expected (H, W).")
    height, width = slices[0][0].shape
    figure = canvas(1.7 * len(pairs) + 0.4, 3.4 * height / width + 0.9)
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for column, (pair, (_, _, text)) in enumerate(zip(slices, pairs, strict=True)):
        for axis, values in zip(axes[:, column], pair, strict=True):
            # One scale for all, or a faint copy would look like a strong one.
            axis.imshow(values, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0, column].set_title(fill(plain(text, longest=80), width=24), fontsize=8)
    axes[0, 0].set_ylabel("synthetic", fontsize=9)
    axes[1, 0].set_ylabel("nearest training", fontsize=9)
    return replace_file(Path(path), png(figure))
