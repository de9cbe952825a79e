"""Folders in layouts of their own: NIfTI, DICOM series, masks, DICOM-SEG objects, PNG slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import DataConfig
from bench.datasets.dicom import (
    dicom_files,
    find_segmentation,
    read_segments,
    read_series,
)
from bench.datasets.faults import pair_faults
from bench.datasets.folder import FolderSource
from bench.datasets.layout import Layout, find_files, find_images, natural
from bench.datasets.nifti import SUFFIXES, read_image, whole_labels
from bench.datasets.scan import Fault, Scan
from bench.errors import InputError


@dataclass(frozen=True)
class _Case:
    image: Path
    label: Path | None  # None: masks, or a DICOM-SEG object beside the image
    masks: Mapping[str, tuple[Path, ...]]


class LayoutSource(FolderSource):
    """The cases of a folder as `DataConfig.layout` describes it."""

    listing = "data.layout"

    def __init__(self, config: DataConfig, layout: Layout, strict: bool = True) -> None:
        """Find the cases; InputError for whatever is missing.

        Without `strict`, cases that are not whole are left out and told in `listing_faults`.
        """
        super().__init__(config)
        self.name = config.name or self.folder.name
        self._layout = layout
        self._declare(self._names())
        found, faults = self._find()
        cases = {id: found[id] for id in self._choose(found)}
        lacking = {id: list(self._lacking(case)) for id, case in cases.items()}
        self._refuse([*faults, *((id, f) for id in lacking for f in lacking[id])], strict)
        self._cases = {id: case for id, case in cases.items() if not lacking[id]}
        self.ids = tuple(self._cases)
        self._segmentations: dict[str, tuple[Path, list[Path]]] = {}

    def absent(self, id: str) -> list[str]:
        """Names of the masks that a case has no file of."""
        return [name for name, paths in self._cases[id].masks.items() if not paths]

    def image_files(self, id: str) -> Sequence[Path]:
        if self._layout.segments is not None:
            return self._segmentation(id)[1]
        return _files(self._cases[id].image)

    def files(self, id: str) -> Sequence[Path]:
        case = self._cases[id]
        labels = [case.label] if case.label else [p for paths in case.masks.values() for p in paths]
        segmentation = [self._segmentation(id)[0]] if self._layout.segments is not None else []
        return [*self.image_files(id), *(f for p in labels for f in _files(p)), *segmentation]

    def read_image(self, id: str) -> Scan:
        path = self._cases[id].image
        return read_series(path, self.image_files(id)) if path.is_dir() else read_image(path)

    def reads_label_alone(self, id: str) -> bool:
        label = self._cases[id].label
        return label is not None and not label.is_dir()

    def read_label(self, id: str, image: Scan | None) -> Scan:
        case, layout = self._cases[id], self._layout
        if case.label is not None:
            label = _read_any(case.label, image)
            decoded = whole_labels if layout.values is None else _decoder(layout.values)
            return replace(label, voxels=decoded(label.voxels, label.path))
        assert image is not None  # its grid is the label's
        if layout.segments is not None:
            path = self._segmentation(id)[0]
            return read_segments(path, layout.segments, layout.required, image)
        return _painted(case.masks, image)

    def _decoding(self) -> list[str]:
        return [self._layout.model_dump_json(exclude={"image", "match", "label", "required"})]

    def _names(self) -> dict[int, str]:
        named = self._layout.names
        if (named is None) == (self._config.labels is None):
            raise InputError(
                "data.layout and data.labels name the labels twice, or not at all; give labels "
                "(id: name) for label maps that hold ids, and else values, masks or segments."
            )
        labels = self._config.labels or dict(enumerate(named or (), start=1))
        return {0: "background", **labels}

    def _find(self) -> tuple[dict[str, _Case], list[tuple[str, Fault]]]:
        found: dict[str, _Case] = {}
        faults: list[tuple[str, Fault]] = []
        for id, image, values in find_images(self.folder, self._layout):
            if self._layout.segments is not None and not image.is_dir():
                continue  # such as a LICENSE beside the patients' folders
            if id in found:
                text = f"The case id {id!r} stands for {found[id].image} and {image}; "
                faults.append((id, Fault("listing", f"{text}tell them apart in layout.image.")))
                continue
            labels = self._labels(values)
            if len(labels) > 1:
                text = f"The case {id!r} has the labels {labels[0]} and {labels[1]}; "
                faults.append((id, Fault("listing", f"{text}tell them apart in layout.label.")))
                continue
            masks = {
                name: tuple(f for p in patterns for f in find_files(self.folder, p, values))
                for name, patterns in (self._layout.masks or {}).items()
            }
            found[id] = _Case(image, labels[0] if labels else None, masks)
        if not found and not faults:
            seen = sorted(path.name for path in self.folder.iterdir())[:5]
            raise InputError(
                f"{self.folder} has nothing that matches layout.image {self._layout.image!r}: it "
                f"begins with {seen}; give the folder that the pattern starts in."
            )
        return found, faults

    def _labels(self, values: Mapping[str, str]) -> list[Path]:
        """What the label's pattern names; its own name where nothing is there, to be told later."""
        if self._layout.label is None:
            return []
        paths = find_files(self.folder, self._layout.label, values)
        return paths or [self.folder / self._layout.label.format_map(values)]

    def _lacking(self, case: _Case) -> Iterator[Fault]:
        """Files that the case should have, and links that lead out of the folder."""
        if case.label is not None and not case.label.exists():
            yield Fault(
                "files",
                f"{case.image} has no label: {case.label} does not exist; fetch it, or leave the "
                "case out with layout.match.",
            )
        required = [name for name in self._layout.required if name in case.masks]
        for name in required:
            if not case.masks[name]:
                yield Fault(
                    "files",
                    f"{case.image} has no mask of {name!r}: none of "
                    f"{list((self._layout.masks or {})[name])} exists; fetch it, or leave the case "
                    "out with layout.match.",
                )
        if case.masks and not required and not any(case.masks.values()):
            yield Fault(
                "files",
                f"{case.image} has no mask of {list(case.masks)}; fetch them, or leave the case "
                "out with layout.match.",
            )
        masks = [path for paths in case.masks.values() for path in paths]
        for place in filter(None, [case.image, case.label, *masks]):
            for path in (place, *_links(place)):
                if path.exists() and (stray := self._stray(path)):
                    yield stray

    def _segmentation(self, id: str) -> tuple[Path, list[Path]]:
        """Found once, because the header of every file is read for it."""
        if id not in self._segmentations:
            self._segmentations[id] = find_segmentation(self._cases[id].image)
        return self._segmentations[id]


