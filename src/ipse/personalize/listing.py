"""What is to be scored: pictures as a manifest or their names list them, and photographs of the people in folders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipse.errors import DataError
from ipse.images import image_files

MANIFEST = "manifest.jsonl"
"""The file that lists the pictures of a folder, a JSON object a line; see `read_pictures`."""

_NAMED = re.compile(r"(?P<person>.+?)--(?P<prompt>.+?)(?:--(?P<seed>\d+))?")
_FOLDER = re.compile(r"(?P<method>.+)@(?P<strength>\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Made:
    """A picture that a method made, as it is listed.

    Attributes
    ----------
    path
        The file.
    people
        Whom it is to show: names of their folders of photographs.
    prompt
        Name or text of its prompt.
    seed
        What it was made from, or None.
    method, strength
        What made it, and how much the person counted.
    trained_with
        Fingerprints of what the method was trained with.
    costs
        ``seconds``, ``fit_seconds`` and ``memory_mib`` where they are known.
    """

    path: Path
    people: tuple[str, ...]
    prompt: str
    seed: int | None = None
    method: str = "pictures"
    strength: float = 1.0
    trained_with: tuple[str, ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Photograph:
    """A real picture of somebody; `shown` if the method was given it as a reference."""

    path: Path
    person: str
    shown: bool


@dataclass(frozen=True)
class Problem:
    """What could not be used, and why."""

    place: str
    what: str


def read_pictures(folder: str | Path) -> tuple[list[Made], list[Problem]]:
    """What a folder says of its pictures.

    Every file ``manifest.jsonl`` in it lists pictures, an object a line: ``picture`` (a path from the manifest's
    folder), ``person`` (a name, or a list of names), ``prompt`` (the name or the text of one), and perhaps ``seed``,
    ``method``, ``strength``, ``trained_with`` (a list of fingerprints), ``seconds``, ``fit_seconds``, ``memory_mib``.
    Of several lines about one picture the last counts.

    Without a manifest, pictures are called ``PERSON--PROMPT--SEED.png`` (the seed may be missing, people of one picture
    are joined by ``+``), and lie in folders ``METHOD@STRENGTH``, or in none.

    Returns
    -------
    tuple
        Pictures, whether the files exist or not; and the lines and names that say nothing.

    Raises
    ------
    DataError
        If the folder is missing or holds no pictures.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.", "Name a folder of pictures.")
    manifests = sorted(root.rglob(MANIFEST))
    problems: list[Problem] = []
    found: dict[Path, Made] = {}
    for manifest in manifests:
        try:
            lines = manifest.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{manifest} cannot be read: {error}.", "It is text, a JSON object a line.") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                made = _listed(json.loads(line), manifest.parent)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problems.append(Problem(f"{manifest}, line {number}", f"It lists no picture: {error}."))
                continue
            found[made.path] = made
    if not manifests:
        for path in image_files(root):
            named = _NAMED.fullmatch(path.stem)
            if named is None:
                problems.append(Problem(str(path), "Its name is not PERSON--PROMPT--SEED, and there is no manifest."))
                continue
            place = _FOLDER.fullmatch(path.parent.name) if path.parent != root else None
            more = {"method": place["method"], "strength": float(place["strength"])} if place else {}
            seed = None if named["seed"] is None else int(named["seed"])
            found[path] = Made(path, tuple(named["person"].split("+")), named["prompt"], seed, **more)
    if not found:
        raise DataError(
            f"{root} holds no pictures that can be scored.",
            problems[0].what if problems else f"List them in {MANIFEST}, or call them PERSON--PROMPT--SEED.png.",
        )
    return list(found.values()), problems


def _listed(row: Any, folder: Path) -> Made:
    if missing := {"picture", "person", "prompt"} - row.keys():
        raise ValueError(f"{', '.join(sorted(missing))} is missing")
    people = [row["person"]] if isinstance(row["person"], str) else list(row["person"])
    if not people or not all(isinstance(name, str) for name in (*people, row["picture"], row["prompt"])):
        raise ValueError("picture, person and prompt are texts")
    costs = {name: float(row[name]) for name in ("seconds", "fit_seconds", "memory_mib") if name in row}
    seed = row.get("seed")
    return Made(
        folder / row["picture"], tuple(people), row["prompt"], None if seed is None else int(seed),
        str(row.get("method", "pictures")), float(row.get("strength", 1.0)),
        tuple(map(str, row.get("trained_with", ()))), costs,
    )  # fmt: skip


def read_people(folder: str | Path) -> list[Photograph]:
    """Photographs of people: a sub-folder for each, called as they are.

    Files whose name begins with ``reference`` were shown to the method; where there are none, the first by name was.
    The others are held out: the method has not seen them.

    Raises
    ------
    DataError
        If the folder is missing or no sub-folder holds a picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.", "Name a folder with one sub-folder of photographs per person.")
    found = []
    for place in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        files = list(image_files(place))
        shown = {path for path in files if path.name.startswith("reference")} or set(files[:1])
        found += [Photograph(path, place.name, path in shown) for path in files]
    if not found:
        raise DataError(
            f"{root} holds no photographs of people.", "Put those of each person into a sub-folder of their name."
        )
    return found
