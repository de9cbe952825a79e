"""Table 2 as a frame: Dice of every arm beside the arm R it is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from leaderboard.arms import Arm, Key, Pairs
from leaderboard.inputs import Inputs, generators_in_order, in_order, places
from leaderboard.model import OVERALL_COLUMNS, SEGMENTATION_COLUMNS, RunInfo
from leaderboard.names import controls_of
from metrics.statistics import NO_INTERVAL, PairedGain, holm, paired_gains, relative_gain

NAN = float("nan")
LEVEL = 0.05


def segmentation_frame(
    inputs: Inputs, arms: Mapping[Key, Arm], pairs: Mapping[Key, Pairs], info: RunInfo
) -> pd.DataFrame:
    """A row per generator, segmenter, task and dose: `SEGMENTATION_COLUMNS`.

    R+S is compared with the arm R of as many real cases, and S with the R of all of them. An arm
    R that nothing is compared with has a row of its own, without a generator.
    """
    compared = {key: key.baseline for key in arms if key.generator}
    baselines = set(compared.values())
    alone = [key for key in arms if not key.generator and key not in baselines]
    gains = _gains(pairs)
    rows = [
        _row(key, arms[key], arms.get(baseline), gains.get(key))
        for key, baseline in compared.items()
    ]
    rows += [_row(key, None, arms[key], None) for key in alone]
    frame = pd.DataFrame(rows, columns=list(SEGMENTATION_COLUMNS))
    control = frame["generator"].isin(controls_of(info))
    # Table 2 and Table 3; to add controls must not cost the models.
    families = itertools.product((is_main(frame), ~is_main(frame)), (control, ~control))
    for table, own in families:
        family = table & own
        frame.loc[family, "p_holm"] = holm(frame.loc[family, "p_value"].astype("float64"))
    frame = frame.astype({"p_value": "float64", "p_holm": "float64"})
    frame["significant"] = _significant(frame)
    return _sorted(frame, inputs, info).astype(dict.fromkeys(("n_cases", "n_absent"), "Int64"))


def _significant(segmentation: pd.DataFrame) -> pd.Series[bool]:
    """Rows whose gain, or loss, differs from 0 by the adjusted p of several seeds.

    The p of one seed is of the patients and takes these networks as they are: two trainings of one
    arm differ for all patients alike, and it finds that difference. That of several knows the luck
    of training (`metrics.statistics.paired_gain`).
    """
    return (segmentation["p_holm"] < LEVEL) & (segmentation["n_seeds"] > 1)


def overall_frame(segmentation: pd.DataFrame) -> pd.DataFrame:
    """Mean over the segmenters per generator and task at the paper's dose: `OVERALL_COLUMNS`.

    The gain is the relative gain of the two means, in percent, as the paper prints it. Nothing
    is averaged where a segmenter left a hole.
    """
    main = segmentation[is_main(segmentation)]
    segmenters = main["segmenter"].unique()
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    columns = ("generator", "task", "segmenter", "dice_r", "dice_rs")
    for generator, task, segmenter, *dice in zip(*(main[c].tolist() for c in columns), strict=True):
        found.setdefault((generator, task), {})[segmenter] = (dice[0], dice[1])
    rows = []
    for (generator, task), by_segmenter in found.items():
        dice = [by_segmenter.get(segmenter, (NAN, NAN)) for segmenter in segmenters]
        r, rs = np.mean(dice, axis=0).tolist()
        rows.append((generator, task, r, rs, relative_gain(r, rs)))
    return pd.DataFrame(rows, columns=list(OVERALL_COLUMNS))


def is_main(segmentation: pd.DataFrame) -> pd.Series[bool]:
    """The rows of Table 2: all real cases, and as many synthetic ones (or, in arm R, none)."""
    paper = (segmentation["arm"] == "R+S") & (segmentation["ratio"] == 1.0)
    return (segmentation["real"] == "all") & (paper | (segmentation["arm"] == "R"))


def _gains(pairs: Mapping[Key, Pairs]) -> dict[Key, tuple[Pairs, PairedGain]]:
    """The paired gain of every arm that has pairs."""
    nothing = PairedGain(NAN, NO_INTERVAL, 0, NAN)
    shared = {key: (own.r, own.rs) for key, own in pairs.items() if own.seeds}
    gains = dict(zip(shared, paired_gains(shared.values()), strict=True))
    return {key: (own, gains.get(key, nothing)) for key, own in pairs.items()}


def _row(
    key: Key, synthetic: Arm | None, real: Arm | None, gain: tuple[Pairs, PairedGain] | None
) -> dict[str, object]:
    arms = {key.arm: synthetic, "R": real} if key.generator else {"R": real}
    status, reason = _outcome(arms)
    if real is None:
        reason = reason or f"No arm R with {key.baseline.real} real cases was asked for."
    seeds = [arm.measured_seeds for arm in arms.values() if arm is not None]
    row: dict[str, object] = {
        **key._asdict(),
        "dice_r": NAN if real is None else real.means.mean,
        "dice_rs": NAN if synthetic is None else synthetic.means.mean,
        "n_seeds": len(frozenset.intersection(*seeds)),
        "status": status,
        "reason": reason,
        "dice_r_sd": NAN if real is None else real.means.spread,
        "dice_rs_sd": NAN if synthetic is None else synthetic.means.spread,
    }
    if real is None or status != "done":
        return row
    if synthetic is None:
        present = (~np.isnan(real.dice)).any(axis=0)
        return row | {"n_cases": int(present.sum()), "n_absent": int((~present).sum())}
    assert gain is not None
    return row | _gain(synthetic, real, *gain, reason)


def _gain(
    synthetic: Arm, real: Arm, pairs: Pairs, gain: PairedGain, reason: str
) -> dict[str, object]:
    """The gain of one arm over R: relative of the means, absolute over the paired cases."""
    told = [reason] if reason else []
    if pairs.unshared:
        told.append(f"Seeds of one arm only, left out of the gain: {_listed(pairs.unshared)}.")
    if pairs.unpaired:
        told.append(f"Cases with a value in one arm only, left out of the gain: {pairs.unpaired}.")
    return {
        "gain_relative": relative_gain(real.means.mean, synthetic.means.mean),
        "gain_absolute": gain.mean,
        "gain_low": gain.interval.low,
        "gain_high": gain.interval.high,
        "n_cases": gain.n,
        "n_absent": pairs.absent,
        "reason": " ".join(told),
        "p_value": gain.p_value,
    }


def _listed(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))


def _outcome(arms: dict[str, Arm | None]) -> tuple[str, str]:
    """The worst status of the arms, and why; each reason names its arm where they differ."""
    told = {name: arm.outcome for name, arm in arms.items() if arm is not None}
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    states = [status for status, _ in told.values()]
    worst = next((s for s in ("failed", "blocked", "waiting") if s in states), "done")
    reasons = [f"{name}: {why}" for name, (status, why) in told.items() if why and status == worst]
    return worst, "; ".join(reasons)


def _sorted(frame: pd.DataFrame, inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """The order asked for; the paper's dose before the others."""
    names = inputs.segment_cells
    order = {
        "generator": generators_in_order(info, names["generator"]),
        "segmenter": in_order(info.segmenters, names["segmenter"]),
        "task": in_order(info.tasks, names["task"]),
    }
    keys = {column: places(frame[column], found) for column, found in order.items()}
    other_dose = ~is_main(frame)
    count = pd.to_numeric(frame["real"], errors="coerce").fillna(float("inf"))
    ranks = frame.assign(**keys, _dose=other_dose, _count=-count)
    by = ["_dose", "generator", "segmenter", "task", "_count", "arm", "ratio"]
    return frame.loc[ranks.sort_values(by, kind="stable").index].reset_index(drop=True)
