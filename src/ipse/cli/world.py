"""``ipse world``: people who do not exist, with the truth about them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ipse.errors import WorldError

if TYPE_CHECKING:
    from ipse.world.dataset import DatasetSummary
    from ipse.world.sequence import Frame

T = TypeVar("T")

world = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Framing = Annotated[str, typer.Option(help="portrait, bust, person (the whole body) or ear.")]
Size = Annotated[
    str | None,
    typer.Option(metavar="PIXELS", help="128 for squares, 128x256 for width and height; by default the framing's own."),
]
Device = Annotated[str, typer.Option(help="A Warp device: cpu, cuda:0, …")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Balance = Annotated[str, typer.Option(metavar="NAMES", help="Spread people evenly over any of age,gender,skin.")]


@world.callback()
def _world() -> None:
    """People who do not exist: pictures with the truth about them.

    A picture has a Person (who), a Look (what changes with the day) and a Shot (what changes with the picture). All
    three are numbered: the same numbers give the same picture on every machine.
    """


@world.command()
def preview(
    people: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 8,
    shots: Annotated[int, typer.Option(min=1, max=24, help="Pictures of every Look.")] = 3,
    looks: Annotated[int, typer.Option(min=1, max=12, help="Looks of every person.")] = 2,
    framing: Framing = "portrait",
    size: Size = None,
    start: Annotated[int, typer.Option(min=0, help="Number of the first person.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Other Looks and Shots of the same people.")] = 0,
    balance: Balance = "",
    hard: Annotated[bool, typer.Option("--hard", help="Strong turns, bad light, occluders, spoiled pictures.")] = False,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("people.png"),
    device: Device = "cpu",
) -> None:
    """Look at people: a sheet of pictures, those of a person side by side.

    For example:

    - `ipse world preview` writes people.png: 8 people, 2 Looks of each, 3 pictures of each Look

    - `ipse world preview --framing person --people 4 --out bodies.png` shows whole bodies

    - `ipse world preview --balance age,skin --start 100` shows people 100 to 107 of all ages and skin tones
    """
    from ipse.images import contact_sheet, save_png
    from ipse.world import render
    from ipse.world.recipe import LooksPlan, PeoplePlan, Recipe, ShotsPlan
    from ipse.world.shot import apparent_yaw

    recipe = Recipe(
        framing=framing,
        size=_size(size),
        seed=seed,
        people=PeoplePlan(people, start, _names(balance)),
        looks=LooksPlan(looks),
        shots=ShotsPlan(shots, hard),
    )
    pictures, labels = [], []
    cells = [(n, j, k) for n in range(start, start + people) for j in range(looks) for k in range(shots)]
    for n, j, k in _track(cells, "Rendering"):
        who = recipe.person(n)
        worn, taken = recipe.look(who, j), recipe.shot(who, j, k)
        pictures.append(render(who, worn, taken, framing, recipe.pixels, device=device).image)
        about = f"{n}: {_about(who)}" if j == k == 0 else f"look {recipe.look_number(j)}" if k == 0 else ""
        labels.append(f"{about}\n{taken.mood}, {round(apparent_yaw(taken)):+d}°")
    # A person's pictures stay in one row; where they are few, a row holds several people.
    each = looks * shots
    columns = each * max(1, round(math.sqrt(len(cells)) / each))
    save_png(contact_sheet(pictures, columns, labels), out, {"Software": "ipse", "Recipe": recipe.to_dict()})
    typer.echo(f"{out}: {people} people, {len(cells)} pictures")


@world.command()
def show(
    number: Annotated[int, typer.Argument(min=0, metavar="N", help="Number of the person.")],
    look: Annotated[int, typer.Option(min=0, help="Number of the person's Look.")] = 0,
    shot: Annotated[int, typer.Option(min=0, help="Number of the Shot.")] = 0,
    framing: Framing = "portrait",
    size: Size = None,
    truth: Annotated[bool, typer.Option("--truth/--picture", help="Draw the truth beside the picture.")] = True,
    out: Annotated[Path | None, typer.Option(help="The PNG to write; person-N.png by default.")] = None,
    as_json: Json = False,
    device: Device = "cpu",
) -> None:
    """Look at one person: the picture, the truth about it, and its captions.

    For example:

    - `ipse world show 7` draws landmarks, parts, depth, normals and UV beside the picture

    - `ipse world show 7 --look 2 --shot 5 --framing bust --picture` writes the picture alone

    - `ipse world show 7 --json` prints the three values, the landmarks and the captions
    """
    from ipse.images import save_png
    from ipse.world import look as draw_look
    from ipse.world import person as draw_person
    from ipse.world import render
    from ipse.world import shot as draw_shot
    from ipse.world.caption import captions, facts
    from ipse.world.parts import shares
    from ipse.world.show import truth_sheet

    who = draw_person(number)
    worn, taken = draw_look(look, who), draw_shot(shot, framing)
    picture = render(who, worn, taken, framing, _size(size), device=device)
    visible = shares(picture.truth.parts)
    known = facts(who, worn, taken, framing, visible)
    said = captions(who, worn, taken, framing, visible)
    title = f"Person {number}, Look {look}, Shot {shot}"
    out = out or Path(f"person-{number}.png")
    values = {"person": who.to_dict(), "look": worn.to_dict(), "shot": taken.to_dict()}
    save_png(truth_sheet(picture, title) if truth else picture.image, out, {"Software": "ipse"} | values)
    if as_json:
        t = picture.truth
        points = {
            name: getattr(t, name).tolist()
            for name in ("five", "five_visible", "dense", "dense_visible", "keypoints", "keypoints_visible")
        }
        camera = {"intrinsics": t.camera.intrinsic.tolist(), "extrinsics": t.camera.extrinsic.tolist()}
        boxes = {"face_box": t.face_box, "body_box": t.body_box}
        report = {"file": str(out), **values, "facts": known, "captions": said, **points, **boxes, "camera": camera}
        typer.echo(json.dumps(report, ensure_ascii=False))
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, fact in known.items():
        table.add_row(f"[dim]{name.replace('_', ' ')}[/dim]", str(fact))
    console = Console()
    console.print(f"[bold]{title}[/bold]: {_about(who)}, skin tone {who.skin.tone:.1f} of 10")
    for text in said:
        console.print(f"  “{text}”")
    console.print(table)
    console.print(f"[green]{out}[/green]")


@world.command()
def dataset(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to render.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    people: Annotated[int | None, typer.Option(min=1, help="How many, in place of the recipe's.")] = None,
    looks: Annotated[int | None, typer.Option(min=1, help="Looks per person.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Shots per Look.")] = None,
    balance: Balance = "",
    framing: Annotated[str | None, typer.Option(help="portrait, bust, person or ear.")] = None,
    size: Size = None,
    start: Annotated[int | None, typer.Option(min=0, help="Number of the first person.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Other Looks and Shots of the same people.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per processor.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Render a data set: sharded Parquet with pictures, captions and truth, and a data card.

    Hugging Face `datasets`, Ray Data, Lance and pyarrow read it as it is. The same recipe gives the same bytes,
    whatever the number of workers. A run that was cut off is taken up again by the same command.

    For example:

    - `ipse world dataset recipes/world/portraits.yaml --out faces --workers 4`

    - `ipse world dataset recipes/world/bodies.yaml --out bodies --people 20 --shots 4 --balance age,gender,skin`

    - `ipse world dataset recipes/world/portraits.yaml --out /shared/faces --engine ray` runs on a Ray cluster
    """
    from ipse.world.dataset import write_dataset

    try:
        summary = write_dataset(
            recipe,
            out,
            people=people,
            looks=looks,
            shots=shots,
            balance=_names(balance),
            framing=framing,
            size=_size(size),
            start=start,
            seed=seed,
            workers=workers,
            engine=engine,
            device=device,
            progress=not as_json,
        )
    except KeyboardInterrupt:
        typer.echo("Stopped. Finished shards are kept: the same command goes on where this one stopped.", err=True)
        raise
    typer.echo(_summary(summary, as_json))


