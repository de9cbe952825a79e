"""VolumeSet: N cases on one grid, images and labels; what every stage reads and writes.

On disk a volume set is a folder: ``images.npy`` (N, D, H, W) float16 or float32 in [0, 1],
``labels.npy`` (N, D, H, W) uint8 where there are labels, and ``set.json``. Both arrays are opened
memory-mapped, so N volumes never need N volumes of memory. Array axes are (R, A, S): index 0 grows
towards the patient's right, 1 towards anterior, 2 towards superior, as in nibabel.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import InputError

AXES = "RAS"
FORMAT_VERSION = 1

Image = NDArray[np.floating[Any]]
Label = NDArray[np.uint8]
Affine = tuple[tuple[float, ...], ...]


class Sample(NamedTuple):
    """One volume as a generator yields it."""

    image: Image  # (D, H, W) in [0, 1]
    label: Label | None = None  # (D, H, W) uint8, or None where the generator has no labels


@dataclass(frozen=True)
class Case:
    """What is known of one case beside its voxels."""

    id: str
    affine: Affine  # (4, 4): voxel index to RAS millimetres
    checksum: str  # sha256 of the voxels as stored
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the three array axes."""
        columns = np.asarray(self.affine)[:3, :3]
        x, y, z = np.sqrt((columns**2).sum(axis=0))
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class VolumeSet:
    """A view of one or several volume-set folders; made by `open`, `subset` and `concatenate`.

    A view holds (folder, row) pairs and opens the arrays when they are read: subsets and
    concatenations copy nothing, and a set can be sent to another process.
    """

    grid: tuple[int, int, int]
    label_names: dict[int, str]  # id -> name, 0 is the background
    cases: tuple[Case, ...]
    rows: tuple[tuple[Path, int], ...]
    label_rows: tuple[tuple[Path, int], ...] | None  # None: no labels
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str) -> VolumeSet:
        """Open the set in `folder`; InputError if it is not one or was not finished."""
        folder = Path(folder)
        path = folder / "set.json"
        if not path.is_file():
            raise InputError(
                f"{folder} is not a volume set: it has no set.json; write it with VolumeSetWriter."
            )
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); prepare the data again.") from error
        if meta["format"] != FORMAT_VERSION:
            raise InputError(
                f"{path} has format {meta['format']}, this version reads {FORMAT_VERSION}; "
                "prepare the data again."
            )
        # What thousands of cases share is kept once.
        images, labels = folder / "images.npy", folder / "labels.npy"
        affines: dict[str, Affine] = {}
        cases = []
        for case in meta["cases"]:
            affine = tuple(map(tuple, case.pop("affine")))
            affine = affines.setdefault(repr(affine), affine)  # equal to the sign of a zero
            cases.append(Case(case["id"], affine, case["checksum"], case.get("source", {})))
        x, y, z = meta["grid"]
        rows = tuple((images, i) for i in range(len(cases)))
        label_rows = tuple((labels, i) for i in range(len(cases)))
        return cls(
            grid=(x, y, z),
            label_names={int(k): v for k, v in meta["labels"].items()},
            cases=tuple(cases),
            rows=rows,
            label_rows=label_rows if labels.is_file() else None,
            provenance=meta["provenance"],
        )

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(case.id for case in self.cases)

    @property
    def has_labels(self) -> bool:
        return self.label_rows is not None

    @property
    def fingerprint(self) -> str:
        """sha256 over ids, checksums, geometry and label names: equal sets, equal fingerprints."""
        content = [
            FORMAT_VERSION,
            self.grid,
            sorted(self.label_names.items()),
            [(c.id, c.checksum, c.affine) for c in self.cases],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def image(self, index: int) -> NDArray[np.float32]:
        """Image `index` as float32 (D, H, W) in [0, 1]."""
        path, row = self.rows[index]
        return np.asarray(_memmap(path)[row], dtype=np.float32)

    def label(self, index: int) -> Label:
        """Label map `index` as uint8 (D, H, W)."""
        if self.label_rows is None:
            raise ValueError("This volume set has no labels; label it first or use a labelled one.")
        path, row = self.label_rows[index]
        return np.asarray(_memmap(path)[row], dtype=np.uint8)

    def images(self, indices: Sequence[int] | None = None) -> NDArray[np.float32]:
        """The named images (all by default) stacked: (n, D, H, W) float32."""
        chosen = range(len(self)) if indices is None else indices
        return np.stack([self.image(i) for i in chosen])

    def labels(self, indices: Sequence[int] | None = None) -> Label:
        """The named label maps (all by default) stacked: (n, D, H, W) uint8."""
        chosen = range(len(self)) if indices is None else indices
        return np.stack([self.label(i) for i in chosen])

    def subset(self, indices: Iterable[int]) -> VolumeSet:
        """The cases at `indices`, in that order, without copying."""
        chosen = list(indices)
        return VolumeSet(
            self.grid,
            self.label_names,
            tuple(self.cases[i] for i in chosen),
            tuple(self.rows[i] for i in chosen),
            None if self.label_rows is None else tuple(self.label_rows[i] for i in chosen),
            self.provenance,
        )

    def with_labels(self, path: Path) -> VolumeSet:
        """These images with the label maps stored in `path`, an npy file (N, D, H, W) of uint8.

        Every voxel is read once for the new checksums; ValueError if the shape does not fit.
        """
        shape = _memmap(path).shape
        if shape != (len(self), *self.grid):
            raise ValueError(
                f"{path} has shape {shape}, expected {(len(self), *self.grid)}; label this set."
            )
        rows = tuple((path, i) for i in range(len(self)))
        relabelled = replace(self, label_rows=rows)
        cases = tuple(
            replace(case, checksum=relabelled._stored_checksum(i))
            for i, case in enumerate(self.cases)
        )
        return replace(relabelled, cases=cases)

    def verify(self) -> None:
        """Compare every voxel with the checksums; ValueError names the first damaged case."""
        for i, case in enumerate(self.cases):
            if self._stored_checksum(i) != case.checksum:
                raise ValueError(
                    f"Case {case.id} in {self.rows[i][0].parent} is damaged: its checksum differs; "
                    "prepare it again."
                )

    def _stored_checksum(self, index: int) -> str:
        path, row = self.rows[index]
        return _checksum(_memmap(path)[row], self.label(index) if self.has_labels else None)

    def export_nifti(self, folder: Path | str) -> Path:
        """Write the set as a Decathlon folder (imagesTr, labelsTr, dataset.json)."""
        from bench.datasets.write import ToWrite, write_decathlon

        cases = (
            ToWrite(
                case.id,
                self.image(i),
                self.label(i) if self.has_labels else None,
                np.asarray(case.affine),
            )
            for i, case in enumerate(self.cases)
        )
        provenance = json.dumps(self.provenance)
        about = {"description": f"exported volume set; provenance: {provenance}"}
        return write_decathlon(cases, Path(folder), self.label_names, about)


def concatenate(*sets: VolumeSet) -> VolumeSet:
    """The cases of several sets of one grid and one label map, in order, without copying."""
    first = sets[0]
    for other in sets[1:]:
        if other.grid != first.grid or other.label_names != first.label_names:
            raise ValueError(
                f"Volume sets of grids {first.grid} and {other.grid} and labels "
                f"{first.label_names} and {other.label_names} cannot be concatenated; prepare "
                "them alike."
            )
    labelled = all(s.has_labels for s in sets)
    return VolumeSet(
        first.grid,
        first.label_names,
        tuple(c for s in sets for c in s.cases),
        tuple(r for s in sets for r in s.rows),
        tuple(r for s in sets for r in s.label_rows or ()) if labelled else None,
        first.provenance,
    )


class VolumeSetWriter:
    """Writes a volume set case by case; nothing is a volume set until `close` has written set.json.

    with VolumeSetWriter(folder, grid, label_names) as writer:
        writer.append("case-1", image, label, affine)
    """

    def __init__(
        self,
        folder: Path | str,
        grid: tuple[int, int, int],
        label_names: dict[int, str],
        provenance: dict[str, Any] | None = None,
        dtype: Literal["float16", "float32"] = "float16",
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "set.json").unlink(missing_ok=True)
        self.grid = grid
        self.label_names = label_names
        self.provenance = provenance or {}
        self.dtype = np.dtype(dtype)
        self._cases: list[Case] = []
        self._ids: set[str] = set()
        self._labelled: bool | None = None
        self._images = (self.folder / "images.npy").open("wb")
        self._labels = (self.folder / "labels.npy").open("wb")
        for stream, kind in ((self._images, self.dtype), (self._labels, np.dtype(np.uint8))):
            _write_header(stream, 0, grid, kind)

    def append(
        self,
        id: str,
        image: Image,
        label: Label | None = None,
        affine: NDArray[Any] | None = None,
        source: dict[str, Any] | None = None,
    ) -> None:
        """Add one case: `image` (D, H, W) in [0, 1]; `label` uint8 for all cases or for none.

        ValueError for an id given twice, a wrong shape, values that are not finite or leave
        [0, 1], and unknown labels.
        """
        self._check(id, image, label)
        stored = np.ascontiguousarray(image, dtype=self.dtype)
        self._images.write(stored.tobytes())
        if label is not None:
            self._labels.write(np.ascontiguousarray(label, dtype=np.uint8).tobytes())
        matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=float)
        rows = tuple(tuple(map(float, row)) for row in matrix)
        self._cases.append(Case(id, rows, _checksum(stored, label), source or {}))
        self._ids.add(id)

    def _check(self, id: str, image: Image, label: Label | None) -> None:
        if id in self._ids:
            raise ValueError(f"Case {id} was already written; give every case its own id.")
        if self._labelled is None:
            self._labelled = label is not None
        if self._labelled != (label is not None):
            raise ValueError(
                f"Case {id} and the ones before it disagree on having a label; give all or none."
            )
        for name, array in (("image", image), ("label", label)):
            if array is not None and array.shape != self.grid:
                raise ValueError(
                    f"The {name} of case {id} has shape {array.shape}, expected the grid "
                    f"{self.grid}; resample it."
                )
        low, high = float(np.min(image)), float(np.max(image))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                f"The image of case {id} has values that are not finite; mend what made it."
            )
        if low < 0 or high > 1:
            raise ValueError(
                f"The image of case {id} has values in [{low:.4g}, {high:.4g}], expected [0, 1]; "
                "scale it."
            )
        unknown = set() if label is None else set(np.unique(label).tolist()) - set(self.label_names)
        if unknown:
            raise ValueError(
                f"The label of case {id} has the values {sorted(unknown)} that are not declared in "
                f"{self.label_names}; declare or remove them."
            )

    def close(self) -> VolumeSet:
        """Finish the arrays, write set.json last, and open the set."""
        n = len(self._cases)
        for stream, kind in ((self._images, self.dtype), (self._labels, np.dtype(np.uint8))):
            stream.seek(0)
            _write_header(stream, n, self.grid, kind)
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
        if not self._labelled:
            (self.folder / "labels.npy").unlink()
        meta = {
            "format": FORMAT_VERSION,
            "grid": self.grid,
            "axes": AXES,
            "spacing_mm": np.median([c.spacing for c in self._cases], axis=0).tolist()
            if n
            else None,
            "labels": self.label_names,
            "provenance": self.provenance,
            "cases": [
                {"id": c.id, "affine": c.affine, "checksum": c.checksum, "source": c.source}
                for c in self._cases
            ],
        }
        unfinished = self.folder / "set.json.tmp"
        with unfinished.open("w", encoding="utf-8") as text:
            json.dump(meta, text, indent=1)
        os.replace(unfinished, self.folder / "set.json")
        return VolumeSet.open(self.folder)

    def __enter__(self) -> VolumeSetWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._images.close()
            self._labels.close()


def _write_header(stream: Any, n: int, grid: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    # numpy pads a header so that the first axis can grow in place: rewriting it keeps its length.
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"shape": (n, *grid), "fortran_order": False, "descr": descr}
    np.lib.format.write_array_header_1_0(stream, header)


def _memmap(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path} is no readable array ({error}): it is damaged, or a pickle with code, which "
            "is never run; have it made anew."
        ) from error
    return array


def _checksum(image: NDArray[Any], label: Label | None) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    if label is not None:
        digest.update(np.ascontiguousarray(label, dtype=np.uint8).tobytes())
    return digest.hexdigest()


def new_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A memory-mapped npy file of zeros, whose room is taken: a disk that fills up under a map
    kills the process that writes. OSError if there is no room."""
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(
        path, mode="w+", dtype=dtype, shape=shape
    )
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array
