"""JSON files that hold the checksum of their own bytes: a changed bit is told from a value."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_HEAD = b'{\n "sha256": "'
_DIGITS = 64


class BrokenSeal(ValueError):
    """The file's bytes are not those that were written."""


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content`, which has at least one key, whole or not at all.

    The file is JSON whose first key, "sha256", is that of all bytes after its value.
    """
    body = b'",\n' + json.dumps(content, indent=1).encode().removeprefix(b"{\n")
    digest = hashlib.sha256(body).hexdigest().encode()
    write_atomic(path, (_HEAD + digest + body).decode())


def read_sealed(path: Path | str) -> dict[str, Any]:
    """What `write_sealed` was given; BrokenSeal names a file that differs."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - forty thousand in a report
        data = stream.readall()
    start = len(_HEAD) + _DIGITS
    digest = hashlib.sha256(data[start:]).hexdigest().encode()
    if data[:start] != _HEAD + digest:
        raise BrokenSeal(f"{path} differs from the checksum that it holds.")
    content: dict[str, Any] = json.loads(data)
    del content["sha256"]
    return content


def write_atomic(path: Path, text: str) -> None:
    """Write by temporary file, fsync and rename: a reader sees the old text or the new, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
