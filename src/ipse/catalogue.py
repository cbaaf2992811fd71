"""The catalogue: every published system that works here, with its paper and its evidence.

A system is one function or class under the decorator `system`. The catalogue is read from the source code, so listing
it imports no room and needs no optional dependency; that is why the decorator's arguments must be literals.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ipse.errors import DataError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

STATUSES = ("works", "experimental")
"""``works``: its evidence shows what `works_means` asks for; ``experimental``: it runs, but that is not shown yet."""


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
"""Where the benchmarks of a source tree write; an installed package has no such folder."""


@dataclass(frozen=True)
class System:
    """A published method and what shows that it works here.

    Parameters
    ----------
    name
        The method's short name, as its paper has it.
    paper
        Title of the paper.
    year
        Year of publication.
    arxiv
        arXiv number, such as ``"2312.04461"``; empty if there is none.
    room
        The room it lives in, such as ``"personalize"``.
    claim
        What the paper says the method does, in one sentence.
    evidence
        Names of figures in ``benchmarks/results/``, such as ``"world.rank1_same_look"``. A name ending in ``.*`` stands
        for all that start so.
    works_means
        What those figures must show for the method to count as working.
    status
        ``"works"`` or ``"experimental"``.
    target
        ``module:attribute`` of the code; filled in by the catalogue.
    """

    name: str
    paper: str
    year: int
    arxiv: str
    room: str
    claim: str
    evidence: tuple[str, ...] = ()
    works_means: str = ""
    status: str = "works"
    target: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", tuple(self.evidence))
        for name in ("name", "paper", "room", "claim"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise ValueError(f"A system needs a {name}.")
        if self.status not in STATUSES:
            raise ValueError(f"Status {self.status!r} of {self.name} is none of {', '.join(STATUSES)}.")
        if self.status == "works" and not self.evidence:
            raise ValueError(f"{self.name} is said to work, so it needs evidence.")


def system(
    *,
    name: str,
    paper: str,
    year: int,
    arxiv: str = "",
    room: str,
    claim: str,
    evidence: Sequence[str] = (),
    works_means: str = "",
    status: str = "works",
) -> Callable[[Decorated], Decorated]:
    """Enter a function or class into the catalogue; it gains the attribute ``__system__``.

    All arguments are as in `System` and must be literals, because `systems` reads them from the source.

    Raises
    ------
    ValueError
        If the entry is incomplete.
    """

    def enter(thing: Decorated) -> Decorated:
        target = f"{thing.__module__}:{thing.__qualname__}"
        thing.__system__ = System(  # type: ignore[attr-defined]
            name, paper, year, arxiv, room, claim, tuple(evidence), works_means, status, target
        )
        return thing

    return enter


def systems(package: str | os.PathLike[str] | None = None) -> list[System]:
    """List the systems of a package, by room and name, without importing it.

    Parameters
    ----------
    package
        A package's folder; by default that of ipse.

    Raises
    ------
    DataError
        If an entry cannot be read: an argument is not a literal or is missing, or a name is used twice.
    """
    root = Path(package) if package is not None else Path(__file__).parent
    found: dict[str, System] = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        # Parsing is slow and most files hold no system.
        if "@system(" not in text and "catalogue.system(" not in text:
            continue
        relative = path.relative_to(root).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        module = ".".join((root.name, *parts))
        for entry in _entries(ast.parse(text), module, path):
            if entry.name in found:
                raise DataError(
                    f"The catalogue has {entry.name} twice: {found[entry.name].target} and {entry.target}.",
                    "Rename or remove one.",
                )
            found[entry.name] = entry
    return sorted(found.values(), key=lambda entry: (entry.room, entry.name.lower()))


def figures(results: str | os.PathLike[str] | None = None) -> dict[str, dict[str, Any]]:
    """Read the figures that benchmarks wrote.

    Parameters
    ----------
    results
        The folder with the ``*.json`` files; by default ``benchmarks/results`` of the source tree that ipse runs
        from. An installed package has none, which is no error.

    Returns
    -------
    dict
        Figure by name: ``value``, ``unit``, ``n``, ``ci95``, ``against``, ``note``, as `ipse.measure.evidence` writes
        them.

    Raises
    ------
    DataError
        If a file is damaged, or two files hold a figure of one name.
    """
    folder = Path(results) if results is not None else RESULTS
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            entries = {figure["name"]: figure for figure in json.loads(path.read_text(encoding="utf-8"))["figures"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no figures: {error}.", "Run its benchmark again.") from error
        if twice := sorted(entries.keys() & found.keys()):
            raise DataError(f"{path} repeats the figure {twice[0]} of another file.", "Figure names must be unique.")
        found |= entries
    return found


def evidence_of(entry: System, available: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Pick a system's figures, in the order in which it names them, out of those that `figures` read."""
    picked = []
    for name in entry.evidence:
        if name.endswith(".*"):
            picked += [figure for key, figure in sorted(available.items()) if key.startswith(name[:-1])]
        elif name in available:
            picked.append(available[name])
    return picked


def _entries(tree: ast.Module, module: str, path: Path) -> list[System]:
    """Read the decorated functions and classes of one module."""
    entries = []
    scopes: list[tuple[str, ast.AST]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in ast.iter_child_nodes(scope):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if isinstance(node, ast.ClassDef):
                scopes.append((f"{prefix}{node.name}.", node))
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and _called(call) == "system":
                    entries.append(_entry(call, f"{module}:{prefix}{node.name}", path))
    return entries


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _entry(call: ast.Call, target: str, path: Path) -> System:
    try:
        arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        unknown = arguments.keys() - {field.name for field in fields(System)}
        if unknown or call.args:
            raise ValueError("only the named arguments of ipse.catalogue.system are allowed")
        arguments.setdefault("arxiv", "")
        return System(**arguments, target=target)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"The catalogue entry of {target} ({path.name}, line {call.lineno}) cannot be read: {error}.",
            "Give every argument of @system by name, as a literal.",
        ) from error
