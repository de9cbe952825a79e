"""What all folders of scans have in common: cases are read, checked and fingerprinted alike."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets.config import DataConfig
from bench.datasets.faults import image_faults, label_faults, pair_faults
from bench.datasets.labels import merge_names
from bench.datasets.paths import strays
from bench.datasets.scan import Fault, Scan
from bench.datasets.source import RawCase, patient_of
from bench.datasets.split import seeded_order
from bench.errors import InputError


class FolderSource(ABC):
    """The labelled cases of a folder."""

    on_grid = False
    name: str
    listing: Path | str
    """Where cases and labels are listed, for sentences about them."""
    label_names: dict[int, str]
    ids: tuple[str, ...]
    listing_faults: tuple[tuple[str, Fault], ...]
    """(case id or "", fault) of what the listing names but the folder does not have."""

    def __init__(self, config: DataConfig) -> None:
        self.folder = Path(config.source)
        self._config = config
        if not self.folder.is_dir():
            raise InputError(
                f"The data folder {self.folder} does not exist; give the folder of a data set, or "
                '"phantom".'
            )

    @abstractmethod
    def files(self, id: str) -> Sequence[Path]:
        """Every file of a case; the first are its image's."""

    @abstractmethod
    def image_files(self, id: str) -> Sequence[Path]:
        """The files of a case's image."""

    @abstractmethod
    def read_image(self, id: str) -> Scan:
        """Image (X, Y, Z) float32 with its values unchecked; InputError if it cannot be read."""

    @abstractmethod
    def read_label(self, id: str, image: Scan | None) -> Scan:
        """Label map (X, Y, Z) uint8 with the declared ids; InputError if it cannot be read.

        `image` may be None where `reads_label_alone`.
        """

    def reads_label_alone(self, id: str) -> bool:
        """Whether a case's label has a grid of its own, not its image's."""
        return True

    def absent(self, id: str) -> Sequence[str]:
        """Names of labels that a case has no file of, and which count as absent."""
        return ()

    def patient(self, id: str) -> str:
        return patient_of(id, self._config.patients)

    def faults(self, image: Scan | None, label: Scan | None) -> Iterator[Fault]:
        """Everything that a run refuses in what could be read of a case."""
        if image is not None:
            yield from image_faults(image)
        if image is not None and label is not None:
            yield from pair_faults(image, label)
        if label is not None:
            yield from label_faults(
                label, self._declared, self._merge, self.label_names, self.listing
            )

    def merged(self, label: Scan) -> NDArray[np.uint8]:
        """The label map with ids of one name merged, and dropped ones as background."""
        merged: NDArray[np.uint8] = self._merge[label.voxels]
        return merged

    def load(self, id: str) -> RawCase:
        """Case `id`; InputError for the first fault found in it."""
        image = self.read_image(id)
        label = self.read_label(id, image)
        for fault in self.faults(image, label):
            raise InputError(fault.text)
        return RawCase(image.voxels, self.merged(label), image.affine, {"file": image.path.name})

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the chosen cases' files and of how their labels are decoded and merged.

        Raises:
            InputError: two cases have the same image, so that one could be trained on and the
                other tested.
        """
        files = {id: self.files(id) for id in self.ids}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            every = [path for paths in files.values() for path in paths]
            hashes = dict(zip(every, pool.map(_sha256, every), strict=True))
        seen: dict[str, str] = {}
        for id in self.ids:
            digest = "".join(hashes[path] for path in self.image_files(id))
            first = seen.setdefault(digest, id)
            if first != id:
                raise InputError(
                    f"The images of cases {first} and {id} in {self.folder} are the same file "
                    f"twice; remove one from {self.listing}."
                )
        content = [
            self.ids,
            [hashes[path] for path in every],
            sorted(self.label_names.items()),
            self._merge.tolist(),
            *self._decoding(),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _decoding(self) -> list[str]:
        """What beside the files' bytes decides the label maps."""
        return []

    def _declare(self, names: Mapping[int, str]) -> None:
        """Set the label names: the ids in the files and the ones that are kept."""
        self._declared = dict(names)
        self.label_names, self._merge = merge_names(names)
        if len(self.label_names) < 2:
            raise InputError(
                f"{self.listing} and data.labels declare no label beside the background, "
                f"{self._declared}; name at least one."
            )

    def _choose(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(seeded_order(ids, self._config.seed, "cases")[: self._config.cases]))

    def _refuse(self, faults: Iterable[tuple[str, Fault]], strict: bool) -> None:
        """Keep what is wrong with the listing, or raise the first of it."""
        self.listing_faults = tuple(faults)
        if strict and self.listing_faults:
            raise InputError(self.listing_faults[0][1].text)

    def _stray(self, path: Path) -> Fault | None:
        """A link out of the folder, unless the configuration follows those."""
        end = None if self._config.links else strays(path, self.folder)
        if end is None:
            return None
        return Fault(
            "paths",
            f"{path} is a link to {end}, outside {self.folder}; copy what it points to, or set "
            "data.links=true if you made the link.",
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend the file.") from error
