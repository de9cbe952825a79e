"""The store: what cells left, addressed by what determines them.

``OUT/cells/KEY/`` holds ``cell.json`` (what the cell is), ``attempts.jsonl`` (every try and how it
ended), ``work/`` (checkpoints and curves, kept between tries), ``artefacts/``, and ``result.json``,
which is written last, by fsync and rename: it is the mark of completion and holds the checksums of
the artefacts and of itself. A finished result is never touched by a later failed try. One that is
found damaged goes to ``damaged/``, and the cell waits to be computed again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.checksums import Checksums, fault, sums
from bench.disk import refused, writing
from bench.errors import InputError
from bench.lock import Lock
from bench.plan import Cell
from bench.records import Record
from bench.sealed import BrokenSeal, read_sealed, write_sealed

RESULT_VERSION = 2
EVENTS = ("started", "done", "failed", "interrupted", "damaged")
"""What attempts.jsonl tells of."""
Status = Literal["done", "failed", "interrupted", "running", "waiting", "damaged"]


class Damaged(RuntimeError):
    """A result or an artefact of the cell `key` differs from the checksum written with it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Busy(RuntimeError):
    """Another run works on the cell."""


class Standing(NamedTuple):
    """How a cell stands."""

    status: Status
    reason: str = ""  # of what is not done
    seconds: float = 0.0  # that it took, or that its last try took to fail
    since: str = ""  # UTC time of that
    host: str = ""  # of its last try
    pid: int = 0


