"""From the records of a run to its page: HTML, Markdown, CSV, LaTeX, figures and the terminal.

    board = leaderboard.build(records, cells, RunInfo(dataset, preset, grid))
    leaderboard.write(board, out / "leaderboard")

Pure functions of the records' schema; nothing here runs a model or imports torch.
"""

from __future__ import annotations

from leaderboard.board import build
from leaderboard.files import write
from leaderboard.model import Leaderboard, RunInfo
from leaderboard.names import display_name
from leaderboard.pictures import NO_PICTURES, Pictures
from leaderboard.terminal import terminal_tables

__all__ = [
    "NO_PICTURES",
    "Leaderboard",
    "Pictures",
    "RunInfo",
    "build",
    "display_name",
    "terminal_tables",
    "write",
]
