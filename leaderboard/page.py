"""The page ``leaderboard.md``: how the numbers were made, the tables, and what is missing."""

from __future__ import annotations

from collections.abc import Callable

from leaderboard import (
    companion_tables,
    fit_tables,
    gain_tables,
    label_tables,
    published,
    rank_tables,
    segmentation,
    tables,
)
from leaderboard.figures import DOSE_FIGURE
from leaderboard.markdown import escape, table
from leaderboard.model import REAL, Leaderboard
from leaderboard.names import controls_of, display_name
from leaderboard.text import TextTable, one_line

_PUBLISHED = (
    f"Published by {published.SOURCE}, and not comparable with the numbers above: measured on "
    "720 hepatobiliary-phase MR scans that are not public, with extractor weights it does not name."
)
_FIGURE = (
    "Points are means over the segmenters, bars 95 % intervals, as in the table above. S alone is "
    "drawn hollow, against the R of all real cases."
)
_LABELS = {
    "native": "native: the generator makes the label first and the image from it",
    "joint": "joint: image and label are generated together, as channels of one volume",
    "pseudo": "pseudo: a segmenter trained on the real training volumes labels the image",
    REAL: "real: the reference labels of the data set",
}


def page(leaderboard: Leaderboard) -> str:
    """The whole page as GitHub-flavoured Markdown."""
    info = leaderboard.info
    parts = [f"# Leaderboard: {_safe(info.dataset)}, grid {_safe(info.grid)}"]
    parts += [f"> **{_safe(note)}**" for note in info.notes]
    parts += ["\n".join(f"- {line}" for line in caption(leaderboard))]
    parts += _realism(leaderboard)
    parts += _all("##", companion_tables.memorisation, leaderboard)
    parts += _all("###", companion_tables.task_memorisation, leaderboard)
    parts += _pairs(leaderboard)
    parts += _all("##", label_tables.labels, leaderboard)
    parts += _all("###", label_tables.labels_by_class, leaderboard)
    parts += _all("##", label_tables.structures, leaderboard)
    parts += _segmentation(leaderboard)
    parts += _all("##", rank_tables.ranks, leaderboard)
    parts += _all("##", fit_tables.fits, leaderboard)
    if len(leaderboard.not_measured):
        parts += _titled("##", tables.not_measured(leaderboard))
    parts += _published(leaderboard)
    return "\n\n".join(parts) + "\n"


def _pairs(leaderboard: Leaderboard) -> list[str]:
    """The figures of the nearest pairs, where they were drawn."""
    figures = [
        f"![{name}: synthetic volumes over their nearest training volumes]({file})"
        for name, file in ((_safe(display_name(g)), f) for g, f in leaderboard.info.pairs.items())
    ]
    told = "Axial slices of the pairs of least distance: synthetic above, nearest training below."
    return ["### Nearest pairs", told, *figures] if figures else []


def caption(leaderboard: Leaderboard) -> list[str]:
    """How the numbers were made, a line of Markdown for each choice."""
    lines = [_data(leaderboard), _seeds(leaderboard)]
    if leaderboard.generators["fid_average"].notna().any():
        lines += [_fid(leaderboard)]
    lines += _controls(leaderboard)
    sources = ", ".join(leaderboard.generators["label_source"]).split(", ")
    known = [text for source, text in _LABELS.items() if source in sources]
    if known:
        lines.append(f"**Labels from**: {'; '.join(known)}.")
    if len(leaderboard.segmentation):
        lines += _dice(leaderboard)
    return lines


def _controls(leaderboard: Leaderboard) -> list[str]:
    names = [*leaderboard.generators["generator"], *leaderboard.segmentation["generator"]]
    controls = controls_of(leaderboard.info)
    found = [name for name in dict.fromkeys(names) if name in controls]
    if not found:
        return []
    return [
        f"**Controls**: {_safe(', '.join(found))}: generators of known quality, to show what the "
        "measures see. They compete with no model, and their gains are a family of their own."
    ]


def _data(leaderboard: Leaderboard) -> str:
    info = leaderboard.info
    split = ", ".join(f"{n} {_safe(name)}" for name, n in info.splits.items())
    return (
        f"**Data**: {_safe(info.dataset)}, grid {_safe(info.grid)}, preset {_safe(info.preset)}"
        + (f"; volumes: {split}." if split else ".")
    )