class Store:
    """Cells of one OUT folder."""

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out)
        self.cells = self.out / "cells"
        self._cells = str(self.cells)  # joining paths of forty thousand cells takes seconds
        self._sound: dict[Path, tuple[int, ...]] = {}  # verified files, as they were then

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
        with suppress(OSError, BrokenSeal):
            known = read_sealed(path)
            if known == json.loads(json.dumps(cell.to_json())) or self.is_done(cell.key):
                return
        with writing(self.out):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(path, cell.to_json())

    def cell(self, key: str) -> Cell:
        """What the cell is; Damaged if that cannot be told, DiskRefused if it was taken away."""
        try:
            with writing(self.out):
                return Cell.from_json(read_sealed(self.folder(key) / "cell.json"))
        except BrokenSeal as error:
            raise Damaged(key, f"{error} Run again, which writes it anew.") from error

    def result(self, key: str) -> dict[str, Any] | None:
        """The finished result of a cell; None where there is none, or a damaged one."""
        return self._read_result(key)[0]

    def _read_result(self, key: str) -> tuple[dict[str, Any] | None, str]:
        """The result, and what is wrong with the file that holds it; "" if nothing or no file.

        DiskRefused if the disk does not say.
        """
        path = f"{self._cells}/{key[:20]}/result.json"
        try:
            result = read_sealed(path)
        except BrokenSeal as error:
            return None, str(error)
        except (FileNotFoundError, NotADirectoryError):
            return None, ""
        except OSError as error:
            raise refused(Path(path), error) from error
        return (result if result["version"] == RESULT_VERSION else None), ""

    def _result(self, key: str) -> Path:
        return self.folder(key) / "result.json"

    def is_done(self, key: str) -> bool:
        return self.result(key) is not None

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """Every attempt's start or end, oldest first; a torn or spoilt line is passed over."""
        path = self.folder(key) / "attempts.jsonl"
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        rows = []
        for line in text.splitlines():
            with suppress(json.JSONDecodeError, KeyError, TypeError):
                row = json.loads(line)
                if row["event"] in EVENTS:
                    rows.append(row)
        return rows

    def status(self, key: str) -> tuple[Status, str]:
        """How the cell stands, and the reason of its last failure."""
        standing = self.standing(key)
        return standing.status, standing.reason

    def standing(self, key: str) -> Standing:
        """How the cell stands, and what is known of its last attempt."""
        result, problem = self._read_result(key)
        if result is not None:
            return Standing("done", seconds=result["seconds"], since=result["finished"])
        attempts = self.attempts(key)
        last = attempts[-1] if attempts else {}
        facts = {"host": last.get("host", ""), "pid": last.get("pid", 0)}
        facts["since"] = last.get("time", "")
        if self.in_work(key):
            return Standing("running", **facts)
        if problem:
            return Standing("damaged", problem, **facts)
        event = last.get("event", "done")
        if event == "done":  # none yet, or its result was taken away or is of another version
            return Standing("waiting")
        if event == "started":
            reason = f"stopped without a word on {last['host']}, process {last['pid']}"
            return Standing("interrupted", reason, **facts)
        return Standing(event, last.get("reason", ""), seconds=last.get("seconds", 0.0), **facts)

    def in_work(self, key: str) -> bool:
        """Whether a living process works on the cell, be it done or not."""
        path = f"{self._cells}/{key[:20]}/lock"
        return os.path.exists(path) and Lock(Path(path)).held()  # noqa: PTH110

    @contextmanager
    def attempt(self, key: str) -> Iterator[Path]:
        """Lock the cell and give a fresh folder for artefacts; Busy if another process has it."""
        folder, fresh = self.folder(key), self.folder(key) / "artefacts.new"
        with ExitStack() as held:
            with writing(self.out):
                folder.mkdir(exist_ok=True)  # below what is there: OUT may be gone by now
                if not held.enter_context(Lock(folder / "lock")):
                    raise Busy(f"Cell {key[:20]} is being worked on by another process.")
                shutil.rmtree(fresh, ignore_errors=True)  # of a killed attempt; never a result
                fresh.mkdir()
                (folder / "work").mkdir(exist_ok=True)
            yield fresh

    def note(self, key: str, event: str, **facts: Any) -> None:
        """Append a line to the cell's attempts, apart from one that a killed process tore."""
        line = json.dumps({"event": event, "time": now(), **facts}) + "\n"
        path = self.folder(key) / "attempts.jsonl"
        with writing(self.out):
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
        artefacts, earlier = folder / "artefacts", folder / "artefacts.old"
        result = {
            "version": RESULT_VERSION,
            "key": key,
            "finished": now(),
            **facts,
            "artefacts": sums(fresh),
            "records": [dict(record) for record in records],
        }
        shutil.rmtree(earlier, ignore_errors=True)
        if artefacts.exists():  # of a cell that is run again, or of a try killed before its result
            artefacts.rename(earlier)
        fresh.rename(artefacts)
        write_sealed(self._result(key), result)
        for leftover in (earlier, folder / "work" / "resume"):
            shutil.rmtree(leftover, ignore_errors=True)

    def verify(self, key: str, anew: bool = False) -> None:
        """Compare a cell's files with their sizes and checksums.

        A file that this store has verified before and that looks the same since (size, time of
        change, inode) is not read again, unless `anew`.

        Raises:
            Damaged: names the first file that differs; the cell may have no result at all.
        """
        result, problem = self._read_result(key)
        if result is None:
            raise Damaged(key, problem or f"{self._result(key)} is missing.")
        known: Checksums = result["artefacts"]
        with writing(self.out):
            problem = fault(self.artefacts(key), known, {} if anew else self._sound)
        if problem:
            raise Damaged(key, problem)

    def set_aside(self, key: str) -> bool:
        """Move a damaged result and its artefacts to ``damaged/``, so that the cell waits again.

        False if there is nothing to do: another process works on the cell, or has mended it.
        """
        folder = self.folder(key)
        with writing(self.out), Lock(folder / "lock") as locked:
            if not locked or not self._result(key).exists():
                return False
            try:
                self.verify(key, anew=True)
            except Damaged as error:
                aside = folder / "damaged" / f"{time.time_ns()}"
                aside.mkdir(parents=True)
                for name in ("result.json", "artefacts"):  # the mark of completion first
                    with suppress(FileNotFoundError):
                        (folder / name).rename(aside / name)
                self.note(key, "damaged", reason=str(error))
                return True
            return False


def now() -> str:
    """UTC time, to the second, as ISO 8601."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
