"""The command `ipse`: a table of verbs, each in a module of its own that is imported only when the verb is used."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import ipse
from ipse.errors import IpseError


class Verb(NamedTuple):
    """Where a verb lives, and its line in ``ipse --help``."""

    target: str
    """``module:attribute``, the attribute being a `typer.Typer` or a plain function."""
    help: str


VERBS = {
    "adapter": Verb("ipse.cli.adapter:adapter", "Look into files of identity adapters, and write them anew."),
    "bench": Verb("ipse.cli.bench:bench", "Hold methods against each other on fixed sets."),
    "cluster": Verb("ipse.cli.cluster:cluster", "Sort the faces of photographs into people nobody has named."),
    "demo": Verb("ipse.cli.demo:demo", "See what ipse does, in pictures and a page."),
    "describe": Verb("ipse.cli.describe:describe", "Tell what can be seen of the faces in photographs."),
    "enroll": Verb("ipse.cli.enroll:enroll", "Remember somebody from photographs."),
    "export": Verb("ipse.cli.export:export", "Write a trained network as ONNX, checked against its weights."),
    "evaluate": Verb("ipse.cli.evaluate:evaluate", "Measure how well features find their people."),
    "find": Verb("ipse.cli.find:find", "Find the people you enrolled in photographs and videos."),
    "gallery": Verb("ipse.cli.gallery:gallery", "See, calibrate, move and clear what is remembered."),
    "generate": Verb("ipse.cli.generate:generate", "Pictures from words, each with its provenance."),
    "inpaint": Verb("ipse.cli.inpaint:inpaint", "Paint a part of a picture anew."),
    "invert": Verb("ipse.cli.invert:invert", "Find what a base would make a picture from, to change it."),
    "label": Verb("ipse.cli.label:label", "Name the people on photographs by answering few questions."),
    "score": Verb("ipse.cli.score:score", "Do made pictures show who and what they should?"),
    "systems": Verb("ipse.cli.systems:systems", "List the published systems that work here, with their evidence."),
    "synth": Verb("ipse.cli.synth:synth", "Evaluation sets of faces and labeled bodies, and audits with them."),
    "train": Verb("ipse.cli.train:train", "Train encoders and other networks by recipes."),
    "verify": Verb("ipse.cli.verify:verify", "Are these two photographs of one person?"),
    "world": Verb("ipse.cli.world:world", "People who do not exist: pictures, truth and data sets."),
}
"""Every verb of the command line. To add one, write its module and add its line here."""


class _Verbs(TyperGroup):
    """A group whose commands are known by name and help line, and loaded when called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, verb in VERBS.items():
            self.add_command(TyperCommand(name, help=verb.help), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name in VERBS else command, rest


def _load(name: str) -> Any:
    """Import a verb's module and make its command."""
    module, _, attribute = VERBS[name].target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(found)
        found = app
    return get_command(found)


app = typer.Typer(cls=_Verbs, no_args_is_help=True, add_completion=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ipse {ipse.__version__}")
        raise typer.Exit()


@app.callback()
def _ipse(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Human identity in images: recognize, generate, measure, guard."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process.

    Parameters
    ----------
    arguments
        What follows ``ipse``; by default that of the process.

    Raises
    ------
    SystemExit
        With code 0 when all is well, 2 for input or usage that cannot be accepted, 1 when the machine failed us (a
        full disk, no memory), 130 on Ctrl-C. An error of ipse itself is raised as it is, with its traceback.
    """
    try:
        get_command(app)(args=arguments, prog_name="ipse")
    except IpseError as error:
        _fail(str(error), 2)
    except (OSError, MemoryError) as error:
        _fail(str(error) or "Out of memory.", 1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _fail(message: str, code: int) -> None:
    """Print one line on the error stream and exit."""
    from rich.console import Console
    from rich.text import Text

    # soft_wrap keeps the message one line, for terminals to fold and for programs to read.
    Console(stderr=True).print(Text.assemble(("ipse: ", "bold red"), " ".join(message.split())), soft_wrap=True)
    sys.exit(code)
