"""The store: what cells left, addressed by what determines them.

``OUT/cells/KEY/`` holds ``cell.json`` (what the cell is), ``attempts.jsonl`` (every try and how it
ended), ``work/`` (checkpoints and curves, kept between tries), ``artefacts/``, and ``result.json``,
which is written last, by fsync and rename: it is the mark of completion and holds the checksums of
the artefacts. A finished result is never touched by a later failed try.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.errors import InputError
from bench.lock import Lock
from bench.plan import Cell
from bench.records import Record

RESULT_VERSION = 1
Status = Literal["done", "failed", "interrupted", "running", "waiting"]


class Damaged(RuntimeError):
    """An artefact differs from the checksum that was written with it."""


class Busy(RuntimeError):
    """Another run works on the cell."""


class Store:
    """Cells of one OUT folder."""

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out)
        self.cells = self.out / "cells"

    def prepare_folder(self) -> bool:
        """Make OUT if need be; True if it was made. InputError if it cannot be written."""
        probe = self.out / f".probe-{os.getpid()}"
        try:
            existed = self.out.exists()
            self.cells.mkdir(parents=True, exist_ok=True)
            probe.write_text("", encoding="utf-8")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"The output folder {self.out} cannot be written: {error.strerror or error}; "
                "give another --out."
            ) from error
        return not existed

    def folder(self, key: str) -> Path:
        return self.cells / key[:20]

    def artefacts(self, key: str) -> Path:
        return self.folder(key) / "artefacts"

    def work(self, key: str) -> Path:
        return self.folder(key) / "work"

    def add(self, cell: Cell) -> None:
        """Write down what the cell is; of one that is not done, where its inputs lie now."""
        path = self.folder(cell.key) / "cell.json"
        text = json.dumps(cell.to_json(), indent=1)
        if path.is_file() and (self.is_done(cell.key) or path.read_text("utf-8") == text):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)

    def cell(self, key: str) -> Cell:
        return Cell.from_json(json.loads((self.folder(key) / "cell.json").read_text("utf-8")))

    def result(self, key: str) -> dict[str, Any] | None:
        """The finished result of a cell, or None."""
        path = self.folder(key) / "result.json"
        if not path.is_file():
            return None
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result if result["version"] == RESULT_VERSION else None

    def is_done(self, key: str) -> bool:
        return self.result(key) is not None

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """Every attempt's start or end, oldest first; a torn last line is passed over."""
        path = self.folder(key) / "attempts.jsonl"
        rows = []
        for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def status(self, key: str) -> tuple[Status, str]:
        """How the cell stands, and the reason of its last failure."""
        if self.is_done(key):
            return "done", ""
        if Lock(self.folder(key) / "lock").held():
            return "running", ""
        attempts = self.attempts(key)
        if not attempts:
            return "waiting", ""
        last = attempts[-1]
        if last["event"] == "started":
            return "interrupted", f"stopped without a word on {last['host']}, process {last['pid']}"
        if last["event"] == "done":  # its result.json was taken away, or is of another version
            return "waiting", ""
        return last["event"], last.get("reason", "")

    @contextmanager
    def attempt(self, key: str) -> Iterator[Path]:
        """Lock the cell and give a fresh folder for artefacts; Busy if another process has it."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with Lock(folder / "lock") as locked:
            if not locked:
                raise Busy(f"Cell {key[:20]} is being worked on by another process.")
            fresh = folder / "artefacts.new"
            shutil.rmtree(fresh, ignore_errors=True)  # what a killed attempt left; never a result
            fresh.mkdir()
            (folder / "work").mkdir(exist_ok=True)
            yield fresh

    def note(self, key: str, event: str, **facts: Any) -> None:
        """Append a line to the cell's attempts, apart from one that a killed process tore."""
        line = json.dumps({"event": event, "time": now(), **facts}) + "\n"
        path = self.folder(key) / "attempts.jsonl"
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            line = "\n" + line
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())

    def finish(
        self, key: str, fresh: Path, records: Sequence[Record], facts: Mapping[str, Any]
    ) -> None:
        """Make an attempt's artefacts and records the cell's result."""
        folder = self.folder(key)
        artefacts = folder / "artefacts"
        sums = {
            path.relative_to(fresh).as_posix(): {
                "size": path.stat().st_size,
                "sha256": sha256(path),
            }
            for path in sorted(fresh.rglob("*"))
            if path.is_file()
        }
        for name in sums:
            flush(fresh / name)
        if artefacts.exists():  # renamed by an attempt that was killed before its result.json
            shutil.rmtree(artefacts)
        fresh.rename(artefacts)
        result = {
            "version": RESULT_VERSION,
            "key": key,
            "finished": now(),
            **facts,
            "artefacts": sums,
            "records": [dict(record) for record in records],
        }
        write_atomic(folder / "result.json", json.dumps(result, indent=1))
        shutil.rmtree(folder / "work" / "resume", ignore_errors=True)

    def verify_sizes(self, key: str) -> None:
        """Damaged names the first artefact that is missing or cut; cheap enough for every read."""
        for name, known in (self.result(key) or {}).get("artefacts", {}).items():
            path = self.artefacts(key) / name
            if not path.is_file() or path.stat().st_size != known["size"]:
                raise Damaged(
                    f"{path} is missing or has not its {known['size']} bytes; remove the folder "
                    f"{self.folder(key)} and run again."
                )

    def verify(self, key: str) -> None:
        """Compare artefacts with their sizes and checksums; Damaged names the first to differ."""
        result = self.result(key)
        for name, known in (result or {}).get("artefacts", {}).items():
            path = self.artefacts(key) / name
            if (
                not path.is_file()
                or path.stat().st_size != known["size"]
                or sha256(path) != known["sha256"]
            ):
                raise Damaged(
                    f"{path} is missing or differs from its checksum; remove the folder "
                    f"{self.folder(key)} and run again."
                )


def sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have a file's bytes on the disk before a result says that they are."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def write_atomic(path: Path, text: str) -> None:
    """Write by temporary file, fsync and rename: a reader sees the old text or the new, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def now() -> str:
    """UTC time, to the second, as ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
