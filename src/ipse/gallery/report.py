"""Reports: one self-contained page that shows what was found, how surely, and what was not found and why."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ipse._files import atomic_write
from ipse.errors import DataError

# Cards of a section that are open at once; the rest unfolds.
_OPEN = 18


@dataclass(frozen=True)
class Card:
    """One face.

    Attributes
    ----------
    crop
        JPEG; None for a card without a picture.
    title
        Its first line.
    lines
        More lines, plain text.
    distance, threshold
        Drawn as a bar, longer where the face is closer, with the threshold marked in the middle; None for no bar.
    file
        The photograph: named below, and a link to it.
    caution
        What makes the face poor, plain sentences.
    """

    crop: bytes | None
    title: str = ""
    lines: Sequence[str] = ()
    distance: float | None = None
    threshold: float | None = None
    file: Path | None = None
    caution: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes
    ----------
    title
        Heading.
    text
        A paragraph, plain text.
    cards
        Faces, in order.
    rows
        A table of two columns: what, and what about it.
    more
        How many further cards or rows there are that are not shown.
    folded
        Whether the section is folded at first.
    """

    title: str
    text: str = ""
    cards: Sequence[Card] = ()
    rows: Sequence[tuple[str, str]] = ()
    more: int = 0
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes
    ----------
    title
        Heading.
    lede
        What it is about, plain text.
    facts
        Figures at the top: value and what it counts.
    sections
        In order.
    notes
        What to know before relying on it; at the end.
    """

    title: str
    lede: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = ()


def write_report(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write a page as one HTML file; pictures are in it, nothing is loaded from elsewhere.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    DataError
        If the file cannot be written there.
    """
    try:
        with atomic_write(path) as file:
            file.write(to_html(page, Path(path).parent).encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(
            f"The report {os.fspath(path)} cannot be written: {error.strerror or error}.", "Name another place."
        ) from error
    return Path(path)


def to_html(page: Page, folder: Path | None = None) -> str:
    """The page as HTML; links to photographs are relative to `folder` where they can be."""
    facts = "".join(f"<li><b>{_text(value)}</b> {_text(label)}</li>" for value, label in page.facts)
    sections = "".join(_section(section, folder) for section in page.sections)
    notes = "".join(f"<p>{_text(note)}</p>" for note in page.notes)
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{_text(page.title)}</title><style>{_STYLE}</style></head>\n<body><main>"
        f"<header><h1>{_text(page.title)}</h1><p>{_text(page.lede)}</p><ul class='facts'>{facts}</ul></header>\n"
        f"{sections}<footer>{notes}</footer></main></body></html>\n"
    )


def _section(section: Section, folder: Path | None) -> str:
    text = f"<p>{_text(section.text)}</p>" if section.text else ""
    body = text + _cards(section.cards, folder) + _table(section.rows)
    if section.more:
        body += f"<p class='more'>… and {section.more:,} more; <code>--json</code> lists all.</p>"
    if section.folded:
        return f"<section><details><summary><h2>{_text(section.title)}</h2></summary>{body}</details></section>\n"
    return f"<section><h2>{_text(section.title)}</h2>{body}</section>\n"


def _cards(cards: Sequence[Card], folder: Path | None) -> str:
    if not cards:
        return ""
    drawn = [_card(card, folder) for card in cards]
    out = f"<div class='cards'>{''.join(drawn[:_OPEN])}</div>"
    if len(drawn) > _OPEN:
        rest = "".join(drawn[_OPEN:])
        out += f"<details><summary>{len(drawn) - _OPEN} more</summary><div class='cards'>{rest}</div></details>"
    return out


