"""What each choice in the generators is worth, on hippocampus: tables and figures.

    python docs/ablations.py --data ../shared/data --out runs/ablations [--only steps]

Every variant is an ordinary `bench run` of one generator from the preset small with some values
changed. All write into one folder, so that a stage which a change does not touch is trained once;
what is done is not repeated, and a stopped script goes on where it was. OUT/ablations.md holds the
tables (for docs/generators.md), OUT/figures the figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from generator_pictures import save_small
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from validate import Run, execute, settings, shown, table, value

from bench.pictures import read_curves
from bench.plan import Cell
from bench.records import read_records
from bench.store import Store
from leaderboard.figures import curve_figure
from leaderboard.figures.curves import Curves

PRESET, DATA = "small", "msd-hippocampus"
COMMON = ("data.cases=null", "data.grid=[48,64,48]")
VAE, LLDM, DDPM = "generators.ldm-vae", "generators.3d-lldm", "generators.3d-ddpm"
LATENT_EMBEDDING = "[32]"
"""Widths of the embedding where the label's latents are as large as the image's: no halving."""

Column = tuple[str, Callable[[pd.DataFrame, str], str]]  # title, text of a run's records


@dataclass(frozen=True)
class Variant:
    """One row: a generator with some values changed."""

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Ablation:
    """One table: variants of one generator."""

    name: str
    title: str
    generator: str
    variants: tuple[Variant, ...]
    columns: tuple[Column, ...]
    note: str = ""
    stage: str = ""  # whose curve is drawn; "" draws none


def score(metric: str, decimals: int = 2, kind: str = "score") -> Callable[..., str]:
    """A score of the synthetic volumes: of the run's features, or of the labeller's."""
    plane = "average" if kind == "score" else "volume"

    def text(records: pd.DataFrame, generator: str) -> str:
        return shown(value(records, metric, generator, kind=kind, plane=plane), decimals)

    return text


def plain(metric: str, decimals: int = 3, kind: str = "") -> Callable[..., str]:
    """A value of the whole set."""
    where = {"label": "", **({"kind": kind} if kind else {})}

    def text(records: pd.DataFrame, generator: str) -> str:
        return shown(value(records, metric, generator, **where), decimals)

    return text


def minutes(records: pd.DataFrame, generator: str) -> str:
    """Of all the generator's fits."""
    fits = records[(records["kind"] == "fit") & (records["metric"] == "seconds")]
    return shown(float(fits["value"].sum()) / 60, 1)


def sizes(records: pd.DataFrame, generator: str) -> str:
    """How far the sizes of structures are from real ones: Kolmogorov-Smirnov, mean over them."""
    return shown(value(records, "structure_volume_ks", generator), 2)


REALISM: tuple[Column, ...] = (
    ("FID", score("fid", 0)),
    ("coverage", score("coverage")),
    ("task FID", score("fid", 0, "task-score")),
    ("task coverage", score("coverage", kind="task-score")),
    ("near copies", plain("near_copies", 2, "memorise")),
)
COST: tuple[Column, ...] = (("s / volume", plain("seconds_per_volume", 2)), ("fit, min", minutes))
LABELS: tuple[Column, ...] = (
    ("label fidelity", plain("label_fidelity")),
    ("shuffled", plain("label_fidelity_shuffled")),
)
STEPS = (10, 25, 50, 250)
DRAWS = {
    "logit-normal, loc 0": "{distribution: logit-normal, loc: 0.0}",
    "logit-normal, loc 1": "{distribution: logit-normal, loc: 1.0}",
    "logit-normal, loc 2": "{distribution: logit-normal, loc: 2.0}",
    "uniform": "{distribution: uniform}",
}


