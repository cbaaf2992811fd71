"""``ipse score``: whether pictures of people show who and what they should, whoever made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipse.cli.recognizing import AsJson, DetectorFile, count, make_detector, printable, progress, wrote

if TYPE_CHECKING:
    from ipse.personalize.listing import Made, Photograph, Problem
    from ipse.personalize.observing import Observer
    from ipse.personalize.prompts import Prompt
    from ipse.personalize.scoring import Scores

JudgeName = Annotated[
    str | None,
    typer.Option(
        help="Tells what pictures show: `world` for the judge of world bases that comes with ipse, weights of "
        "recipes/base/judge.yaml, or an attribute network by name or file. Without one, prompt accuracy is not "
        "measured; the bench takes `world` for a base of the world."
    ),
]
IdentityJudge = Annotated[
    str, typer.Option("--encoder", help="Tells people apart: an encoder by name, or a network as ONNX file.")
]
DLIB = "dlib-face-128"
"""The encoder that tells people apart where nobody says: nothing here is trained with it."""


def score(
    folder: Annotated[Path, typer.Argument(help="Pictures that somebody made.", show_default=False)],
    who: Annotated[Path, typer.Option(help="Photographs, a sub-folder for each person.", show_default=False)],
    prompts: Annotated[Path, typer.Option(help="What was asked for: text, JSON or YAML.", show_default=False)],
    judge: JudgeName = None,
    encoder: IdentityJudge = DLIB,
    detector: DetectorFile = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.json, plot.png and index.html.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score pictures of people made by any tool: identity, copying, prompt, diversity, failures.

    FOLDER lists its pictures in manifest.jsonl, a line each, such as

    {"picture": "a.png", "person": "ada", "prompt": "smile", "seed": 1, "method": "instantid", "strength": 0.8}

    or calls them PERSON--PROMPT--SEED.png in folders METHOD@STRENGTH. Photographs whose names begin with "reference"
    were shown to the method, otherwise the first of each person; the others tell what is copied. In JSON and YAML a
    prompt has a `name`, a `text`, and in `asks` what a picture must show.

    Examples:
      ipse score pictures/ --who people/ --prompts prompts.txt

      ipse score pictures/ --who people/ --prompts prompts.yaml --judge attributes-world --out report

    Exit status: 0 scored, 2 wrong input, 1 the machine failed.
    """
    from ipse.personalize.listing import read_people, read_pictures
    from ipse.personalize.prompts import read_prompts

    pictures, problems = read_pictures(folder)
    photographs, asked = read_people(who), read_prompts(prompts)
    scores = measured(pictures, photographs, asked, make_observer(encoder, detector, judge), problems)
    tell(scores, out, as_json)


def make_observer(encoder: str, detector: Path | None, judge: str | None, memory: Path | None = None) -> Observer:
    """The judges that the options ask for, and the file that remembers what they saw."""
    from ipse.attributes.judge import open_judge
    from ipse.encoders import open_encoder
    from ipse.personalize.observing import Observer

    told = open_judge(judge) if judge else None
    return Observer(open_encoder(encoder, threads=1), make_detector(detector), told, memory)


def measured(
    pictures: list[Made],
    photographs: list[Photograph],
    prompts: dict[str, Prompt],
    observer: Observer,
    problems: list[Problem],
) -> Scores:
    """`ipse.personalize.scoring.score`, with a bar."""
    from ipse.personalize.scoring import score as run

    with progress("Looking at pictures") as told:
        return run(pictures, photographs, prompts, observer, problems, told)


def tell(scores: Scores, out: Path | None, as_json: bool) -> None:
    """Print scores, and write the files of `out`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ipse._files import atomic_write
    from ipse.personalize.page import plot, rows, write_page

    record = json.dumps(scores.to_json(), indent=2, ensure_ascii=False)
    if out:
        for name, content in (("scores.json", record.encode() + b"\n"), ("plot.png", plot(scores))):
            with atomic_write(out / name) as file:
                file.write(content)
        write_page(scores, out / "index.html")
    if as_json:
        typer.echo(record)
        return
    console = Console()
    heads, body = rows(scores)
    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for row in body:
        # Intervals go below, so that the table keeps to the width of a terminal.
        table.add_row(*(Text(cell.replace(" [", "\n[") if i else cell) for i, cell in enumerate(row)))
    console.print(table)
    for problem in scores.problems:
        console.print(Text(f"! {printable(problem.place)}: {problem.what}", style="yellow"), soft_wrap=True)
    pictures = sum(curve.pictures for curve in scores.curves)
    console.print(
        f"{count(pictures, 'picture')}, {count(len(scores.people), 'person', 'people')}; "
        f"judged by {' and '.join(scores.judges)}."
    )
    if out:
        console.print(wrote(out / "index.html"), soft_wrap=True)
