"""Errors that are the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """Bad input: one sentence that names the file, the field, the value, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(RuntimeError):
    """The work was asked to stop; what a fit had reached is in its checkpoint."""


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
