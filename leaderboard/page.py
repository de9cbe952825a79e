"""The page ``leaderboard.md``: how the numbers were made, the tables, and what is missing."""

from __future__ import annotations

from leaderboard import published, tables
from leaderboard.markdown import escape, table
from leaderboard.model import REAL, Leaderboard
from leaderboard.text import TextTable, one_line

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


def page(leaderboard: Leaderboard) -> str:
    """The whole page as GitHub-flavoured Markdown."""
    info = leaderboard.info
    parts = [f"# Leaderboard: {_safe(info.dataset)}, grid {_safe(info.grid)}"]
    parts += [f"> **{_safe(note)}**" for note in info.notes]
    parts += ["\n".join(f"- {line}" for line in caption(leaderboard))]
    parts += _realism(leaderboard)
    parts += _segmentation(leaderboard)
    if len(leaderboard.not_measured):
        parts += _titled("##", tables.not_measured(leaderboard))
    return "\n\n".join(parts) + "\n"


def caption(leaderboard: Leaderboard) -> list[str]:
    """How the numbers were made, a line of Markdown for each choice."""
    lines = [_data(leaderboard), _seeds(leaderboard)]
    if leaderboard.generators["fid_average"].notna().any():
        lines += [_fid(leaderboard)]
    sources = ", ".join(leaderboard.generators["label_source"]).split(", ")
    known = [text for source, text in _LABELS.items() if source in sources]
    if known:
        lines.append(f"**Labels from**: {'; '.join(known)}.")
    if len(leaderboard.segmentation):
        lines += _dice(leaderboard)
    return lines


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
    )


def _dice(leaderboard: Leaderboard) -> list[str]:
    shared = {
        "steps": "the same number of optimiser steps",
        "epochs": "the same number of epochs (R+S takes more optimiser steps)",
    }[leaderboard.info.budget]
    doses = set(leaderboard.segmentation["real"])
    arms = "R is trained on all real training volumes"
    if doses != {"all"}:
        arms += " (in Table Dose on as many as it says)"
    if (leaderboard.segmentation["arm"] != "R").any():
        arms += f", R+S on these and as many synthetic ones. R and R+S trained for {shared}"
    return [
        f"**Arms**: {arms}.",
        "**Dice**: mean over the test cases; a case's value is the mean over the classes present "
        "in its reference, and a structure absent from the reference is left out, whatever was "
        "predicted there. gain % = 100 (R+S − R) / R of the means printed, before rounding.",
    ]


def _realism(leaderboard: Leaderboard) -> list[str]:
    if not len(leaderboard.generators):
        return ["No generator's FID was asked for, so there is no Table 1."]
    return [
        *_titled("##", tables.realism(leaderboard)),
        *_published(tables.published_realism()),
    ]


def _segmentation(leaderboard: Leaderboard) -> list[str]:
    blocks = tables.segmentation(leaderboard)
    parts = []
    if blocks:
        parts += ["## Table 2. Segmentation: Dice of R and R+S (higher is better)"]
        gains = tables.paired_gains(leaderboard)
        for block in blocks:
            parts += _titled("###", block)
        if gains.rows:
            parts += _titled("###", gains)
        else:
            parts += ["No generator was asked for, so there is R alone."]
        parts += _published(tables.published_segmentation())
    elif not len(leaderboard.segmentation):
        parts += ["No segmenter was asked for, so there is no Table 2."]
    dose = tables.dose(leaderboard)
    return parts + (_titled("##", dose) if dose.rows else [])


def _published(content: TextTable) -> list[str]:
    heading = f"### Published, other data: {escape(content.title)}"
    return [heading, f"*{escape(_PUBLISHED)}*", table(content)]


def _titled(level: str, content: TextTable) -> list[str]:
    return [f"{level} {escape(content.title)}", table(content)]


def _safe(text: object) -> str:
    return escape(one_line(str(text)))
