"""From the store's artefacts to what a page shows beside the records; what is damaged is left out.

Nothing here needs torch: volume sets and predictions are numpy files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.disk import DiskRefused, refusal
from bench.errors import InputError
from bench.plan import Cell
from bench.runs import StoredRun
from bench.store import Damaged, Store
from bench.volumes import VolumeSet

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard.pictures import Pictures, Row

VOLUMES = 4
"""Volumes of every generator, and real ones, that a page shows at most."""
MOST = 24
"""Generators, and changes, that are shown at most."""

Given = ParamSpec("Given")
Part = TypeVar("Part")


class Reader:
    """Reads parts of pictures; one whose artefacts are gone or damaged becomes a sentence."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def __call__(
        self,
        what: str,
        read: Callable[Given, Part],
        *given: Given.args,
        **named: Given.kwargs,
    ) -> Part | None:
        try:
            return read(*given, **named)
        except DiskRefused:
            raise
        except (Damaged, InputError, OSError, KeyError, ValueError) as error:
            if refusal(error):
                raise
            self.left_out.append(f"No {what}: {error}")
            return None


def read_pictures(runs: Sequence[StoredRun], cases: pd.DataFrame, folder: Path) -> Pictures:
    """All pictures of the runs; those of nearest pairs are written to `folder`.

    Args:
        runs: one, or several of one data set.
        cases: `Leaderboard.cases`, which tells what R+S changed most.
        folder: of the page.
    """
    from leaderboard.pictures import Pictures

    reader = Reader()
    return Pictures(
        rows=tuple(_rows(runs, reader)),
        changes=tuple(_changes(runs, cases, reader)),
        curves={
            name: curve
            for run in reversed(runs)  # the first run's stand
            for name, curve in read_curves(run.store, run.done("fit"), run.shown).items()
        },
        segmenter_curves=read_segmenter_curves(runs),
        pairs=draw_pairs(runs, folder, reader),
        left_out=tuple(reader.left_out),
    )


def _rows(runs: Sequence[StoredRun], reader: Reader) -> Iterator[Row]:
    """Real test volumes, and the first volumes of each generator's first seed, equally many."""
    samples: dict[str, tuple[StoredRun, Cell]] = {}
    for run in runs:
        for cell in run.done("sample"):
            samples.setdefault(run.shown(cell), (run, cell))
    if not samples:
        return
    sets = {"": reader("pictures of real volumes", _prepared, runs[0], "test")}
    for name, (run, cell) in list(samples.items())[:MOST]:
        sets[name] = reader(f"pictures of {name}", _synthetic, run, cell)
    found = {name: volumes for name, volumes in sets.items() if volumes is not None}
    count = min([VOLUMES, *(len(volumes) for volumes in found.values())])
    for name, volumes in found.items():
        row = reader(f"pictures of {name or 'real volumes'}", _row, name, volumes, count)
        if row is not None:
            yield row


def _row(name: str, volumes: VolumeSet, count: int) -> Row:
    from leaderboard import display_name
    from leaderboard.pictures import Row, Volume

    shown = tuple(
        Volume(
            volumes.ids[i],
            grey(volumes.image(i)),
            volumes.cases[i].spacing,
            {"labels": _by_place(volumes, volumes.label(i))} if volumes.has_labels else {},
        )
        for i in range(count)
    )
    return Row(display_name(name) if name else "real test volumes", shown, _classes(volumes))


def _prepared(run: StoredRun, part: str) -> VolumeSet:
    cell = next(run.done("prepare"), None)
    if cell is None:
        raise InputError(f"The prepared data of {run.store.out} are not whole.")
    run.store.verify(cell.key)
    return VolumeSet.open(run.store.artefacts(cell.key) / part)


def _synthetic(run: StoredRun, cell: Cell) -> VolumeSet:
    """A generator's volumes with the labels that segmenters learn from, where these are made."""
    run.store.verify(cell.key)
    volumes = VolumeSet.open(run.store.artefacts(cell.key) / "synthetic")
    for label in run.done("label"):
        if label.needs["synthetic"] == cell.key:
            run.store.verify(label.key)
            return volumes.with_labels(run.store.artefacts(label.key) / "labels.npy")
    return volumes


def _changes(runs: Sequence[StoredRun], cases: pd.DataFrame, reader: Reader) -> Iterator[Row]:
    """Ground truth, R and R+S of the test cases that changed most: `largest_changes`."""
    from leaderboard.cases import largest_changes

    if not len(cases):
        return
    test = reader("pictures of segmentations", _prepared, runs[0], "test")
    if test is None:
        return
    trained = {
        (run.shown(cell), t.segmenter, t.task, t.seed, t.arm): (run, cell)
        for run in runs
        for cell in run.cells
        for t in [cell.tags]
        if cell.kind == "segment"
        and t.real == "all"
        and (t.arm, t.ratio) in {("R", 0.0), ("R+S", 1.0)}
    }
    for line in largest_changes(cases).head(MOST).to_dict("records"):
        of = (line["segmenter"], line["task"], line["seed"])
        arms = {
            "R": trained.get(("", *of, "R")),
            "R+S": trained.get((line["generator"], *of, "R+S")),
        }
        cells = {arm: found for arm, found in arms.items() if found is not None}
        what = f"segmentation of {line['case']} by {line['segmenter']} with {line['generator']}"
        row = reader(what, _change, test, cells, line)
        if row is not None:
            yield row


