"""What scores look like: a table, a plot of identity against prompt accuracy, a page with pictures side by side."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipse._files import atomic_write
from ipse.errors import DataError, ImageError
from ipse.images import contact_sheet, read_image
from ipse.measure.personalization import Figure
from ipse.personalize.scoring import BARE, Curve, Scores

COLUMNS = {
    "rank1": ("Rank-1", "%"),
    "sim_reference": ("Like the reference", ""),
    "sim_held_out": ("Like held-out pictures", ""),
    "copy_paste": ("Copied", "%"),
    "prompt_accuracy": ("Prompt", "%"),
    "prompt_cost": ("Prompt cost", "%"),
    "diversity": ("Diversity", ""),
    "frechet": ("Fréchet", ""),
    "detection_failures": ("No face", "%"),
    "seconds": ("Seconds", "s"),
}
"""The figures of the table: heading and unit."""

_MEANING = (
    "Rank-1: pictures more like their person than like anybody else of those enrolled. Like the reference, like "
    "held-out pictures: mean similarity by the face network, 1 less the distance, or the cosine; what is above the "
    "ceiling is copied. Copied: pose, expression, light, background and look shared with the reference beyond what "
    "held-out pictures of the person share with it, of all that could be. Prompt: pictures that show what was asked "
    "for, mean over attributes; its cost is what the bare base reaches more, on the same people. Diversity: distance "
    "of two pictures by one prompt over that of two real pictures. A picture without a face is a failure of identity.",
    "Intervals are of 95 %, by bootstrap over people.",
)
# People, and prompts of each, on the page.
_SHOWN_PEOPLE, _SHOWN_PROMPTS, _CELL = 6, 7, 128


def rows(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of text for the ceiling, the floor and each method and strength."""
    there = [
        name
        for name in COLUMNS
        if any(name in {**curve.figures, **curve.numbers} for curve in scores.curves) or name in scores.ceiling
    ]
    heads = ["", *(f"{COLUMNS[name][0]}" for name in there)]
    several = len({curve.method for curve in scores.curves}) < len(scores.curves)
    body = [
        [_title(curve, several), *(shown({**curve.figures, **curve.numbers}.get(name), name) for name in there)]
        for curve in scores.curves
    ]
    body.append(["real pictures", *(shown(scores.ceiling.get(name), name) for name in there)])
    body.append(["strangers", *(shown(scores.floor.get(name), name) for name in there)])
    return heads, body


def shown(figure: Figure | float | None, name: str) -> str:
    """A figure as text, with its interval."""
    if figure is None:
        return ""
    unit = COLUMNS[name.partition(".")[0]][1]
    times, form = (100, "{:.1f}") if unit == "%" else (1, "{:.2f}")
    value, interval = (figure.value, figure.ci95()) if isinstance(figure, Figure) else (figure, None)
    text = form.format(times * value)
    return f"{text} [{', '.join(form.format(times * end) for end in interval)}]" if interval else text


def _title(curve: Curve, several: bool) -> str:
    return f"{curve.method} {curve.strength:g}" if several else curve.method


def plot(scores: Scores) -> bytes:
    """Identity against prompt accuracy, or where no judge told of prompts against strength, as a PNG.

    Each method is a curve over its strengths with 95 % intervals; lines mark what real pictures and strangers reach.
    """
    from cycler import cycler
    from matplotlib import colormaps
    from matplotlib.figure import Figure as Drawing

    name = "sim_held_out" if any("sim_held_out" in c.figures for c in scores.curves) else "sim_reference"
    judged = any("prompt_accuracy" in curve.figures for curve in scores.curves)
    drawing = Drawing(figsize=(8, 5), layout="constrained")
    axes = drawing.subplots()
    # Ten colors for each shape: more methods are told apart by it.
    axes.set_prop_cycle(cycler(marker="osD^") * cycler(color=colormaps["tab10"].colors))
    methods = dict.fromkeys(curve.method for curve in scores.curves)
    for method in methods:
        curves = [c for c in scores.curves if c.method == method and name in c.figures]
        curves = [c for c in curves if "prompt_accuracy" in c.figures] if judged else curves
        if not curves:
            continue
        identity = [_ends(c.figures[name], 1) for c in curves]
        prompt = [_ends(c.figures["prompt_accuracy"], 100) if judged else (c.strength, 0.0, 0.0) for c in curves]
        x, y = np.array(prompt).T, np.array(identity).T
        axes.errorbar(x[0], y[0], xerr=x[1:], yerr=y[1:], markersize=5, capsize=2, elinewidth=0.8,
                      color="black" if method == BARE else None, label=method)  # fmt: skip
        if len(curves) > 1:
            for c, at_x, at_y in zip(curves, x[0], y[0], strict=True):
                axes.annotate(f"{c.strength:g}", (at_x, at_y), xytext=(5, 4), textcoords="offset points", fontsize=7)
    for limit, label, style in ((scores.ceiling, "two real pictures", "--"), (scores.floor, "strangers", ":")):
        if name in limit:
            axes.axhline(_ends(limit[name], 1)[0], color="gray", linestyle=style, label=label)
    axes.set(
        xlabel="shows what was asked for, %" if judged else "strength",
        ylabel="like held-out pictures of the person" if name == "sim_held_out" else "like the reference",
    )
    axes.grid(alpha=0.25)
    drawing.legend(loc="outside right upper", fontsize=8)
    file = io.BytesIO()
    drawing.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _ends(figure: Figure | float, times: float) -> tuple[float, float, float]:
    """The value, and how far the interval reaches below and above it."""
    if not isinstance(figure, Figure):
        return times * figure, 0.0, 0.0
    low, high = figure.ci95() or (figure.value, figure.value)
    return times * figure.value, times * max(0.0, figure.value - low), times * max(0.0, high - figure.value)


