"""Pictures of a finished run: samples of each generator beside real volumes, and training curves.

    python docs/generator_pictures.py runs/msd-hippocampus-small docs/generators

writes samples-NAME.png (real test volumes left, eight samples right; middle slices of the three
planes below each other, label contours where there are labels) and curves.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from make_pictures import show, volume_sets
from matplotlib.figure import Figure
from PIL import Image

from bench.plan import Cell
from bench.report import file_name
from bench.store import Store
from bench.volumes import VolumeSet
from leaderboard import display_name

REAL, SAMPLES = 4, 8
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
LARGEST_BYTES = 250_000
COLOURS_KEPT = 48  # greys and contours: a palette makes the file a third as large
WATCHED = ("val/psnr", "val/dice", "val/loss")
"""What a curve shows of a stage: the first of these that it has, else its losses in training."""

Curves = Mapping[str, pd.DataFrame]  # stage -> step, name, value


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


def read_curves(store: Store, cells: Sequence[Cell]) -> dict[str, pd.DataFrame]:
    """The scalars of every stage that was fitted, of each generator's first seed.

    A stage of several fits has one entry for each, named after its file.
    """
    curves: dict[str, pd.DataFrame] = {}
    for cell in cells:
        if cell.kind != "fit":
            continue
        stage = cell.tags.stage.removeprefix(f"{cell.tags.generator}/")
        generator = display_name(cell.tags.generator)
        for path in sorted(store.work(cell.key).glob("*.csv")):
            part = "" if path.stem == "fit" else f" {path.stem}"
            curves.setdefault(f"{generator}: {stage}{part}", pd.read_csv(path))
    return curves


def curve_figure(variants: Mapping[str, Curves], columns: int = 3) -> Figure:
    """A panel per stage, a line per variant (or, of one variant, per scalar)."""
    stages = list(dict.fromkeys(stage for curves in variants.values() for stage in curves))
    columns = min(columns, len(stages))
    rows = -(-len(stages) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for axis, stage in zip(axes.flat, stages, strict=False):
        for variant, curves in variants.items():
            for name, line in watched(curves.get(stage)):
                told = f"{variant} {name}" if variant else name
                single = "o" if len(line) == 1 else ""
                axis.plot(line["step"], line["value"], single, label=told, linewidth=1)
        axis.set_title(stage, fontsize=8)
        axis.set_xlabel("step", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(stages) :]:
        axis.axis("off")
    return figure


def watched(curve: pd.DataFrame | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The scalars worth a line: of validation where there are some, else losses, smoothed."""
    if curve is None or not len(curve):
        return
    names = set(curve["name"])
    chosen = [name for name in WATCHED if name in names][:1]
    for name in chosen or sorted(name for name in names if name.startswith("loss/")):
        line = curve[curve["name"] == name]
        if not chosen:
            window = max(1, len(line) // 50)
            smooth = line["value"].rolling(window, min_periods=1).mean()
            line = line.assign(value=smooth).iloc[:: max(1, window // 2)]
        yield name, line


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
