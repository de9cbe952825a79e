"""A disk that refuses: full, read-only, or gone. It is nobody's failure but the machine's."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import InputError

REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}


class DiskRefused(InputError):
    """What a run writes cannot be written; it ends, and goes on once that is mended."""


def refused(out: Path, error: OSError) -> DiskRefused:
    """The refusal of `out` in words."""
    return DiskRefused(
        f"The folder {out} cannot be written or read: {error.strerror or error}; what is finished "
        "is kept, so mend that and run again."
    )


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Any OSError becomes a DiskRefused that names `out`."""
    try:
        yield
    except OSError as error:
        raise refused(out, error) from error


def refusal(error: BaseException | None) -> OSError | None:
    """The system's error behind `error` that says that the disk refused, if there is one.

    torch's writer and others hide it behind errors of their own.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in REFUSALS:
            return error
        error = error.__cause__ or error.__context__
    return None


def save_tensors(path: Path, state: Any) -> None:
    """`torch.save` through a stream: torch's own writer tells a full disk without its error."""
    import torch

    with path.open("wb") as stream:
        torch.save(state, stream)


def load_tensors(path: Path, device: Any = "cpu") -> Any:
    """What `save_tensors` kept: tensors, numbers and text; code in a file is never run.

    InputError if the file is damaged or holds anything else.
    """
    import pickle

    import torch

    try:
        return torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is no readable file of tensors ({type(error).__name__}): it is damaged, or a "
            "pickle with code, which is never run; remove it and have it made anew."
        ) from error
