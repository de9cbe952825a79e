"""Figures draw the numbers of the tables: points, intervals, floor and marks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from leaderboard_cases import Made, measured, named, row_of, two_by_two
from matplotlib.figure import Figure

from bench.records import Record
from leaderboard import Leaderboard, cost_tables
from leaderboard.cases import largest_changes
from leaderboard.figures import FIGURES
from leaderboard.figures.canvas import colour, pdf, png
from leaderboard.figures.costs import costs_figure
from leaderboard.figures.curves import curve_figure
from leaderboard.figures.dice import dice_figure, gains_figure
from leaderboard.figures.realism import fid_figure
from leaderboard.figures.structures import structures_figure
from leaderboard.pictures import NO_PICTURES


@pytest.fixture(scope="module")
def full() -> Leaderboard:
    return measured().board(segmenters=("unet", "vnet"), seeds=(0,))


def test_fid_points_bars_and_floor_are_those_of_table_1(full: Leaderboard) -> None:
    axes = fid_figure(full).axes
    assert [axis.get_title() for axis in axes] == ["Axial", "Sagittal", "Coronal", "Average"]
    generators = ["beta", "alpha", "oracle"]
    for axis, plane in zip(axes, ("axial", "sagittal", "coronal", "average"), strict=True):
        drawn = list(axis.containers)
        for name, container in zip(generators, drawn, strict=True):
            row = row_of(full.generators, generator=name)
            assert container[0].get_xdata() == [row[f"fid_{plane}"]]
            ((start, end),) = container[2][0].get_segments()
            assert (start[0], end[0]) == pytest.approx(
                (row[f"fid_{plane}_low"], row[f"fid_{plane}_high"])
            )
        floor = row_of(full.generators, generator="real")[f"fid_{plane}"]
        assert floor in [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]


def test_every_patient_is_a_pair_of_dots(full: Leaderboard) -> None:
    figure = dice_figure(full)
    panels = [axis for axis in figure.axes if axis.collections]
    assert len(panels) == 3 * 2  # generators by tasks
    cases = full.cases
    first = cases[(cases["generator"] == "beta") & (cases["task"] == "liver")]
    lines, means = panels[0].collections
    assert len(lines.get_segments()) == len(first) == 24
    own = first[first["segmenter"] == "unet"]
    np.testing.assert_allclose(
        sorted(segment[:, 1].tolist() for segment in lines.get_segments()[:12]),
        sorted(own[["dice_r", "dice_rs"]].to_numpy().tolist()),
    )
    np.testing.assert_allclose(
        means.get_segments()[0][:, 1], own[["dice_r", "dice_rs"]].to_numpy().mean(axis=0)
    )


def test_cases_are_the_pairs_whose_mean_is_the_gain(full: Leaderboard) -> None:
    frame = full.cases.assign(gain=full.cases["dice_rs"] - full.cases["dice_r"])
    means = frame.groupby(["generator", "segmenter", "task"])["gain"].mean()
    for key, gain in means.items():
        where = dict(zip(("generator", "segmenter", "task"), key, strict=True))
        row = row_of(full.segmentation, **where, arm="R+S", real="all", ratio=1.0)
        assert gain == pytest.approx(row["gain_absolute"])


def test_the_largest_change_counts_losses_too_and_takes_the_first_seed() -> None:
    made = Made()
    for seed in (0, 1):
        made.dice({"a": 0.5, "b": 0.7, "c": 0.6}, seed=seed)
        made.dice({"a": 0.6, "b": 0.4, "c": 0.8 + seed}, "g", seed=seed)
    (found,) = largest_changes(made.board(seeds=(0, 1)).cases).to_dict("records")
    assert (found["case"], found["seed"], found["dice_rs"]) == ("b", 0, 0.4)


def test_the_heat_map_has_every_gain_with_its_mark_and_holes() -> None:
    made = two_by_two()
    made.cell("segment", "alpha", "dynunet", "liver", "R+S", "all", 1.0, 0, "failed", "no")
    made.dice({"a": 0.3, "b": 0.4}, segmenter="dynunet")
    board = made.board(segmenters=("unet", "vnet", "dynunet"), generators=("alpha", "beta"))
    axis = gains_figure(board).axes[0]
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["+0.050", "+0.100", "+0.050", "+0.100", "–", "–"]
    (image,) = axis.images
    low, high = image.get_clim()
    assert low == -high  # no gain is the middle colour


def test_structures_draw_every_volume_and_its_median() -> None:
    made = two_by_two()
    rng = np.random.default_rng(0)
    volumes = {name: rng.uniform(1, 9, 5) for name in ("alpha", "real")}
    for name, values in volumes.items():
        for i, value in enumerate(values):
            made.score(
                "structures",
                name,
                {"structure_volume_of_case_ml": value},
                label="liver",
                case=f"{name}-{i}",
            )
    made.score("structures", "alpha", {"structure_volume_of_case_ml": 0.0}, label="liver", case="0")
    board = made.board()
    (axis,) = structures_figure(board).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["real test volumes", "alpha"]
    for line, name in zip(axis.lines, ("real", "alpha"), strict=True):
        np.testing.assert_allclose(sorted(line.get_xdata()), sorted(volumes[name]))
    medians = [collection.get_segments()[0][0, 0] for collection in axis.collections]
    np.testing.assert_allclose(medians, [np.median(volumes["real"]), np.median(volumes["alpha"])])


def costly() -> Made:
    made = two_by_two()
    for stage, seconds in (("a", 1800.0), ("b", 5400.0)):
        made.cell("fit", "alpha")
        for metric, value in (
            ("seconds", seconds),
            ("peak_memory_mb", 1024 + seconds),
            ("parameters", 2e6),
        ):
            made.records.append(
                Record(
                    kind="fit",
                    dataset="phantom",
                    grid="32x32x32",
                    generator="alpha",
                    stage=stage,
                    metric=metric,
                    value=value,
                    device="A card",
                )
            )
    made.records.append(
        Record(
            kind="sample",
            dataset="phantom",
            grid="32x32x32",
            generator="alpha",
            metric="seconds_per_volume",
            value=0.5,
            device="A card",
        )
    )
    for seconds in (3600.0, 7200.0):
        made.of_case("seconds", {("", ""): seconds}, device="A card", seed=int(seconds > 4000))
    made.of_case("parameters", {("", ""): 1e6})
    return made


def test_costs_are_sums_over_stages_and_means_over_trainings() -> None:
    board = costly().board()
    alpha = row_of(board.costs, name="alpha")
    assert alpha["hours"] == pytest.approx(2.0)
    assert alpha["peak_gib"] == pytest.approx((1024 + 5400) / 1024)
    assert (alpha["millions"], alpha["seconds_per_volume"]) == (4.0, 0.5)
    assert alpha["quality"] == pytest.approx(30.0)  # its FID
    unet = row_of(board.costs, name="unet")
    assert (unet["hours"], unet["millions"]) == (pytest.approx(1.5), 1.0)
    assert unet["quality"] == pytest.approx(0.7)  # Dice of R
    shown = named(cost_tables.costs(board))
    assert list(shown.loc["alpha"])[1:] == ["2.00", "0.500", "6.27", "4.00", "30.00"]
    assert "beta" not in shown.index
    assert "A card" in cost_tables.costs(board).notes[0]
    figure = costs_figure(board)
    titles = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()]
    assert titles[:4] == [
        *("Training, hours", "Sampling, s / volume", "Peak memory, GiB", "Parameters, millions"),
    ]
    assert [line.get_ydata()[0] for line in figure.axes[0].lines][:1] == pytest.approx([30.0])


def test_nothing_to_draw_draws_nothing() -> None:
    empty, few = Made().board(), two_by_two().board()
    assert not [name for name, plot in FIGURES.items() if plot.wanted(empty, NO_PICTURES)]
    drawn = [name for name, plot in FIGURES.items() if plot.wanted(few, NO_PICTURES)]
    assert drawn == ["fid", "dice", "gains"]


@pytest.mark.parametrize("kind", [png, pdf])
def test_figures_of_equal_numbers_are_equal_files(
    full: Leaderboard, kind: Callable[[Figure], bytes]
) -> None:
    assert kind(fid_figure(full)) == kind(fid_figure(full))


def test_one_legend_names_every_line_of_every_panel() -> None:
    def curve(top: float) -> pd.DataFrame:
        return pd.DataFrame({"step": [4, 8], "name": "val/dice", "value": [0.1, top]})

    variants = {
        "R": {"first": curve(0.4), "second": curve(0.5)},
        "R+S, a": {},  # nothing of it is done
        "R+S, b": {"second": curve(0.6)},
    }
    figure = curve_figure(variants, one_legend=True)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["R", "R+S, b"]
    first, second = figure.axes[:2]
    assert [line.get_color() for line in first.lines] == ["black"]
    assert [line.get_color() for line in second.lines] == ["black", colour(1)]
    assert second.get_ylabel() == "Dice, validation"


def test_of_one_validation_the_losses_of_training_are_drawn() -> None:
    once = pd.DataFrame({"step": [9], "name": "val/loss", "value": [3.0]})
    losses = pd.DataFrame({"step": [1, 9], "name": "loss/net", "value": [4.0, 2.0]})
    (axis,) = curve_figure({"": {"both": pd.concat([losses, once])}}).axes
    (line,) = axis.lines
    assert list(line.get_ydata()) == [4.0, 2.0]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss of net, training"]
    (axis,) = curve_figure({"": {"one": once}}).axes
    assert [line.get_marker() for line in axis.lines] == ["o"]


def test_a_panel_shows_one_scalar_and_none_that_is_nowhere_a_number() -> None:
    def curve(scores: list[float]) -> pd.DataFrame:
        steps = [*range(1, len(scores) + 1)]
        dice = pd.DataFrame({"step": steps, "name": "val/dice", "value": scores})
        return pd.concat([pd.DataFrame({"step": [1], "name": "loss/all", "value": [2.0]}), dice])

    (axis,) = curve_figure(
        {"R": {"a": curve([0.1, 0.3])}, "R+S, b": {"a": curve([0.2])}}, one_legend=True
    ).axes
    assert axis.get_ylabel() == "Dice, validation"
    assert [list(line.get_ydata()) for line in axis.lines] == [[0.1, 0.3], [0.2]]
    (axis,) = curve_figure({"R": {"a": curve([math.nan] * 3)}}, one_legend=True).axes
    assert axis.get_ylabel() == "loss, training"
