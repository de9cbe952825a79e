"""Paths that a data set's own files name: they never lead out of its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from bench.errors import InputError


def leaves(name: str) -> bool:
    """Whether a relative path, as a listing or a pattern writes it, points out of its folder."""
    relative = PurePosixPath(name.replace("\\", "/"))
    # "C:x" and "C:/x" leave the folder on Windows.
    return relative.is_absolute() or ".." in relative.parts or ":" in (relative.parts or ("",))[0]


def inside(folder: Path, name: str, where: str) -> Path:
    """`folder`/`name`; InputError, which begins with `where`, if `name` leads out of the folder."""
    if leaves(name):
        raise InputError(
            f"{where}, which leaves the folder {folder}; give a path inside it, without '..'."
        )
    return folder / PurePosixPath(name.replace("\\", "/"))


def strays(path: Path, folder: Path) -> Path | None:
    """Where `path` ends if symbolic links lead it out of `folder`, else None.

    The folder itself may be a link: what it is called is the user's own choice, what lies in it is
    the data set's.
    """
    end = path.resolve()
    return None if end.is_relative_to(folder.resolve()) else end
