"""Pictures of a finished run: samples of each generator beside real volumes, and training curves.

    python docs/generator_pictures.py runs/msd-hippocampus-small docs/generators

writes samples-NAME.png (real test volumes left, eight samples right; middle slices of the three
planes below each other, label contours where there are labels) and curves.png.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from make_pictures import show, volume_sets
from matplotlib.figure import Figure
from PIL import Image

from bench.pictures import read_curves
from bench.plan import Cell
from bench.store import Store
from bench.volumes import VolumeSet
from leaderboard.figures import curve_figure
from leaderboard.names import file_name

REAL, SAMPLES = 4, 8
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
LARGEST_BYTES = 250_000
COLOURS_KEPT = 48  # greys and contours: a palette makes the file a third as large


def main(out: Path, folder: Path) -> None:
    """A picture for each generator of the run, and one of all curves."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = volume_sets(out)
    real = sets.pop("real")
    for name, volumes in sets.items():
        path = folder / f"samples-{file_name(name.lower().replace(' ', '-'))}.png"
        save_small(samples(name, real, volumes), path)
        print(path, f"{path.stat().st_size / 1000:.0f} kB")
    run = json.loads((out / "run.json").read_text("utf-8"))
    curves = read_curves(Store(out), [Cell.from_json(cell) for cell in run["cells"]])
    if curves:
        save_small(curve_figure({"": curves}), folder / "curves.png")


def samples(name: str, real: VolumeSet, synthetic: VolumeSet) -> Figure:
    """Real volumes, a gap, and samples: a column each; a row for each plane."""
    columns = [(real, i) for i in range(min(REAL, len(real)))]
    gap = len(columns)
    columns += [(synthetic, i) for i in range(min(SAMPLES, len(synthetic)))]
    grid = real.grid
    # A slice's height and width in voxels, as `show` turns it.
    heights = [grid[1] if axis == 2 else grid[2] for axis in PLANES.values()]
    width = max(grid[0], grid[1])
    widths = [1.0] * gap + [0.15] + [1.0] * (len(columns) - gap)
    figure, axes = plt.subplots(
        len(PLANES),
        len(widths),
        figsize=(sum(widths), sum(heights) / width),
        gridspec_kw={"width_ratios": widths, "height_ratios": heights, "hspace": 0.02},
        squeeze=False,
    )
    for row, (plane, axis) in zip(axes, PLANES.items(), strict=True):
        row[gap].axis("off")
        for one, (volumes, i) in zip([*row[:gap], *row[gap + 1 :]], columns, strict=True):
            show(one, volumes, i, axis=axis)
        row[0].set_ylabel(plane, fontsize=6)
    axes[0][0].set_title("real", fontsize=7, loc="left", pad=2)
    axes[0][gap + 1].set_title(name, fontsize=7, loc="left", pad=2)
    figure.subplots_adjust(0.02, 0.005, 0.998, 0.95, 0.02)
    return figure


def save_small(figure: Figure, path: Path, dpi: int = 160) -> None:
    """Write a PNG with a palette, at the highest resolution that stays below `LARGEST_BYTES`."""
    while True:
        drawn = BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, facecolor="white")
        Image.open(drawn).convert("RGB").quantize(COLOURS_KEPT).save(path, optimize=True)
        if path.stat().st_size <= LARGEST_BYTES or dpi <= 60:
            break
        dpi = int(0.85 * dpi)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
