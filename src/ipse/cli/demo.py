"""``ipse demo``: what ipse does, in pictures."""

from __future__ import annotations

import base64
import html
import mimetypes
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse._files import atomic_write
from ipse.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from ipse.gallery.sightings import Sighting
    from ipse.world import Picture


@dataclass(frozen=True)
class Section:
    """What one step of the demo has to show.

    Attributes:
        title: heading.
        text: paragraphs, plain text.
        pictures: files in the demo's folder, each with its caption.
        command: how to do it by oneself.
        points: a list below the pictures, plain text.
        link: a page in the demo's folder that shows more, and what it is called.
    """

    title: str
    text: str
    pictures: Sequence[tuple[Path, str]]
    command: str
    points: Sequence[str] = ()
    link: tuple[Path, str] | None = None


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("ipse-demo"),
    photos: Annotated[
        Path | None, typer.Option(help="Your own photographs: show what ipse finds in them, and nothing else.")
    ] = None,
) -> None:
    """See what ipse does: pictures, files to keep and a page that explains them, in a minute or two.

    With --photos FOLDER it works on your own photographs. Where the folder holds train/NAME/, these people are enrolled
    and looked for in all that lies beside train/; otherwise the faces are sorted into people.

    Such as:

      ipse demo

      ipse demo --photos ~/Pictures/family
    """
    from rich.console import Console

    if photos:
        # Not every shell does it in `make demo PHOTOS=~/Pictures`.
        return _your_photographs(photos.expanduser(), out)
    console = Console(stderr=True)
    sections = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for title, step in STEPS:
            if step is _words and (missing := _missing("torch", "diffusers", "transformers")):
                console.print(f"[yellow]–[/yellow] {title}: needs {missing}, pip install 'ipse[generate]'")
                continue
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


def _missing(*packages: str) -> str:
    """Names of packages that are not installed."""
    return ", ".join(name for name in packages if find_spec(name) is None)


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


def _recognition(out: Path) -> Section:
    """Enroll people of the world from one Look, find them in another, alone and in groups, among strangers."""
    from ipse.cli.find import Outcome
    from ipse.cli.recognizing import INDEX, open_gallery
    from ipse.gallery import UNKNOWN
    from ipse.gallery.enrolling import commit, prepare
    from ipse.gallery.index import Listing, PhotoIndex, Reader
    from ipse.gallery.report import write_report
    from ipse.gallery.sightings import sightings
    from ipse.images import save_png

    names = ("Ada", "Ben", "Chiara", "Dayo", "Emi", "Farid")
    known, photos = out / "known", out / "photographs"
    # Who is in which picture: the answers are held against it.
    truth: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        for k in range(2):
            save_png(_bust(number, 0, k), known / name / f"{k + 1}.png")
        truth[save_png(_bust(number, 1, 0), photos / f"alone-{number + 1}.png").name] = [name]
    # The last of each group is nobody's acquaintance.
    for number, members in enumerate(((0, 3, len(names)), (4, 1, 2, len(names) + 2))):
        path = save_png(_group(members, number), photos / f"together-{number + 1}.png")
        truth[path.name] = [*(names[member] for member in members[:-1]), UNKNOWN]

    folder = out / "gallery"
    reader = Reader()
    gallery = open_gallery(folder, reader, create=True)
    if before := gallery.names():
        gallery.forget(*before)
    with PhotoIndex(None, reader) as index:
        read = {name: list(index.photos(index.update(Listing([known / name])))) for name in names}
    commit([prepare(name, read[name], gallery) for name in names], gallery)
    calibration = gallery.calibrate(0.01)
    outcome = Outcome(gallery, gallery.names(), None)
    marked = []
    right = 0
    with PhotoIndex(folder / INDEX, reader) as index:
        run = index.update(Listing([photos]))
        for photo, seen in sightings(index.photos(run), gallery):
            outcome.add(photo, seen)
            answers = Counter(one.answer.name for one in seen)
            right += (answers & Counter(truth[photo.path.name])).total()
            if photo.path.name.startswith("together"):
                caption = f"Found: {', '.join(sorted(answers.keys() - {UNKNOWN})) or 'nobody'}."
                caption += f" Unknown: {answers[UNKNOWN]}." if answers[UNKNOWN] else ""
                marked.append((_marked(photo.path, seen, out / f"found-{photo.path.name}"), caption))
    report = write_report(outcome.page([photos]), out / "found.html")
    return Section(
        "Who is in these pictures?",
        "Six people who do not exist were enrolled from two pictures each, and looked for in pictures of another day: "
        "other clothes, hair, glasses and light. Strangers are among them, and are to stay unknown. Where the line "
        "runs is measured on the gallery's own people: up to a distance of "
        f"{calibration.threshold:.2f} two faces are one. Of {sum(map(len, truth.values()))} faces, {right} were "
        "answered rightly.",
        marked,
        'ipse enroll Ada ada1.jpg ada2.jpg && ipse find photos/ --report found.html',
        link=(report, "All that was found, how surely, and what was not"),
    )  # fmt: skip


