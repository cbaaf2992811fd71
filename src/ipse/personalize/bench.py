"""The bench of personalization: a fixed set of people who do not exist, fixed prompts, and what makes the pictures.

Numbered people in their Looks and Shots make the set (``people.yaml``), so it is the same on every machine within one
version of the world and of the bench. `prepare` renders it, `make_pictures` lets a method make its pictures; both go on
where they were stopped. `ipse.personalize.scoring` measures them as it does pictures of any other tool.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipse._files import atomic_write
from ipse.errors import DataError
from ipse.images import read_image, save_png
from ipse.personalize.listing import MANIFEST
from ipse.personalize.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from ipse.faces import Detector
    from ipse.personalize.contract import Personalizer

VERSION = "1"
"""Of people, prompts and rules: figures of different versions cannot be compared."""

PEOPLE = Path(__file__).with_name("people.yaml")
PROMPTS = Path(__file__).with_name("prompts.yaml")
REFERENCES = (1, 4)
"""How many references a method can be shown of each person."""

_SET, _METHOD = "set.json", "method.json"
# Looks and Shots that references are taken from: another day before another picture of the same.
_SHOWN = ((0, 0), (1, 0), (0, 1), (1, 1))


@dataclass(frozen=True)
class BenchSet:
    """The people of the bench, rendered.

    Attributes
    ----------
    folder
        With one sub-folder for each person: ``reference-0.png`` …, and ``held-out-LOOK-SHOT.png``.
    record
        Versions, and how the set was chosen: JSON values.
    people
        By name of the sub-folder: facts of who somebody is, for the words of prompts.
    left_out
        People of whom no reference shows exactly one face.
    """

    folder: Path
    record: Mapping[str, Any]
    people: Mapping[str, Mapping[str, str]] = field(repr=False)
    left_out: Sequence[str] = ()

    def references(self, person: str) -> list[Path]:
        """The photographs of somebody that a method is shown."""
        return sorted((self.folder / person).glob("reference-*.png"))


def prompts() -> dict[str, Prompt]:
    """The prompts of the bench, by name."""
    return read_prompts(PROMPTS)


def prepare(
    folder: str | Path,
    detector: Detector,
    *,
    references: int = 1,
    people: int | None = None,
    start: int | None = None,
    workers: int | None = None,
) -> BenchSet:
    """Render the people of the bench; what is there already is not rendered again.

    References are those of four pictures of two Looks that show exactly one face, the first or all; held-out pictures
    are eight of four other Looks, whether a face is found in them or not.

    Parameters
    ----------
    folder
        Where pictures are kept.
    detector
        Finds the faces.
    references
        Of `REFERENCES`; with 4, somebody may have fewer.
    people, start
        In place of the bench's: fewer, or others, to try something out. Figures then are not the bench's.
    workers
        Processes that render; None for one per processor.

    Raises
    ------
    DataError
        If the folder cannot be written or holds something else, or nobody has a reference.
    """
    from ipse.world.dataset import read_dataset, write_dataset
    from ipse.world.recipe import Recipe
    from ipse.world.version import VERSION as WORLD

    if references not in REFERENCES:
        raise DataError(f"The bench has no {references} references.", f"Choose of {REFERENCES[0]} and {REFERENCES[1]}.")
    recipe = Recipe.load(PEOPLE).change(people=people, start=start)
    first, count = recipe.people.start, recipe.people.count
    home = Path(folder) / f"people-{first}-{count}-{references}"
    record = {
        "format": "ipse.bench/1", "version": VERSION, "world": WORLD, "references": references, "start": first,
        "count": count, "detector": detector.name,
    }  # fmt: skip
    if (home / _SET).exists():
        return _read_set(home, record)
    rendered = Path(folder) / f"world-{first}-{count}"
    write_dataset(recipe, rendered, workers=workers)
    shown: dict[str, dict[tuple[int, int], bytes]] = {}
    facts: dict[str, dict[str, str]] = {}
    for one in read_dataset(rendered).records():
        name = f"{one.person:06d}"
        place = one.group, one.attributes["shot"] % recipe.shots.count
        facts[name] = {key: one.attributes[key] for key in ("age_group", "gender")}
        shown.setdefault(name, {})
        if place in _SHOWN:
            shown[name][place] = one.image
        else:
            _write(home / name / f"held-out-{place[0]}-{place[1]}.png", one.image)
    left_out = []
    for name, pictures in shown.items():
        usable = [place for place in _SHOWN if len(detector.detect(read_image(pictures[place]))) == 1][:references]
        for number, place in enumerate(usable):
            _write(home / name / f"reference-{number}.png", pictures[place])
        if not usable:
            left_out.append(name)
    told = {name: known for name, known in facts.items() if name not in left_out}
    if not told:
        raise DataError("Of nobody in the set a reference shows one face.", "Choose more people, or another detector.")
    # Written last: a set without it is not complete.
    _write(home / _SET, json.dumps(record | {"people": told, "left_out": left_out}, indent=1).encode())
    return _read_set(home, record)


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Choose another folder.") from error


def _read_set(home: Path, record: Mapping[str, Any]) -> BenchSet:
    try:
        found = json.loads((home / _SET).read_text(encoding="utf-8"))
        people, left_out = found.pop("people"), found.pop("left_out")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{home / _SET} is damaged.", "Delete that folder: it will be made anew.") from error
    if found != record:
        raise DataError(f"{home} holds the people of another bench.", "Delete that folder, or choose another.")
    return BenchSet(home, record, people, left_out)


def make_pictures(
    method: Personalizer,
    bench: BenchSet,
    out: str | Path,
    *,
    prompts: Mapping[str, Prompt],
    strengths: Sequence[float] = (),
    n: int = 1,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Let a method make its pictures of the bench; those that are there already are not made again.

    For one person, prompt and number the noise is the same for all methods and strengths, and for each it is another.

    Parameters
    ----------
    method
        Keeps to the contract of `ipse.personalize.contract`.
    bench
        Of `prepare`.
    out
        Pictures go to a folder in it that is called as the method is, listed in its `MANIFEST`.
    prompts
        What is asked for. Those about more people than the method can show are left out.
    strengths
        By default the method's own.
    n
        Pictures of each person, prompt and strength: two or more for a figure of diversity.
    seed
        Another seed gives other pictures.
    settings
        What else decides the pictures, JSON values: a folder made with others is refused.
    on_progress
        Called with the number of pictures done and of all.

    Returns
    -------
    pathlib.Path
        The method's folder.

    Raises
    ------
    DataError
        If the folder holds pictures that were made otherwise, or cannot be written.
    IpseError
        What the method raises.
    """
    home = Path(out) / method.name
    chosen = tuple(strengths or method.strengths)
    _check_settings(home, method, bench, prompts, seed, dict(settings or {}))
    listed = _listed(home)
    plan = list(_plan(bench, prompts, method.most_people))
    done, total = 0, len(plan) * len(chosen) * n
    fitted: dict[tuple[str, ...], Any] = {}
    for people, prompt, number in plan:
        for strength in chosen:
            # Room for a thousand pictures of a prompt, a hundred prompts, and all people of the world.
            first = seed * 10**12 + number * 1000
            names = {first + i: _name(people, prompt, strength, first + i) for i in range(n)}
            missing = [s for s, name in names.items() if name not in listed]
            if missing:
                if people not in fitted:
                    fitted = {people: _fit(method, bench, people)}
                told, cost = fitted[people]
                words = prompt.of(*(bench.people[name] for name in people))
                made = told.generate(words, len(names) - (missing[0] - first), missing[0], strength)
                row = {"person": list(people), "prompt": prompt.name, "method": method.name, "strength": strength}
                row |= {"trained_with": list(method.trained_with), "fit_seconds": round(cost, 4)}
                for picture, seconds in _timed(made):
                    name = names[picture.seed]
                    if name in listed:
                        continue
                    save_png(picture.image, home / name, method.base.provenance(picture))
                    more = {"seed": picture.seed, "seconds": round(seconds, 4), "memory_mib": _memory()}
                    _append(home / MANIFEST, {"picture": name} | row | more)
            done += n
            if on_progress:
                on_progress(done, total)
    return home


