"""Every score beside FID and Dice as a frame, in long form; and the structures from it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from leaderboard.inputs import ARM_KEY, Inputs, generators_in_order, in_order, places
from leaderboard.model import (
    COMPANION_COLUMNS,
    REAL,
    STRUCTURE_COLUMNS,
    STRUCTURE_METRICS,
    VOLUME_COLUMNS,
    RunInfo,
)

_SCORE_KEY = ["kind", "generator", "metric", "plane", "label"]
_CONSTANT = ["n_real", "n_synthetic", "extractor", "extractor_sha256", "protocol"]
_NUMBERS = ["value", "sd", "low", "high", "n_real", "n_synthetic"]
_BESIDE_REAL = ("volume_ml", "components", "absent")
NAN = float("nan")
COUNTS = ("absent_but_predicted", "missed")
CASE_VOLUME = "structure_volume_of_case_ml"
NO_NUMBER = "The measure gave no number."


def companions_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """A row per generator and score: `COMPANION_COLUMNS`; the floor's last within its kind.

    A value is the mean over all planned seeds, and nan where one of them left a hole.
    """
    frame = pd.concat([_of_sets(inputs), _of_arms(inputs)], ignore_index=True)
    planned = inputs.cells["generator"]
    generators = generators_in_order(info, planned, sorted(frame["generator"]))
    segmenters = in_order(info.segmenters, sorted(frame["segmenter"]))
    tasks = in_order(info.tasks, sorted(frame["task"]))
    kinds = in_order(["score", "task-score"], inputs.scores["kind"], ["segment"])
    names = {"kind": kinds, "generator": generators, "task": tasks, "segmenter": segmenters}
    ranks = frame.assign(**{column: places(frame[column], n) for column, n in names.items()})
    order = ranks.sort_values([*names, "arm", "plane", "label"], kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def structures_frame(companions: pd.DataFrame) -> pd.DataFrame:
    """A row per generator and structure, the real set's beside it: `STRUCTURE_COLUMNS`."""
    rows = companions[companions["kind"] == "structures"]
    rows = rows.assign(metric=rows["metric"].str.removeprefix("structure_"))
    values = rows.set_index(["generator", "label", "metric"])["value"].to_dict()
    groups = rows.groupby(["generator", "label"], sort=False)[["n_seeds", "n_synthetic"]].max()
    table = []
    for generator, label, n_seeds, n in groups.reset_index().itertuples(index=False):
        own = {m: values.get((generator, label, m), NAN) for m in STRUCTURE_METRICS}
        real = {f"{m}_real": values.get((REAL, label, m), NAN) for m in _BESIDE_REAL}
        row = {"generator": generator, "label": label, "n_seeds": n_seeds}
        table.append({**row, **own, **real, "n_synthetic": n})
    frame = pd.DataFrame(table, columns=list(STRUCTURE_COLUMNS))
    return frame.astype({"n_synthetic": "Int64"})


def volumes_frame(inputs: Inputs, info: RunInfo) -> pd.DataFrame:
    """A row per volume and structure, real ones first: `VOLUME_COLUMNS`."""
    rows = inputs.records
    rows = rows[(rows["kind"] == "structures") & (rows["metric"] == CASE_VOLUME)]
    frame = rows.rename(columns={"value": "volume_ml"})[list(VOLUME_COLUMNS)]
    order = generators_in_order(info, sorted(frame["generator"]))
    place = frame["generator"].map(lambda name: -1 if name == REAL else order.index(name))
    return frame.loc[place.sort_values(kind="stable").index].reset_index(drop=True)


