"""Check the harness on generators whose quality is known, and write docs/validation.md.

    python docs/validate.py --data ../shared/data --out runs/validation

About an hour on two cores. Runs that are done already are not repeated, so that the page can be
written anew in seconds. `--data` is a folder that holds `msd-hippocampus` and `chaos-t2-liver`;
without it the phantom alone is looked at.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from bench.records import read_records
from metrics.statistics import paired_gain, wilcoxon

CONTROLS = ("oracle", "blur-0.5", "blur-1", "blur-2", "noise-0.02", "noise-0.1", "pure-noise")
CONTROLS += ("average", "copycat", "scramble", "mislabelled")
ORDERS = (("oracle", "blur-0.5", "blur-1", "blur-2"), ("oracle", "noise-0.02", "noise-0.1"))
INTRODUCTION = """# Validation: what the numbers say of generators whose quality is known

This page is written by

    python docs/validate.py --data DATA --out runs/validation

where DATA holds `msd-hippocampus` and `chaos-t2-liver` in the layout of the Medical Segmentation
Decathlon. Every sentence that begins with "holds" or "fails" is computed from the records of the
run above it.

The controls: `oracle` draws fresh phantoms, or real cases held out from everything else; `blur-σ`
(in voxels) and `noise-σ` (in units of the intensity range) spoil its images; `pure-noise` is
uniform noise under its labels; `average` repeats the mean training volume; `copycat` moves
training cases by a fraction of a voxel; `scramble` permutes blocks of a volume; `mislabelled`
gives the oracle's images the labels of other cases. MedicalNet's weights were not at hand: the
scores are those of the offline descriptor and of the task features."""
PARTITIONS = range(5)
SCORES = ("precision", "recall", "density", "coverage")
LEARNING = "steps=300,batch_size=2,learning_rate=0.003,schedule=cosine,validate_every=50"
LEARNING_LONG = "steps=600,batch_size=2,learning_rate=0.003,schedule=cosine,validate_every=100"
LEARNING_SHORT = "steps=200,batch_size=2,learning_rate=0.003,schedule=cosine,validate_every=50"


@dataclass(frozen=True)
class Run:
    """A `bench run` and the folder it writes."""

    name: str
    arguments: tuple[str, ...]
    folder: Path

    @property
    def command(self) -> str:
        """As a reader would type it: DATA stands for this machine's folder of data sets."""
        words = [f"DATA/{Path(word).name}" if "/" in word else word for word in self.arguments]
        return " ".join(("bench run", *words, "--out", self.name))

    def records(self) -> pd.DataFrame:
        return read_records(self.folder / "records.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of msd-hippocampus and chaos-t2-liver")
    parser.add_argument("--out", type=Path, default=Path("runs/validation"))
    parser.add_argument("--page", type=Path, default=Path(__file__).with_name("validation.md"))
    asked = parser.parse_args()
    scored, small = (
        list(scoring_runs(asked.data, asked.out)),
        list(small_runs(asked.data, asked.out)),
    )
    helped, alone = gain_run(asked.out), null_run(asked.out)
    for run in (*scored, *small, helped, alone):
        execute(run)
    parts = [INTRODUCTION, *(realism(run) for run in scored)]
    parts += [partitions(small)] if small else []
    parts += [gains(helped), null(alone), peers()]
    asked.page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def settings(*pairs: str) -> tuple[str, ...]:
    return tuple(part for pair in pairs for part in ("--set", pair))


def training(prefix: str, values: str) -> tuple[str, ...]:
    return settings(*(f"{prefix}.training.{value}" for value in values.split(",")))


def scoring_runs(data: Path | None, out: Path) -> Iterator[Run]:
    """Every control, scored on the phantom and on hippocampus if it is there."""
    phantom = ("data.cases=120", "data.grid=[48,48,48]", "data.split=[0.5,0.1,0.4]")
    yield control_run("phantom", "phantom", phantom, out)
    yield from real_run("hippocampus", "msd-hippocampus", ("data.cases=null",), data, out)


def small_runs(data: Path | None, out: Path) -> Iterator[Run]:
    """Every control on 20 scans, of which 8 are tested on, 8 held out and 3 trained on."""
    sizes = ("data.grid=[64,64,32]", "data.split=[0.55,0.05,0.4]", "data.holdout=0.4")
    for seed in PARTITIONS:
        values = (*sizes, "scoring.neighbours=3", f"data.seed={seed}")
        yield from real_run(f"chaos-{seed}", "chaos-t2-liver", values, data, out)


