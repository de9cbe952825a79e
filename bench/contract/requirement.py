"""What a requirement is, and how a plug-in is held against a list of them."""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar


class Broken(Exception):
    """A requirement is not met; the text says what was found."""


class NotChecked(Exception):
    """A requirement cannot be checked here; the text says why."""


class Subject(Protocol):
    """A plug-in in the course of its check, with what is computed once for several requirements."""

    @property
    def plugin(self) -> Any:
        """The class or function that its author wrote."""


S = TypeVar("S", bound=Subject)
Status = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class Requirement(Generic[S]):
    """One named part of the contract."""

    name: str
    expected: str
    mend: str
    check: Callable[[S], None]  # raises Broken or NotChecked; any other error is a failure too
    part: str  # of the plug-in, whose line is named: "fit", "sample", "Config"
    needs: tuple[str, ...]  # requirements without which this one says nothing


class Requirements(list[Requirement[S]]):
    """The contract of one kind of plug-in, in the order in which it is checked."""

    def add(
        self, name: str, expected: str, mend: str, part: str = "", needs: Sequence[str] = ()
    ) -> Callable[[Callable[[S], None]], Callable[[S], None]]:
        """Function decorator: the function checks a requirement."""

        def note(check: Callable[[S], None]) -> Callable[[S], None]:
            self.append(Requirement(name, expected, mend, check, part, tuple(needs)))
            return check

        return note


@dataclass(frozen=True)
class Finding:
    """How a plug-in stands to one requirement."""

    name: str
    status: Status
    expected: str
    found: str = ""  # what was instead, or why it was not checked
    where: str = ""  # file:line
    mend: str = ""
    seconds: float = 0.0


def findings(
    subject: S, requirements: Sequence[Requirement[S]], only: Collection[str] = ()
) -> Iterator[Finding]:
    """Check one requirement after another; with `only`, these and what they need."""
    wanted = _with_needs(requirements, only) if only else {r.name for r in requirements}
    passed: set[str] = set()
    for requirement in requirements:
        if requirement.name not in wanted:
            continue
        missing = [name for name in requirement.needs if name not in passed]
        if missing:
            found = f"needs {', '.join(missing)}"
            yield Finding(requirement.name, "skipped", requirement.expected, found)
            continue
        finding = _judge(subject, requirement)
        passed |= {finding.name} if finding.status == "pass" else set()
        yield finding


def _with_needs(requirements: Sequence[Requirement[Any]], only: Collection[str]) -> set[str]:
    wanted = set(only)
    for requirement in reversed(requirements):  # what one needs stands before it
        if requirement.name in wanted:
            wanted |= set(requirement.needs)
    return wanted


def _judge(subject: S, requirement: Requirement[S]) -> Finding:
    begun = time.perf_counter()
    status: Status = "pass"
    found = where = mend = ""
    try:
        requirement.check(subject)
    except NotChecked as reason:
        status, found = "skipped", str(reason)
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        status, mend = "fail", requirement.mend
        found = str(error) if isinstance(error, Broken) else told(error)
        where = _raised_in(error, subject.plugin) or _written_at(subject.plugin, requirement.part)
    seconds = time.perf_counter() - begun
    return Finding(requirement.name, status, requirement.expected, found, where, mend, seconds)


def told(error: BaseException) -> str:
    """An error on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _raised_in(error: BaseException, plugin: Any) -> str:
    """The innermost line of the plug-in's own file on the way to the error; "" if there is none."""
    home = _file(plugin)
    seen: BaseException | None = error
    while seen is not None:
        for frame in reversed(traceback.extract_tb(seen.__traceback__)):
            if home and frame.filename == home:
                return f"{_short(home)}:{frame.lineno}, in {frame.name}"
        seen = seen.__cause__
    return ""


def _written_at(plugin: Any, part: str) -> str:
    """The line at which a part of the plug-in begins, or the plug-in itself where it has it not."""
    home = _file(plugin)
    for thing in (getattr(plugin, part, None) if part else None, plugin):
        if thing is not None and home and _file(thing) == home:
            with suppress(OSError, TypeError):
                return f"{_short(home)}:{inspect.getsourcelines(thing)[1]}"
    return _short(home)


def _file(thing: Any) -> str:
    with suppress(TypeError, OSError):
        return inspect.getsourcefile(thing) or ""
    return ""


def _short(file: str) -> str:
    """The path from where the user stands, where that is shorter."""
    with suppress(ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return file