def _card(card: Card, folder: Path | None) -> str:
    parts = []
    if card.crop is not None:
        picture = f"<img src='data:image/jpeg;base64,{base64.b64encode(card.crop).decode()}' alt='' loading='lazy'>"
        parts.append(f"<a href='{_link(card.file, folder)}'>{picture}</a>" if card.file else picture)
    if card.title:
        parts.append(f"<div class='who'>{_text(card.title)}</div>")
    if card.distance is not None:
        parts.append(_bar(card.distance, card.threshold))
    parts += [f"<div class='line'>{_text(line)}</div>" for line in card.lines]
    if card.file:
        name = _text(card.file.name)
        parts.append(f"<div class='file'><a href='{_link(card.file, folder)}' title='{name}'>{name}</a></div>")
    parts += [f"<div class='caution'>{_text(reason)}</div>" for reason in card.caution]
    return f"<div class='card'>{''.join(parts)}</div>"


def _bar(distance: float, threshold: float | None) -> str:
    """A bar that fills as the distance shrinks; the middle is the threshold."""
    if threshold is None:
        return f"<div class='line'>distance {distance:.2f}</div>"
    fill = 100 * max(0.0, min(1.0, 1 - distance / (2 * threshold)))
    kind = "in" if distance <= threshold else "out"
    sign = "≤" if distance <= threshold else ">"
    label = f"distance {distance:.2f} {sign} {threshold:.2f}"
    return (
        f"<div class='bar {kind}' role='img' aria-label='{label}'><i style='width:{fill:.0f}%'></i><u></u></div>"
        f"<div class='line'>{label}</div>"
    )


def _table(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(f"<tr><td>{_text(what)}</td><td>{_text(about)}</td></tr>" for what, about in rows)
    return f"<table>{lines}</table>"


def _link(file: Path, folder: Path | None) -> str:
    """A link that works from the page: relative, so that page and photographs can be moved together."""
    from urllib.parse import quote

    try:
        target = os.path.relpath(file, folder or Path.cwd())
    except ValueError:  # another drive
        return html.escape(Path(os.path.abspath(file)).as_uri(), quote=True)
    return html.escape(quote(target.encode("utf-8", "surrogateescape")), quote=True)


def _text(value: str) -> str:
    return html.escape(str(value).encode("utf-8", "replace").decode(), quote=True)


_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6a6a70; --paper: #fbfaf7; --card: #fff; --line: #dedbd3;
  --yes: #2c7a4b; --no: #a8a39a; --warn: #9a5b13; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --dim: #a0a0a6; --paper: #17181b; --card: #1f2125; --line: #33353a; --yes: #58b37e;
    --no: #6d7078; --warn: #d9a05b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .4rem; line-height: 1.2; }
h2 { font-size: 1.2rem; margin: 0; display: inline; }
header p, section > p, details > p { color: var(--dim); max-width: 46rem; margin: .3rem 0 0; }
section { margin-top: 2.2rem; border-top: 1px solid var(--line); padding-top: 1.1rem; }
.facts { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1.2rem 0 0;
  color: var(--dim); }
.facts b { color: var(--ink); font-size: 1.35rem; margin-right: .2rem; font-variant-numeric: tabular-nums; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(158px, 1fr)); gap: .9rem; margin-top: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem; font-size: .8rem;
  line-height: 1.35; min-width: 0; overflow-wrap: anywhere; }
.card img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 5px;
  margin-bottom: .45rem; }
.who { font-weight: 600; font-size: .92rem; }
.line { color: var(--dim); font-variant-numeric: tabular-nums; }
.file a { color: inherit; display: block; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.caution { color: var(--warn); margin-top: .2rem; }
.bar { position: relative; height: 7px; border-radius: 4px; background: var(--line); margin: .4rem 0 .25rem; }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--no); }
.bar.in i { background: var(--yes); }
.bar u { position: absolute; left: 50%; top: -3px; bottom: -3px; width: 2px; background: var(--ink); }
table { border-collapse: collapse; margin-top: .8rem; width: 100%; font-size: .9rem; }
td { border-top: 1px solid var(--line); padding: .4rem .8rem .4rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { width: 32%; font-weight: 500; } td:last-child { color: var(--dim); }
summary { cursor: pointer; margin-top: .6rem; }
.more { font-size: .9rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; color: var(--dim); font-size: .88rem; }
footer p { max-width: 46rem; margin: .4rem 0; }
code { font-size: .9em; }
"""
