"""Check the harness on generators whose quality is known, and write docs/validation.md.

    python docs/validate.py --data ../shared/data --out runs/validation

About an hour on two cores. Runs that are done already are not repeated, so that the page can be
written anew in seconds. `--data` is a folder that holds `msd-hippocampus` and `chaos-t2-liver`;
without it the phantom alone is looked at.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.records import read_records
from metrics.statistics import paired_gain

CONTROLS = ("oracle", "blur-0.5", "blur-1", "blur-2", "noise-0.02", "noise-0.1", "pure-noise")
CONTROLS += ("average", "copycat", "scramble", "mislabelled")
ORDERS = (("oracle", "blur-0.5", "blur-1", "blur-2"), ("oracle", "noise-0.02", "noise-0.1"))
INTRODUCTION = """# Validation: what the numbers say of generators whose quality is known

This page is written by

    python docs/validate.py --data DATA --out runs/validation

where DATA holds `msd-hippocampus` and `chaos-t2-liver` in the layout of the Medical Segmentation
Decathlon. Every sentence that begins with **holds** or **fails** is computed from the records of
the run above it.

The controls: `oracle` draws fresh phantoms, or real cases held out from everything else; `blur-σ`
(in voxels) and `noise-σ` (in units of the intensity range) spoil its images; `pure-noise` is
uniform noise under its labels; `average` repeats the mean training volume; `copycat` moves
training cases by a fraction of a voxel; `scramble` permutes blocks of a volume; `mislabelled`
gives the oracle's images the labels of other cases. MedicalNet's weights were not at hand: the
scores are those of the offline descriptor and of the task features."""
SCORES = ("precision", "recall", "density", "coverage")
LEARNING = "steps=300,batch_size=2,learning_rate=0.003,schedule=cosine,validate_every=50"
LEARNING_SHORT = "steps=200,batch_size=2,learning_rate=0.003,schedule=cosine,validate_every=50"


@dataclass(frozen=True)
class Run:
    """A `bench run` and the folder it writes."""

    name: str
    arguments: tuple[str, ...]
    folder: Path

    @property
    def command(self) -> str:
        return " ".join(("bench run", *self.arguments, "--out", self.name))

    def records(self) -> pd.DataFrame:
        return read_records(self.folder / "records.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of msd-hippocampus and chaos-t2-liver")
    parser.add_argument("--out", type=Path, default=Path("runs/validation"))
    parser.add_argument("--page", type=Path, default=Path(__file__).with_name("validation.md"))
    asked = parser.parse_args()
    scored = list(scoring_runs(asked.data, asked.out))
    helped, alone = gain_run(asked.out), null_run(asked.out)
    for run in (*scored, helped, alone):
        execute(run)
    parts = [INTRODUCTION, *(realism(run) for run in scored), gains(helped), null(alone), peers()]
    asked.page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def settings(*pairs: str) -> tuple[str, ...]:
    return tuple(part for pair in pairs for part in ("--set", pair))


def training(prefix: str, values: str) -> tuple[str, ...]:
    return settings(*(f"{prefix}.training.{value}" for value in values.split(",")))


def scoring_runs(data: Path | None, out: Path) -> Iterator[Run]:
    """Every control, scored on the phantom and on the real sets that are there."""
    shapes = {
        "phantom": (
            "phantom",
            "data.cases=120",
            "data.grid=[48,48,48]",
            "data.split=[0.5,0.1,0.4]",
        ),
        "hippocampus": ("msd-hippocampus", "data.cases=null", "data.grid=[48,64,48]"),
        "chaos": (
            *("chaos-t2-liver", "data.grid=[96,96,32]", "data.split=[0.55,0.05,0.4]"),
            "scoring.neighbours=3",
        ),
    }
    for name, (folder, *values) in shapes.items():
        source = folder if folder == "phantom" else str((data or Path()) / folder)
        if folder != "phantom" and (data is None or not Path(source).is_dir()):
            print(f"{name}: left out, there is no {source}", file=sys.stderr)
            continue
        arguments = ("--generators", ",".join(CONTROLS), "--segmenters", "none", "--data", source)
        learning = training("labeller", LEARNING)
        yield Run(name, (*arguments, *settings(*values), *learning), out / name)


def gain_run(out: Path) -> Run:
    """Six real cases of the phantom, with and without volumes of known quality."""
    arguments = (
        *("--generators", "oracle,noise-0.02,noise-0.1,pure-noise,scramble,mislabelled"),
        *("--segmenters", "unet", "--tasks", "liver-only,multi-class"),
        *("--real", "6", "--ratio", "8", "--seeds", "0,1,2,3,4"),
        *settings("data.cases=100", "data.split=[0.5,0.1,0.4]", "scoring.task_features=false"),
        *training("segmentation", LEARNING_SHORT),
        *training("labeller", LEARNING_SHORT),
    )
    return Run("gains", arguments, out / "gains")


def null_run(out: Path) -> Run:
    """Arm R alone, with many seeds: any gain between two of them is chance."""
    arguments = (
        *("--generators", "none", "--segmenters", "unet", "--tasks", "liver-only,multi-class"),
        *("--real", "6", "--seeds", ",".join(map(str, range(24)))),
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
    columns = ("control", "FID [95 %]", "task FID", *SCORES, "MS-SSIM", "near copies", "p")
    columns += ("label fidelity", "shuffled")
    rows = []
    for name in (*CONTROLS, "real"):
        fid = records[(records["metric"] == "fid") & (records["generator"] == name)]
        average = fid[(fid["kind"] == "score") & (fid["plane"] == "average")].iloc[0]
        row = [f"{average['value']:.0f} [{average['low']:.0f}, {average['high']:.0f}]"]
        row.append(shown(value(records, "fid", name, kind="task-score")))
        row += [shown(value(records, m, name, kind="score", plane="average")) for m in SCORES]
        row.append(shown(value(records, "ms_ssim", name), 3))
        row.append(shown(value(records, "near_copies", name)))
        row.append(shown(value(records, "memorisation_p", name), 4))
        row += [
            shown(value(records, metric, name, label=""), 3)
            for metric in ("label_fidelity", "label_fidelity_shuffled")
        ]
        rows.append(["real (floor)" if name == "real" else name, *row])
    first = records[(records["metric"] == "fid") & (records["kind"] == "score")].iloc[0]
    head = (
        f"## Controls on {first['dataset']}, grid {first['grid']}\n\n"
        f"`{run.command}`\n\nFeatures: {first['extractor']}, {first['protocol']}; "
        f"{first['n_real']:.0f} test volumes, {first['n_synthetic']:.0f} synthetic ones."
    )
    claims = "\n".join(f"- {line}" for line in verdicts(records))
    return "\n\n".join([head, table(columns, rows), claims])


def verdicts(records: pd.DataFrame) -> Iterator[str]:
    """Each sentence is computed from the records: it says "holds" or "fails" by the numbers."""
    for plane in ("axial", "sagittal", "coronal", "average"):
        for order in ORDERS:
            fids = [value(records, "fid", name, kind="score", plane=plane) for name in order]
            rising = all(a < b for a, b in zip(fids, fids[1:], strict=False))
            yield f"{said(rising)}: FID, {plane}: " + " < ".join(
                f"{name} ({fid:.0f})" for name, fid in zip(order, fids, strict=True)
            )
    recall, coverage = (
        value(records, m, "average", kind="score", plane="average") for m in ("recall", "coverage")
    )
    caught = recall < 0.1 and coverage < 0.1
    yield f"{said(caught)}: average is caught: recall {recall:.2f}, coverage {coverage:.2f}"
    fid, floor = (
        value(records, "fid", name, kind="score", plane="average") for name in ("copycat", "oracle")
    )
    copies, others = (value(records, "near_copies", name) for name in ("copycat", "oracle"))
    caught = copies > 0.9 and others < 0.25 and fid < 2 * floor
    yield (
        f"{said(caught)}: copycat is caught by memorisation ({copies:.2f} near copies, the oracle "
        f"{others:.2f}) while its FID is {fid:.0f} (oracle {floor:.0f})"
    )
    wrong, right = (
        value(records, "label_fidelity", n, label="") for n in ("mislabelled", "oracle")
    )
    control = value(records, "label_fidelity_shuffled", "mislabelled", label="")
    fid = value(records, "fid", "mislabelled", kind="score", plane="average")
    caught = abs(wrong - control) < 0.25 * (right - control) and fid < 1.5 * floor
    yield (
        f"{said(caught)}: mislabelled is caught by label fidelity ({wrong:.3f}, shuffled "
        f"{control:.3f}, oracle {right:.3f}) while its FID is {fid:.0f} (oracle {floor:.0f})"
    )


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
        "5 seeds. The volumes of noise-0.02 and noise-0.1 are fresh anatomy with the right labels: "
        "a gain from them is true."
    )
    return "\n\n".join([head, table(columns, rows), "\n".join(claims)])


def null(run: Run, draws: int = 400) -> str:
    """How often R against R of other seeds looks like a gain."""
    records = run.records()
    rng = np.random.default_rng(0)
    rows, worst = [], 0.0
    for task in sorted(set(records["task"]) - {""}):
        arm = dice(records, "", task)
        for seeds in (1, 2, 3, 5):
            found = []
            for _ in range(draws):
                drawn = rng.permutation(len(arm))[: 2 * seeds]
                gain = paired_gain(arm[drawn[:seeds]], arm[drawn[seeds:]], n_resamples=999)
                apart = gain.interval.low > 0 or gain.interval.high < 0
                found.append(
                    (gain.p_value < 0.05, apart, seeds > 1 and gain.p_value < 0.05 and apart)
                )
            wilcoxon, interval, significant = np.mean(found, axis=0)
            worst = max(worst, significant)
            rates = (f"{rate:.3f}" for rate in (wilcoxon, interval, significant))
            rows.append((task, str(seeds), *rates))
    columns = ("task", "seeds an arm", "Wilcoxon p < 0.05", "interval without 0", "significant")
    head = (
        f"## R against R with other seeds\n\n`{run.command}`\n\n{len(arm)} seeds of one arm; "
        f"{draws} pairs of disjoint groups of seeds, drawn at random. Whatever differs is chance: "
        "each rate should be 0.05 at most. Wilcoxon's test knows patients alone; two trainings "
        "of one arm differ for all patients alike, so with one seed it finds far too much. "
        "A gain is therefore called significant only with several seeds, whose spread the interval "
        "holds."
    )
    verdict = f"- {said(worst <= 0.05)}: no more than 5 % of the comparisons are called significant"
    return "\n\n".join([head, table(columns, rows), verdict])


def peers() -> str:
    return Path(__file__).with_name("peers.md").read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    main()
