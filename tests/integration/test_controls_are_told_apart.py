"""What the harness says of generators whose quality is known; docs/validation.md has it at length.

Two runs on the phantom at 32^3, on fresh anatomy: one scores the controls, the other trains a
U-Net on six real cases with and without them.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from conftest import finish, start

from bench.records import read_records
from metrics.statistics import paired_gain

PLANES = ("axial", "sagittal", "coronal", "average")
SCORED = "oracle,blur-0.5,blur-2,noise-0.02,noise-0.1,average,copycat,mislabelled"
LEARNING = ("batch_size=2", "learning_rate=0.003", "schedule=cosine", "validate_every=30")


def options(*pairs: str) -> list[str]:
    return [part for pair in pairs for part in ("--set", pair)]


def training(prefix: str, steps: int) -> list[str]:
    return options(*(f"{prefix}.training.{value}" for value in (f"steps={steps}", *LEARNING)))


def run(out: Path, *arguments: str) -> pd.DataFrame:
    """The records of a run, every cell of which is done."""
    ran = finish(start("run", "--out", out, *arguments), timeout_s=1200)
    assert ran.code == 0, ran.out + ran.err
    return read_records(out / "records.csv")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return run(
        tmp_path_factory.mktemp("scored") / "out",
        *("--generators", SCORED, "--segmenters", "none"),
        *options("data.cases=50", "data.split=[0.52,0.08,0.4]"),
        *training("labeller", 150),
    )


def value(records: pd.DataFrame, metric: str, generator: str, **where: str) -> float:
    found = records[(records["metric"] == metric) & (records["generator"] == generator)]
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    assert len(found) == 1
    return float(found["value"].iloc[0])


@pytest.mark.slow
@pytest.mark.parametrize("plane", PLANES)
def test_fid_orders_what_is_known(scored: pd.DataFrame, plane: str) -> None:
    fid = {
        name: value(scored, "fid", name, kind="score", plane=plane) for name in SCORED.split(",")
    }
    assert fid["oracle"] < fid["blur-0.5"] < fid["blur-2"]
    assert fid["oracle"] < fid["noise-0.02"] < fid["noise-0.1"]


@pytest.mark.slow
def test_the_oracle_is_at_the_floor(scored: pd.DataFrame) -> None:
    oracle = scored[(scored["metric"] == "fid") & (scored["generator"] == "oracle")]
    ends = oracle[(oracle["kind"] == "score") & (oracle["plane"] == "average")].iloc[0]
    floor = value(scored, "fid", "real", kind="score", plane="average")
    assert ends["low"] < floor < ends["high"]


@pytest.mark.slow
def test_average_is_caught_by_recall_and_coverage(scored: pd.DataFrame) -> None:
    for kind, plane in (("score", "average"), ("task-score", "volume")):
        for metric, most in (("recall", 0.1), ("coverage", 0.3)):
            assert value(scored, metric, "average", kind=kind, plane=plane) < most
            assert value(scored, metric, "oracle", kind=kind, plane=plane) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memorise", "task-memorise"])
def test_copycat_is_caught_by_memorisation(scored: pd.DataFrame, kind: str) -> None:
    assert value(scored, "near_copies", "copycat", kind=kind) > 0.9
    assert value(scored, "memorisation_p", "copycat", kind=kind) < 1e-4
    assert value(scored, "near_copies", "oracle", kind=kind) <= 0.1
    assert value(scored, "memorisation_p", "oracle", kind=kind) > 0.01


@pytest.mark.slow
def test_the_fid_of_copycat_is_excellent(scored: pd.DataFrame) -> None:
    fid = {
        name: value(scored, "fid", name, kind="score", plane="average")
        for name in ("copycat", "oracle", "blur-0.5")
    }
    assert fid["copycat"] < 1.2 * fid["oracle"] < fid["blur-0.5"]


@pytest.mark.slow
def test_a_value_that_is_missing_says_why(scored: pd.DataFrame) -> None:
    silent = scored[scored["value"].isna() & (scored["reason"] == "")]
    assert silent[["kind", "generator", "metric"]].values.tolist() == []


@pytest.mark.slow
def test_mislabelled_is_caught_by_label_fidelity_while_its_fid_is_at_the_floor(
    scored: pd.DataFrame,
) -> None:
    fid = scored[(scored["metric"] == "fid") & (scored["generator"] == "mislabelled")]
    ends = fid[(fid["kind"] == "score") & (fid["plane"] == "average")].iloc[0]
    assert ends["low"] < value(scored, "fid", "real", kind="score", plane="average") < ends["high"]
    right = value(scored, "label_fidelity", "oracle", label="")
    wrong = value(scored, "label_fidelity", "mislabelled", label="")
    shuffled = value(scored, "label_fidelity_shuffled", "mislabelled", label="")
    assert right > shuffled + 0.05
    assert abs(wrong - shuffled) < 0.25 * (right - shuffled)


@pytest.fixture(scope="module")
def learning() -> list[str]:
    """Six real cases, a U-Net, one task."""
    return [
        *("--segmenters", "unet", "--tasks", "liver-only", "--real", "6", "--ratio", "8"),
        *options("data.cases=60", "data.split=[0.3,0.1,0.6]", "scoring.task_features=false"),
        *training("segmentation", 200),
        *training("labeller", 5),
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learnt") / "out"


@pytest.fixture(scope="module")
def alone(out: Path, learning: list[str]) -> pd.DataFrame:
    """Arm R of six seeds."""
    return run(out, "--generators", "none", "--seeds", "0,1,2,3,4,5", *learning)


@pytest.mark.slow
def test_r_against_r_of_other_seeds_is_no_gain(alone: pd.DataFrame) -> None:
    """Of the ten ways to part six seeds in two, hardly one differs by the rule of the mark."""
    dice = alone[(alone["metric"] == "dice") & (alone["label"] == "")]
    arm = dice.pivot(index="seed", columns="case", values="value").to_numpy()
    assert arm.shape == (6, 36)
    marked = 0
    for half in combinations(range(1, 6), 2):
        first = [0, *half]
        rest = [seed for seed in range(6) if seed not in first]
        marked += paired_gain(arm[first], arm[rest]).p_value < 0.05
    assert marked <= 1  # of ten that share their seeds


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_fresh_real_cases_help_and_noise_and_wrong_labels_do_not(
    out: Path, learning: list[str]
) -> None:
    run(out, "--generators", "oracle,pure-noise,mislabelled", "--seeds", "0,1,2,3", *learning)
    frame = pd.read_csv(out / "leaderboard" / "segmentation.csv")
    gains = frame.dropna(subset="generator").set_index("generator")
    assert gains.loc["oracle", "significant"]
    assert gains.loc["oracle", "gain_absolute"] > 0
    for name in ("pure-noise", "mislabelled"):
        assert not (gains.loc[name, "significant"] and gains.loc[name, "gain_absolute"] > 0)
