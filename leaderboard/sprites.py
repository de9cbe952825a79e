"""Volumes as sprite sheets: all slices of one in one small picture, which a page takes apart."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leaderboard.pictures import Classes, Grey, Pictures, upright

BUDGET = 13_000_000
"""Bytes that all sheets of a page may have; base64 adds a third."""
QUALITIES = (90, 75, 60)
"""Of the images, in percent, best first; the label maps lose nothing."""
SAMPLE = 4
"""Images whose sheets tell how large all will be."""


class Fineness(NamedTuple):
    """How much of the volumes the sheets keep."""

    every: int = 1  # n-th voxel along each axis
    quality: int = QUALITIES[0]


def fineness(pictures: Pictures, budget: int = BUDGET) -> Fineness:
    """The finest sheets that stay within the budget, judged by the first images and label maps."""
    rows = [*pictures.rows, *pictures.changes]
    volumes = [volume for row in rows for volume in row.volumes]
    maps = [m for volume in volumes for m in volume.labels.values()]
    for every in (1, 2, 3, 4, 6):
        for quality in QUALITIES:
            chosen = Fineness(every, quality)
            images = [len(image_sheet(v.image, chosen)) for v in volumes[:SAMPLE]]
            labels = [len(label_sheet(m, chosen)) for m in maps[:SAMPLE]]
            if _total(images, len(volumes)) + _total(labels, len(maps)) <= budget:
                return chosen
    return chosen


def image_sheet(image: Grey, chosen: Fineness) -> bytes:
    """A WebP of all axial slices, superior first, as `sheet` lays them out."""
    return _webp(sheet(coarse_image(image, chosen.every)), quality=chosen.quality)


def label_sheet(labels: Classes, chosen: Fineness) -> bytes:
    """A lossless WebP of the label map, whose greys are the classes."""
    every = chosen.every
    r, a, s = (n * every for n in coarse_grid(labels.shape, every))
    return _webp(sheet(labels[:r:every, :a:every, :s:every]), quality=60, lossless=True)


def coarse_image(image: Grey, every: int) -> Grey:
    """Means of blocks of voxels; what is left over at the ends goes into none."""
    if every == 1:
        return image
    r, a, s = (n // every for n in image.shape)
    blocks = image[: r * every, : a * every, : s * every]
    parts = blocks.reshape(r, every, a, every, s, every)
    means: Grey = parts.mean(axis=(1, 3, 5)).round().astype(np.uint8)
    return means


def coarse_grid(shape: Sequence[int], every: int) -> tuple[int, ...]:
    """Of a volume's sheet."""
    return tuple(n // every for n in shape)


def sheet(volume: Grey) -> Grey:
    """Slices (A, R) of a volume (R, A, S) in rows of `across`, superior first; (H, W)."""
    slices = upright(volume)
    columns = across(len(slices))
    rows = -(-len(slices) // columns)
    empty = np.zeros((rows * columns - len(slices), *slices.shape[1:]), np.uint8)
    tiles = np.concatenate([slices, empty]).reshape(rows, columns, *slices.shape[1:])
    joined: Grey = tiles.swapaxes(1, 2).reshape(rows * slices.shape[1], -1)
    return joined


def across(slices: int) -> int:
    """Slices in a row of a sheet."""
    return math.isqrt(max(slices - 1, 0)) + 1


def data_uri(content: bytes, kind: str) -> str:
    """A picture that a page holds in itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _total(sizes: Sequence[int], count: int) -> float:
    return count * float(np.mean(sizes)) if sizes else 0.0


def _webp(image: NDArray[np.uint8], quality: int, lossless: bool = False) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "webp", quality=quality, lossless=lossless, method=4)
    return buffer.getvalue()
