"""Folders in the layout of the Medical Segmentation Decathlon: imagesTr, labelsTr, dataset.json.

Antonelli et al., Nature Communications 13 (2022) 4128. Files are checked when they are read; every
fault is one sentence that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.datasets.config import DataConfig
from bench.datasets.folder import FolderSource
from bench.datasets.nifti import SUFFIXES, read_image, read_label
from bench.datasets.paths import inside
from bench.datasets.scan import Fault, Scan
from bench.errors import InputError


class _Pair(NamedTuple):
    image: Path
    label: Path


class DecathlonSource(FolderSource):
    """The training cases of a Decathlon folder."""

    listing: Path

    def __init__(self, config: DataConfig, strict: bool = True) -> None:
        """Read dataset.json; InputError for whatever is missing or wrong in it.

        Without `strict`, entries that are wrong are left out and told in `listing_faults`.
        """
        super().__init__(config)
        self.listing = self.folder / "dataset.json"
        meta = self._read_meta()
        self.name = config.name or str(meta.get("name", self.folder.name))
        self.meta = meta
        self._declare(self._read_labels(meta))
        pairs, faults = self._read_pairs(meta["training"])
        self.listed = frozenset(path for pair in pairs.values() for path in pair)
        if strict:
            self._refuse(faults, strict)
        chosen = {id: pairs[id] for id in self._choose(pairs)}
        absent = {id: list(self._absent(pair)) for id, pair in chosen.items()}
        self._refuse([*faults, *((id, f) for id in absent for f in absent[id])], strict)
        self._pairs = {id: pair for id, pair in chosen.items() if not absent[id]}
        self.ids = tuple(self._pairs)

    def files(self, id: str) -> _Pair:
        return self._pairs[id]

    def image_files(self, id: str) -> tuple[Path]:
        return (self._pairs[id].image,)

    def read_image(self, id: str) -> Scan:
        return read_image(self._pairs[id].image)

    def read_label(self, id: str, image: Scan | None) -> Scan:
        return read_label(self._pairs[id].label)

    def _read_meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self.listing.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"The data folder {self.folder} has no dataset.json; give the folder that holds "
                "imagesTr, labelsTr and dataset.json, or a YAML file with its layout."
            ) from error
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"{self.listing} is not valid JSON: {error}; mend it.") from error
        for key, kind in (("labels", dict), ("training", list)):
            value = meta.get(key) if isinstance(meta, dict) else None
            if not isinstance(value, kind) or not value:
                raise InputError(
                    f"{self.listing} has {key}: {value!r}, expected a non-empty {kind.__name__}; "
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
                    f"{self.listing} has labels: {{{key!r}: {name!r}}}, expected an id of 0 to 255 "
                    'and a name, as in {"1": "liver"}; mend it, or set data.labels.'
                )
            names[int(key)] = name
        return names

    def _read_pairs(self, entries: list[Any]) -> tuple[dict[str, _Pair], list[tuple[str, Fault]]]:
        """Case id -> files, sorted, and what is wrong with the other entries."""
        pairs: dict[str, _Pair] = {}
        faults: list[tuple[str, Fault]] = []
        for i, entry in enumerate(entries):
            try:
                files = _Pair(*(self._path(entry, key, i) for key in ("image", "label")))
                # macOS archives carry a "._case.nii.gz" beside every file.
                if files.image.name.startswith("."):
                    continue
                id = case_id(files.image, self.listing)
                if id in pairs:
                    raise InputError(
                        f"{self.listing} has the case id {id!r} twice in training; remove one "
                        "entry."
                    )
                pairs[id] = files
            except InputError as error:
                faults.append(("", Fault("listing", str(error))))
        return dict(sorted(pairs.items())), faults

    def _path(self, entry: Any, key: str, index: int) -> Path:
        name = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{self.listing} has training[{index}] = {entry!r} without {key!r}; give the path "
                "of a NIfTI file."
            )
        return inside(self.folder, name, f"{self.listing} has {key} {name!r} in training[{index}]")

    def _absent(self, pair: _Pair) -> Iterator[Fault]:
        for path in pair:
            if not path.is_file():
                yield Fault(
                    "files",
                    f"{path} does not exist, but {self.listing} lists it; fetch the file or "
                    "remove the entry.",
                )
            elif stray := self._stray(path):
                yield stray


def case_id(path: Path, listing: Path) -> str:
    """A NIfTI file's name without its ending; InputError if it has another."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    raise InputError(
        f"{listing} lists {path.name!r}, which is not a NIfTI file; convert it to .nii.gz."
    )