def real_run(
    name: str, folder: str, values: Sequence[str], data: Path | None, out: Path
) -> Iterator[Run]:
    if data is None or not (data / folder).is_dir():
        print(f"{name}: left out, there is no {folder} in --data", file=sys.stderr)
        return
    grid = () if any("grid" in value for value in values) else ("data.grid=[48,64,48]",)
    yield control_run(name, str(data / folder), (*values, *grid), out)


def control_run(name: str, source: str, values: Sequence[str], out: Path) -> Run:
    arguments = ("--generators", "controls", "--segmenters", "none", "--data", source)
    learning = training("labeller", LEARNING)
    return Run(name, (*arguments, *settings(*values), *learning), out / name)


def gain_run(out: Path) -> Run:
    """Six real cases of the phantom, with and without volumes of known quality."""
    arguments = (
        *("--generators", "oracle,noise-0.02,noise-0.1,pure-noise,scramble,mislabelled"),
        *("--segmenters", "unet", "--tasks", "liver-only,multi-class"),
        *("--real", "6", "--ratio", "8", "--seeds", "0,1,2,3,4"),
        *settings("data.cases=100", "data.split=[0.5,0.1,0.4]", "scoring.task_features=false"),
        *training("segmentation", LEARNING_LONG),
        *training("labeller", LEARNING_SHORT),
    )
    return Run("gains", arguments, out / "gains")


def null_run(out: Path) -> Run:
    """Arm R alone, with many seeds: any gain between two of them is chance."""
    arguments = (
        *("--generators", "none", "--segmenters", "unet", "--tasks", "liver-only,multi-class"),
        *("--real", "6", "--seeds", ",".join(map(str, range(48)))),
        *settings("data.cases=100", "data.split=[0.5,0.1,0.4]"),
        *training("segmentation", LEARNING_SHORT),
    )
    return Run("null", arguments, out / "null")