def side_by_side(scores: Scores) -> list[tuple[str, bytes]]:
    """For some people a JPEG: real pictures in the first row, then a row for each method and strength."""
    prompts = list(dict.fromkeys(row.prompt for curve in scores.curves for row in curve.rows if len(row.people) == 1))
    # Spread over all of them, the first included.
    chosen = (
        [prompts[i] for i in np.unique(np.linspace(0, len(prompts) - 1, _SHOWN_PROMPTS).astype(int))] if prompts else []
    )
    several = len({curve.method for curve in scores.curves}) < len(scores.curves)
    made = {(c.method, c.strength, r.people, r.prompt): r.path for c in scores.curves for r in reversed(c.rows)}
    names = [name for name in scores.people if any(people == (name,) for _, _, people, _ in made)]
    out = []
    for name in names[:_SHOWN_PEOPLE]:
        real = sorted((p for p in scores.photographs if p.person == name), key=lambda p: not p.shown)[: len(chosen)]
        labels = ["reference" if p.shown else "held out" for p in real] + [""] * (len(chosen) - len(real))
        cells = [_cell(p.path) for p in real] + [_cell(None)] * (len(chosen) - len(real))
        for curve in scores.curves:
            for prompt in chosen:
                cells.append(_cell(made.get((curve.method, curve.strength, (name,), prompt))))
                labels.append(f"{_title(curve, several)}\n{prompt}")
        sheet = contact_sheet(cells, len(chosen), labels, gap=4)
        file = io.BytesIO()
        sheet.save(file, "JPEG", quality=85)
        out.append((name, file.getvalue()))
    return out


def _cell(path: Path | None) -> np.ndarray:
    """A picture at the size of the sheet; gray where there is none."""
    from PIL import Image, ImageOps

    empty = np.full((_CELL, _CELL, 3), 225, np.uint8)
    if path is None:
        return empty
    try:
        return np.asarray(ImageOps.pad(Image.fromarray(read_image(path)), (_CELL, _CELL), color=(225, 225, 225)))
    except ImageError:
        return empty


def write_page(scores: Scores, path: str | os.PathLike[str]) -> Path:
    """Write all of it as one HTML file; pictures are in it, nothing is loaded from elsewhere.

    Raises
    ------
    DataError
        If the file cannot be written there.
    """
    try:
        with atomic_write(path) as file:
            file.write(to_html(scores).encode("utf-8", "replace"))
    except OSError as error:
        place = os.fspath(path)
        raise DataError(
            f"The page {place} cannot be written: {error.strerror or error}.", "Name another place."
        ) from error
    return Path(path)


def to_html(scores: Scores) -> str:
    """The page of some scores."""
    heads, body = rows(scores)
    counted = sum(curve.pictures for curve in scores.curves)
    judges = ", ".join(f"{name} ({fingerprint[:12]})" for name, fingerprint in scores.judges.items())
    parts = [
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>Personalization</title><style>{_STYLE}</style></head><body><h1>Personalization</h1>",
        f"<p>{counted:,} pictures of {len(scores.people):,} people. Judges: {_text(judges)}. "
        f"Diversity is told by {_text(scores.diversity_by)}.</p>",
        _table(heads, body),
        _image(plot(scores), "png", "Identity against prompt accuracy"),
        *(f"<p>{_text(text)}</p>" for text in _MEANING),
    ]
    if detail := _detail(scores):
        parts.append(f"<h2>By attribute and aspect</h2>{_table(*detail)}")
    pictures = side_by_side(scores)
    if pictures:
        parts.append("<h2>Side by side</h2>")
        parts += [f"<h3>{_text(name)}</h3>{_image(sheet, 'jpeg', f'Pictures of {name}')}" for name, sheet in pictures]
    if scores.problems:
        listed = [[problem.place, problem.what] for problem in scores.problems]
        parts.append(f"<h2>Problems — {len(listed):,}</h2>{_table(['Where', 'What'], listed)}")
    parts.append("<p>This page contains pictures of people: handle it as you would their photographs.</p>")
    return "\n".join([*parts, "</body></html>", ""])


def _detail(scores: Scores) -> tuple[list[str], list[list[str]]] | None:
    """The parts of figures that have some, with a column for each method and strength."""
    names = list(dict.fromkeys(name for curve in scores.curves for name in curve.figures if "." in name))
    names = [name for name in names if not name.startswith("several.")]
    several = [name for curve in scores.curves for name in curve.figures if name.startswith("several.")]
    if not names and not several:
        return None
    words = {"prompt_accuracy": "shows", "copy_paste": "copies"}
    body = []
    for name in [*names, *dict.fromkeys(several)]:
        head, _, part = name.partition(".")
        title = (
            f"several people: {COLUMNS[part][0]}" if head == "several" else f"{words[head]} {part.replace('_', ' ')}"
        )
        kind = part if head == "several" else name
        body.append([title, *(shown(curve.figures.get(name), kind) for curve in scores.curves)])
    return ["", *(_title(curve, True) for curve in scores.curves)], body


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{_text(text)}</td>" for text in row) + "</tr>" for row in body)
    return f"<div class='wide'><table><tr>{head}</tr>{lines}</table></div>"


def _image(data: bytes, kind: str, words: str) -> str:
    return f"<img alt='{_text(words)}' src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>"


def _text(value: str) -> str:
    return html.escape(value.encode("utf-8", "replace").decode(), quote=True)


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #1d1f23; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-bottom: .3rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .25rem 1.1rem .25rem 0; vertical-align: top; } p { max-width: 50rem; }
tr + tr td { border-top: 1px solid #e3e5e8; } img { max-width: 100%; }
"""