def _words(out: Path) -> Section:
    from ipse.diffusion import load_base
    from ipse.images import contact_sheet, save_png

    base, columns = load_base("world"), 6
    prompts = (
        "A portrait of a young woman with long red hair, light skin, and green eyes, wearing a green sweater, smiling "
        "broadly and facing the camera, against a plain blue background.",
        "A portrait of a young woman with long red hair, light skin, and green eyes, wearing sunglasses and a green "
        "sweater, smiling broadly and facing the camera, against a plain blue background.",
        "A portrait of an elderly man with short white hair, dark skin, and brown eyes, wearing a black jacket, turned "
        "slightly to the right and looking at the camera, in a park.",
    )
    pictures = [one.image for prompt in prompts for one in base.generate(prompt, columns, seed=1)]
    save_png(contact_sheet(pictures, columns, gap=4), out / "words.png")
    return Section(
        "Pictures from words",
        "A text-to-image model of Stable Diffusion's own classes, small enough for a laptop's processor and trained on "
        "people who do not exist alone. It was trained on a laptop's processor too, and faces show it. A column is a "
        "seed, a row a prompt:",
        [(out / "words.png", "The first six pictures of three prompts, none chosen.")],
        f'ipse generate --prompt "{prompts[0]}" --seed 1',
        [f"“{prompt}”" for prompt in prompts],
    )


def _bust(number: int, day: int, k: int, **fix: Any) -> np.ndarray:
    """A picture of one of the people of the recognizing demo, (H, W, 3) uint8."""
    return _picture(number, day, k, **fix).image


def _picture(number: int, day: int, k: int, **fix: Any) -> Picture:
    from ipse.world import look, person, render, shot

    who = person(20 + number, balance=("age", "gender", "skin"))
    worn = look(day, who, fix={"mask": None, "scarf": None})
    plain = {"occluder": None, "degrade.low_res": 1, "degrade.blur_px": 0, "degrade.noise": 0, **fix}
    taken = shot(1000 + 10 * number + 5 * day + k, "bust", ranges={"head.yaw": (-15, 15)}, fix=plain)
    return render(who, worn, taken, "bust", 256)


def _group(members: Sequence[int], number: int) -> np.ndarray:
    """Several people side by side before one background, (H, W, 3) uint8."""
    import numpy as np
    from PIL import Image, ImageFilter

    from ipse.images import resize
    from ipse.world import LABELS

    step, size = 190, 256
    width = step * (len(members) - 1) + size
    backdrop = _picture(members[0], 1, 2 + number, **{"background.kind": "wall", "background.blur": 0.6})
    scene = resize(backdrop.image[:6], width, size).astype(np.float32)
    for place, member in enumerate(members):
        picture = _picture(member, 1, 2 + number)
        person = (picture.truth.parts != LABELS.index("background")).astype(np.uint8) * 255
        # Edges of a cut-out are soft in a photograph.
        edge = np.asarray(Image.fromarray(person).filter(ImageFilter.GaussianBlur(0.8)))[..., None] / 255
        columns = slice(place * step, place * step + size)
        scene[:, columns] = edge * picture.image + (1 - edge) * scene[:, columns]
    return scene.round().astype(np.uint8)


def _marked(photo: Path, seen: Sequence[Sighting], path: Path) -> Path:
    """Write a picture with the faces framed and named."""
    from PIL import Image, ImageDraw, ImageFont

    from ipse.images import read_image, save_png

    scale = 2
    image = Image.fromarray(read_image(photo))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(26)
    for one in seen:
        x0, y0, x1, y1 = (scale * edge for edge in one.face.box)
        color = (64, 190, 120) if one.answer.known else (225, 190, 90)
        draw.rectangle((x0, y0, x1, y1), outline=color, width=4)
        draw.text(((x0 + x1) / 2, y0 - 6), one.answer.name, fill=color, font=font, anchor="mb", stroke_width=3,
                  stroke_fill=(20, 20, 20))  # fmt: skip
    return save_png(image, path)


def _your_photographs(photos: Path, out: Path) -> None:
    """Enroll from ``train/`` and find beside it, or sort into people."""
    from ipse.cli.cluster import cluster
    from ipse.cli.enroll import enroll
    from ipse.cli.find import find
    from ipse.gallery import Gallery

    if not photos.is_dir():
        raise DataError(f"{photos} is not a folder.", "Name a folder of photographs.")
    gallery, train = out / "gallery", photos / "train"
    if (gallery / "gallery.json").exists():
        opened = Gallery.open(gallery)
        if names := opened.names():
            opened.forget(*names)
    if not (train.is_dir() and any(entry.is_dir() for entry in train.iterdir())):
        return cluster([photos], gallery=gallery, report=out / "people.html")
    enroll(people=train, gallery=gallery, report=out / "enrolled.html")
    others = sorted(entry for entry in photos.iterdir() if entry != train and not entry.name.startswith("."))
    find(others or [photos], gallery=gallery, report=out / "found.html")


STEPS: tuple[tuple[str, Callable[[Path], Section]], ...] = (
    ("Who is in these pictures?", _recognition),
    ("Pictures from words", _words),
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
a { color: inherit; }
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
        if section.link:
            page, name = section.link
            parts.append(f'<p><a href="{html.escape(page.name, quote=True)}">{html.escape(name)}</a></p>')
        parts.append(f"<p>By yourself: <code>{html.escape(section.command)}</code></p>")
    return "\n".join([*parts, "</body></html>", ""])


def _figure(path: Path, caption: str) -> str:
    kind = mimetypes.guess_type(path.name)[0]
    data = base64.b64encode(path.read_bytes()).decode()
    shown = html.escape(caption, quote=True)
    return f'<figure><img alt="{shown}" src="data:{kind};base64,{data}"><figcaption>{shown}</figcaption></figure>'