def _summary(summary: DatasetSummary, as_json: bool) -> str:
    if as_json:
        names = ("people", "pictures", "shards", "written", "counts")
        return json.dumps({"folder": str(summary.folder)} | {name: getattr(summary, name) for name in names})
    there = summary.shards - summary.written
    before = f" ({there} were there already)" if there else ""
    return (
        f"{summary.folder}: {summary.pictures:,} pictures of {summary.people:,} people "
        f"in {summary.shards} shards{before}. Its card: {summary.folder / 'README.md'}"
    )


Seconds = Annotated[float, typer.Option(min=0.1, max=60, help="Length.")]
Fps = Annotated[float, typer.Option(min=1, max=50, help="Frames per second.")]


@world.command()
def walk(
    number: Annotated[int, typer.Argument(min=0, metavar="N", help="Number of the person.")],
    look: Annotated[int, typer.Option(min=0, help="Number of the person's Look.")] = 0,
    view: Annotated[str, typer.Option(help="front, oblique, side, behind, or degrees.")] = "side",
    seconds: Seconds = 2.0,
    fps: Fps = 25.0,
    size: Size = None,
    out: Annotated[Path, typer.Option(help="The GIF to write.")] = Path("walk.gif"),
    device: Device = "cpu",
) -> None:
    """See a person walk, with the stride and cadence that are the person's own.

    For example:

    - `ipse world walk 7` writes walk.gif: two seconds from the side

    - `ipse world walk 7 --view oblique --size 256x512 --out big.gif`
    """
    from ipse.world import look as draw_look
    from ipse.world import person
    from ipse.world.sequence import walk as walking

    who = person(number)
    angle = float(view) if view.removeprefix("-").replace(".", "", 1).isdigit() else view
    frames = walking(who, draw_look(look, who), seconds=seconds, fps=fps, view=angle, size=_size(size), device=device)
    _save(frames, round(seconds * fps), out)


