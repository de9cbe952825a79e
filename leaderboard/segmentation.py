"""Table 2 as a frame: Dice of every arm beside the arm R it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from leaderboard.inputs import ARM_KEY, Inputs, in_order, outcome
from leaderboard.model import OVERALL_COLUMNS, SEGMENTATION_COLUMNS, RunInfo
from metrics.statistics import bootstrap_interval, relative_gain

NAN = float("nan")


class _Key(NamedTuple):
    """What names an arm; the fields of `ARM_KEY`."""

    generator: str
    segmenter: str
    task: str
    arm: str
    real: str
    ratio: float


@dataclass(frozen=True)
class _Arm:
    """Dice of one arm: cases down, planned seeds across, nan where a structure is absent."""

    dice: pd.DataFrame
    cells: pd.DataFrame

    @property
    def by_seed(self) -> pd.Series[float]:
        """Mean over the cases that have a value; nan for a seed that left a hole."""
        return self.dice.mean(axis=0)

    @property
    def mean(self) -> float:
        """Mean over seeds; nan when one of them left a hole."""
        return float(self.by_seed.mean(skipna=False))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; nan with one seed."""
        return float(self.by_seed.std(ddof=1, skipna=False))


def segmentation_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """A row per generator, segmenter, task and dose: `SEGMENTATION_COLUMNS`.

    R+S is compared with the arm R of as many real cases, and S with the R of all of them. An arm
    R that nothing is compared with has a row of its own, without a generator.
    """
    arms = _arms(inputs)
    compared = {key: _baseline(key) for key in arms if key.generator}
    alone = [key for key in arms if not key.generator and key not in compared.values()]
    rows = [_row(key, arms[key], arms.get(baseline)) for key, baseline in compared.items()]
    rows += [_row(key, None, arms[key]) for key in alone]
    frame = pd.DataFrame(rows, columns=list(SEGMENTATION_COLUMNS))
    return _sorted(frame, inputs, info).astype(dict.fromkeys(("n_cases", "n_absent"), "Int64"))


def overall_frame(segmentation: pd.DataFrame) -> pd.DataFrame:
    """Mean over the segmenters per generator and task at the paper's dose: `OVERALL_COLUMNS`.

    The gain is the relative gain of the two means, in percent, as the paper prints it. Nothing
    is averaged where a segmenter left a hole.
    """
    main = segmentation[is_main(segmentation)]
    segmenters = main["segmenter"].unique()
    rows = []
    for (generator, task), group in main.groupby(["generator", "task"], sort=False):
        by_segmenter = group.set_index("segmenter")[["dice_r", "dice_rs"]].reindex(segmenters)
        r, rs = by_segmenter.mean(skipna=False)
        rows.append((generator, task, r, rs, relative_gain(r, rs)))
    return pd.DataFrame(rows, columns=list(OVERALL_COLUMNS))


def is_main(segmentation: pd.DataFrame) -> pd.Series[bool]:
    """The rows of Table 2: all real cases, and as many synthetic ones (or, in arm R, none)."""
    paper = (segmentation["arm"] == "R+S") & (segmentation["ratio"] == 1.0)
    return (segmentation["real"] == "all") & (paper | (segmentation["arm"] == "R"))


def _arms(inputs: Inputs) -> dict[_Key, _Arm]:
    dice = {_key(group): group for _, group in inputs.dice.groupby(ARM_KEY)}
    arms = {}
    for _, cells in inputs.segment_cells.groupby(ARM_KEY, sort=False):
        key = _key(cells)
        cases = dice[key] if key in dice else inputs.dice.head(0)
        by_seed = cases.pivot(index="case", columns="seed", values="value")
        arms[key] = _Arm(by_seed.reindex(columns=sorted(set(cells["seed"]))), cells)
    return arms


def _key(rows: pd.DataFrame) -> _Key:
    return _Key(*rows[ARM_KEY].iloc[0].tolist())


def _baseline(key: _Key) -> _Key:
    real = "all" if key.arm == "S" else key.real
    return key._replace(generator="", arm="R", real=real, ratio=0.0)


def _row(key: _Key, synthetic: _Arm | None, real: _Arm | None) -> dict[str, object]:
    arms = {key.arm: synthetic, "R": real} if key.generator else {"R": real}
    status, reason = _outcome(arms)
    if real is None:
        reason = reason or f"No arm R with {_baseline(key).real} real cases was asked for."
    seeds = [int(arm.by_seed.notna().sum()) for arm in arms.values() if arm is not None]
    row: dict[str, object] = {
        **key._asdict(),
        "dice_r": NAN if real is None else real.mean,
        "dice_rs": NAN if synthetic is None else synthetic.mean,
        "n_seeds": min(seeds),
        "status": status,
        "reason": reason,
        "dice_r_sd": NAN if real is None else real.spread,
        "dice_rs_sd": NAN if synthetic is None else synthetic.spread,
    }
    if real is None or status != "done":
        return row
    if synthetic is None:
        present = real.dice.notna().any(axis=1)
        return row | {"n_cases": int(present.sum()), "n_absent": int((~present).sum())}
    return row | _gain(synthetic, real, reason)


def _gain(synthetic: _Arm, real: _Arm, reason: str) -> dict[str, object]:
    """The gain of one arm over R: relative of the means, absolute over the paired cases."""
    gains = (synthetic.dice - real.dice).mean(axis=1).dropna().sort_index()
    low, high = bootstrap_interval(gains.to_numpy())
    values = pd.concat([synthetic.dice, real.dice], axis=1)
    absent = int(values.isna().all(axis=1).sum())
    if unpaired := len(values) - absent - len(gains):
        reason = f"Cases with a value in one arm only, left out of the gain: {unpaired}."
    return {
        "gain_relative": relative_gain(real.mean, synthetic.mean),
        "gain_absolute": float(gains.mean()),
        "gain_low": low,
        "gain_high": high,
        "n_cases": len(gains),
        "n_absent": absent,
        "reason": reason,
    }


def _outcome(arms: dict[str, _Arm | None]) -> tuple[str, str]:
    """The worst status of the arms, and why; each reason names its arm where they differ."""
    told = {name: outcome(arm.cells) for name, arm in arms.items() if arm is not None}
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
        "generator": in_order(["", *info.generators], names["generator"]),
        "segmenter": in_order(info.segmenters, names["segmenter"]),
        "task": in_order(info.tasks, names["task"]),
    }
    keys = {column: frame[column].map(list(found).index) for column, found in order.items()}
    other_dose = ~is_main(frame)
    count = pd.to_numeric(frame["real"], errors="coerce").fillna(float("inf"))
    ranks = frame.assign(**keys, _dose=other_dose, _count=-count)
    by = ["_dose", "generator", "segmenter", "task", "_count", "arm", "ratio"]
    return frame.loc[ranks.sort_values(by, kind="stable").index].reset_index(drop=True)