def ablations() -> tuple[Ablation, ...]:
    """All tables, in the order of the page."""
    return (
        Ablation(
            "ema",
            "Averaged weights (EMA) of the LDM, LDM-VAE",
            "ldm-vae",
            (Variant("on", ()), Variant("off", (f"{VAE}.ldm.training.ema_decay=0",))),
            (*REALISM, *COST),
            stage="image-ldm",
        ),
        Ablation(
            "prediction",
            "What the network predicts, LDM-VAE",
            "ldm-vae",
            tuple(
                Variant(name, (f"{VAE}.ldm.process.prediction={name}",))
                for name in ("epsilon", "v_prediction", "flow")
            ),
            (*REALISM, *COST),
            "Losses of different targets cannot be compared with each other.",
            "image-ldm",
        ),
        Ablation(
            "steps",
            "Denoising steps, LDM-VAE by rectified flow",
            "ldm-vae",
            tuple(Variant(str(n), (f"{VAE}.sampling.steps={n}",)) for n in STEPS),
            (*REALISM, *COST),
            "One fit: only sampling differs.",
        ),
        Ablation(
            "solver",
            "Solver and spacing of 10 and 30 denoising steps, LDM-VAE",
            "ldm-vae",
            tuple(
                Variant(
                    f"{n}, {solver}, {spacing}",
                    (
                        f"{VAE}.sampling.steps={n}",
                        f"{VAE}.sampling.solver={solver}",
                        f"{VAE}.sampling.spacing={spacing}",
                    ),
                )
                for n in (10, 30)
                for solver in ("ddim", "dpm++2m")
                for spacing in ("uniform", "cosine")
            ),
            (*REALISM, *COST),
            "The same fit; on a flow, ddim is Euler's method.",
        ),
        Ablation(
            "draw",
            "Timesteps that the ControlNet is trained at, 3D-LLDM",
            "3d-lldm",
            tuple(
                Variant(name, (f"{LLDM}.controlnet.draw={draw}",)) for name, draw in DRAWS.items()
            ),
            (*REALISM, *LABELS, *COST),
            "loc above 0 is towards noise.",
            "controlnet",
        ),
        Ablation(
            "condition",
            "Condition of the ControlNet, 3D-LLDM",
            "3d-lldm",
            (
                Variant("full-resolution", (f"{LLDM}.controlnet.condition=full-resolution",)),
                Variant(
                    "latent",
                    (
                        f"{LLDM}.controlnet.condition=latent",
                        f"{LLDM}.controlnet.embedding_channels={LATENT_EMBEDDING}",
                    ),
                ),
            ),
            (*REALISM, *LABELS, *COST),
            stage="controlnet",
        ),
        Ablation(
            "labels",
            "Labels generated with the image or given by a segmenter, 3D-DDPM",
            "3d-ddpm",
            (
                Variant("pseudo", (f"{DDPM}.labels=none",)),
                Variant("joint", (f"{DDPM}.labels=joint",)),
            ),
            (*REALISM, *LABELS, ("structure sizes, KS", sizes), *COST),
            "Pseudo labels are the labeller's own, so that their fidelity is not measured.",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder that holds {DATA}")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--only", default="", help="names of tables, separated by commas")
    parser.add_argument("--set", action="append", default=[], help="another value for all runs")
    asked = parser.parse_args()
    chosen = choose(asked.only)
    for ablation in chosen:
        for variant in ablation.variants:
            keep(run_of(ablation, variant, asked.data / DATA, asked.out, asked.set), asked.out)
    figures = asked.out / "figures"
    figures.mkdir(exist_ok=True)
    parts = [section(ablation, asked.out, figures) for ablation in chosen]
    (asked.out / "ablations.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(asked.out / "ablations.md")


def choose(only: str) -> tuple[Ablation, ...]:
    """The tables named in `only`; all if it names none. SystemExit names what there is not."""
    every = {ablation.name: ablation for ablation in ablations()}
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in every]
    if unknown:
        raise SystemExit(f"There are no tables {unknown}; there are {', '.join(every)}.")
    return tuple(every[name] for name in names or every)


def run_of(
    ablation: Ablation, variant: Variant, data: Path, out: Path, extra: Sequence[str] = ()
) -> Run:
    """The `bench run` of a variant; all of them share one store."""
    arguments = (
        *("--preset", PRESET, "--generators", ablation.generator, "--segmenters", "none"),
        *("--data", str(data)),
        *settings(*COMMON, *variant.settings, *extra),
    )
    return Run(f"{ablation.name}-{slug(variant.name)}", arguments, out / "store")


def keep(run: Run, out: Path) -> None:
    """Execute a run and keep its records and its plan: the next one writes over them."""
    execute(run)
    folder = out / "variants" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("records.csv", "run.json"):
        shutil.copy(run.folder / name, folder / name)


def section(ablation: Ablation, out: Path, figures: Path) -> str:
    """A table of the page, with its figures."""
    kept = {
        variant.name: out / "variants" / f"{ablation.name}-{slug(variant.name)}"
        for variant in ablation.variants
    }
    records = {name: read_records(folder / "records.csv") for name, folder in kept.items()}
    parts = [f"### {ablation.title}", results(ablation, records), ablation.note]
    if ablation.name == "steps":
        save_small(steps_figure(records, ablation.generator), figures / "ablation-steps.png")
        parts.append("![FID by denoising steps and by seconds](figures/ablation-steps.png)")
    if ablation.stage:
        runs = {name: _cells(folder) for name, folder in kept.items()}
        drawn = dict(stage_curves(ablation.stage, Store(out / "store"), runs))
        if any(drawn.values()):
            name = f"ablation-{ablation.name}.png"
            save_small(curve_figure(drawn), figures / name)
            parts.append(f"![Training curves of {ablation.stage}](figures/{name})")
    return "\n\n".join(part for part in parts if part)


def results(ablation: Ablation, records: Mapping[str, pd.DataFrame]) -> str:
    """The table: a row per variant and, last, what real training volumes score."""
    titles = ("variant", *(title for title, _ in ablation.columns))
    rows = [
        [name, *(text(frame, ablation.generator) for _, text in ablation.columns)]
        for name, frame in records.items()
    ]
    floor = next(iter(records.values()))
    own = {title for title, _ in COST} | {"near copies"}
    rows.append(
        ["real (floor)"]
        + ["–" if title in own else text(floor, "real") for title, text in ablation.columns]
    )
    return table(titles, rows)


def steps_figure(records: Mapping[str, pd.DataFrame], generator: str) -> Figure:
    """FID against denoising steps and against seconds per volume; a row for each kind of features,
    whose distances have no common scale."""
    steps = [float(name) for name in records]
    seconds = [value(frame, "seconds_per_volume", generator) for frame in records.values()]
    kinds = {"FID": ("score", "average"), "task FID": ("task-score", "volume")}
    figure, axes = plt.subplots(
        2, 2, figsize=(6.4, 4.2), sharex="col", sharey="row", layout="constrained"
    )
    for row, (told, (kind, plane)) in zip(axes, kinds.items(), strict=True):
        fids = [value(one, "fid", generator, kind=kind, plane=plane) for one in records.values()]
        row[0].set_ylabel(told)
        for axis, x in zip(row, (steps, seconds), strict=True):
            axis.plot(x, fids, marker="o")
            axis.set_xscale("log")
            axis.set_xticks(x, [f"{tick:.3g}" for tick in x])
            axis.minorticks_off()
            axis.set_ylim(0, 1.1 * max(fids))
            axis.spines[["top", "right"]].set_visible(False)
    axes[-1][1].tick_params(axis="x", rotation=45)
    for axis, told in zip(axes[-1], ("denoising steps", "seconds per volume"), strict=True):
        axis.set_xlabel(told)
    return figure


def stage_curves(
    stage: str, store: Store, runs: Mapping[str, Sequence[Cell]]
) -> Iterator[tuple[str, Curves]]:
    """The curve of one stage in each variant."""
    for variant, cells in runs.items():
        curves = read_curves(store, [cell for cell in cells if cell.tags.stage == stage])
        yield variant, dict(zip([stage], curves.values(), strict=False))


def _cells(folder: Path) -> list[Cell]:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return [Cell.from_json(cell) for cell in run["cells"]]


def slug(name: str) -> str:
    """A variant's name as a folder's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


if __name__ == "__main__":
    main()