def _of_sets(inputs: Inputs) -> pd.DataFrame:
    """Scores of sets of volumes: means over the planned seeds of a generator."""
    finite = inputs.scores["value"].where(np.isfinite(inputs.scores["value"]))
    rows = inputs.scores.assign(value=finite).astype({"low": "float64", "high": "float64"})
    rows = rows.sort_values([*_SCORE_KEY, "seed"], kind="stable")
    seeds = rows.groupby(["kind", "generator"])["seed"].nunique()
    seeds.update(inputs.cells.groupby(["kind", "generator"])["seed"].nunique())
    groups = rows.groupby(_SCORE_KEY, sort=True)
    table = groups[_CONSTANT].first()
    table["n_seeds"] = groups["value"].count()
    table["reason"] = groups["reason"].agg(lambda told: " ".join(dict.fromkeys(filter(None, told))))
    table[["value", "low", "high"]] = groups[["value", "low", "high"]].mean()
    table["sd"] = groups["value"].std(ddof=1)
    table = table.reset_index()

    planned = [
        seeds[kind, name] for kind, name in zip(table["kind"], table["generator"], strict=True)
    ]
    whole = table["n_seeds"] == planned
    table.loc[~whole, ["value", "sd", "low", "high"]] = NAN
    untold = ~whole & (table["reason"] == "")
    several = pd.Series(planned, index=table.index) > 1
    table.loc[untold, "reason"] = several[untold].map(
        {True: "A seed has no value.", False: NO_NUMBER}
    )
    # Of several tests of one thing, however they depend: Rüschendorf 1982, Vovk & Wang 2020.
    twice = table["metric"].str.endswith("_p") & (table["n_seeds"] > 1)
    table.loc[twice, "value"] = (2 * table.loc[twice, "value"]).clip(upper=1.0)
    return _frame(table)


def _of_arms(inputs: Inputs) -> pd.DataFrame:
    """Scores of the arms of Table 2: means over the test cases, then over the seeds."""
    rows = inputs.cases
    paper = (rows["arm"] == "R+S") & (rows["ratio"] == 1.0) | (rows["arm"] == "R")
    by_seed = _by_seed(rows[(rows["real"] == "all") & paper])
    cells = inputs.segment_cells.groupby(ARM_KEY)
    ends = inputs.segment_cells[ARM_KEY].assign(done=inputs.segment_cells["status"] == "done")
    done = ends.groupby(ARM_KEY)["done"].all()
    planned = cells["seed"].nunique()
    values = by_seed.groupby([*ARM_KEY, "metric"], sort=True)
    table = values.agg(["mean", "std", "count"]).reset_index()
    arms = pd.MultiIndex.from_frame(table[ARM_KEY])
    all_seeds = table["count"].to_numpy() == planned.reindex(arms, fill_value=0).to_numpy()
    whole = done.reindex(arms, fill_value=False).to_numpy(bool) & all_seeds
    table.loc[~whole, ["mean", "std"]] = NAN
    return _frame(
        table.rename(columns={"mean": "value", "std": "sd", "count": "n_seeds"}).assign(
            kind="segment"
        )
    )


def _by_seed(rows: pd.DataFrame) -> pd.Series[float]:
    """A value by arm, metric and seed: a mean over cases, or, of counts, a sum over them."""
    key = [*ARM_KEY, "metric", "seed"]
    # Within a group by case and label, so that no mean depends on the order of the records.
    rows = rows.sort_values(["case", "label"], kind="stable")
    dice = rows["metric"] == "dice"
    counts = rows["metric"].isin(COUNTS)
    error = rows["metric"] == "volume_error"
    # Errors of opposite sign would cancel in a mean of classes or of cases.
    size = rows[error].assign(metric="volume_error_abs", value=rows.loc[error, "value"].abs())
    single = rows[dice & (rows["label"] != "")]
    absent = single.assign(metric="absent", value=single["value"].isna().astype("float64"))
    means = _over_cases(rows[~dice & ~counts], key, own_first=True)
    sizes = _over_cases(size, key, own_first=False)
    sums = pd.concat([rows[counts], absent]).groupby(key)["value"].sum()
    classes = absent.assign(metric="structures").groupby(key)["value"].size()
    every: pd.Series[float] = pd.concat([means, sizes, sums, classes.astype("float64")])
    return every


def _over_cases(rows: pd.DataFrame, key: list[str], own_first: bool) -> pd.Series[float]:
    """Mean over cases of a case's own value, or of the mean of its classes."""
    by_case = [*key, "case"]
    own = rows[rows["label"] == ""].groupby(by_case)["value"].mean()
    classes = rows[rows["label"] != ""].groupby(by_case)["value"].mean()
    values = own.combine_first(classes) if own_first else classes.combine_first(own)
    means: pd.Series[float] = values.groupby(level=key).mean()
    return means


def _frame(table: pd.DataFrame) -> pd.DataFrame:
    frame = table.reindex(columns=list(COMPANION_COLUMNS))
    text = [column for column in COMPANION_COLUMNS if column not in {*_NUMBERS, "n_seeds"}]
    frame[text] = frame[text].astype("object").fillna("").astype("str")
    frame = frame.astype({**dict.fromkeys(_NUMBERS, "float64"), "n_seeds": "int64"})
    return frame.astype({"n_real": "Int64", "n_synthetic": "Int64"})