@world.command()
def walks(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    people: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    start: Annotated[int, typer.Option(min=0, help="Number of the first person.")] = 0,
    looks: Annotated[int, typer.Option(min=1, help="Looks of each.")] = 2,
    views: Annotated[str, typer.Option(metavar="DEGREES", help="Where cameras stand; 0: ahead.")] = "0,45,90",
    frames: Annotated[int, typer.Option(min=2, max=120, help="Silhouettes of one stride.")] = 12,
) -> None:
    """Render silhouettes of walks, to train on: one picture of a stride, frame beside frame.

    A run that was cut off is taken up again by the same command.

    For example:

    - `ipse world walks --out walks --people 120` writes 720 walks, and examples.png to look at

    - `ipse world walks --out walks --people 20 --views -90,90 --looks 4`
    """
    from rich.console import Console
    from rich.progress import Progress

    from ipse.world.walks import write_walks

    try:
        azimuths = [float(view) for view in _names(views)]
    except ValueError as error:
        raise WorldError(f"The views {views!r} cannot be read.", "Write degrees, such as 0,45,90.") from error
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Rendering")
        folder = write_walks(
            out,
            people=people,
            start=start,
            looks=looks,
            azimuths=azimuths,
            frames=frames,
            on_walk=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(f"{folder}: {people * looks * len(azimuths):,} walks of {people:,} people")


@world.command()
def talk(
    number: Annotated[int, typer.Argument(min=0, metavar="N", help="Number of the person.")],
    look: Annotated[int, typer.Option(min=0, help="Number of the person's Look.")] = 0,
    words: Annotated[str | None, typer.Option(help="What is said; babble by default.")] = None,
    framing: Framing = "portrait",
    seconds: Seconds = 3.0,
    fps: Fps = 25.0,
    size: Size = None,
    out: Annotated[Path, typer.Option(help="The GIF to write.")] = Path("talk.gif"),
    device: Device = "cpu",
) -> None:
    """See a person talk: lips, blinks, glances.

    For example:

    - `ipse world talk 7` writes talk.gif: three seconds of babble

    - `ipse world talk 7 --words "Hello, who are you?" --framing bust`
    """
    from ipse.world import look as draw_look
    from ipse.world import person
    from ipse.world.sequence import talk as talking

    who = person(number)
    frames = talking(
        who,
        draw_look(look, who),
        seconds=seconds,
        fps=fps,
        framing=framing,
        words=words,
        size=_size(size),
        device=device,
    )
    _save(frames, round(seconds * fps), out)


def _save(frames: Iterable[Frame], count: int, out: Path) -> None:
    from ipse.world.sequence import save_gif

    save_gif(_track(frames, "Rendering", count), out)
    typer.echo(f"{out}: {count} frames")


def _track(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """The items, with a progress bar on the error stream."""
    from rich.console import Console
    from rich.progress import track

    return track(items, label, total, console=Console(stderr=True), transient=True)


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise WorldError(f"The size {text!r} cannot be read.", "Write 128, or 128x256 for width and height.")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _about(who: Any) -> str:
    from ipse.world import gender_presentation

    return f"{gender_presentation(who)}, {who.age:.0f}"
