"""Label maps of a user's own, brought to the grid and the label values of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import PHANTOM, DataConfig
from bench.datasets.labels import BACKGROUND
from bench.datasets.nifti import SUFFIXES, read_label
from bench.datasets.prepare import prepare_case
from bench.datasets.source import RawCase
from bench.errors import InputError
from bench.volumes import Label, VolumeSet, new_array


class GivenLabel(NamedTuple):
    """One label map on the run's grid, with the run's label values."""

    id: str
    label: Label  # (D, H, W)
    affine: NDArray[np.float64]  # (4, 4): voxel index to RAS millimetres


class GivenLabels(NamedTuple):
    """Label maps of a user's own, on disk."""

    ids: tuple[str, ...]
    maps: NDArray[np.uint8]  # (N, D, H, W), memory-mapped
    affines: tuple[NDArray[np.float64], ...]


def read_given_labels(
    path: Path, data: DataConfig, label_names: Mapping[int, str], store: Path
) -> GivenLabels:
    """The label maps at `path`, kept in the file `store` (npy); one is in memory at a time.

    `path` is a volume set, a folder in the Decathlon layout (labelsTr and the names in
    dataset.json), a folder of NIfTI label maps, or one such file. Values go by the names of their
    labels where `path` names them, and else are the run's own. NIfTI files that do not lie on the
    run's grid are prepared as its cases were.

    Args:
        data: the run's, with which its cases were prepared.
        label_names: the run's.

    Raises:
        InputError: there are no label maps, one is on another grid and cannot be brought to the
            run's, holds a label that the run's data do not have, or is background everywhere.
    """
    found = _from_set(path, data) if (path / "set.json").is_file() else _from_files(path, data)
    names, count, given = found
    table = _translation(names or {**(data.labels or {}), **label_names}, label_names)
    maps = new_array(store, np.uint8, (count, *data.grid))
    ids, affines = [], []
    for k, one in enumerate(given):
        maps[k] = _translated(one, table, names, label_names)
        ids.append(one.id)
        affines.append(one.affine)
    maps.flush()
    return GivenLabels(tuple(ids), maps, tuple(affines))


Found = tuple[Mapping[int, str], int, Iterator[GivenLabel]]  # label names, count, label maps


def _from_set(path: Path, data: DataConfig) -> Found:
    volumes = VolumeSet.open(path)
    if not volumes.has_labels:
        raise InputError(f"The volume set {path} has no labels; give one that has.")
    if volumes.grid != data.grid:
        raise InputError(
            f"The volume set {path} has the grid {volumes.grid}, the run has {data.grid}; prepare "
            "it with the run's grid, or give its label maps as NIfTI files."
        )
    given = (
        GivenLabel(case.id, volumes.label(i), np.asarray(case.affine))
        for i, case in enumerate(volumes.cases)
    )
    return volumes.label_names, len(volumes), given


def _from_files(path: Path, data: DataConfig) -> Found:
    folder = path / "labelsTr" if (path / "labelsTr").is_dir() else path
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder] if folder.is_file() else []
    # macOS archives carry a "._case.nii.gz" beside every file.
    files = [f for f in files if f.name.lower().endswith(SUFFIXES) and not f.name.startswith(".")]
    if not files:
        raise InputError(
            f"{path} holds no label maps: it is no volume set and {folder} has no .nii or .nii.gz "
            "files; give a folder that has."
        )
    return _declared(path, data), len(files), (_on_grid(file, data) for file in files)


def _declared(path: Path, data: DataConfig) -> Mapping[int, str]:
    """Names of the label values in a Decathlon folder; the run's own words for its own source."""
    file = path / "dataset.json"
    own = data.source != PHANTOM and Path(data.source).resolve() == path.resolve()
    if (own and data.labels is not None) or not file.is_file():
        return {}
    try:
        labels: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["labels"]
        return {int(value): str(name) for value, name in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{file} declares no labels as in {{"labels": {{"1": "liver"}}}}; mend it.'
        ) from error


def _on_grid(file: Path, data: DataConfig) -> GivenLabel:
    """The label map in `file` as it is where it lies on the run's grid, else prepared."""
    scan = read_label(file)
    label, affine = scan.voxels, scan.affine
    id = file.name[: -len(next(s for s in SUFFIXES if file.name.lower().endswith(s)))]
    turn = nib.io_orientation(affine)
    turned = nib.apply_orientation(label, turn)
    if turned.shape == data.grid:
        return GivenLabel(id, turned, affine @ nib.orientations.inv_ornt_aff(turn, label.shape))
    if data.source == PHANTOM:
        raise InputError(
            f"{file} has the grid {turned.shape}, the run has {data.grid}, which is the phantom's "
            "whole field of view; give label maps on that grid."
        )
    if not label.any():
        raise InputError(f"{file} is background everywhere; leave it out.")
    # Preparation is guided by the label alone: any image that can be scaled does.
    ramp = np.linspace(0, 1, label.shape[0], dtype=np.float32)[:, None, None]
    case = prepare_case(RawCase(np.broadcast_to(ramp, label.shape), label, affine), data)
    return GivenLabel(id, case.label, case.affine)


def _translation(names: Mapping[int, str], label_names: Mapping[int, str]) -> NDArray[np.int16]:
    """Look-up table (256,): value in `names` -> value of that name in the run, -1 for none."""
    values = {name: value for value, name in label_names.items()} | {BACKGROUND: 0}
    table = np.full(256, -1, dtype=np.int16)
    for value, name in names.items():
        table[value] = values.get(name, -1)
    table[0] = 0
    return table


def _translated(
    one: GivenLabel,
    table: NDArray[np.int16],
    names: Mapping[int, str],
    label_names: Mapping[int, str],
) -> Label:
    unknown = [v for v in np.unique(one.label).tolist() if table[v] < 0]
    if unknown:
        shown = [f"{v} ({names[v]})" if v in names else str(v) for v in unknown]
        raise InputError(
            f"The label map {one.id} has the labels {', '.join(shown)}, the run's data have "
            f"{dict(label_names)}; leave out or rename what the run does not know."
        )
    label: Label = table[one.label].astype(np.uint8)
    if not label.any():
        raise InputError(f"The label map {one.id} is background everywhere; leave it out.")
    return label