def execute(run: Run) -> None:
    command = [sys.executable, "-m", "bench.cli.main", "run", *run.arguments]
    subprocess.run([*command, "--out", str(run.folder)], check=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def value(records: pd.DataFrame, metric: str, generator: str, **where: str) -> float:
    """The mean over seeds of one score; nan where it was not measured."""
    found = records[(records["metric"] == metric) & (records["generator"] == generator)]
    for column, wanted in where.items():
        found = found[found[column] == wanted]
    return float(found["value"].mean()) if len(found) else float("nan")


def shown(number: float, decimals: int = 2) -> str:
    return "–" if np.isnan(number) else f"{number:.{decimals}f}"


def realism(run: Run) -> str:
    """The scores of every control, and whether they say what they must."""
    records = run.records()
    head = f"{heading(run, records)}\n\n`{run.command}`\n\n{sizes(records)}"
    claims = "\n".join(f"- {said(holds)}: {text}" for holds, text in verdicts(records))
    return "\n\n".join([head, scores(records), claims])


def heading(run: Run, records: pd.DataFrame) -> str:
    return f"## Controls on {records['dataset'].iloc[0]}, grid {records['grid'].iloc[0]}"


def sizes(records: pd.DataFrame) -> str:
    fid = records[(records["metric"] == "fid") & (records["kind"] == "score")]
    oracle, floor = (fid[fid["generator"] == name].iloc[0] for name in ("oracle", "real"))
    return (
        f"Features: {oracle['extractor']}, {oracle['protocol']}; {oracle['n_real']:.0f} test "
        f"volumes, {oracle['n_synthetic']:.0f} synthetic ones, {floor['n_synthetic']:.0f} training "
        "volumes for the floor."
    )


def scores(records: pd.DataFrame) -> str:
    columns = ("control", "FID [95 %]", "task FID", *SCORES, "MS-SSIM", "near copies", "p")
    columns += ("near copies, task", "label fidelity", "shuffled")
    rows = []
    for name in (*CONTROLS, "real"):
        fid = records[(records["metric"] == "fid") & (records["generator"] == name)]
        average = fid[(fid["kind"] == "score") & (fid["plane"] == "average")].iloc[0]
        row = [f"{average['value']:.0f} [{average['low']:.0f}, {average['high']:.0f}]"]
        row.append(shown(value(records, "fid", name, kind="task-score")))
        row += [shown(value(records, m, name, kind="score", plane="average")) for m in SCORES]
        row.append(shown(value(records, "ms_ssim", name), 3))
        row.append(shown(value(records, "near_copies", name, kind="memorise")))
        row.append(shown(value(records, "memorisation_p", name, kind="memorise"), 4))
        row.append(shown(value(records, "near_copies", name, kind="task-memorise")))
        row += [
            shown(value(records, metric, name, label=""), 3)
            for metric in ("label_fidelity", "label_fidelity_shuffled")
        ]
        rows.append(["real (floor)" if name == "real" else name, *row])
    return table(columns, rows)


def verdicts(records: pd.DataFrame) -> Iterator[tuple[bool, str]]:
    """What must be seen, whether it is, and the numbers that say so."""
    for plane in ("average", "axial", "sagittal", "coronal"):
        for order in ORDERS:
            fids = [value(records, "fid", name, kind="score", plane=plane) for name in order]
            rising = all(a < b for a, b in pairwise(fids))
            yield (
                rising,
                f"FID, {plane}: "
                + " < ".join(f"{name} ({fid:.0f})" for name, fid in zip(order, fids, strict=True)),
            )
    yield average_is_caught(records, "recall")
    yield average_is_caught(records, "coverage")
    yield copycat_is_caught(records)
    yield mislabelled_is_caught(records)


def average_is_caught(records: pd.DataFrame, metric: str) -> tuple[bool, str]:
    average, oracle = (
        value(records, metric, name, kind="score", plane="average")
        for name in ("average", "oracle")
    )
    return average < 0.25 and oracle > 0.5, (
        f"average is caught by {metric}: {average:.2f} (oracle {oracle:.2f})"
    )


def copycat_is_caught(records: pd.DataFrame) -> tuple[bool, str]:
    copies, others = (
        value(records, "near_copies", name, kind="memorise") for name in ("copycat", "oracle")
    )
    fid, floor = (
        value(records, "fid", name, kind="score", plane="average") for name in ("copycat", "real")
    )
    return copies > 0.9 and others < 0.25 and fid < 1.25 * floor, (
        f"copycat is caught by memorisation: {copies:.2f} near copies (oracle {others:.2f}), while "
        f"its FID is {fid:.0f} (floor {floor:.0f})"
    )


def mislabelled_is_caught(records: pd.DataFrame) -> tuple[bool, str]:
    wrong, right = (
        value(records, "label_fidelity", n, label="") for n in ("mislabelled", "oracle")
    )
    control = value(records, "label_fidelity_shuffled", "oracle", label="")
    fid = records[(records["metric"] == "fid") & (records["generator"] == "mislabelled")]
    fid = fid[(fid["kind"] == "score") & (fid["plane"] == "average")].iloc[0]
    floor = value(records, "fid", "real", kind="score", plane="average")
    caught = abs(wrong - control) < 0.25 * (right - control) and fid["low"] < floor
    return caught, (
        f"mislabelled is caught by label fidelity: {wrong:.3f} (oracle {right:.3f}, and "
        f"{control:.3f} with its labels shuffled), while its FID is {fid['value']:.0f} "
        f"[{fid['low']:.0f}, {fid['high']:.0f}] (floor {floor:.0f})"
    )


def partitions(runs: Sequence[Run]) -> str:
    """A set so small that one partition says little: how often each verdict holds in several."""
    told = [run.records() for run in runs]
    verdicts_of = [list(verdicts(records)) for records in told]
    names = ("oracle", "blur-0.5", "blur-1", "blur-2", "noise-0.02", "noise-0.1", "real")
    rows = [
        [f"{seed}", *(f"{value(r, 'fid', n, kind='score', plane='average'):.0f}" for n in names)]
        for seed, r in zip(PARTITIONS, told, strict=True)
    ]
    claims = [
        f"- holds in {sum(holds for holds, _ in each)} of {len(runs)}: {claim(each[0][1])}"
        for each in zip(*verdicts_of, strict=True)
    ]
    head = (
        f"{heading(runs[0], told[0])}: {len(runs)} partitions of 20 scans\n\n"
        f"`{runs[0].command}`, and with data.seed 1 to {len(runs) - 1}\n\n{sizes(told[0])} "
        "FID of the average plane:"
    )
    first = f"The first partition:\n\n{scores(told[0])}"
    return "\n\n".join(
        [head, table(("partition", *names[:-1], "floor"), rows), "\n".join(claims), first]
    )


def claim(verdict: str) -> str:
    """A verdict without its numbers."""
    if verdict.startswith("FID"):
        return re.sub(r" \([^)]*\)", "", verdict)
    return verdict.partition(":")[0]


def said(holds: bool) -> str:
    return "**holds**" if holds else "**fails**"


def dice(records: pd.DataFrame, generator: str, task: str) -> np.ndarray:
    """Dice of one arm: (seeds, cases), nan where the structure is absent."""
    found = records[(records["metric"] == "dice") & (records["label"] == "")]
    found = found[(found["generator"] == generator) & (found["task"] == task)]
    return found.pivot(index="seed", columns="case", values="value").to_numpy()


def gains(run: Run) -> str:
    """Table 3 of the run, as its leaderboard has it."""
    frame = pd.read_csv(run.folder / "leaderboard" / "segmentation.csv", keep_default_na=False)
    frame = frame[frame["generator"] != ""].astype({"p_holm": float, "gain_absolute": float})
    columns = ("S of", "task", "R", "R+S", "gain [95 %]", "p (Holm)", "significant")
    rows = []
    for row in frame.to_dict("records"):
        low, high = float(row["gain_low"]), float(row["gain_high"])
        gain = f"{row['gain_absolute']:+.4f} [{low:+.4f}, {high:+.4f}]"
        arms = (f"{float(row['dice_r']):.4f}", f"{float(row['dice_rs']):.4f}")
        verdict = "yes" if row["significant"] in (True, "True") else "no"
        rows.append((row["generator"], row["task"], *arms, gain, f"{row['p_holm']:.2g}", verdict))
    won = {(row[0], row[1]) for row in rows if row[-1] == "yes" and row[4].startswith("+")}
    tasks = sorted(set(frame["task"]))
    claims = [
        f"- {said(all(('oracle', t) in won for t in tasks))}: S of the oracle gives a significant "
        "gain in every task",
        f"- {said(not any((g, t) in won for g in ('pure-noise', 'mislabelled') for t in tasks))}: "
        "S of pure noise and of mislabelled volumes gives none",
    ]
    head = (
        "## Six real cases of the phantom, with and without synthetic ones\n\n"
        f"`{run.command}`\n\n48 synthetic volumes beside the 6 real ones; equal optimiser steps; "
        "5 seeds. The volumes of noise-0.02 and noise-0.1 are fresh anatomy with the right labels, "
        "and blocks of scramble still fit theirs: a gain from them is true."
    )
    return "\n\n".join([head, table(columns, rows), "\n".join(claims)])


def null(run: Run, draws: int = 400) -> str:
    """How often R against R of other seeds looks like a gain."""
    records = run.records()
    rng = np.random.default_rng(0)
    rows, called = [], list[float]()
    for task in sorted(set(records["task"]) - {""}):
        arm = dice(records, "", task)
        for seeds in (1, 2, 3, 5):
            found = []
            for _ in range(draws):
                drawn = rng.permutation(len(arm))[: 2 * seeds]
                r, rs = arm[drawn[:seeds]], arm[drawn[seeds:]]
                gain = paired_gain(r, rs, n_resamples=1999)
                patients_alone = wilcoxon((rs - r).mean(axis=0)) < 0.05
                apart = gain.interval.low > 0 or gain.interval.high < 0
                found.append((patients_alone, apart, seeds > 1 and gain.p_value < 0.05))
            rates = np.mean(found, axis=0)
            called += [float(rates[-1])] if seeds > 1 else []
            rows.append((task, str(seeds), *(f"{rate:.3f}" for rate in rates)))
    columns = ("task", "seeds an arm", "Wilcoxon p < 0.05", "interval without 0", "significant")
    head = (
        f"## R against R with other seeds\n\n`{run.command}`\n\n{len(arm)} seeds of one arm; "
        f"{draws} pairs of disjoint groups of seeds, drawn at random. Whatever differs is chance: "
        "each rate should be 0.05 at most. Wilcoxon's test knows patients alone; two trainings "
        "of one arm differ for all patients alike, so with one seed it finds far too much. "
        "A gain is therefore called significant only with several seeds, whose spread the interval "
        "holds."
    )
    rate = float(np.mean(called))
    verdict = (
        f"- {said(rate <= 0.05)}: of the comparisons with several seeds {100 * rate:.1f} % are "
        f"called significant (at most {100 * max(called):.1f} % in a row; the pairs of a row share "
        f"{len(arm)} trainings, so that its rate is known to a few percent only)"
    )
    return "\n\n".join([head, table(columns, rows), verdict])


def peers() -> str:
    return "#" + Path(__file__).with_name("peers.md").read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    main()
