"""``ipse bench``: methods held against each other on fixed sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.bench_reid import reid
from ipse.cli.picturing import STEPS, BaseName, Guidance
from ipse.cli.recognizing import AsJson, DetectorFile, Workers, progress
from ipse.cli.score import DLIB, IdentityJudge, JudgeName, make_observer, measured, tell
from ipse.errors import IpseError

bench = typer.Typer(add_completion=False, no_args_is_help=True, help="Hold methods against each other on fixed sets.")
bench.command()(reid)


@bench.callback()
def _bench() -> None:
    """Hold methods against each other on fixed sets."""


@bench.command("personalize")
def personalize(
    method: Annotated[list[str], typer.Option(help="A method by name; several are named one by one.")],
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD=FILE", help="A method's trained part, where it does not come with ipse."),
    ] = None,
    base: BaseName = "world",
    out: Annotated[Path, typer.Option(help="Folder of people, pictures and scores.")] = Path("out/personalize"),
    judge: JudgeName = None,
    references: Annotated[int, typer.Option(help="Photographs that are shown of each person: 1 or 4.")] = 1,
    strength: Annotated[
        list[float] | None, typer.Option(help="How much the person counts; by default each method's own sweep.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Pictures of each person, prompt and strength.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Another gives other pictures.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="More are slower and finer.")] = STEPS,
    guidance: Guidance = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Others than the bench's; figures then are not the bench's.")
    ] = None,
    people: Annotated[int | None, typer.Option(min=2, help="Fewer than the bench's, to try it out.")] = None,
    start: Annotated[int | None, typer.Option(min=0, help="Number of the first, in place of the bench's.")] = None,
    workers: Workers = None,
    encoder: IdentityJudge = DLIB,
    detector: DetectorFile = None,
    results: Annotated[Path | None, typer.Option(help="Folder for personalize.json, in the form of evidence.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure methods that show a person by photographs and words, on a fixed set of people who do not exist.

    People are rendered and pictures made once; a run that was stopped goes on by the same command. All methods whose
    pictures are in the folder are scored together. Name `bare` too: what identity costs of the prompt is told against
    the base by itself.

    Examples:
      ipse bench personalize --method bare

      ipse bench personalize --method bare --people 4 --start 0 -n 1 --out try     a look, with other people

      ipse bench personalize --method bare --method instantid --adapter instantid=runs/instantid/instantid.safetensors

    Exit status: 0 measured, 2 wrong input, 1 the machine failed.
    """
    from ipse.diffusion import load_base
    from ipse.measure.personalization import refuse_judges
    from ipse.personalize import bench as benches
    from ipse.personalize import open_method
    from ipse.personalize.listing import read_people, read_pictures
    from ipse.personalize.prompts import read_prompts
    from ipse.personalize.scoring import add_evidence

    asked = read_prompts(prompts) if prompts else benches.prompts()
    loaded = load_base(base)
    height, width = loaded.size
    if height != width:
        raise IpseError(
            f"The base {loaded.name} makes pictures of whole bodies, {width} × {height} pixels; the bench is of faces.",
            "Name a base of portraits, such as world.",
        )
    observer = make_observer(encoder, detector, judge or ("world" if loaded.words else None), out / "seen.sqlite")
    parts = _parts(adapter or [], method)
    methods = [
        open_method(name, loaded, adapter=parts.get(name), steps=steps, guidance=guidance)
        for name in dict.fromkeys(method)
    ]
    # Before hours are spent on pictures that nobody may judge.
    refuse_judges({one.name: one.trained_with for one in methods}, observer.judges)
    chosen = benches.prepare(out, observer.detector, references=references, people=people, start=start, workers=workers)
    home = out / f"pictures-{chosen.folder.name}"
    settings = {"steps": steps, "guidance": guidance}
    for one in methods:
        with progress(f"Pictures by {one.name}") as told:
            benches.make_pictures(
                one, chosen, home, prompts=asked, strengths=strength or (), n=n, seed=seed, settings=settings,
                on_progress=told,
            )  # fmt: skip
    pictures, problems = read_pictures(home)
    scores = measured(pictures, read_people(chosen.folder), asked, observer, problems)
    tell(scores, out / f"scores-{chosen.folder.name}", as_json)
    if results:
        from ipse.measure import Evidence

        evidence = Evidence("personalize", seeds=[seed])
        add_evidence(scores, evidence)
        typer.echo(evidence.write(results, update=True))


def _parts(given: list[str], methods: list[str]) -> dict[str, Path]:
    """Trained parts by method."""
    parts = {}
    for one in given:
        name, _, file = one.partition("=")
        if name not in methods or not file:
            raise IpseError(f"{one!r} names no part of a method that is measured.", "Write --adapter METHOD=FILE.")
        parts[name] = Path(file)
    return parts
