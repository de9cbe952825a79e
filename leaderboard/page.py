"""The page of a leaderboard: how the numbers were made, the tables and figures, what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from leaderboard import (
    companion_tables,
    cost_tables,
    fit_tables,
    gain_tables,
    label_tables,
    published,
    rank_tables,
    segmentation,
    tables,
)
from leaderboard.blocks import Block, Caution, Facts, Heading, Image, Page, Paragraph, Table, Viewer
from leaderboard.figures import FIGURES
from leaderboard.model import REAL, Leaderboard
from leaderboard.names import controls_of, file_name, shown_name
from leaderboard.pictures import CHANGES, NO_PICTURES, VOLUMES, Pictures
from leaderboard.text import TextTable, one_line

HOLES = 500
"""Rows of what was not measured, at most."""

_PUBLISHED = (
    f"Published by {published.SOURCE}, and not comparable with the numbers above: measured on "
    "720 hepatobiliary-phase MR scans that are not public, with extractor weights it does not name."
)
_LABELS = {
    "native": "native: the generator makes the label first and the image from it",
    "joint": "joint: image and label are generated together, as channels of one volume",
    "pseudo": "pseudo: a segmenter trained on the real training volumes labels the image",
    REAL: "real: the reference labels of the data set",
}
_TABLE_2 = "Table 2. Segmentation: Dice of R and R+S (higher is better)"
_VOLUMES = (
    "Every generator's first volumes beside real test volumes, one grey scale for all. The "
    "patient's right is on the left; anterior or superior is up, in sagittal slices anterior is "
    "left. Contours are those of the labels that segmenters learn from."
)
_CHANGES = (
    "Of every generator and task, the test case whose Dice changed most between a segmenter "
    "trained on R and the same one on R+S, gain or loss, of the first seed. These are extremes: "
    "the tables tell the rule."
)


def page(leaderboard: Leaderboard, pictures: Pictures = NO_PICTURES) -> Page:
    """The whole page."""
    info = leaderboard.info
    blocks: list[Block] = [Caution(one_line(note)) for note in (*info.notes, *pictures.left_out)]
    blocks += [Facts(tuple(caption(leaderboard)))]
    blocks += _realism(leaderboard)
    blocks += _volumes(pictures)
    blocks += _table(2, "memorisation", companion_tables.memorisation, leaderboard)
    blocks += _table(3, "task-memorisation", companion_tables.task_memorisation, leaderboard)
    blocks += _pairs(pictures)
    blocks += _table(2, "labels", label_tables.labels, leaderboard)
    blocks += _table(3, "labels-by-class", label_tables.labels_by_class, leaderboard)
    blocks += _table(2, "structures", label_tables.structures, leaderboard)
    blocks += _figure("structure-volumes", leaderboard, pictures)
    blocks += _segmentation(leaderboard, pictures)
    blocks += _table(2, "ranks", rank_tables.ranks, leaderboard)
    blocks += _table(2, "training", fit_tables.fits, leaderboard)
    blocks += _figure("curves", leaderboard, pictures)
    blocks += _figure("segmenter-curves", leaderboard, pictures)
    blocks += _table(2, "costs", cost_tables.costs, leaderboard)
    blocks += _figure("costs", leaderboard, pictures)
    if len(leaderboard.not_measured):
        blocks += [Table(2, "not-measured", _first(tables.not_measured(leaderboard)))]
    blocks += _published(leaderboard)
    title = f"Leaderboard: {one_line(info.dataset)}, grid {one_line(info.grid)}"
    return Page(title, basis(leaderboard), tuple(blocks))


def basis(leaderboard: Leaderboard) -> str:
    """What fixes the numbers, on one line: for the caption of a table that travels alone."""
    info, generators = leaderboard.info, leaderboard.generators
    split = ", ".join(f"{n} {one_line(name)}" for name, n in info.splits.items())
    told = [
        f"Data: {one_line(info.dataset)}, grid {one_line(info.grid)}"
        + (f", volumes: {split}" if split else ""),
        f"preset {one_line(info.preset)}",
        f"seed{'s' if len(info.seeds) > 1 else ''} {', '.join(map(str, info.seeds))}",
    ]
    scored = generators.dropna(subset="fid_average")
    if len(scored):
        sha256 = scored.iloc[0]["extractor_sha256"]
        weights = f", weights sha256 {one_line(sha256)}" if sha256 else ""
        told.append(f"extractor {_extractor(leaderboard)}{weights}")
    sources = generators.loc[generators["generator"] != REAL, "label_source"]
    labels = sorted({source for text in sources for source in text.split(", ") if source})
    if labels:
        told.append(f"synthetic labels {' or '.join(labels)}")
    return "; ".join(told) + "."


def caption(leaderboard: Leaderboard) -> list[tuple[str, str]]:
    """How the numbers were made, a line for each choice."""
    lines = [_data(leaderboard), _seeds(leaderboard)]
    if leaderboard.generators["fid_average"].notna().any():
        lines += [_fid(leaderboard)]
    lines += _controls(leaderboard)
    sources = ", ".join(leaderboard.generators["label_source"]).split(", ")
    known = [text for source, text in _LABELS.items() if source in sources]
    if known:
        lines.append(("Labels from", f"{'; '.join(known)}."))
    if len(leaderboard.segmentation):
        lines += _dice(leaderboard)
    return lines


def _volumes(pictures: Pictures) -> list[Block]:
    """Pictures of the volumes themselves."""
    if not pictures.rows:
        return []
    return [
        Heading(2, "Volumes"),
        Paragraph(_VOLUMES),
        Viewer("volumes", Image(VOLUMES, "Middle slices of real and of generated volumes")),
    ]


def _changes(pictures: Pictures) -> list[Block]:
    """Pictures of the test cases that R+S changed most."""
    if not pictures.changes:
        return []
    return [
        Heading(3, "Largest changes between R and R+S"),
        Paragraph(_CHANGES),
        Viewer("changes", Image(CHANGES, "Ground truth beside the segmentations of R and R+S")),
    ]


def _pairs(pictures: Pictures) -> list[Block]:
    """The figures of the nearest pairs, where they were drawn."""
    told = "Axial slices of the pairs of least distance: synthetic above, nearest training below."
    images = [
        Image(
            file,
            f"{shown_name(name)}: synthetic volumes over their nearest training volumes",
            shown_name(name),
        )
        for name, file in pictures.pairs.items()
    ]
    return [Heading(3, "Nearest pairs"), Paragraph(told), *images] if images else []


def _figure(name: str, leaderboard: Leaderboard, pictures: Pictures = NO_PICTURES) -> list[Block]:
    """A figure of the numbers, where there are any to draw."""
    figure = FIGURES[name]
    if not figure.wanted(leaderboard, pictures):
        return []
    return [Image(f"{name}.png", figure.alt, figure.caption)]


def _controls(leaderboard: Leaderboard) -> list[tuple[str, str]]:
    names = [*leaderboard.generators["generator"], *leaderboard.segmentation["generator"]]
    controls = controls_of(leaderboard.info)
    found = [name for name in dict.fromkeys(names) if name in controls]
    if not found:
        return []
    told = (
        f"{one_line(', '.join(found))}: generators of known quality, to show what the measures "
        "see. They compete with no model, and their gains are a family of their own."
    )
    return [("Controls", told)]


def _data(leaderboard: Leaderboard) -> tuple[str, str]:
    info = leaderboard.info
    split = ", ".join(f"{n} {one_line(name)}" for name, n in info.splits.items())
    told = f"{one_line(info.dataset)}, grid {one_line(info.grid)}, preset {one_line(info.preset)}"
    return "Data", told + (f"; volumes: {split}." if split else ".")


def _seeds(leaderboard: Leaderboard) -> tuple[str, str]:
    seeds = leaderboard.info.seeds
    if len(seeds) == 1:
        return "Seeds", f"one seed ({seeds[0]}): no training variance."
    listed = ", ".join(map(str, seeds))
    return "Seeds", f"{len(seeds)} seeds ({listed}); mean ± standard deviation over seeds."


def _fid(leaderboard: Leaderboard) -> tuple[str, str]:
    """Rows of one table share extractor and protocol; `leaderboard.build` sees to it."""
    scored = leaderboard.generators.dropna(subset="fid_average").iloc[0]
    floor = (
        " The floor is the FID of real training volumes, n in the table: what a perfect generator "
        "would get at that n."
        if REAL in set(leaderboard.generators["generator"])
        else ""
    )
    told = (
        f"features of {_extractor(leaderboard)}, {_weights(leaderboard)}; plane protocol "
        f"{one_line(scored['protocol'])}; synthetic volumes against real test volumes, n in the "
        f"table; average = mean of the three planes.{floor}" + _interval(leaderboard)
    )
    return "FID", told


def _extractor(leaderboard: Leaderboard) -> str:
    scored = leaderboard.generators.dropna(subset="fid_average").iloc[0]
    return one_line(leaderboard.info.extractor or scored["extractor"])


def _weights(leaderboard: Leaderboard) -> str:
    sha256 = leaderboard.generators.dropna(subset="fid_average").iloc[0]["extractor_sha256"]
    return f"weights sha256 {one_line(sha256)}" if sha256 else "which needs no weights"


def _interval(leaderboard: Leaderboard) -> str:
    """How the intervals were made; nothing where there are none."""
    if leaderboard.generators["fid_average_low"].isna().all():
        return ""
    method = leaderboard.info.interval_method or "95 % interval, bootstrap over volumes."
    several = " With several seeds, the mean of theirs." if len(leaderboard.info.seeds) > 1 else ""
    return f" In brackets: {one_line(method)}{several}"


def _dice(leaderboard: Leaderboard) -> list[tuple[str, str]]:
    shared = {
        "steps": "the same number of optimiser steps",
        "epochs": "the same number of epochs (R+S takes more optimiser steps)",
    }[leaderboard.info.budget]
    doses = set(leaderboard.segmentation["real"])
    arms = "R is trained on all real training volumes"
    if doses != {"all"}:
        arms += " (in Table 3 on as many as it says)"
    if (leaderboard.segmentation["arm"] != "R").any():
        arms += f", R+S on these and as many synthetic ones. R and R+S trained for {shared}"
    return [
        ("Arms", f"{arms}."),
        (
            "Dice",
            "mean over the test cases; a case's value is the mean over the classes present in its "
            "reference, and a structure absent from the reference is left out, whatever was "
            "predicted there. gain % = 100 (R+S − R) / R of the means printed, before rounding.",
        ),
    ]


def _realism(leaderboard: Leaderboard) -> list[Block]:
    blocks: list[Block] = [Paragraph("No generator's FID was asked for, so there is no Table 1.")]
    if len(leaderboard.generators):
        blocks = [Table(2, "table1", tables.realism(leaderboard))]
    return [
        *blocks,
        *_figure("fid", leaderboard),
        *_table(3, "table1b", companion_tables.companions, leaderboard),
        *_table(3, "table1c", companion_tables.task_features, leaderboard),
    ]


def _segmentation(leaderboard: Leaderboard, pictures: Pictures) -> list[Block]:
    main = leaderboard.segmentation[segmentation.is_main(leaderboard.segmentation)]
    blocks: list[Block] = []
    if len(main):
        blocks += [Heading(2, _TABLE_2)]
        for generator, block in zip(
            main["generator"].unique(), tables.segmentation(leaderboard), strict=True
        ):
            blocks += [Table(3, f"table2-{file_name(generator or 'real')}", block, _TABLE_2)]
        blocks += _figure("dice", leaderboard)
        gains = _table(3, "gains", gain_tables.paired_gains, leaderboard)
        blocks += gains or [Paragraph("No generator was asked for, so there is R alone.")]
        blocks += _figure("gains", leaderboard)
        blocks += _table(3, "table2b", gain_tables.scores, leaderboard)
    elif not len(leaderboard.segmentation):
        blocks += [Paragraph("No segmenter was asked for, so there is no Table 2.")]
    blocks += _changes(pictures)
    blocks += _table(2, "table3", gain_tables.dose, leaderboard)
    if len(leaderboard.doses):
        blocks += [Table(3, "doses", rank_tables.doses(leaderboard))]
        blocks += _figure("dose", leaderboard)
    return blocks


def _first(content: TextTable) -> TextTable:
    """The table without what nobody reads to the end."""
    left = len(content.rows) - HOLES
    if left <= 0:
        return content
    told = f"{left} more rows are left out; bench status tells of every cell."
    return replace(content, rows=content.rows[:HOLES], notes=(*content.notes, told))


def _published(leaderboard: Leaderboard) -> list[Block]:
    """The paper's tables beside which ours stand, at the end: they are not of these data."""
    blocks: list[Block] = []
    if len(leaderboard.generators):
        blocks += [Table(3, "published-table1", tables.published_realism(), published=True)]
    if segmentation.is_main(leaderboard.segmentation).any():
        blocks += [Table(3, "published-table2", tables.published_segmentation(), published=True)]
    told: list[Block] = [Heading(2, "Published, other data"), Paragraph(_PUBLISHED, aside=True)]
    return [*told, *blocks] if blocks else []


def _table(
    level: int,
    name: str,
    content: Callable[[Leaderboard], TextTable],
    leaderboard: Leaderboard,
) -> list[Block]:
    """A table under its title; nothing where nothing was measured."""
    made = content(leaderboard)
    return [Table(level, name, made)] if made.rows else []
