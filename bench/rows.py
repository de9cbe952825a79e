"""Arrays larger than memory: an .npz that is written row by row."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray


def write_rows(path: Path, n: int, rows: Iterable[Mapping[str, NDArray[np.float64]]]) -> None:
    """Write what `numpy.savez` makes of the rows stacked by name, with one of them in memory.

    Args:
        path: the .npz; the arrays lie in its folder, each in a file, until all rows are there.
        n: how many rows come.
        rows: the arrays of one row by name, float64; all rows have the same names and shapes.

    Raises:
        ValueError: no rows, another number of them, or rows that differ in names or shapes.
    """
    if n < 1:
        raise ValueError(f"{n} rows are to be written to {path.name}; expected at least one.")
    shapes: dict[str, tuple[int, ...]] = {}
    count = 0
    with TemporaryDirectory(dir=path.parent, prefix=".rows-") as folder, ExitStack() as opened:
        streams: dict[str, BinaryIO] = {}
        for row in rows:
            if not shapes:
                shapes = {name: values.shape for name, values in row.items()}
                for name, shape in shapes.items():
                    streams[name] = opened.enter_context((Path(folder) / name).open("w+b"))
                    header = {"descr": "<f8", "fortran_order": False, "shape": (n, *shape)}
                    np.lib.format.write_array_header_1_0(streams[name], header)
            if {name: values.shape for name, values in row.items()} != shapes:
                raise ValueError(
                    f"Row {count} of {path.name} has another shape than row 0; expected {shapes}."
                )
            for name, values in row.items():
                streams[name].write(np.ascontiguousarray(values, dtype="<f8").tobytes())
            count += 1
        if count != n:
            raise ValueError(f"{count} rows came for {path.name}; expected {n}.")
        with ZipFile(path, "w") as archive:
            for name, stream in streams.items():
                stream.seek(0)
                # A ZipInfo's own date, as numpy's: equal rows make equal files.
                with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    shutil.copyfileobj(stream, member)
