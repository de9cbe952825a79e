"""Files that run code if they are unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Bomb:
    """Unpickled without care, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def plain(path: Path, mark: Path) -> Path:
    """A pickle alone."""
    path.write_bytes(pickle.dumps({"state": Bomb(mark)}, protocol=2))
    return path


def torch_file(path: Path, mark: Path) -> Path:
    """torch's own archive around a pickle."""
    torch.save({"networks": {"net": Bomb(mark)}, "state_dict": Bomb(mark)}, path)
    return path


def array(path: Path, mark: Path) -> Path:
    """An npy file of objects."""
    np.save(path, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    return path


def archive(path: Path, mark: Path, *names: str) -> Path:
    """An npz file of objects."""
    bombs = np.array([Bomb(mark)], dtype=object)
    np.savez(path, **dict.fromkeys(names, bombs))  # type: ignore[arg-type]
    return path
