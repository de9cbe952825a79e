"""The scripts behind the pages of docs/: variants that can be run, tables and figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.config import resolve
from bench.pictures import read_curves
from bench.plan import Cell, Tags
from bench.records import Record, records_frame
from bench.registry import GENERATORS
from bench.store import Store
from bench.volumes import VolumeSet, VolumeSetWriter
from leaderboard.figures.curves import drawable, watched

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = {0: "background", 1: "Anterior", 2: "Posterior"}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module docs/ablations.py, and with it docs/generator_pictures.py."""
    monkeypatch.syspath_prepend(str(DOCS))
    import ablations

    yield ablations
    for name in ("ablations", "generator_pictures", "make_pictures", "validate"):
        sys.modules.pop(name, None)


def test_every_variant_is_a_run_of_its_own_that_its_generator_takes(scripts: Any) -> None:
    for ablation in scripts.ablations():
        seen = []
        for variant in ablation.variants:
            values = (*scripts.COMMON, *variant.settings)
            config = resolve(scripts.PRESET, {}, values, ablation.generator, "none", {})
            plugin = GENERATORS.get(ablation.generator)
            generator = plugin(plugin.Config.model_validate(config.generators[ablation.generator]))
            generator.check(config.data.grid, NAMES)
            seen.append(generator.config)
        assert all(a != b for i, a in enumerate(seen) for b in seen[:i]), ablation.name
        slugs = {scripts.slug(variant.name) for variant in ablation.variants}
        assert len(slugs) == len(ablation.variants)


def test_steps_of_sampling_train_nothing_again(scripts: Any) -> None:
    """The stages of all its variants are equal, so that the store has them."""
    (steps,) = scripts.choose("steps")
    stages = []
    for variant in steps.variants:
        config = resolve(scripts.PRESET, {}, variant.settings, "ldm-vae", "none", {})
        plugin = GENERATORS.get("ldm-vae")
        generator = plugin(plugin.Config.model_validate(config.generators["ldm-vae"]))
        stages.append([(s.name, s.config) for s in generator.stages()])
    assert all(each == stages[0] for each in stages)


def test_tables_are_chosen_by_name(scripts: Any) -> None:
    assert [a.name for a in scripts.choose("steps, ema")] == ["steps", "ema"]
    assert len(scripts.choose("")) == len(scripts.ablations())
    with pytest.raises(SystemExit, match="ema"):
        scripts.choose("stepz")


def scored(generator: str, fid: float, **values: float) -> list[Record]:
    rows = [
        Record(kind="score", plane="average", generator=generator, metric="fid", value=fid),
        Record(kind="task-score", plane="volume", generator=generator, metric="fid", value=fid / 9),
    ]
    return rows + [
        Record(kind="sample", generator=generator, metric=metric, value=value)
        for metric, value in values.items()
    ]


def test_a_table_has_a_row_per_variant_and_the_floor(scripts: Any) -> None:
    (steps,) = scripts.choose("steps")
    fits = [Record(kind="fit", metric="seconds", value=v) for v in (60.0, 30.0)]
    records = {
        str(n): records_frame(
            [*scored("ldm-vae", 900.0 / n, seconds_per_volume=0.1 * n), *scored("real", 9.0), *fits]
        )
        for n in (10, 25)
    }
    lines = scripts.results(steps, records).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    by_title = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    assert [row["variant"] for row in by_title] == ["10", "25", "real (floor)"]
    assert [row["FID"] for row in by_title] == ["90", "36", "9"]
    assert [row["task FID"] for row in by_title] == ["10", "4", "1"]
    assert [row["s / volume"] for row in by_title] == ["1.00", "2.50", "–"]
    assert [row["fit, min"] for row in by_title] == ["1.5", "1.5", "–"]
    figure = scripts.steps_figure(records, "ldm-vae")
    assert [list(axis.lines[0].get_ydata()) for axis in figure.axes[:2]] == [[90.0, 36.0]] * 2
    assert list(figure.axes[1].lines[0].get_xdata()) == [1.0, 2.5]


def test_curves_are_those_of_validation_where_there_are_some(scripts: Any, tmp_path: Path) -> None:
    cell = Cell("fit", {"n": 1}, {}, Tags(generator="ldm-vae", stage="image-ldm"))
    work = Store(tmp_path).work(cell.key)
    work.mkdir(parents=True)
    (work / "fit.csv").write_text(
        "step,name,value\n1,loss/all,3\n1,val/loss,6\n2,loss/all,2\n2,val/loss,5\n"
    )
    curves = read_curves(Store(tmp_path), [cell])
    assert list(curves) == ["3D-LDM with VAE: image-ldm"]
    assert watched(curves.values()) == ["val/loss"]
    ((_, shown),) = drawable(curves["3D-LDM with VAE: image-ldm"], ["val/loss"])
    assert list(shown["value"]) == [6.0, 5.0]
    losses = pd.DataFrame({"step": [1, 2], "name": ["loss/all"] * 2, "value": [3.0, 2.0]})
    assert watched([losses]) == ["loss/all"]
    drawn = dict(scripts.stage_curves("image-ldm", Store(tmp_path), {"a": [cell], "b": []}))
    assert {variant: list(curve) for variant, curve in drawn.items()} == {
        "a": ["image-ldm"],
        "b": [],
    }


def volumes(folder: Path, labelled: bool) -> VolumeSet:
    grid = (16, 24, 32)
    rng = np.random.default_rng(0)
    with VolumeSetWriter(folder, grid, NAMES) as writer:
        for i in range(9):
            label = (rng.random(grid) > 0.9).astype(np.uint8) if labelled else None
            writer.append(f"case-{i}", rng.random(grid, dtype=np.float32), label)
    return VolumeSet.open(folder)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_picture_is_small_and_has_four_real_volumes_and_eight_samples(
    scripts: Any, tmp_path: Path, labelled: bool
) -> None:
    import generator_pictures

    real, synthetic = volumes(tmp_path / "a", True), volumes(tmp_path / "b", labelled)
    figure = generator_pictures.samples("mine", real, synthetic)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 3 * (4 + 8)
    # The first sample's axial slice, as radiologists look at it.
    shown = np.asarray(drawn[4].images[0].get_array())
    np.testing.assert_array_equal(shown, synthetic.image(0)[:, :, 16].T[::-1, ::-1])
    path = tmp_path / "picture.png"
    generator_pictures.save_small(figure, path)
    assert path.stat().st_size <= generator_pictures.LARGEST_BYTES
    assert Image.open(path).mode == "P"
