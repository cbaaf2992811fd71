"""Recipes: what a data set of the world is made of, in one value that a YAML file holds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ipse.errors import DataError, WorldError
from ipse.world.look import Look, look
from ipse.world.person import Person, person
from ipse.world.render import SIZES
from ipse.world.shot import Shot, shot
from ipse.world.values import Value, unknown

TRUTH: dict[str, str] = {
    "parts": "segmentation, 8-bit PNG, one class number per pixel",
    "depth": "16-bit PNG, millimeters along the camera's axis, 0 where the background is",
    "normals": "8-bit RGB PNG, world axes -1..1 as 0..255; 128, 128, 128 where the background is",
    "uv": "16-bit PNG of double height, u above v, 1..65535 for 0..1; 0 where there is no skin of the body",
}
"""Maps of the truth that a data set can hold beside its landmarks, boxes and cameras, and how they are stored."""

FORMATS = ("png", "jpeg")
"""How pictures can be stored."""

# Numbers of Looks and Shots under one seed: far more than a data set needs, few enough for 64 bits.
_LOOKS_PER_SEED = 10_000
_SHOTS_PER_SEED = 10**12


@dataclass(frozen=True)
class PeoplePlan:
    """Who is in the data set: people number `start` to `start + count - 1`.

    Attributes:
        count: how many.
        start: the first one's number.
        balance: any of ``age``, ``gender``, ``skin``, spread evenly; see `ipse.world.balanced_people`.
        fix, ranges: see `ipse.world.person`.
    """

    count: int = 100
    start: int = 0
    balance: tuple[str, ...] = ()
    fix: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LooksPlan:
    """What people wear.

    Attributes:
        count: Looks per person.
        fix, ranges: see `ipse.world.look`.
    """

    count: int = 2
    fix: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShotsPlan:
    """How pictures are taken.

    Attributes:
        count: Shots per Look.
        hard: stronger turns, worse light, occluders and spoiled pictures.
        fix, ranges: see `ipse.world.shot`.
    """

    count: int = 6
    hard: bool = False
    fix: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImagePlan:
    """How pictures are stored.

    Attributes:
        format: ``png`` (exact) or ``jpeg`` (a fifth of the size).
        quality: of JPEG, 1..100.
    """

    format: str = "png"
    quality: int = 92


@dataclass(frozen=True)
class Recipe:
    """What a data set is made of. Equal recipes make equal data sets, byte for byte.

    Person p of the data set wears Looks ``seed * 10_000 + l`` (l = 0 … looks.count - 1), and picture k of it takes Shot
    ``seed * 10**12 + (p * looks.count + l) * shots.count + k``, so no two pictures have the same Shot.

    Attributes:
        name: what the data set is called.
        framing: ``portrait``, ``bust``, ``person`` or ``ear``.
        size: pixels, one number for squares or (width, height); None for `ipse.world.SIZES`.
        seed: another seed gives the same people other Looks and other Shots.
        people, looks, shots: who, in what, and how they are taken.
        image: how pictures are stored.
        truth: maps stored with every picture, of `TRUTH`.
        captions: captions per picture, 0..20; a picture that shows little may have fewer.
        shard_people: people per file.

    Raises:
        WorldError: when constructed with anything that cannot be.
    """

    name: str = "people"
    framing: str = "portrait"
    size: int | tuple[int, int] | None = None
    seed: int = 0
    people: PeoplePlan = field(default_factory=PeoplePlan)
    looks: LooksPlan = field(default_factory=LooksPlan)
    shots: ShotsPlan = field(default_factory=ShotsPlan)
    image: ImagePlan = field(default_factory=ImagePlan)
    truth: tuple[str, ...] = ("parts",)
    captions: int = 3
    shard_people: int = 25

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise WorldError(f"The recipe's name is {self.name!r}; it must be a text that is not empty.")
        if self.framing not in SIZES:
            raise unknown("The recipe's framing cannot be", self.framing, SIZES)
        if self.size is not None:
            sides = (self.size,) if isinstance(self.size, int) else tuple(_sequence(self.size, "size"))
            if len(sides) not in (1, 2):
                raise WorldError(f"The recipe's size is {self.size!r}; it must be one number or [width, height].")
            for side in sides:
                _whole(side, "size", 16, 4096)
            object.__setattr__(self, "size", sides if len(sides) == 2 else sides[0])
        _whole(self.seed, "seed", 0, 1_000_000)
        _whole(self.people.count, "people.count", 1, 10_000_000)
        _whole(self.people.start, "people.start", 0, 10_000_000)
        _whole(self.looks.count, "looks.count", 1, _LOOKS_PER_SEED)
        _whole(self.shots.count, "shots.count", 1, 1_000_000)
        last = (self.people.start + self.people.count) * self.looks.count * self.shots.count
        if last > _SHOTS_PER_SEED:
            raise WorldError(f"The recipe needs Shot numbers up to {last:,}; a seed has {_SHOTS_PER_SEED:,}.")
        if not isinstance(self.shots.hard, bool):
            raise WorldError(f"The recipe's shots.hard is {self.shots.hard!r}; it must be true or false.")
        if self.image.format not in FORMATS:
            raise unknown("The recipe's image.format cannot be", self.image.format, FORMATS)
        _whole(self.image.quality, "image.quality", 1, 100)
        _whole(self.captions, "captions", 0, 20)
        _whole(self.shard_people, "shard_people", 1, 100_000)
        chosen = _sequence(self.truth, "truth")
        for name in chosen:
            if name not in TRUTH:
                raise unknown("The recipe's truth cannot hold", name, TRUTH)
        # In the order of the table, so that the order in which they are asked for makes no other data set.
        object.__setattr__(self, "truth", tuple(name for name in TRUTH if name in chosen))
        balance = tuple(_sequence(self.people.balance, "people.balance"))
        object.__setattr__(self, "people", dataclasses.replace(self.people, balance=balance))
        for part in ("people", "looks", "shots"):
            plan = getattr(self, part)
            for name in ("fix", "ranges"):
                given = getattr(plan, name)
                if not isinstance(given, Mapping):
                    raise WorldError(f"The recipe's {part}.{name} is {given!r}; it must be a mapping of dotted fields.")
                plan = dataclasses.replace(plan, **{name: _plain(given)})
            object.__setattr__(self, part, plan)
        # Drawn once, so that an unknown garment or an impossible number is told before the first picture.
        first = self.person(self.people.start)
        self.look(first, 0)
        self.shot(first, 0, 0)

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        if self.size is None:
            return SIZES[self.framing]
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def pictures(self) -> int:
        """How many pictures the data set has."""
        return self.people.count * self.looks.count * self.shots.count

    def person(self, number: int) -> Person:
        """Person `number` as the recipe wants people."""
        plan = self.people
        return person(number, fix=plan.fix, ranges=plan.ranges, balance=plan.balance)

    def look_number(self, index: int) -> int:
        """The number of a person's Look; `index` counts from 0."""
        return self.seed * _LOOKS_PER_SEED + index

    def look(self, who: Person, index: int) -> Look:
        """A person's Look; `index` counts from 0."""
        return look(self.look_number(index), who, fix=self.looks.fix, ranges=self.looks.ranges)

    def shot_number(self, who: Person, look_index: int, index: int) -> int:
        """The number of a picture's Shot: no other picture under any seed has it."""
        place = (who.number * self.looks.count + look_index) * self.shots.count + index
        return self.seed * _SHOTS_PER_SEED + place

    def shot(self, who: Person, look_index: int, index: int) -> Shot:
        """The Shot of picture `index` of a person in a Look."""
        plan = self.shots
        number = self.shot_number(who, look_index, index)
        return shot(number, self.framing, hard=plan.hard, fix=plan.fix, ranges=plan.ranges)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, as a YAML file holds them."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A recipe from what a YAML file holds. Absent keys take their defaults; `looks: 2` is short for its count."""
        given = dict(_section(cls, data, "A recipe"))
        for name, kind in (("people", PeoplePlan), ("looks", LooksPlan), ("shots", ShotsPlan), ("image", ImagePlan)):
            if name in given and not isinstance(given[name], kind):
                short = isinstance(given[name], int) and name != "image"
                section = {"count": given[name]} if short else given[name]
                given[name] = kind(**_section(kind, section, f"The recipe's {name}"))
        return cls(**given)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a recipe from a YAML file.

        Raises:
            DataError: for a file that cannot be read or is not YAML.
            WorldError: for a recipe that cannot be.
        """
        import yaml

        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"The recipe {path} cannot be read: {error.strerror}.", "Name a YAML file.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"The recipe {path} is not YAML: {error}.", "See recipes/world/ for examples.") from error
        return cls.from_dict({} if data is None else data)

    def change(
        self,
        *,
        people: int | None = None,
        looks: int | None = None,
        shots: int | None = None,
        balance: Sequence[str] = (),
        framing: str | None = None,
        size: int | tuple[int, int] | None = None,
        start: int | None = None,
        seed: int | None = None,
    ) -> Self:
        """A copy with some numbers changed; what is None or empty stays as it is."""

        def some(**given: Any) -> dict[str, Any]:
            return {name: value for name, value in given.items() if value is not None}

        return dataclasses.replace(
            self,
            people=dataclasses.replace(
                self.people, **some(count=people, start=start, balance=tuple(balance) if balance else None)
            ),
            looks=dataclasses.replace(self.looks, **some(count=looks)),
            shots=dataclasses.replace(self.shots, **some(count=shots)),
            **some(framing=framing, size=size, seed=seed),
        )


def _section(kind: type, data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise WorldError(f"{where} is {data!r}; it must be a mapping of keys.")
    names = [entry.name for entry in dataclasses.fields(kind)]
    for key in data:
        if key not in names:
            raise unknown(f"{where} has no key", key, names)
    return data


def _whole(value: Any, label: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise WorldError(f"The recipe's {label} is {value!r}; it must be a whole number from {low:,} to {high:,}.")


def _sequence(value: Any, label: str) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise WorldError(f"The recipe's {label} is {value!r}; it must be a list.")
    return list(value)


def _plain(value: Any) -> Any:
    """The value in the types of JSON."""
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