def _seeds(leaderboard: Leaderboard) -> str:
    seeds = leaderboard.info.seeds
    if len(seeds) == 1:
        return f"**Seeds**: one seed ({seeds[0]}): no training variance."
    return (
        f"**Seeds**: {len(seeds)} seeds ({', '.join(map(str, seeds))}); "
        "mean ± standard deviation over seeds."
    )


def _fid(leaderboard: Leaderboard) -> str:
    """Rows of one table share extractor and protocol; `leaderboard.build` sees to it."""
    scored = leaderboard.generators.dropna(subset="fid_average").iloc[0]
    sha256 = scored["extractor_sha256"]
    weights = f"weights sha256 {_safe(sha256)}" if sha256 else "which needs no weights"
    floor = (
        " The floor is the FID of real training volumes, n in the table: what a perfect generator "
        "would get at that n."
        if REAL in set(leaderboard.generators["generator"])
        else ""
    )
    return (
        f"**FID**: features of {_safe(leaderboard.info.extractor or scored['extractor'])}, "
        f"{weights}; plane protocol {_safe(scored['protocol'])}; synthetic volumes against real "
        f"test volumes, n in the table; average = mean of the three planes.{floor}"
        + _interval(leaderboard)
    )


def _interval(leaderboard: Leaderboard) -> str:
    """How the intervals were made; nothing where there are none."""
    if leaderboard.generators["fid_average_low"].isna().all():
        return ""
    method = leaderboard.info.interval_method or "95 % interval, bootstrap over volumes."
    several = " With several seeds, the mean of theirs." if len(leaderboard.info.seeds) > 1 else ""
    return f" In brackets: {_safe(method)}{several}"


def _dice(leaderboard: Leaderboard) -> list[str]:
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
        f"**Arms**: {arms}.",
        "**Dice**: mean over the test cases; a case's value is the mean over the classes present "
        "in its reference, and a structure absent from the reference is left out, whatever was "
        "predicted there. gain % = 100 (R+S − R) / R of the means printed, before rounding.",
    ]


def _realism(leaderboard: Leaderboard) -> list[str]:
    asked = len(leaderboard.generators) > 0
    nothing = ["No generator's FID was asked for, so there is no Table 1."]
    return [
        *(_titled("##", tables.realism(leaderboard)) if asked else nothing),
        *_all("###", companion_tables.companions, leaderboard),
        *_all("###", companion_tables.task_features, leaderboard),
    ]


def _segmentation(leaderboard: Leaderboard) -> list[str]:
    blocks = tables.segmentation(leaderboard)
    parts = []
    if blocks:
        parts += ["## Table 2. Segmentation: Dice of R and R+S (higher is better)"]
        gains = gain_tables.paired_gains(leaderboard)
        for block in blocks:
            parts += _titled("###", block)
        if gains.rows:
            parts += _titled("###", gains)
        else:
            parts += ["No generator was asked for, so there is R alone."]
        parts += _all("###", gain_tables.scores, leaderboard)
    elif not len(leaderboard.segmentation):
        parts += ["No segmenter was asked for, so there is no Table 2."]
    parts += _all("##", gain_tables.dose, leaderboard)
    if len(leaderboard.doses):
        parts += _titled("###", rank_tables.doses(leaderboard))
        parts += [f"![Gain in Dice by dose]({DOSE_FIGURE})", f"*{escape(_FIGURE)}*"]
    return parts


def _published(leaderboard: Leaderboard) -> list[str]:
    """The paper's tables beside which ours stand, at the end: they are not of these data."""
    parts = []
    if len(leaderboard.generators):
        parts += _titled("###", tables.published_realism())
    if segmentation.is_main(leaderboard.segmentation).any():
        parts += _titled("###", tables.published_segmentation())
    return ["## Published, other data", f"*{escape(_PUBLISHED)}*", *parts] if parts else []


def _all(
    level: str, content: Callable[[Leaderboard], TextTable], leaderboard: Leaderboard
) -> list[str]:
    """A table under its title; nothing where nothing was measured."""
    made = content(leaderboard)
    return _titled(level, made) if made.rows else []


def _titled(level: str, content: TextTable) -> list[str]:
    return [f"{level} {escape(content.title)}", table(content)]


def _safe(text: object) -> str:
    return escape(one_line(str(text)))
