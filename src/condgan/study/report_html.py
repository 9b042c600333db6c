"""Pieces of HTML that escape whatever is put into them."""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DASH = "\N{EN DASH}"
"""Stands where there is no figure."""

_FIGURE = re.compile(r"[<+-]?\s?\d[-+±\d.,;/()\[\]\s]*")  # and no fingerprint


class Html(str):
    """Text that is HTML already; all other text is escaped where it meets HTML."""

    __slots__ = ()


def render(template: str, /, **values: object) -> Html:
    """Fill a template in the style of `str.format`; values that are not `Html` are escaped.

    Examples:
        >>> render("<p>{text}</p>{more}", text="a < b", more=Html("<br>"))
        '<p>a &lt; b</p><br>'
    """
    return Html(template.format(**{name: escape(value) for name, value in values.items()}))


def escape(value: object) -> Html:
    """Return a value as HTML."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(parts: Iterable[object], separator: str = "\n") -> Html:
    """Join parts, escaping those that are not `Html`."""
    return Html(separator.join(escape(part) for part in parts))


def paragraph(text: object) -> Html:
    """Return a paragraph."""
    return render("<p>{text}</p>", text=text)


def missing(text: str) -> Html:
    """Say that something is not there."""
    return render('<p class="missing">{text}</p>', text=text)


def section(name: str, title: str, *content: object) -> Html:
    """Return a section with a heading that links can lead to."""
    return render(
        '<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{content}\n</section>',
        name=name,
        title=title,
        content=join(content),
    )


def details(summary: str, *content: object) -> Html:
    """Return content that opens on demand, and on paper."""
    return render(
        "<details>\n<summary>{summary}</summary>\n{content}\n</details>", summary=summary, content=join(content)
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table whose first column names the rows; it scrolls by itself where it is too wide for the window."""
    lines = [
        render(
            '<tr><th scope="row">{first}</th>{rest}</tr>',
            first=row[0],
            rest=join((_cell(value) for value in row[1:]), ""),
        )
        for row in rows
    ]
    return render(
        '<div class="scroll" role="region" tabindex="0" aria-label="{caption}">\n<table>\n'
        "<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>",
        caption=caption,
        head=join((render('<th scope="col">{name}</th>', name=name) for name in head), ""),
        rows=join(lines),
    )


def facts(entries: Mapping[str, object]) -> Html:
    """Return names and what they stand for."""
    return render(
        "<dl>\n{entries}\n</dl>",
        entries=join(render("<dt>{name}</dt><dd>{what}</dd>", name=name, what=what) for name, what in entries.items()),
    )


def picture(path: Path, alt: str, caption: str, *, rows: Sequence[str] = (), width: int = 560) -> Html:
    """Return a PNG with its bytes inside; a missing file is said in its place.

    Args:
        path: The file.
        alt: What is to be seen.
        caption: Text below.
        rows: Names of its rows, all of one height, from top to bottom.
        width: About how many pixels wide to show it; it is enlarged by whole factors.
    """
    if not path.is_file():
        return missing(f"{alt}: the picture {path.parent.name}/{path.name} is missing.")
    content = path.read_bytes()
    own_width, _ = struct.unpack(">II", content[16:24])  # of the header that every PNG begins with
    return render(
        '<figure class="picture"><div class="sheet">{names}<img alt="{alt}" style="width:{width}px" '
        'src="data:image/png;base64,{data}"></div><figcaption>{caption}</figcaption></figure>',
        names=render(
            '<div class="rows" aria-hidden="true">{rows}</div>',
            rows=join((render("<span>{name}</span>", name=name) for name in rows), ""),
        )
        if rows
        else "",
        alt=alt,
        width=own_width * max(1, round(width / own_width)),
        data=base64.b64encode(content).decode("ascii"),
        caption=caption,
    )


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as it is shown, a dash for none.

    Examples:
        >>> number(0.73449), number(None), number(624)
        ('0.734', '\u2013', '624')
    """
    if value is None:
        return DASH
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def significant(value: float | None) -> str:
    """Return a number of unknown size with three significant digits.

    Examples:
        >>> significant(0.000123456), significant(18.4449), significant(18444.9)
        ('0.000123', '18.4', '18445')
    """
    if value is None:
        return DASH
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def p_value(value: float | None) -> str:
    """Return a p value as it is shown.

    Examples:
        >>> p_value(0.00004), p_value(0.2), p_value(None)
        ('< 0.001', '0.200', '\u2013')
    """
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def interval(entry: Mapping[str, Any], value: str = "value") -> str:
    """Return a number with its interval.

    Examples:
        >>> interval({"value": 0.838, "low": 0.8044, "high": 0.8712})
        '0.838 [0.804, 0.871]'
    """
    return f"{number(entry[value])} [{number(entry['low'])}, {number(entry['high'])}]"


def percent_intervals(level: float | None) -> str:
    """Return the name of intervals of a level.

    Examples:
        >>> percent_intervals(0.95), percent_intervals(None)
        ('95 % intervals', 'intervals')
    """
    return "intervals" if level is None else f"{100 * level:g} % intervals"


def plural(count: int, what: str) -> str:
    """Return a number of things.

    Examples:
        >>> plural(1, "patient"), plural(428, "patient"), plural(2, "class")
        ('1 patient', '428 patients', '2 classes')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def _cell(value: object) -> Html:
    shown = escape(value)
    return render('<td class="n">{shown}</td>' if _FIGURE.fullmatch(str(value)) else "<td>{shown}</td>", shown=shown)