def _plan(
    bench: BenchSet, prompts: Mapping[str, Prompt], most_people: int
) -> Iterator[tuple[tuple[str, ...], Prompt, int]]:
    """Who is shown by which prompt, and a number for each; people one after another, so that each is fitted once."""
    names = list(bench.people)
    # Prompts about more people come last; a prompt keeps its number where others are left out.
    order = sorted(enumerate(prompts.values()), key=lambda numbered: numbered[1].people)
    for place, name in enumerate(names):
        for index, prompt in order:
            people = tuple(names[(place + i) % len(names)] for i in range(prompt.people))
            if prompt.people <= most_people and prompt.suits(bench.people[name]) and len(set(people)) == prompt.people:
                yield people, prompt, place * 100 + index


def _fit(method: Personalizer, bench: BenchSet, people: Sequence[str]) -> tuple[Any, float]:
    """The method on some people, and the seconds it took."""
    photographs = [[read_image(path) for path in bench.references(name)] for name in people]
    began = time.perf_counter()
    return method.fit(*photographs), time.perf_counter() - began


def _timed(made: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """What is made, and the seconds that each took."""
    began = time.perf_counter()
    for one in made:
        yield one, time.perf_counter() - began
        began = time.perf_counter()


def _name(people: Sequence[str], prompt: Prompt, strength: float, seed: int) -> str:
    return f"{strength:g}/{'+'.join(people)}--{prompt.name}--{seed}.png"


def _memory() -> int:
    """The most memory that was in use, MiB: of a GPU where there is one, otherwise of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10))


def _check_settings(
    home: Path,
    method: Personalizer,
    bench: BenchSet,
    prompts: Mapping[str, Prompt],
    seed: int,
    settings: dict[str, object],
) -> None:
    words = json.dumps([asdict(prompt) for prompt in prompts.values()], sort_keys=True)
    record = {
        "method": method.name,
        "base": method.base.fingerprint,
        "people": dict(bench.record),
        "prompts": hashlib.sha256(words.encode()).hexdigest(),
        "seed": seed,
        "settings": settings,
    }
    path = home / _METHOD
    if not path.exists():
        _write(path, json.dumps(record, indent=1).encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged.", "Delete that folder: its pictures will be made anew.") from error
    if different := [key for key, value in record.items() if found.get(key) != value]:
        raise DataError(
            f"{home} holds pictures made with other {', '.join(different)}.", "Choose another folder by --out."
        )


def _listed(home: Path) -> set[str]:
    """The pictures that are there and in the manifest; a line that was cut off is dropped from it."""
    path = home / MANIFEST
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        _write(path, "".join(lines[:-1]).encode())
        lines.pop()
    try:
        names = {json.loads(line)["picture"] for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged.", "Delete that folder: its pictures will be made anew.") from error
    return {name for name in names if (home / name).exists()}


def _append(path: Path, row: Mapping[str, object]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
