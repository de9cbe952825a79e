"""Files of pretrained weights: read without running code, and refused in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Checkpoint(NamedTuple):
    """The tensors of a file by key, without "module.", and the file's sha256."""

    state: dict[str, Tensor]
    sha256: str


def read_checkpoint(
    path: str | Path, network: str, file: str, sha256: str | None = None
) -> Checkpoint:
    """The tensors of a file of weights; code in it is never run.

    Args:
        path: a dict of tensors, or a dict that holds one under "state_dict"; keys with or without
            the "module." of `torch.nn.DataParallel`.
        network: its name in errors, such as "MedicalNet".
        file: what the user should give instead, for errors.
        sha256: refuse a file with another checksum.

    Raises:
        ValueError: a file that is missing, is no checkpoint, would run code or has another
            checksum.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"The {network} weights '{path}' do not exist; check the path.")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(
            f"The {network} weights '{path}' have sha256 {digest}, expected {sha256}; "
            "download them again or mend the expected checksum."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise errors of almost any type
        raise ValueError(
            f"'{path}' is not a readable file of weights alone ({type(error).__name__}): damaged, "
            "or a pickle with code, which is never run; download it again."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ValueError(f"'{path}' holds no dict of tensors; give {file}.")
    state = {key.removeprefix("module."): value for key, value in content.items()}
    return Checkpoint(state, digest)


def load_strictly(
    network: nn.Module,
    state: dict[str, Tensor],
    refusal: str,
    file: str,
    optional: Collection[str] = (),
) -> None:
    """Load every tensor of the network and no other.

    Args:
        network: takes the weights.
        state: tensors by key.
        refusal: start of the error, such as "'weights.pth' is not MedicalNet's ResNet-50".
        file: what the user should give instead.
        optional: keys of the network that the file may lack.

    Raises:
        ValueError: weights of another network, in one sentence, where torch would print hundreds of
            lines.
    """
    expected = network.state_dict()
    missing = [key for key in expected if key not in state and key not in optional]
    unexpected = [key for key in state if key not in expected]
    wrong = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or unexpected or wrong:
        raise ValueError(
            f"{refusal}: {len(missing)} of {len(expected)} keys missing{_first(missing)}, "
            f"{len(unexpected)} unexpected{_first(unexpected)}, "
            f"{len(wrong)} of the wrong shape{_first(wrong)}; give {file}."
        )
    network.load_state_dict({key: state.get(key, value) for key, value in expected.items()})


def _first(items: list[str]) -> str:
    return f" (first: {items[0]})" if items else ""
