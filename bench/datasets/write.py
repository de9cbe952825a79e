"""Writing pairs of images and labels as folders that other tools read: Decathlon and nnU-Net."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.datasets.labels import BACKGROUND
from bench.datasets.nifti import write_volume
from bench.errors import InputError

_ENDING = ".nii.gz"
_NNUNET_NAME = re.compile(r"Dataset\d{3}_.+")


class ToWrite(NamedTuple):
    """One case on its way to files."""

    id: str
    image: NDArray[np.float32]  # (X, Y, Z)
    label: NDArray[np.uint8] | None  # (X, Y, Z)
    affine: NDArray[np.float64]  # (4, 4): voxel index to RAS+ millimetres


def write_decathlon(
    cases: Iterable[ToWrite],
    folder: Path,
    label_names: Mapping[int, str],
    about: Mapping[str, Any],
    tick: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write cases as a Decathlon folder, one in memory at a time; returns `folder`.

    Cases with labels are listed as training, cases without as test, as the Decathlon does.

    Args:
        cases: with the ids of `label_names` in their labels.
        about: further fields of dataset.json, which win over those made here.
        tick: called with the number of cases written.
    """
    training, test = [], []
    for done, case in enumerate(cases, start=1):
        part = "Ts" if case.label is None else "Tr"
        image = f"./images{part}/{_safe(case.id)}{_ENDING}"
        write_volume(folder / image, case.image, case.affine)
        if case.label is None:
            test.append(image)
        else:
            label = f"./labels{part}/{case.id}{_ENDING}"
            write_volume(folder / label, case.label, case.affine)
            training.append({"image": image, "label": label})
        tick(done)
    meta = {
        "name": folder.name,
        "tensorImageSize": "3D",
        "modality": {"0": "image in [0, 1]"},
        "labels": {str(label): name for label, name in sorted(label_names.items())},
        "numTraining": len(training),
        "numTest": len(test),
        **about,
        "training": training,
        "test": test,
    }
    return _listed(folder, meta)


def write_nnunet(
    cases: Iterable[ToWrite],
    folder: Path,
    label_names: Mapping[int, str],
    about: Mapping[str, Any],
    tick: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write labelled cases as a raw data set of nnU-Net v2, one in memory at a time.

    Label ids become consecutive, which nnU-Net asks for. The name of the one channel is not "CT",
    so that nnU-Net normalises each image by its own mean and spread.

    Raises:
        InputError: the folder is not named as in Dataset501_Name, or a case has no label.
    """
    require_nnunet_name(folder)
    order = sorted(label_names, key=lambda label: (label != 0, label))
    table = np.zeros(256, dtype=np.uint8)
    table[order] = np.arange(len(order))
    count = 0
    for case in cases:
        if case.label is None:
            raise InputError(
                f"The case {case.id} has no label, and nnU-Net trains on labelled cases; give "
                "--format decathlon."
            )
        write_volume(folder / f"imagesTr/{_safe(case.id)}_0000{_ENDING}", case.image, case.affine)
        write_volume(folder / f"labelsTr/{case.id}{_ENDING}", table[case.label], case.affine)
        count += 1
        tick(count)
    names = {0: BACKGROUND, **label_names}
    meta = {
        "channel_names": {"0": "image in [0, 1]"},
        "labels": {names[label]: k for k, label in enumerate(order)},
        "numTraining": count,
        "file_ending": _ENDING,
        "name": folder.name,
        **about,
    }
    return _listed(folder, meta)


def require_nnunet_name(folder: Path) -> None:
    """InputError unless nnU-Net would find the folder by its name."""
    if not _NNUNET_NAME.fullmatch(folder.name):
        raise InputError(
            f"{folder} is no name of a raw data set of nnU-Net; name the folder as in "
            "nnUNet_raw/Dataset501_Synthetic."
        )


def require_new(folder: Path) -> None:
    """InputError if anything is in `folder` already: it would mix with what is written."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} holds something already; give an empty or a new folder.")


def _safe(id: str) -> str:
    if PurePosixPath(id).name != id or id.startswith(".") or "\\" in id:
        raise ValueError(f"The case id {id!r} is unfit for a file name; rename the case.")
    return id


def _listed(folder: Path, meta: Mapping[str, Any]) -> Path:
    """Write dataset.json last: a folder that has none is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(
        json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    return folder
