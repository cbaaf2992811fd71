"""``ipse synth``: evaluation sets of faces and labeled bodies of people who do not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipse.errors import DataError

if TYPE_CHECKING:
    from ipse.encoders import Encoder
    from ipse.measure.verification import GroupRate
    from ipse.synth.sig import Audit

synth = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@synth.callback()
def _synth() -> None:
    """Synthetic data with exact labels: evaluation sets of faces, audits with them, bodies for pose regressors."""


@synth.command()
def sig(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    identities_per_cell: Annotated[
        int, typer.Option(min=1, help="In each of the 30 cells of skin group × gender × age group.")
    ] = 2,
    poses: Annotated[str, typer.Option(metavar="DEGREES", help="Yaw of every picture of an identity.")] = "0,-30,30",
    max_similarity: Annotated[
        float, typer.Option(min=-1, max=1, help="The most that two identities may have in common.")
    ] = 0.9,
    filter_by: Annotated[
        str, typer.Option("--filter", metavar="ENCODER", help="What they are compared by: dlib, pixels, or a file.")
    ] = "dlib",
    start: Annotated[int, typer.Option(min=0, help="No person below this number.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.")] = 192,
    as_json: Json = False,
) -> None:
    """Make a balanced evaluation set of faces: exactly as many identities in every group, in the same poses.

    Who looks too much like somebody who is already in, or whose face is not found, is replaced by the next one of the
    same cell. A run that was cut off goes on with the same command. Judge an encoder on a set filtered by another.

    For example:

    - `ipse synth sig --out faces --identities-per-cell 2` writes 180 pictures of 60 people

    - `ipse synth sig --out faces --poses 0,-15,15,-30,30 --max-similarity 0.85 --filter pixels`
    """
    from ipse.synth.sig import SigPlan, make_set

    try:
        yaws = tuple(float(yaw) for yaw in poses.split(","))
    except ValueError:
        raise DataError(f"The poses {poses!r} cannot be read.", "Write degrees, such as 0,-30,30.") from None
    plan = SigPlan(identities_per_cell, yaws, max_similarity, start, size)
    made = make_set(plan, out, encoder=_encoder(filter_by), progress=not as_json)
    if as_json:
        names = ("identities", "pictures", "tried", "unseen", "max_similarity")
        typer.echo(json.dumps({"folder": str(out)} | {name: getattr(made, name) for name in names}))
        return
    typer.echo(
        f"{out}: {made.pictures:,} pictures of {made.identities:,} people; {made.tried['alike']} left out for their "
        f"likeness, {made.tried['unseen']} because their face was not found. Its card: {out / 'README.md'}"
    )


@synth.command()
def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="That `ipse synth sig` wrote.")],
    encoder: Annotated[str, typer.Option(help="dlib, pixels, an .onnx file, or weights that were trained here.")] = (
        "dlib"
    ),
    fmr: Annotated[float, typer.Option(min=0, max=0.5, help="False match rate of the one threshold.")] = 0.001,
    plot: Annotated[Path | None, typer.Option(help="Draw distances and groups to this PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Measure an encoder on an evaluation set: distances, errors, and who is missed more often.

    One threshold is set for everybody; each group's share of missed pairs has a 95 % interval over people.

    For example:

    - `ipse synth audit faces`

    - `ipse synth audit faces --encoder mine.onnx --fmr 0.01 --plot audit.png`
    """
    from ipse.cli.recognizing import progress
    from ipse.synth.sig import audit as run
    from ipse.synth.sig import plot_audit

    with progress("Reading") as tell:
        found = run(folder, _encoder(encoder), fmr=fmr, on_progress=tell)
    if plot:
        plot_audit(found, plot)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found)
        if plot:
            typer.echo(f"Plot: {plot}")


