"""What a fit shows of itself while it runs: scalars as CSV and for TensorBoard, and pictures."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.sealed import write_atomic


class Curve:
    """Scalars of a fit as CSV in long form: step, name, value; for TensorBoard where it is there.

    Rows that a full disk refuses wait in memory for the next write: a curve is no reason to end a
    fit.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Go on with the curve of a fit that now stands at `step`."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
        # What lies behind the checkpoint is computed, and written, again.
        kept = [row for row in rows if row.count(",") == 2 and int(row.split(",")[0]) <= step]
        write_atomic(path, "\n".join(["step,name,value", *kept, ""]))
        self._size = path.stat().st_size
        self._waiting: list[tuple[int, str, float]] = []
        self._board = _tensorboard(path.parent / "tensorboard" / path.stem, step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._waiting += [(step, name, value) for name, value in scalars.items()]
        try:
            with self.path.open("a", newline="", encoding="utf-8") as stream:
                csv.writer(stream, lineterminator="\n").writerows(self._waiting)
            self._size = self.path.stat().st_size
            self._waiting = []
        except OSError:
            with suppress(OSError):  # half a row; a full disk lets a file shrink
                os.truncate(self.path, self._size)
        self._show(step, scalars)

    def _show(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._board is not None:
            with suppress(OSError):
                for name, value in scalars.items():
                    self._board.add_scalar(name, value, step)

    def __enter__(self) -> Curve:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._board is not None:
            with suppress(OSError):
                self._board.close()


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's events, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=step + 1)


WIDTH = 600
"""Pixels that a picture is at least wide."""


def write_preview(path: Path, volumes: NDArray[np.float32]) -> None:
    """Write the middle slices of volumes (n, D, H, W) in [0, 1] as a grey PNG, a row a volume.

    From left to right the slices across D, H and W, as the arrays lie.
    """
    from matplotlib.image import imsave

    picture = mosaic(volumes)
    scale = -(-WIDTH // picture.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    imsave(path, enlarged, cmap="gray", vmin=0, vmax=1, format="png")


def mosaic(volumes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle slices beside one another, a row a volume, a white line between any two."""
    if volumes.ndim != 4:
        raise ValueError(f"A preview has shape {volumes.shape}, expected (n, D, H, W).")
    _, d, h, w = volumes.shape
    height, width = max(d, h), 2 * w + h + 2
    picture = np.ones((len(volumes) * (height + 1) - 1, width), dtype=np.float32)
    for i, volume in enumerate(volumes):
        left, top = 0, i * (height + 1)
        for slice_ in (volume[d // 2], volume[:, h // 2], volume[:, :, w // 2]):
            rows, columns = slice_.shape
            picture[top : top + height, left : left + columns] = 0
            start = top + (height - rows) // 2
            picture[start : start + rows, left : left + columns] = slice_
            left += columns + 1
    return np.nan_to_num(picture, nan=0.0).clip(0, 1)
