"""Make the README's picture from a run: real and synthetic volumes with label contours.

    python docs/make_pictures.py runs/phantom-quick docs/phantom-quick.png

Needs matplotlib, which voxelbench itself does not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from bench.plan import Cell
from bench.store import Store
from bench.volumes import VolumeSet
from leaderboard import display_name

VOLUMES = 4
COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#d55e00"]  # safe for colour-blind readers


def main(out: Path, picture: Path) -> None:
    """A row for the real test cases and one for each generator."""
    rows = {name: volumes for name, volumes in volume_sets(out).items() if volumes.has_labels}
    figure, axes = plt.subplots(
        len(rows), 2 * VOLUMES, figsize=(2 * VOLUMES * 1.25, len(rows) * 1.3), squeeze=False
    )
    for row, (name, volumes) in zip(axes, rows.items(), strict=True):
        for i in range(VOLUMES):
            show(row[2 * i], volumes, i, axis=2)
            show(row[2 * i + 1], volumes, i, axis=1)
        row[0].set_ylabel(name, fontsize=8)
    figure.subplots_adjust(0.04, 0.005, 0.995, 0.995, 0.02, 0.02)
    figure.savefig(picture, dpi=110, facecolor="white")


def volume_sets(out: Path) -> dict[str, VolumeSet]:
    """The real test cases and every generator's volumes with the labels that arm S learns from."""
    store = Store(out)
    cells = [Cell.from_json(c) for c in json.loads((out / "run.json").read_text("utf-8"))["cells"]]
    prepared = next(cell for cell in cells if cell.kind == "prepare")
    rows = {"real": VolumeSet.open(store.artefacts(prepared.key) / "test")}
    for cell in cells:
        if cell.kind == "sample" and store.is_done(cell.key):
            rows[display_name(cell.tags.generator)] = VolumeSet.open(
                store.artefacts(cell.key) / "synthetic"
            )
    for cell in cells:
        if cell.kind == "label" and store.is_done(cell.key):
            name = display_name(cell.tags.generator)
            rows[name] = rows[name].with_labels(store.artefacts(cell.key) / "labels.npy")
    return rows


def show(axes: plt.Axes, volumes: VolumeSet, index: int, axis: int) -> None:
    """One middle slice with the contours of its labels, where it has some.

    Patient's right on the left of the picture, anterior or superior up.
    """
    image = volumes.image(index)
    middle = image.shape[axis] // 2
    plane = np.take(image, middle, axis=axis).T[::-1, ::-1]
    axes.imshow(plane, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if volumes.has_labels:
        classes = np.take(volumes.label(index), middle, axis=axis).T[::-1, ::-1]
        for value, colour in zip(range(1, 5), COLOURS, strict=True):
            if (classes == value).any():
                axes.contour(classes == value, [0.5], colors=[colour], linewidths=0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
