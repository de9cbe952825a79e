"""Checksums of the files in a folder, and what is wrong with them later."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict


class Known(TypedDict):
    """What a file was when it was written."""

    size: int  # bytes
    sha256: str


Checksums = Mapping[str, Known]
"""By path below the folder, with forward slashes."""


def sums(folder: Path) -> dict[str, Known]:
    """Size and sha256 of every file below `folder`, whose bytes are on the disk afterwards."""
    known: dict[str, Known] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            known[path.relative_to(folder).as_posix()] = {
                "size": path.stat().st_size,
                "sha256": sha256(path),
            }
            flush(path)
    return known


def fault(folder: Path, known: Checksums, sound: dict[Path, tuple[int, ...]]) -> str:
    """The first file that is missing or differs, in words; "" if all are as they were written.

    `sound` holds what was verified before and is added to: such a file is not read again while it
    looks the same.
    """
    for name, expected in known.items():
        path = folder / name
        try:
            now = path.stat()
            looks = (now.st_size, now.st_mtime_ns, now.st_ino)
            if sound.get(path) == looks:
                continue
            if now.st_size != expected["size"]:
                return f"{path} has {now.st_size} bytes instead of {expected['size']}."
            if sha256(path) != expected["sha256"]:
                return f"{path} differs from its checksum."
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EIO):
                raise  # too many open files, a mount that is gone: no word on the file
            return f"{path} cannot be read: {error.strerror or error}."
        sound[path] = looks
    return ""


def sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have a file's bytes on the disk before a result says that they are."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
