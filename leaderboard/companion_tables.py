"""The tables beside Table 1 as text: companions of FID, task features, memorisation."""

from __future__ import annotations

import pandas as pd

from leaderboard.by_generator import (
    Columns,
    by_generator,
    in_figures,
    in_three,
    with_interval,
)
from leaderboard.model import REAL, Leaderboard
from leaderboard.text import TextTable, number, percent, probability

MANIFOLD = ("precision", "recall", "density", "coverage")
NEAR = 0.5  # that of `metrics.memorisation`
FEW = 3
"""Up to so many times k, nearest neighbours say little: see `_neighbours`."""

_BOTH = "n real / n synthetic"


def companions(leaderboard: Leaderboard) -> TextTable:
    """Table 1b: what says how far the FID of Table 1 can be trusted; empty where unmeasured."""
    own = leaderboard.companions
    scores = own[(own["kind"] == "score") & (own["plane"] == "average") & (own["metric"] != "fid")]
    rows = pd.concat([scores, own[own["kind"] == "diversity"]])
    columns: Columns = {
        "fid_extrapolated": ("FID∞", lambda row: number(row["value"], 2, row["sd"])),
        "kid": ("KID", in_figures),
        "mmd_rbf": ("MMD", in_figures),
        **{metric: (metric.capitalize(), in_three) for metric in MANIFOLD},
        "ms_ssim": ("MS-SSIM", in_three),
    }
    notes = [
        "Means of the three planes, on the features of Table 1. FID∞, KID, MMD: lower is better. "
        "KID and MMD have no bias at any n (near 0 they may be negative). FID∞, extrapolated in "
        "1/n, takes away a part of FID's bias only: read it beside the floor's.",
        *_neighbours(leaderboard, scores),
        *_ms_ssim(leaderboard, own[own["kind"] == "diversity"]),
    ]
    return by_generator("Table 1b. Companions of FID", rows, columns, notes, _BOTH)


def task_features(leaderboard: Leaderboard) -> TextTable:
    """Table 1c: the same scores on features that see anatomy, never mixed with Table 1's."""
    own = leaderboard.companions
    rows = own[(own["kind"] == "task-score") & (own["plane"] == "volume")]
    columns: Columns = {
        "fid": ("FID [95 % interval]", with_interval),
        "fid_extrapolated": ("FID∞", lambda row: number(row["value"], 2, row["sd"])),
        "kid": ("KID", in_figures),
        **{metric: (metric.capitalize(), in_three) for metric in MANIFOLD},
    }
    notes = (
        "Features of the segmenter trained on the real training volumes (the labeller), of the "
        "whole volume: they see anatomy, and are no scale that Table 1's can be compared with. "
        "The floor is of volumes that the labeller was trained on, and is no bound here: read the "
        "generators among one another.",
        *_neighbours(leaderboard, rows),
    )
    title = "Table 1c. Realism on task features (FID, KID: lower is better)"
    return by_generator(title, rows, columns, notes, _BOTH)


def memorisation(leaderboard: Leaderboard) -> TextTable:
    """Do synthetic volumes lie nearer to the training volumes than test volumes do?"""
    test = leaderboard.info.splits.get("test")
    several = " With several seeds, p is twice the mean of theirs."
    notes = (
        "Distance: median over volumes of the distance to the nearest training volume, on the "
        "features of Table 1. A near copy is nearer than "
        f"{NEAR:g} times the median distance of the {f'{test} ' if test else ''}test volumes. A "
        "ratio far below 1, or more near copies than among the test volumes, says that training "
        "cases are repeated, however good the FID; p tests that synthetic volumes lie nearer than "
        f"test volumes.{several if len(leaderboard.info.seeds) > 1 else ''}",
        "Copies that are blurred, noisy or moved are not found in texture features; task features "
        "see through slight degradation.",
    )
    return _memorisation(leaderboard, "memorise", "Memorisation", notes)


def task_memorisation(leaderboard: Leaderboard) -> TextTable:
    """The same on task features, which see through what changes texture alone."""
    notes = (
        "As above, with distances between features of the labeller. It was trained on the training "
        "volumes, which may set them apart from all others: read the generators among one another.",
    )
    return _memorisation(leaderboard, "task-memorise", "Memorisation on task features", notes)


def _memorisation(
    leaderboard: Leaderboard, kind: str, title: str, notes: tuple[str, ...]
) -> TextTable:
    columns: Columns = {
        "memorisation_distance": ("Distance, synthetic", in_figures),
        "memorisation_distance_test": ("Distance, test", in_figures),
        "memorisation_ratio": ("Synthetic / test", in_three),
        "near_copies": ("Near copies", lambda row: percent(row["value"])),
        "near_copies_test": ("Near copies, test", lambda row: percent(row["value"])),
        "memorisation_p": ("p", lambda row: probability(row["value"])),
    }
    rows = leaderboard.companions[leaderboard.companions["kind"] == kind]
    return by_generator(title, rows, columns, notes, "n training / n synthetic")


def _neighbours(leaderboard: Leaderboard, rows: pd.DataFrame) -> tuple[str, ...]:
    """What precision, recall, density and coverage say, with their k and whether n is enough."""
    k = leaderboard.info.neighbours
    own = rows[rows["metric"].isin(MANIFOLD)]
    if not len(own):
        return ()
    told = (
        "Precision and density: do synthetic volumes look like real ones; recall and coverage: are "
        "the real ones all represented (higher is better)"
    )
    told += f"; among k = {k} nearest neighbours." if k else "."
    least = own[["n_real", "n_synthetic"]].min().min()
    if k and not pd.isna(least) and least <= FEW * k:
        told += (
            f" With {least} volumes the {k} nearest are a large part of them, and values near 1 "
            "mean little."
        )
    return (told,)


def _ms_ssim(leaderboard: Leaderboard, rows: pd.DataFrame) -> tuple[str, ...]:
    """How MS-SSIM is read, and of how many volumes and pairs it is."""
    if not len(rows):
        return ()
    most = leaderboard.info.ms_ssim_pairs
    counts = sorted(set(rows.loc[rows["generator"] != REAL, "n_synthetic"].dropna()))
    drawn = f" (mean of at most {most} pairs)" if most else ""
    if most and len(counts) == 1:
        drawn = f" (mean of {min(most, counts[0] * (counts[0] - 1) // 2)} pairs of {counts[0]})"
    return (
        f"MS-SSIM: likeness of pairs within S, on voxels{drawn}; in the row of real volumes, of "
        "the test volumes. Above theirs it means less variety; far below theirs it is noise, not "
        "variety.",
    )