@synth.command()
def bodies(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    seed: Annotated[int, typer.Option(min=0, max=999_999, help="Other clothes, light and cameras.")] = 0,
    people: Annotated[int, typer.Option(min=1, help="How many.")] = 4,
    start: Annotated[int, typer.Option(min=0, help="Number of the first person.")] = 0,
    pictures: Annotated[int, typer.Option(min=1, max=1000, help="Of each person.")] = 8,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=60, help="Write a video of everybody walking, this long, instead.")
    ] = None,
    variation: Annotated[str, typer.Option(help="full, or reduced: tight clothes, one light, one background.")] = (
        "full"
    ),
    hard: Annotated[bool, typer.Option("--hard", help="Bad light, occluders, spoiled pictures.")] = False,
) -> None:
    """Render bodies with their labels: shape and pose, joints, camera, clothes.

    Pictures go to DIR/images, their labels to DIR/metadata.jsonl, a line each. The same seed gives the same bytes.

    For example:

    - `ipse synth bodies --out bodies --people 10 --pictures 4`

    - `ipse synth bodies --out walks --people 2 --seconds 2` writes 50 frames of each
    """
    from itertools import chain

    from rich.console import Console
    from rich.progress import track

    from ipse.synth.bedlam import bedlam_clip, bedlam_records, write_bodies

    numbers = range(start, start + people)
    options = {"variation": variation, "hard": hard}
    if seconds is None:
        records, total = bedlam_records(seed, numbers, pictures=pictures, **options), people * pictures
    else:
        clips = (bedlam_clip(seed, number, seconds=seconds, **options) for number in numbers)
        records, total = chain.from_iterable(clips), people * max(round(seconds * 25), 1)
    shown = track(records, "Rendering", total, console=Console(stderr=True), transient=True)
    typer.echo(f"{out}: {write_bodies(shown, out):,} pictures of {people} people, with labels")


def _encoder(name: str) -> Encoder:
    from ipse.encoders import DlibFaceEncoder, OnnxFaceEncoder

    if name == "dlib":
        return DlibFaceEncoder(threads=1)
    if name == "pixels":
        from ipse.synth.sig import PixelEncoder

        return PixelEncoder()
    if name.endswith(".onnx"):
        return OnnxFaceEncoder(Path(name), threads=1)
    if name.endswith(".safetensors"):
        from ipse.encoders.trained import TrainedEncoder

        return TrainedEncoder(Path(name))
    raise DataError(f"There is no encoder {name!r}.", "Choose dlib, pixels, an .onnx file or a .safetensors file.")


def _print(found: Audit) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    low, high = found.eer_ci95
    console.print(
        f"{found.encoder} on {found.pictures:,} pictures of {found.people:,} people"
        f"{f' ({found.missed} without a face found)' if found.missed else ''}: equal error rate {found.eer:.2%} "
        f"({low:.2%} – {high:.2%})"
    )
    table = Table("Group", box=None, pad_edge=False, header_style="bold")
    for name in ("People", "Missed", "95 % over people", "More than others", "95 %"):
        table.add_column(name, justify="right")

    def shown(rate: GroupRate) -> tuple[str, str, str]:
        interval = f"{rate.ci95[0]:.1%} – {rate.ci95[1]:.1%}" if rate.ci95 else ""
        return str(rate.people), f"{rate.rate:.1%}", interval

    table.add_row("everybody", *shown(found.fnmr))
    for column, rates in found.by.items():
        for group, rate in rates.items():
            more, (least, most) = found.excess(column, group)
            style = "bold" if least > 0 or most < 0 else ""
            table.add_row(group, *shown(rate), f"{more:+.1%}", f"{least:+.1%} – {most:+.1%}", style=style)
    console.print(table)
    console.print(
        f"Missed: pairs of one person beyond {found.threshold:.4f}, where {found.fmr:g} of the pairs of two people are "
        "accepted. Bold: differs from the others by more than chance, if it were the only group looked at."
    )
    if not found.held_out:
        console.print("[yellow]The set was filtered by this encoder: that it tells these people apart is no merit.")
