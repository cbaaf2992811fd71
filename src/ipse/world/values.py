"""What Person, Look and Shot have in common: validated, immutable values that become JSON and come back unchanged.

A value is a frozen dataclass whose annotations say what is allowed::

    @dataclass(frozen=True, slots=True)
    class Iris(Value):
        ring: Annotated[float, Range(0, 1)] = 0.5

The annotations are read once per class; every construction then converts (lists to tuples, mappings to nested values,
color names to colors) and checks. So `from_dict` is nothing but construction, and there is no second description to
keep in step.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

import numpy as np

from ipse.errors import WorldError
from ipse.world.colors import nearest

RGB = tuple[float, float, float]
Converter = Callable[[Any, str], Any]


@dataclass(frozen=True, slots=True)
class Range:
    """Annotation of a number: the closed interval it lies in."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OneOf:
    """Annotation of a string: the names it may be."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Annotation of `Numbers`: the keys it may have (None: any) and the range of its values."""

    names: frozenset[str] | None
    low: float
    high: float


# Compared by identity: a dictionary has no hash.
@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Annotation of a `Color`: the named colors it is chosen from, sRGB in 0..1."""

    colors: Mapping[str, RGB]


Unit = Annotated[float, Range(0, 1)]
Signed = Annotated[float, Range(-1, 1)]


class Numbers(Mapping[str, float]):
    """An immutable, hashable mapping from names to numbers, kept as pairs sorted by name."""

    __slots__ = ("_lookup", "_pairs")

    def __init__(self, numbers: Mapping[str, float] | Iterable[tuple[str, float]] = ()) -> None:
        self._lookup = dict(sorted(dict(numbers).items()))
        self._pairs = tuple(self._lookup.items())

    @property
    def pairs(self) -> tuple[tuple[str, float], ...]:
        """The content as (name, number), sorted by name."""
        return self._pairs

    def __getitem__(self, name: str) -> float:
        return self._lookup[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lookup)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        return f"Numbers({self._lookup!r})"


#: A mapping with nothing in it.
NO_NUMBERS = Numbers()


class Value:
    """Base of all values of the world. See the module's docstring."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, label, convert in _converters(type(self)):
            given = getattr(self, name)
            converted = convert(given, label)
            if converted is not given:
                object.__setattr__(self, name, converted)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in _field_names(type(self))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The value `to_dict` was called on. Fields that are absent take their defaults."""
        if not isinstance(data, Mapping):
            raise WorldError(f"{cls.__name__} is read from a mapping of its fields, not from {data!r}.")
        names = _field_names(cls)
        for name in data:
            if name not in names:
                raise unknown(f"{cls.__name__} has no field", name, names)
        return cls(**data)

    def to_json(self) -> str:
        """One line of JSON with fields in their order of declaration: equal values give equal text."""
        return json.dumps(self.to_dict(), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The value `to_json` was called on."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise WorldError(f"This is not the JSON of a {cls.__name__}: {error}.") from error
        return cls.from_dict(data)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; dotted names reach inside: `look.replace(**{"hair.style": "long"})`."""
        direct: dict[str, Any] = {}
        inside: dict[str, dict[str, Any]] = {}
        for path, new in changes.items():
            name, _, rest = path.partition(".")
            if name not in _field_names(type(self)):
                raise unknown(f"{type(self).__name__} has no field", name, _field_names(type(self)))
            if rest:
                inside.setdefault(name, {})[rest] = new
            else:
                direct[name] = new
        for name, deeper in inside.items():
            label = f"{type(self).__name__}.{name}"
            if name in direct:
                raise WorldError(f"{label} is replaced both as a whole and in part ({', '.join(deeper)}); choose one.")
            old = getattr(self, name)
            if isinstance(old, Value):
                direct[name] = old.replace(**deeper)
            elif isinstance(old, Numbers):
                direct[name] = {**old, **deeper}
            else:
                raise WorldError(
                    f"{label} is {old!r} and has no {', '.join(deeper)} to replace; replace it as a whole."
                )
        return dataclasses.replace(self, **direct)


@dataclass(frozen=True, slots=True)
class Color(Value):
    """A color and the word for it. Fields that hold one accept a name, an sRGB triple or a `Color`."""

    name: str
    #: sRGB, gamma-encoded, 0..1.
    rgb: tuple[Unit, Unit, Unit]


def unknown(what: str, name: str, allowed: Iterable[str]) -> WorldError:
    """The error for a name that does not exist: lists the names that do, the likely one first."""
    names = list(allowed)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names[:60]) + (f" and {len(names) - 60} more" if len(names) > 60 else "")
    return WorldError(f"{what} {name!r}.{hint} There are: {listed}.")


class Leaf(NamedTuple):
    """What lies at a dotted path of a value class."""

    #: `number`, `numbers` (a mapping), `part` (a nested value) or `value` (anything else).
    kind: str
    #: Checks and converts what is to be stored there; the second argument is what errors call it.
    convert: Converter


@cache
def leaves(cls: type[Value]) -> Mapping[str, Leaf]:
    """Every dotted path of a value class, those inside its parts and mappings included."""
    found: dict[str, Leaf] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        base, note, _ = _read(hint)
        convert = _converter(hint)
        if isinstance(base, type) and issubclass(base, Value) and base is not Color:
            found[name] = Leaf("part", convert)
            found.update({f"{name}.{path}": leaf for path, leaf in leaves(base).items()})
        elif base is Numbers:
            found[name] = Leaf("numbers", convert)
            entry = _converter(Annotated[float, Range(note.low, note.high)])
            found.update({f"{name}.{key}": Leaf("number", entry) for key in sorted(note.names or ())})
        else:
            found[name] = Leaf("number" if base is float else "value", convert)
    return types.MappingProxyType(found)


