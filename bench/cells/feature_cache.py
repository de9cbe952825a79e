"""Features of single volumes, addressed by all that determines them.

A run scores many sets that share images: real ones, generators that differ in their labels alone, a
later run on the same folder. ``OUT/features/ab/abcd….npz`` holds one volume's arrays, named by the
sha256 of its voxels and of the extractor with its version, weights, protocol and preprocessing.
Nothing else needs to know of it: without the folder every cell computes the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.volumes import AXES

FORMAT = 1
"""Part of every key: raise it when the files' meaning changes."""

_CHECKSUM = "sha256"

Features = dict[str, NDArray[np.float64]]
"""Plane -> (d,) or (slices, d), of one volume."""


class FeatureCache:
    """The features of one extractor in a folder that any number of runs share."""

    def __init__(self, folder: Path, extractor: Mapping[str, str]) -> None:
        """`extractor`: whatever determines features beside the voxels, such as its version."""
        self.folder = folder
        self.extractor = dict(extractor)

    def key(self, image: NDArray[Any]) -> str:
        """sha256 over an image (D, H, W) as stored and over the extractor."""
        content = {
            "format": FORMAT,
            "extractor": self.extractor,
            "axes": AXES,
            "dtype": image.dtype.str,
            "grid": image.shape,
            "voxels": hashlib.sha256(np.ascontiguousarray(image).data).hexdigest(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

    def read(self, key: str) -> Features | None:
        """The features under `key`; None where there are none, or where the file is damaged."""
        try:
            with np.load(self.path(key), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            known = arrays.pop(_CHECKSUM).tobytes()
        except Exception:  # a damaged archive raises errors of almost any type
            return None
        if not arrays or known != _checksum(key, arrays):
            return None
        return {plane: values.astype(np.float64) for plane, values in arrays.items()}

    def write(self, key: str, features: Features) -> None:
        """Keep a volume's features, whole or not at all: two runs that do so do no harm.

        Where the folder cannot be written (a full disk, no permission), nothing is kept and
        nothing fails: the caller has the features, and a later cell computes them again.
        """
        arrays = {plane: _narrow(values) for plane, values in features.items()}
        checksum = np.frombuffer(_checksum(key, arrays), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **cast(dict[str, Any], {**arrays, _CHECKSUM: checksum}))
        path = self.path(key)
        temporary = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}")
        # A cell of hours must not fail for what only saves time.
        with suppress(OSError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(buffer.getvalue())
                os.replace(temporary, path)
            finally:  # gone by now, unless it was not written whole
                temporary.unlink(missing_ok=True)


def _checksum(key: str, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """sha256 over key, names, types, shapes and values: a file under another's name is refused."""
    digest = hashlib.sha256(key.encode())
    for name, values in sorted(arrays.items()):
        digest.update(json.dumps([name, values.dtype.str, values.shape]).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.digest()


def _narrow(values: NDArray[np.float64]) -> NDArray[Any]:
    """As float32 where that loses nothing: networks compute in it, and 2.5d has many slices."""
    narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values