def _change(
    test: VolumeSet, cells: dict[str, tuple[StoredRun, Cell]], line: Mapping[Any, Any]
) -> Row:
    from bench.datasets.tasks import Task
    from leaderboard import display_name
    from leaderboard.pictures import Row, Volume

    index = test.ids.index(str(line["case"]))
    task = Task.model_validate(cells["R"][1].spec["task"])
    labels = {"ground truth": task.apply(test.label(index))}
    for arm, (run, cell) in cells.items():
        run.store.verify(cell.key)
        with np.load(run.store.artefacts(cell.key) / "predictions.npz", allow_pickle=False) as kept:
            place = list(kept["ids"]).index(line["case"])
            labels[f"{arm}, Dice {line['dice_r' if arm == 'R' else 'dice_rs']:.3f}"] = kept[
                "predictions"
            ][place]
    volume = Volume(test.ids[index], grey(test.image(index)), test.cases[index].spacing, labels)
    names = (display_name(str(line["generator"])), display_name(str(line["segmenter"])))
    title = f"{', '.join(names)}, {line['task']}: {line['case']}"
    return Row(title, (volume,), task.class_names)


def read_curves(
    store: Store,
    cells: Iterable[Cell],
    shown: Callable[[Cell], str] = lambda cell: cell.tags.generator,
) -> dict[str, pd.DataFrame]:
    """The scalars of every stage that was fitted, of each generator's first seed.

    A stage of several fits has one entry for each, named after its file. They are no artefacts but
    what a fit left on its way: one that is gone or torn is not missed.
    """
    import pandas as pd

    from leaderboard import display_name

    curves: dict[str, pd.DataFrame] = {}
    for cell in cells:
        if cell.kind != "fit":
            continue
        stage = cell.tags.stage.removeprefix(f"{cell.tags.generator}/")
        for path in sorted(store.work(cell.key).glob("*.csv")):
            part = "" if path.stem == "fit" else f" {path.stem}"
            name = f"{display_name(shown(cell))}: {stage}{part}"
            if name not in curves:
                with suppress(OSError, ValueError):
                    curves[name] = pd.read_csv(path)
    return curves


def draw_pairs(runs: Sequence[StoredRun], folder: Path, reader: Reader) -> dict[str, str]:
    """Figures of the nearest pairs in `folder`, of each generator's first seed: name -> file."""
    from leaderboard.names import file_name

    files: dict[str, str] = {}
    for run in runs:
        for cell in run.done("memorise"):
            name = run.shown(cell)
            if name in files:
                continue
            file = f"nearest-{file_name(name)}.png"
            what = f"nearest pairs of {name}"
            if reader(what, _draw_pairs, run, cell, folder / file):
                files[name] = file
    return files


def _draw_pairs(run: StoredRun, cell: Cell, path: Path) -> bool:
    """Whether there were any: of a generator whose distances cannot be measured there are none."""
    from leaderboard.figures import nearest_pairs

    run.store.verify(cell.key)
    kept_in = run.store.artefacts(cell.key) / "pairs.npz"
    if not kept_in.is_file():
        return False
    pairs = read_pairs(kept_in)
    path.parent.mkdir(parents=True, exist_ok=True)
    nearest_pairs(pairs, path)
    return True


def read_pairs(path: Path) -> list[tuple[NDArray[Any], NDArray[Any], str]]:
    """Slices of a synthetic volume and its nearest training volume, and a caption, for each pair.

    ValueError if the file holds anything but numbers and text.
    """
    names = ("synthetic", "train", "train_ids", "distance")
    with np.load(path, allow_pickle=False) as kept:
        return [
            (upright(synthetic), upright(train), f"{train_id}, distance {distance:.3g}")
            for synthetic, train, train_id, distance in zip(*(kept[n] for n in names), strict=True)
        ]


def upright(axial: NDArray[np.floating]) -> NDArray[np.floating]:
    """An axial slice (R, A) as radiologists look at it: anterior up, the patient's right left."""
    return axial.T[::-1, ::-1]


def grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Intensities of [0, 1] as 8 bits."""
    greys: NDArray[np.uint8] = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    return greys


def _classes(volumes: VolumeSet) -> tuple[str, ...]:
    return tuple(name for label, name in volumes.label_names.items() if label != 0)


def _by_place(volumes: VolumeSet, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map by the place of each label among the names: 1, 2, ..."""
    places = np.zeros(256, dtype=np.uint8)
    places[[label for label in volumes.label_names if label != 0]] = np.arange(
        1, len(_classes(volumes)) + 1
    )
    placed: NDArray[np.uint8] = places[label]
    return placed


SEGMENTER_SCALARS = ("val/dice", "loss/all")


def read_segmenter_curves(runs: Sequence[StoredRun]) -> dict[str, dict[str, pd.DataFrame]]:
    """Scalars of the paper's arms while they were trained, of each arm's first seed.

    The key is "R" or "R+S" with the generator, then segmenter and task. What is gone or torn is not
    missed.
    """
    import pandas as pd

    from leaderboard import display_name

    curves: dict[str, dict[str, pd.DataFrame]] = {}
    for run in runs:
        for cell in run.done("segment"):
            t = cell.tags
            if t.real != "all" or (t.arm, t.ratio) not in (("R", 0.0), ("R+S", 1.0)):
                continue
            arm = f"R+S, {display_name(run.shown(cell))}" if t.generator else "R"
            panel = f"{display_name(t.segmenter)}, {t.task}"
            path = run.store.work(cell.key) / "fit.csv"
            if panel in curves.get(arm, {}) or not path.is_file():
                continue
            with suppress(OSError, ValueError, KeyError):
                curve = pd.read_csv(path)
                curve = curve[curve["name"].isin(SEGMENTER_SCALARS)]
                if len(curve):
                    curves.setdefault(arm, {})[panel] = curve
    return curves
