"""Folders in the layout of the Medical Segmentation Decathlon: imagesTr, labelsTr, dataset.json.

Antonelli et al., Nature Communications 13 (2022) 4128. Files are checked when they are read; every
fault is one sentence that names the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import DataConfig
from bench.datasets.labels import merge_names
from bench.datasets.nifti import read_image, read_label, write_volume
from bench.datasets.source import RawCase, patient_of
from bench.datasets.split import seeded_order
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.volumes import VolumeSet

_SUFFIXES = (".nii.gz", ".nii")
# Image and label must lie on one another to this fraction of a voxel.
_AFFINE_TOLERANCE = 0.1


class _Pair(NamedTuple):
    image: Path
    label: Path


class DecathlonSource:
    """The training cases of a Decathlon folder."""

    on_grid = False

    def __init__(self, config: DataConfig) -> None:
        """Read dataset.json; InputError for whatever is missing or wrong in it."""
        self.folder = Path(config.source)
        self._config = config
        meta = self._read_meta()
        self.name = str(meta.get("name", self.folder.name))
        self._declared = self._read_labels(meta)
        self.label_names, self._merge = merge_names(self._declared)
        if len(self.label_names) < 2:
            raise InputError(
                f"{self._json} and data.labels declare no label beside the background, "
                f"{self._declared}; name at least one."
            )
        self._pairs = self._choose(self._read_pairs(meta))
        self.ids = tuple(self._pairs)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the chosen cases' files and of the labels' merging.

        Raises:
            InputError: two cases have the same image, so that one could be trained on and the
                other tested.
        """
        files = [path for pair in self._pairs.values() for path in pair]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = list(pool.map(_sha256, files))
        seen: dict[str, str] = {}
        for id, digest in zip(self.ids, hashes[::2], strict=True):
            first = seen.setdefault(digest, id)
            if first != id:
                raise InputError(
                    f"The images of cases {first} and {id} in {self.folder} are the same file "
                    f"twice; remove one from {self._json}."
                )
        content = [self.ids, hashes, sorted(self.label_names.items()), self._merge.tolist()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def patient(self, id: str) -> str:
        return patient_of(id, self._config.patients)

    def load(self, id: str) -> RawCase:
        """Case `id` from its two files; InputError for the first fault found in them."""
        pair = self._pairs[id]
        image, affine = read_image(pair.image)
        label, label_affine = read_label(pair.label)
        if image.shape != label.shape:
            raise InputError(
                f"{pair.label} has shape {label.shape}, but its image {pair.image} has "
                f"{image.shape}; put both on one grid."
            )
        _check_alignment(pair, image.shape, affine, label_affine)
        self._check_values(pair.label, label)
        merged = self._merge[label]
        if not merged.any():
            raise InputError(
                f"{pair.label} is background everywhere (labels kept: {self.label_names}); remove "
                f"the case from {self._json}."
            )
        return RawCase(image, merged, affine, {"file": pair.image.name})

    @property
    def _json(self) -> Path:
        return self.folder / "dataset.json"

    def _read_meta(self) -> dict[str, Any]:
        if not self.folder.is_dir():
            raise InputError(
                f"The data folder {self.folder} does not exist; give the folder of a data set in "
                'the Decathlon layout, or "phantom".'
            )
        try:
            meta = json.loads(self._json.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"The data folder {self.folder} has no dataset.json; give the folder that holds "
                "imagesTr, labelsTr and dataset.json."
            ) from error
        except (ValueError, OSError) as error:
            raise InputError(f"{self._json} is not valid JSON: {error}; mend it.") from error
        for key, kind in (("labels", dict), ("training", list)):
            value = meta.get(key) if isinstance(meta, dict) else None
            if not isinstance(value, kind) or not value:
                raise InputError(
                    f"{self._json} has {key}: {value!r}, expected a non-empty {kind.__name__}; "
                    "write it as the Decathlon does."
                )
        result: dict[str, Any] = meta
        return result

    def _read_labels(self, meta: dict[str, Any]) -> dict[int, str]:
        if self._config.labels is not None:
            return {0: "background", **self._config.labels}
        names: dict[int, str] = {}
        for key, name in meta["labels"].items():
            if not key.isdecimal() or int(key) > 255 or not isinstance(name, str):
                raise InputError(
                    f"{self._json} has labels: {{{key!r}: {name!r}}}, expected an id of 0 to 255 "
                    'and a name, as in {"1": "liver"}; mend it, or set data.labels.'
                )
            names[int(key)] = name
        return names

    def _read_pairs(self, meta: dict[str, Any]) -> dict[str, _Pair]:
        pairs: dict[str, _Pair] = {}
        for i, entry in enumerate(meta["training"]):
            files = [self._path(entry, key, i) for key in ("image", "label")]
            # macOS archives carry a "._case.nii.gz" beside every file.
            if files[0].name.startswith("."):
                continue
            id = _case_id(files[0], self._json)
            if id in pairs:
                raise InputError(
                    f"{self._json} has the case id {id!r} twice in training; remove one entry."
                )
            pairs[id] = _Pair(*files)
        return dict(sorted(pairs.items()))

    def _path(self, entry: Any, key: str, index: int) -> Path:
        name = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{self._json} has training[{index}] = {entry!r} without {key!r}; give the path "
                "of a NIfTI file."
            )
        relative = PurePosixPath(name.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(
                f"{self._json} has {key} {name!r} in training[{index}], which leaves the folder "
                f"{self.folder}; give a path inside it."
            )
        return self.folder / relative

    def _choose(self, pairs: dict[str, _Pair]) -> dict[str, _Pair]:
        chosen = seeded_order(pairs, self._config.seed, "cases")[: self._config.cases]
        for id in sorted(chosen):
            for path in pairs[id]:
                if not path.is_file():
                    raise InputError(
                        f"{path} does not exist, but {self._json} lists it; fetch the file or "
                        "remove the entry."
                    )
        return {id: pairs[id] for id in sorted(chosen)}

    def _check_values(self, path: Path, label: NDArray[np.uint8]) -> None:
        found = set(np.flatnonzero(np.bincount(label.ravel(), minlength=256)).tolist())
        unknown = sorted(found - {0} - set(self._declared))
        if unknown:
            raise InputError(
                f"{path} has the label values {unknown}, which are not declared "
                f"({self._declared}); name them in data.labels or in {self._json}."
            )


def write_decathlon(volumes: VolumeSet, folder: Path) -> Path:
    """Write a volume set as a Decathlon folder with its affines; returns `folder`.

    Images are float32 in [0, 1]. Cases with labels are listed as training, cases without as test,
    as the Decathlon does.
    """
    part = "Tr" if volumes.has_labels else "Ts"
    listed = [_write_case(volumes, i, folder, part) for i in range(len(volumes))]
    meta = {
        "name": folder.name,
        "description": f"exported volume set; provenance: {json.dumps(volumes.provenance)}",
        "tensorImageSize": "3D",
        "modality": {"0": "image in [0, 1]"},
        "labels": {str(label): name for label, name in sorted(volumes.label_names.items())},
        "numTraining": len(listed) if volumes.has_labels else 0,
        "numTest": 0 if volumes.has_labels else len(listed),
        "training": listed if volumes.has_labels else [],
        "test": [] if volumes.has_labels else [entry["image"] for entry in listed],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return folder


def _write_case(volumes: VolumeSet, index: int, folder: Path, part: str) -> dict[str, str]:
    case = volumes.cases[index]
    if PurePosixPath(case.id).name != case.id or case.id.startswith("."):
        raise ValueError(f"The case id {case.id!r} is unfit for a file name; rename the case.")
    affine = np.asarray(case.affine)
    entry = {"image": f"./images{part}/{case.id}.nii.gz"}
    write_volume(folder / entry["image"], volumes.image(index), affine)
    if volumes.has_labels:
        entry["label"] = f"./labels{part}/{case.id}.nii.gz"
        write_volume(folder / entry["label"], volumes.label(index), affine)
    return entry


def _case_id(path: Path, listing: Path) -> str:
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    raise InputError(
        f"{listing} lists {path.name!r}, which is not a NIfTI file; convert it to .nii.gz."
    )


def _check_alignment(
    pair: _Pair,
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    label_affine: NDArray[np.float64],
) -> None:
    corners = np.array([[*corner, 1.0] for corner in _corners(shape)])
    apart = np.linalg.norm((corners @ (affine - label_affine).T)[:, :3], axis=1).max()
    voxel = np.linalg.norm(affine[:3, :3], axis=0).min()
    if apart > _AFFINE_TOLERANCE * voxel:
        raise InputError(
            f"{pair.label} lies up to {apart:.3g} mm away from its image {pair.image} (their "
            f"affines are {label_affine[:3].tolist()} and {affine[:3].tolist()}); correct the "
            "wrong header."
        )


def _corners(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for corner in np.ndindex(2, 2, 2):
        yield tuple(i * (n - 1) for i, n in zip(corner, shape, strict=True))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend the file.") from error
