r"""Tables as LaTeX with booktabs, escaped, for ``\input`` in a paper."""

from __future__ import annotations

import re
from itertools import groupby

from leaderboard.blocks import Page, Table
from leaderboard.text import TextTable

LONG = 45
"""From this many rows a table may run over several pages."""
WIDE = 150
"""Of more characters in a row a table lies on its side: upright it would be too small to read."""
TALL = 30
"""Of more rows it does not: a page on its side is less high."""

_SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after a line's end it would be read as a length
    "]": "{]}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "≥": r"$\geq$",
    "…": r"\ldots{}",
}
_ESCAPES = str.maketrans(_SPECIAL)
_NUMBERED = re.compile(r"^Table \d+[a-z]?[.,] ")  # LaTeX counts itself
_MINUS = re.compile(r"(?<![\w.)])-(?=\d)")

_PREAMBLE = r"""% All tables of the leaderboard; each lies beside this file, to be input alone.
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx,longtable,rotating}
\begin{document}
"""


def files(page: Page) -> dict[str, str]:
    """``NAME.tex`` of every table of numbers, and ``tables.tex``, a document of all of them."""
    numbers = [block for block in page.tables if block.content.names < len(block.content.columns)]
    contents = {f"{block.name}.tex": _file(block, page.basis) for block in numbers}
    inputs = "".join(f"\\input{{{name}}}\n\\clearpage\n" for name in contents)
    return contents | {"tables.tex": f"{_PREAMBLE}{inputs}\\end{{document}}\n"}


def escape(text: str) -> str:
    """Text that prints as it is; a minus before a digit is set as one."""
    return _MINUS.sub("−", text).translate(_ESCAPES)


def table(content: TextTable, name: str, basis: str, above: str = "") -> str:
    """A float with caption, label, booktabs rules and the notes below; a wide one on its side, a
    long one a longtable."""
    titles = (_NUMBERED.sub("", title) for title in (above, content.title) if title)
    caption = f"\\caption{{{escape(': '.join(titles))}. {escape(basis)}}}\\label{{tab:{name}}}"
    columns = "".join("l" if i < content.names else "r" for i in range(len(content.columns)))
    body = _body(content)
    notes = "".join(f"\\par\\smallskip {escape(note)}\n" for note in content.notes)
    if notes:
        notes = f"\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{notes}\\end{{minipage}}\n"
    if len(content.rows) > LONG:
        return (
            "{\\scriptsize\\setlength{\\tabcolsep}{3pt}\n"
            f"\\begin{{longtable}}{{{columns}}}\n{caption}\\\\\n\\toprule\n{_head(content)}"
            f"\\midrule\n\\endhead\n{body}\\bottomrule\n\\end{{longtable}}\n{notes}}}\n"
        )
    sideways = _width(content) > WIDE and len(content.rows) <= TALL
    kind, place = ("sidewaystable", "") if sideways else ("table", "[htbp]")
    return (
        f"\\begin{{{kind}}}{place}\n\\centering\n{caption}\\par\\medskip\n"
        # No wider than the text, and no larger than it was set.
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{_head(content)}\\midrule\n{body}"
        "\\bottomrule\n\\end{tabular}}\\par\\medskip\n"
        f"{notes}\\end{{{kind}}}\n"
    )


def _width(content: TextTable) -> int:
    """Characters of a row, each column as wide as its widest cell and two between columns."""
    lines = [[title.split("\n")[-1] for title in content.columns], *content.rows]
    return sum(2 + max(map(len, column)) for column in zip(*lines, strict=True))


def _file(block: Table, basis: str) -> str:
    needs = "% Needs \\usepackage{booktabs,graphicx,longtable,rotating} and T1 fonts.\n"
    if block.published:
        basis = "Published numbers of other data, not comparable with this run's."
    return needs + table(block.content, block.name, basis, block.above)


def _head(content: TextTable) -> str:
    """One line of titles; two where columns share the first part of theirs."""
    titles = [title.partition("\n") for title in content.columns]
    if not any(part for _, _, part in titles):
        return _line([escape(title) for title, _, _ in titles])
    groups, rules, at = [], [], 1
    for title, found in groupby(titles, key=lambda parts: parts[0] if parts[1] else None):
        members = list(found)
        if title is None:
            groups += [""] * len(members)
        else:
            groups.append(f"\\multicolumn{{{len(members)}}}{{c}}{{{escape(title)}}}")
            rules.append(f"\\cmidrule(lr){{{at}-{at + len(members) - 1}}}")
        at += len(members)
    parts = [escape(part if parted else title) for title, parted, part in titles]
    return f"{_line(groups)}{''.join(rules)}\n{_line(parts)}"


def _body(content: TextTable) -> str:
    lines = []
    for row, cells in enumerate(content.rows):
        if content.last and row == len(content.rows) - content.last and row:
            lines.append("\\midrule\n")
        lines.append(_line([_cell(content, row, column) for column in range(len(cells))]))
    return "".join(lines)


def _cell(content: TextTable, row: int, column: int) -> str:
    text = escape(content.rows[row][column])
    if (row, column) in content.bold:
        return f"\\textbf{{{text}}}"
    return f"\\underline{{{text}}}" if (row, column) in content.underlined else text


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + " \\\\\n"
