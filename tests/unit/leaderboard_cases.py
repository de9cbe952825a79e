"""Records and cells of runs written by hand, and tables read back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt

from bench.records import CellRow, Record, cells_frame, records_frame
from leaderboard import Leaderboard, RunInfo, build, markdown
from leaderboard import page as pages
from leaderboard.text import TextTable

NAN = float("nan")
PLANES = ("axial", "sagittal", "coronal")


@dataclasses.dataclass
class Made:
    """The records and cells of a run, written by hand."""

    records: list[Record] = dataclasses.field(default_factory=list)
    cells: list[CellRow] = dataclasses.field(default_factory=list)
    dataset: str = "phantom"

    def fid(self, generator: str, planes: tuple[float, ...], seed: int = 0, **other: Any) -> None:
        self.cell("score", generator, seed=seed)
        for plane, value in zip((*PLANES, "average"), (*planes, sum(planes) / 3), strict=True):
            row = Record(
                kind="score", dataset=self.dataset, grid="32x32x32", seed=seed, metric="fid",
                generator=generator, plane=plane, value=value, n_real=8, n_synthetic=8,
                extractor="texture", extractor_sha256="", protocol="reorient",
                label_source="real" if generator == "real" else "pseudo",
            )  # fmt: skip
            self.records.append(Record(**{**row, **other}))  # type: ignore[typeddict-item]

    def score(
        self, kind: str, generator: str, values: dict[str, float], seed: int = 0, **other: Any
    ) -> None:
        """Scores of a set of volumes; the cell once."""
        planned = {(cell["kind"], cell["generator"], cell["seed"]) for cell in self.cells}
        if (kind, generator, seed) not in planned:
            self.cell(kind, generator, seed=seed)
        for metric, value in values.items():
            row = Record(
                kind=kind, dataset=self.dataset, grid="32x32x32", seed=seed, generator=generator,
                metric=metric, value=value,
            )  # fmt: skip
            self.records.append(Record(**{**row, **other}))  # type: ignore[typeddict-item]

    def of_case(self, metric: str, values: dict[tuple[str, str], float], **arm: Any) -> None:
        """Scores of the test cases of an arm, by case and label, beside its Dice."""
        row = Record(
            kind="segment", dataset=self.dataset, grid="32x32x32", seed=0, segmenter="unet",
            task="liver", arm="R", real="all", ratio=0.0, metric=metric,
        )  # fmt: skip
        if arm.get("generator"):
            row |= Record(arm="R+S", ratio=1.0)
        for (case, label), value in values.items():
            self.records.append(
                Record(**{**row, "case": case, "label": label, "value": value, **arm})
            )  # type: ignore[typeddict-item]

    def dice(
        self,
        values: dict[str, float],
        generator: str = "",
        segmenter: str = "unet",
        task: str = "liver",
        arm: str = "",
        real: str = "all",
        ratio: float | None = None,
        seed: int = 0,
    ) -> None:
        arm = arm or ("R+S" if generator else "R")
        ratio = (1.0 if generator else 0.0) if ratio is None else ratio
        self.cell("segment", generator, segmenter, task, arm, real, ratio, seed)
        for case, value in values.items():
            self.records.append(
                Record(
                    kind="segment",
                    dataset=self.dataset,
                    grid="32x32x32",
                    seed=seed,
                    generator=generator,
                    segmenter=segmenter,
                    task=task,
                    arm=arm,
                    real=real,
                    ratio=ratio,
                    metric="dice",
                    case=case,
                    value=value,
                )
            )

    def cell(
        self,
        kind: str,
        generator: str = "",
        segmenter: str = "",
        task: str = "",
        arm: str = "",
        real: str = "",
        ratio: float = 0.0,
        seed: int = 0,
        status: str = "done",
        reason: str = "",
    ) -> None:
        self.cells.append(
            CellRow(
                cell="",
                kind=kind,
                generator=generator,
                segmenter=segmenter,
                task=task,
                arm=arm,
                real=real,
                ratio=ratio,
                seed=seed,
                status=status,
                reason=reason,
                seconds=1.0,
            )
        )

    def board(self, **info: Any) -> Leaderboard:
        told = RunInfo(self.dataset, "quick", "32x32x32", **info)
        return build(records_frame(self.records), cells_frame(self.cells), told)


def two_by_two() -> Made:
    """Two generators, two segmenters, one task; the floor."""
    made = Made()
    made.fid("beta", (30.0, 40.0, 50.0))
    made.fid("alpha", (20.0, 50.0, 20.0))
    made.fid("real", (1.0, 2.0, 3.0))
    for segmenter, shift in (("vnet", 0.0), ("unet", 0.1)):
        made.dice({"a": 0.5 + shift, "b": 0.7 + shift}, segmenter=segmenter)
        made.dice({"a": 0.6 + shift, "b": 0.7 + shift}, "alpha", segmenter)
        made.dice({"a": 0.7 + shift, "b": 0.7 + shift}, "beta", segmenter)
    return made


def page(board: Leaderboard) -> str:
    """The leaderboard's page as Markdown."""
    return markdown.render(pages.page(board))


def named(content: TextTable) -> pd.DataFrame:
    """A text table by the names of its rows and columns."""
    columns = [title.replace("\n", " ") for title in content.columns]
    return pd.DataFrame(content.rows, columns=columns).set_index(columns[0])


