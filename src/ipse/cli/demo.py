"""``ipse demo``: what ipse does, in pictures."""

from __future__ import annotations

import base64
import html
import mimetypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ipse._files import atomic_write
from ipse.errors import DataError


@dataclass(frozen=True)
class Section:
    """What one step of the demo has to show.

    Attributes:
        title: heading.
        text: paragraphs, plain text.
        pictures: files in the demo's folder, each with its caption.
        command: how to do it by oneself.
        points: a list below the pictures, plain text.
    """

    title: str
    text: str
    pictures: Sequence[tuple[Path, str]]
    command: str
    points: Sequence[str] = ()


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("ipse-demo"),
) -> None:
    """See what ipse does: pictures, files to keep and a page that explains them, in about a minute."""
    from rich.console import Console

    console = Console(stderr=True)
    sections = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for title, step in STEPS:
            with console.status(f"{title} …"):
                sections.append(step(out))
            console.print(f"[green]✓[/green] {title}")
        with atomic_write(out / "index.html") as file:
            file.write(_page(sections).encode())
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}.", "Name another folder with --out."
        ) from error
    typer.echo(f"Look at {(out / 'index.html').resolve().as_uri()}")


def _people(out: Path) -> Section:
    from ipse.images import contact_sheet, save_png
    from ipse.world import render
    from ipse.world.recipe import Recipe

    people = {"count": 6, "start": 20, "balance": ["age", "gender", "skin"]}
    recipe = Recipe.from_dict({"people": people, "looks": 2, "shots": 3})
    pictures = []
    for n in range(people["start"], people["start"] + people["count"]):
        who = recipe.person(n)
        for j in range(recipe.looks.count):
            worn = recipe.look(who, j)
            for k in range(recipe.shots.count):
                pictures.append(render(who, worn, recipe.shot(who, j, k)).image)
    save_png(contact_sheet(pictures, columns=6, gap=4), out / "people.png")
    return Section(
        "People who do not exist",
        "Each row is one person: three pictures in one Look, three in another. A Person is who somebody is; a Look is "
        "what changes with the day, a Shot what changes with the picture. All are numbered, and the same numbers give "
        "the same picture on every machine.",
        [(out / "people.png", "Six people, balanced over age, gender and skin tone.")],
        "ipse world preview --people 6 --start 20 --balance age,gender,skin",
    )


def _truth(out: Path) -> Section:
    from ipse.images import save_png
    from ipse.world import look, person, render, shot
    from ipse.world.caption import captions
    from ipse.world.parts import shares
    from ipse.world.show import truth_sheet

    who = person(4)
    worn, taken = look(0, who), shot(0, "bust")
    picture = render(who, worn, taken, "bust")
    save_png(truth_sheet(picture), out / "truth.png")
    return Section(
        "The truth about a picture",
        "A rendered picture comes with what a photograph never has: who it is, exact landmarks and whether they can be "
        "seen, every part and garment, depth, surface normals, texture coordinates, the camera, and captions that say "
        "nothing the picture does not show:",
        [(out / "truth.png", "Person 4. Hollow points are hidden.")],
        "ipse world show 4 --framing bust",
        [f"“{text}”" for text in captions(who, worn, taken, "bust", shares(picture.truth.parts))],
    )


def _motion(out: Path) -> Section:
    from ipse.world import look, person
    from ipse.world.sequence import save_gif, talk, walk

    who = person(4)
    worn = look(0, who)
    save_gif(walk(who, worn, seconds=1.1, fps=16, view="oblique"), out / "walk.gif")
    save_gif(talk(who, worn, seconds=1.5, fps=16, words="This is how I talk."), out / "talk.gif")
    return Section(
        "People move",
        "Gait belongs to the person: stride, cadence, sway and the swing of the arms.",
        [(out / "walk.gif", "Walking."), (out / "talk.gif", "“This is how I talk.”")],
        "ipse world walk 4 --view oblique",
    )


def _dataset(out: Path) -> Section:
    from ipse.world.dataset import write_dataset

    recipe = {"name": "demo", "people": 2, "looks": 2, "shots": 3, "truth": ["parts", "depth"]}
    summary = write_dataset(recipe, out / "dataset", workers=1, progress=False)
    return Section(
        "A data set to train on",
        f"{summary.pictures} pictures of {summary.people} people as Parquet with pictures, captions and truth in "
        "columns, and a data card. Hugging Face datasets, Ray Data, Lance and pyarrow read it as it is; the same "
        "recipe gives the same bytes, and a run that was cut off goes on where it stopped.",
        [(out / "dataset" / "examples.png", "From dataset/data; the card is dataset/README.md.")],
        "ipse world dataset recipes/world/portraits.yaml --out faces --people 20",
    )


STEPS: tuple[tuple[str, Callable[[Path], Section]], ...] = (
    ("People who do not exist", _people),
    ("The truth about a picture", _truth),
    ("People move", _motion),
    ("A data set to train on", _dataset),
)
"""What the demo does, in order."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6a6a70; --paper: #fbfaf7; --line: #dedbd3; --code: #efece5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --dim: #a0a0a6; --paper: #17181b; --line: #33353a; --code: #24262a; }
}
body { font: 17px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 1080px; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 2.1rem; margin: 0 0 .2rem; } h2 { font-size: 1.35rem; margin: 3rem 0 .3rem; }
p, ul { max-width: 46rem; } .lead, figcaption { color: var(--dim); }
figure { margin: 1.2rem 1.2rem 1.2rem 0; display: inline-block; vertical-align: bottom; max-width: 100%; }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 6px; display: block; }
figcaption { font-size: .9rem; margin-top: .35rem; }
code { background: var(--code); border-radius: 4px; padding: .15rem .4rem; font-size: .92em; }
"""


def _page(sections: Sequence[Section]) -> str:
    """A page that needs no other file."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>ipse: what it does</title><style>{_STYLE}</style></head><body>",
        "<h1>ipse</h1>",
        '<p class="lead">Human identity in images: recognize it, generate it, measure it, guard it.</p>',
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>")
        if section.points:
            parts.append("<ul>" + "".join(f"<li>{html.escape(point)}</li>" for point in section.points) + "</ul>")
        parts += [_figure(path, caption) for path, caption in section.pictures]
        parts.append(f"<p>By yourself: <code>{html.escape(section.command)}</code></p>")
    return "\n".join([*parts, "</body></html>", ""])


def _figure(path: Path, caption: str) -> str:
    kind = mimetypes.guess_type(path.name)[0]
    data = base64.b64encode(path.read_bytes()).decode()
    shown = html.escape(caption, quote=True)
    return f'<figure><img alt="{shown}" src="data:{kind};base64,{data}"><figcaption>{shown}</figcaption></figure>'
