"""Errors that are the user's to mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: one sentence that names the file, the field, the value, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(RuntimeError):
    """The work was asked to stop; what a fit had reached is in its checkpoint."""