def parsed(markdown: str) -> list[list[list[str]]]:
    """Tables of a page as cells of plain text, read by an independent parser."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    tables: list[list[list[str]]] = []
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open") and after is not None:
            inside = after.children or []
            texts = (child.content for child in inside if child.type != "html_inline")
            tables[-1][-1].append("".join(texts))
    return tables


def under(markdown: str, heading: str) -> list[list[str]]:
    """The first table below the heading that starts so."""
    marks = "\n" + markdown
    for level in ("\n## ", "\n### "):
        if level + heading in marks:
            return parsed(marks.split(level + heading, 1)[1].partition("\n")[2])[0]
    raise AssertionError(heading)


def row_of(frame: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1, where
    return frame.iloc[0]


def measured() -> Made:
    """Two generators and a control with every score there is, on two tasks and several doses."""
    rng = np.random.default_rng(0)
    made = Made()
    quality = {"beta": 0.6, "alpha": 0.9, "oracle": 1.0, "real": 1.0}
    for name, q in quality.items():
        fid = 100.0 * (1.1 - q)
        made.fid(name, (fid, fid + 1, fid + 2), low=fid - 4, high=fid + 5)
        scores = {"fid_extrapolated": fid - 9, "kid": 0.05 * (1.02 - q), "mmd_rbf": 0.3 * (1.1 - q)}
        scores |= {"precision": q, "recall": q - 0.2, "density": q, "coverage": q - 0.1}
        made.score("score", name, scores, plane="average", extractor="texture", protocol="reorient",
                   n_real=8, n_synthetic=8)  # fmt: skip
        for r in range(40):
            drawn = {"fid_resample": fid + 1 + rng.normal(0, 10)}
            made.score("score", name, drawn, plane="average", case=str(r), extractor="texture",
                       protocol="reorient")  # fmt: skip
        task = {"fid": fid / 2, **scores}
        made.score("task-score", name, task, plane="volume", extractor="task", protocol="volume",
                   low=fid / 2 - 1, high=fid / 2 + 1, n_real=8, n_synthetic=8)  # fmt: skip
        made.score("diversity", name, {"ms_ssim": 0.9 - 0.1 * q}, n_synthetic=8)
        fits = {"label_fidelity": q, "label_fidelity_shuffled": 0.4}
        made.score("fidelity", name, fits, n_synthetic=8)
        for label in ("liver", "tumour"):
            by_class = {"label_fidelity": q - 0.1 * (label == "tumour")}
            made.score("fidelity", name, {**fits, **by_class}, label=label)
            sizes = {"structure_volume_ml": 100 * q, "structure_volume_ks": 0.3}
            sizes |= {"structure_volume_p": 0.01 + q / 2, "structure_components": 1 / q}
            sizes |= {"structure_components_p": 0.0001, "structure_absent": 1 - q}
            made.score("structures", name, sizes, label=label, n_synthetic=8)
        if name != "real":
            near = {"memorisation_distance": 4.0 * q, "memorisation_distance_test": 4.0}
            near |= {"memorisation_ratio": q, "near_copies": 0.125, "near_copies_test": 0.0}
            counts = {"n_real": 12, "n_synthetic": 8}
            made.score("memorise", name, near | {"memorisation_p": 0.2}, **counts)
            made.score("task-memorise", name, near | {"memorisation_p": 0.002}, **counts)
    cases = [f"case-{i}" for i in range(12)]
    for task in ("liver", "tumour"):
        for segmenter in ("unet", "vnet"):
            patient = dict(zip(cases, rng.uniform(0.4, 0.7, 12), strict=True))
            for real in ("6", "all"):
                base = 0.0 if real == "all" else -0.2
                r = {case: value + base + rng.normal(0, 0.01) for case, value in patient.items()}
                made.dice(r, segmenter=segmenter, task=task, real=real)
                for name in ("beta", "alpha", "oracle"):
                    for ratio in (1.0, 2.0):
                        gain = 0.1 * (quality[name] - 0.55) * ratio**0.5 - base / 3
                        rs = {case: value + gain + rng.normal(0, 0.01) for case, value in r.items()}
                        made.dice(rs, name, segmenter, task, real=real, ratio=ratio)
            for name in ("beta", "alpha", "oracle"):
                s = {case: value - 0.15 + rng.normal(0, 0.03) for case, value in patient.items()}
                made.dice(s, name, segmenter, task, arm="S", real="0")
            for name in ("", "beta", "alpha", "oracle"):
                arm = {"segmenter": segmenter, "task": task, "generator": name}
                for metric, value in (("surface_dice", 0.8), ("hd95", 4.0), ("volume_error", 0.1)):
                    values = {(case, ""): value for case in cases}
                    made.of_case(metric, values, **arm)
                    made.of_case(metric, {(case, task): value for case in cases}, **arm)
                made.of_case("dice", {(case, task): patient[case] for case in cases[1:]}, **arm)
                made.of_case("dice", {(cases[0], task): NAN}, **arm)
                made.of_case("absent_but_predicted", {(cases[0], task): 1.0}, **arm)
                made.of_case("missed", {(case, task): 0.0 for case in cases[1:]}, **arm)
    return made
