"""What a generator's labels are worth as text: their fit to the images, and their structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from leaderboard.by_generator import Columns, by_generator, generators, in_three, reasons
from leaderboard.model import REAL, Leaderboard
from leaderboard.names import shown_name
from leaderboard.text import (
    MISSING,
    TextTable,
    figures,
    number,
    one_line,
    percent,
    probability,
    signed,
)

REAL_LABELS = "real test volumes"


def labels(leaderboard: Leaderboard) -> TextTable:
    """Do a generator's labels fit its images?"""
    own = leaderboard.companions
    rows = own[(own["kind"] == "fidelity") & (own["label"] == "")]
    columns: Columns = {
        "label_fidelity": ("Dice", in_three),
        "label_fidelity_shuffled": ("Dice, labels shuffled", in_three),
    }
    notes = (
        "Dice between a volume's label and what a segmenter trained on real volumes sees in its "
        "image, mean over classes; shuffled: with another volume's label. Labels that the image "
        "ignores differ by nothing. Pseudo labels are the segmenter's own, so they have no row. A "
        "class that real labels hold and no synthetic label does counts as 0.",
    )
    title = "Labels: do they fit the images"
    content = by_generator(title, rows, columns, notes, "n", REAL_LABELS)
    values = rows.set_index(["generator", "metric"])["value"].to_dict()
    lines = []
    for generator, line in zip(generators(rows), content.rows, strict=True):
        matched, shuffled = (values.get((generator, metric), float("nan")) for metric in columns)
        lines.append((*line[:-1], signed(matched - shuffled, 3), line[-1]))
    titles = (*content.columns[:-1], "Difference", content.columns[-1])
    return replace(content, columns=titles, rows=tuple(lines))


def labels_by_class(leaderboard: Leaderboard) -> TextTable:
    """The same for each class: one that is never right may hide in a mean."""
    own = leaderboard.companions
    rows = own[(own["kind"] == "fidelity") & (own["label"] != "")]
    values = rows.set_index(["generator", "label", "metric"])["value"].to_dict()
    classes = list(dict.fromkeys(rows["label"]))
    body = []
    for generator in generators(rows):
        name = REAL_LABELS if generator == REAL else shown_name(generator)
        pairs = [
            " / ".join(
                number(values.get((generator, label, metric), float("nan")), 3)
                for metric in ("label_fidelity", "label_fidelity_shuffled")
            )
            for label in classes
        ]
        body.append((name, *pairs))
    return TextTable(
        title="Labels by class: Dice / Dice with labels shuffled",
        columns=("Generator", *map(one_line, classes)),
        rows=tuple(body),
        notes=reasons(rows),
    )


def structures(leaderboard: Leaderboard) -> TextTable:
    """Volumes and numbers of components of each structure, synthetic against real."""
    frame = leaderboard.structures
    several = " With several seeds, p is twice the mean of theirs."
    rows = []
    for row in frame.to_dict("records"):
        # The floor's own means are those of the test volumes: its p alone is of two sets.
        own = {"volume_ml", "components", "absent"} if row["generator"] != REAL else set()
        pairs = {
            part: _beside(shown, row[part] if part in own else float("nan"), row[f"{part}_real"])
            for part, shown in (
                ("volume_ml", figures),
                ("components", figures),
                ("absent", percent),
            )
        }
        rows.append(
            (
                shown_name(row["generator"]),
                one_line(row["label"]),
                pairs["volume_ml"],
                probability(row["volume_p"]),
                pairs["components"],
                probability(row["components_p"]),
                pairs["absent"],
                MISSING if pd.isna(row["n_synthetic"]) else str(row["n_synthetic"]),
            )
        )
    own_rows = leaderboard.companions[leaderboard.companions["kind"] == "structures"]
    test = leaderboard.info.splits.get("test")
    return TextTable(
        title="Structures: synthetic / real",
        columns=(
            *("Generator", "Structure", "Volume, ml", "p of volumes"),
            *("Components", "p of components", "Volumes without it", "n"),
        ),
        rows=tuple(rows),
        names=2,
        notes=(
            "Means over n volumes; volumes in ml at the training cases' median voxel size, which "
            f"is given to all. Real: the {f'{test} ' if test else ''}test volumes. p: two-sample "
            "test against these, Holm-adjusted over the structures of a generator; small where "
            "synthetic structures are not distributed as real ones. The floor's rows hold the p of "
            "training volumes against test volumes: how much two real sets differ."
            + (several if len(leaderboard.info.seeds) > 1 else ""),
            *reasons(own_rows),
        ),
        last=int((frame["generator"] == REAL).sum()),
    )


def _beside(shown: Callable[[float], str], synthetic: float, real: float) -> str:
    return f"{shown(synthetic)} / {shown(real)}"