def _links(folder: Path) -> Iterator[Path]:
    """The symbolic links anywhere below a folder; none below a file."""
    return (path for path in folder.rglob("*") if path.is_symlink())


def _files(path: Path) -> list[Path]:
    """The file itself, or a folder's PNG slices, or its DICOM files."""
    if not path.is_dir():
        return [path]
    return _png_files(path) or dicom_files(path)


def _png_files(folder: Path) -> list[Path]:
    files = (p for p in folder.iterdir() if p.suffix.lower() == ".png" and p.name[0] != ".")
    return sorted(files, key=natural)


def _read_any(path: Path, image: Scan | None) -> Scan:
    """A label map or mask from a NIfTI file, a DICOM series or PNG slices; values unchecked."""
    if not path.is_dir():
        if not path.name.lower().endswith(SUFFIXES):
            raise InputError(f"{path} is not a NIfTI file; convert it to .nii.gz.")
        return read_image(path)
    files = _files(path)
    if image is not None and files and files[0].suffix.lower() == ".png":
        return _read_png(path, files, image)
    return read_series(path, files)


def _read_png(folder: Path, files: Sequence[Path], image: Scan) -> Scan:
    """PNG slices on the grid of a DICOM series: the k-th by name lies on the image's k-th file."""
    from PIL import Image

    if len(files) != len(image.slices):
        raise InputError(
            f"{folder} has {len(files)} PNG slices, but its image {image.path} has "
            f"{len(image.slices)} files; fetch the missing ones."
        )
    label_of = dict(zip(sorted(image.slices, key=natural), files, strict=True))
    slices = []
    for path in (label_of[file] for file in image.slices):
        try:
            with Image.open(path) as picture:
                slices.append(np.asarray(picture.convert("L"), dtype=np.uint8))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path} cannot be read ({error}); fetch the file again.") from error
        if slices[-1].shape != image.voxels.shape[1:]:
            raise InputError(
                f"{path} has {slices[-1].shape} rows and columns, but its image "
                f"{image.voxels.shape[1:]}; fetch both again."
            )
    return Scan(np.stack(slices), image.affine, folder, image.forms)


def _painted(masks: Mapping[str, Sequence[Path]], image: Scan) -> Scan:
    """The masks of one case as a label map with the ids 1, 2, ... in the order of their names."""
    result: NDArray[np.uint8] | None = None
    first: Scan | None = None
    for value, paths in enumerate(masks.values(), start=1):
        for path in paths:
            mask = _read_any(path, image)
            if first is None or result is None:
                first, result = mask, np.zeros(mask.voxels.shape, dtype=np.uint8)
            # One mask may lie elsewhere while the others fit.
            for fault in pair_faults(image, mask):
                raise InputError(fault.text)
            result[mask.voxels > 0] = value  # inside is 1 in some files and 255 in others
    assert first is not None
    assert result is not None
    return replace(first, voxels=result)


def _decoder(
    values: Mapping[str, tuple[int, int]],
) -> Callable[[NDArray[Any], Path], NDArray[np.uint8]]:
    """What turns grey values into the label ids 1, 2, ... of their names.

    It raises InputError for a value above 0 that no name has.
    """

    def decoded(voxels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
        result = np.zeros(voxels.shape, dtype=np.uint8)
        known = voxels == 0
        for id, (low, high) in enumerate(values.values(), start=1):
            inside = (voxels >= low) & (voxels <= high)
            result[inside] = id
            known |= inside
        if not known.all():
            found = np.unique(voxels[~known])[:5].tolist()
            raise InputError(
                f"{path} has the values {found}, which no label has ({dict(values)}); mend "
                "layout.values."
            )
        return result

    return decoded
