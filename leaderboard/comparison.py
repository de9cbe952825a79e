"""What changed from one run to another: FID by shared resamples, Dice by shared test cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboard.arms import pair, read_arms
from leaderboard.blocks import Block, Page, Paragraph, Table
from leaderboard.inputs import Inputs, read_inputs
from leaderboard.names import shown_name
from leaderboard.text import MISSING, TextTable, number, one_line, probability, signed_interval
from metrics.statistics import holm, paired_gain

AVERAGE = "average"
_SAME = ["extractor", "extractor_sha256", "protocol", "n_real", "n_synthetic"]
_WORDS = {
    "extractor": "the extractor",
    "extractor_sha256": "the extractor's weights",
    "protocol": "the protocol of planes",
    "n_real": "the number of real volumes",
    "n_synthetic": "the number of synthetic volumes",
}


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    records: pd.DataFrame
    cells: pd.DataFrame


def compare(
    before: Side,
    after: Side,
    settings: Sequence[tuple[str, str, str]],
    other_data: str = "",
) -> Page:
    """A page of what changed.

    Args:
        before, after: records and cells of the two runs.
        settings: what of the configurations differs: key, before, after.
        other_data: how the test sets differ; "" where they are the same. Then, and only then,
            differences are taken.
    """
    one, other = (read_inputs(side.records, side.cells) for side in (before, after))
    names = tuple(one_line(side.name) for side in (before, after))
    blocks: list[Block] = [*_settings(settings, names)]
    if other_data:
        told = f"The test sets differ ({one_line(other_data)}), so that no number is compared."
        return Page(_title(names), "", (*blocks, Paragraph(told)))
    blocks += _fid(one, other, names)
    blocks += _dice(one, other, names)
    return Page(_title(names), "", tuple(blocks))


def _title(names: tuple[str, ...]) -> str:
    return f"What changed from {names[0]} to {names[1]}"


def _settings(settings: Sequence[tuple[str, str, str]], names: tuple[str, ...]) -> Iterable[Block]:
    if not settings:
        yield Paragraph("The configurations are the same.")
        return
    rows = tuple(tuple(one_line(text, 100) for text in row) for row in settings)
    yield Table(2, "settings", TextTable("Configuration", ("Setting", *names), rows, names=3))


def _fid(before: Inputs, after: Inputs, names: tuple[str, ...]) -> Iterable[Block]:
    """Average FID of the generators that both have, with the interval of the difference."""
    fids = [_by_generator(inputs) for inputs in (before, after)]
    shared = [name for name in fids[0] if name in fids[1]]
    if not shared:
        yield Paragraph("The runs have no scored generator in common.")
        return
    rows, notes = [], []
    for name in shared:
        facts = [_facts(inputs, name) for inputs in (before, after)]
        changed = [_WORDS[key] for key in _SAME if facts[0][key] != facts[1][key]]
        shown = [number(fid[name], 2) for fid in fids]
        told = MISSING if changed else _fid_change(before, after, name)
        rows.append((shown_name(name), *shown, told))
        if changed:
            notes.append(f"No difference of {shown_name(name)}: {' and '.join(changed)} changed.")
    content = TextTable(
        "FID, average of the planes (lower is better)",
        ("Generator", *names, "Difference [95 % interval]"),
        tuple(rows),
        notes=(
            "The interval resamples volumes, the same real ones for both runs; that another seed "
            "of a fit would differ too is not in it.",
            *dict.fromkeys(notes),
        ),
    )
    yield Table(2, "fid", content)


def _by_generator(inputs: Inputs) -> dict[str, float]:
    rows = inputs.fid[inputs.fid["plane"] == AVERAGE]
    return {str(name): float(v) for name, v in rows.groupby("generator")["value"].mean().items()}


def _facts(inputs: Inputs, generator: str) -> dict[str, object]:
    """What two FIDs must share to be compared."""
    rows = inputs.fid[(inputs.fid["generator"] == generator) & (inputs.fid["plane"] == AVERAGE)]
    return {key: sorted(set(rows[key])) for key in _SAME}


def _fid_change(before: Inputs, after: Inputs, generator: str) -> str:
    """After minus before; resample r of both drew the same real volumes."""
    values = [_by_generator(inputs)[generator] for inputs in (before, after)]
    drawn = []
    for inputs in (before, after):
        own = inputs.resamples[inputs.resamples["generator"] == generator]
        drawn.append(own.groupby("case")["value"].mean())
    both = pd.concat(drawn, axis=1, join="inner").dropna().to_numpy("float64")
    change = f"{values[1] - values[0]:+.2f}"
    if not len(both):
        return change
    low, high = np.percentile(both[:, 1] - both[:, 0], (2.5, 97.5))
    return f"{change} [{low:+.2f}, {high:+.2f}]"


def _dice(before: Inputs, after: Inputs, names: tuple[str, ...]) -> Iterable[Block]:
    """Dice of the arms that both have, paired by test case."""
    arms = [read_arms(inputs) for inputs in (before, after)]
    rows, values = [], []
    for key in arms[0]:
        if key not in arms[1]:
            continue
        one, other = arms[0][key], arms[1][key]
        pairs = pair(other, one)
        if not pairs.seeds:
            continue
        gain = paired_gain(pairs.r, pairs.rs)
        dose = "" if key.real == "all" and key.ratio in (0.0, 1.0) else f", {key.real} real"
        dose += "" if key.ratio in (0.0, 1.0) else f", ratio {key.ratio:g}"
        rows.append(
            (
                shown_name(key.segmenter),
                one_line(key.task),
                f"{key.arm}{dose}",
                shown_name(key.generator) if key.generator else MISSING,
                number(one.means.mean, 4),
                number(other.means.mean, 4),
                signed_interval(gain.mean, gain.interval.low, gain.interval.high),
                str(gain.n),
            )
        )
        values.append(gain.p_value)
    if not rows:
        yield Paragraph("The runs have no segmentation in common.")
        return
    adjusted = holm(np.array(values, dtype=float))
    content = TextTable(
        "Dice (higher is better)",
        (
            *("Segmenter", "Task", "Arm", "Generator"),
            *(*names, "Difference [95 % interval]", "Cases", "p"),
        ),
        tuple((*row, probability(p)) for row, p in zip(rows, adjusted, strict=True)),
        names=4,
        notes=(
            "Paired by test case and seed; p is Wilcoxon's, Holm-adjusted over this table's "
            f"{len(rows)}. Of one seed they do not tell what training once more would change.",
        ),
    )
    yield Table(2, "dice", content)