@cache
def _field_names(cls: type[Value]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]


@cache
def _converters(cls: type[Value]) -> tuple[tuple[str, str, Converter], ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple((name, f"{cls.__name__}.{name}", _converter(hints[name])) for name in _field_names(cls))


def _read(hint: Any) -> tuple[Any, Any, bool]:
    """Split an annotation into its type, its note (`Range`, `OneOf`, …, or None) and whether None is allowed."""
    optional = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        optional, hint = True, options[0]
    if typing.get_origin(hint) is Annotated:
        base, note = typing.get_args(hint)
        return base, note, optional
    return hint, None, optional


def _converter(hint: Any) -> Converter:
    kind, note, optional = _read(hint)
    convert = _plain_converter(kind, note)
    if not optional:
        return convert
    return lambda given, label: None if given is None else convert(given, label)


def _plain_converter(kind: Any, note: Any) -> Converter:
    if typing.get_origin(kind) is tuple:
        return _tuple_converter(typing.get_args(kind))
    if kind is float:
        return lambda given, label: _number(given, label, note.low, note.high)
    if kind is int:
        return lambda given, label: _integer(given, label, note.low, note.high)
    if kind is str:
        return lambda given, label: _name(given, label, note)
    if kind is Numbers:
        return lambda given, label: _numbers(given, label, note)
    if kind is Color:
        return lambda given, label: _color(given, label, note)
    return lambda given, label: _nested(given, label, kind)


def _tuple_converter(parts: tuple[Any, ...]) -> Converter:
    if parts[-1] is Ellipsis:
        one = _converter(parts[0])

        def many(given: Any, label: str) -> tuple[Any, ...]:
            return tuple(one(item, f"{label}[{index}]") for index, item in enumerate(_sequence(given, label, None)))

        return many
    each = [_converter(part) for part in parts]

    def exactly(given: Any, label: str) -> tuple[Any, ...]:
        items = _sequence(given, label, len(each))
        return tuple(convert(item, f"{label}[{i}]") for i, (convert, item) in enumerate(zip(each, items, strict=True)))

    return exactly


def _sequence(given: Any, label: str, length: int | None) -> list[Any]:
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise WorldError(f"{label} is {given!r}; it must be a sequence.")
    items = list(given)
    if length is not None and len(items) != length:
        raise WorldError(f"{label} has {len(items)} entries; it must have {length}.")
    return items


def _number(given: Any, label: str, low: float, high: float) -> float:
    if type(given) is not float:
        if isinstance(given, bool) or not isinstance(given, (int, float, np.integer, np.floating)):
            raise WorldError(f"{label} is {given!r}; it must be a number from {low:g} to {high:g}.")
        given = float(given)
    # A NaN fails the comparison as well.
    if not low <= given <= high:
        raise WorldError(f"{label} is {given:g}; it must be from {low:g} to {high:g}.")
    return given


def _integer(given: Any, label: str, low: float, high: float) -> int:
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or not low <= given <= high:
        raise WorldError(f"{label} is {given!r}; it must be a whole number from {low:.0f} to {high:.0f}.")
    return int(given)


def _name(given: Any, label: str, note: OneOf | None) -> str:
    if not isinstance(given, str):
        raise WorldError(f"{label} is {given!r}; it must be a string.")
    if note is not None and given not in note.names:
        raise unknown(f"{label} cannot be", given, note.names)
    return given


def _numbers(given: Any, label: str, note: Keys) -> Numbers:
    if isinstance(given, Numbers):
        numbers = given
    elif isinstance(given, Mapping):
        numbers = Numbers(
            {key: _number(value, f"{label}[{key!r}]", note.low, note.high) for key, value in given.items()}
        )
    else:
        raise WorldError(f"{label} is {given!r}; it must be a mapping from names to numbers.")
    for key, number in numbers.pairs:
        if note.names is not None and key not in note.names:
            raise unknown(f"{label} has no entry", key, sorted(note.names))
        _number(number, f"{label}[{key!r}]", note.low, note.high)
    return numbers


def _color(given: Any, label: str, note: Palette) -> Color:
    if isinstance(given, str):
        if given not in note.colors:
            raise unknown(f"{label} cannot be", given, note.colors)
        return Color(given, note.colors[given])
    if isinstance(given, Mapping):
        given = Color.from_dict(given)
    if isinstance(given, Color):
        if given.name not in note.colors:
            raise unknown(f"{label} cannot be", given.name, note.colors)
        return given
    rgb = tuple(_number(item, label, 0, 1) for item in _sequence(given, label, 3))
    return Color(nearest(rgb, note.colors), rgb)  # type: ignore[arg-type]


def _nested(given: Any, label: str, kind: type[Value]) -> Value:
    if isinstance(given, kind):
        return given
    if isinstance(given, Mapping):
        return kind.from_dict(given)
    raise WorldError(f"{label} is {given!r}; it must be a {kind.__name__} or a mapping of its fields.")


def _plain(value: Any) -> Any:
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, Numbers):
        return dict(value.pairs)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def clip(value: float, low: float, high: float) -> float:
    """The value, moved into the closed interval."""
    return low if value < low else high if value > high else value


def mix(a: RGB, b: RGB, weight: float) -> RGB:
    """`a` at weight 0, `b` at weight 1, rounded so that it is the same on every machine."""
    return tuple(round(x + (y - x) * weight, 4) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def wrap_degrees(angle: float) -> float:
    """The same direction in -180..180."""
    return math.remainder(angle, 360.0)
