"""Pieces of Markdown for pages, and names of their pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

COMPARISON, RECALLS = "comparison.png", "recalls.png"
"""Charts of a study's arms."""


def samples_picture(generator: str) -> str:
    """Return the file name of a generator's samples on the pages."""
    return f"{generator}_samples.png"


def curves_picture(generator: str) -> str:
    """Return the file name of a generator's curves on the pages."""
    return f"{generator}_curves.png"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose intervals are not broken over lines.

    Examples:
        >>> print(markdown_table(["arm", "AUROC"], [["real", "0.941"]]))
        | arm | AUROC |
        | --- | --- |
        | real | 0.941 |
    """
    lines = [head, ["---"] * len(head), *(map(unbroken, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(sentences: Iterable[str]) -> str:
    """Return a list, one line per sentence."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def folded(summary: str, *blocks: str) -> str:
    """Return blocks that open on demand."""
    return "\n\n".join([f'<details markdown="1">\n<summary>{summary}</summary>', *filter(None, blocks), "</details>"])


def plain(text: object) -> str:
    """Return text with HTML and the ends of table cells escaped.

    Examples:
        >>> plain("p < 0.05 | <script>")
        'p &lt; 0.05 &#124; &lt;script&gt;'
    """
    return html.escape(str(text), quote=False).replace("|", "&#124;")


def unbroken(text: str) -> str:
    r"""Return text without line breaks inside brackets: an interval stays in one piece.

    Examples:
        >>> unbroken("0.734 [0.702, 0.765]")
        '0.734 [0.702,\xa00.765]'
    """
    return re.sub(r"\[[^][]*\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
