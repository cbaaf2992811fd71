"""Numbered chance: the same number gives the same draws on every machine, and every field has draws of its own.

A draw is addressed by (world version, kind, number, path of the field, index) and read out of SHAKE-256. No generator
is stepped, so fixing one field, or adding one in a later release, leaves the draws of all others alone; and nothing
depends on NumPy, whose `Generator` does not promise the same stream from release to release. What a draw is turned
into is rounded to four decimals, far above the last-digit differences between mathematics libraries.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

from ipse.errors import WorldError
from ipse.world.values import RGB, Color, Numbers, Value, clip, leaves, unknown
from ipse.world.version import VERSION

_NORMAL = NormalDist()
_UNIT = 2.0**-53
DIGITS = 4


class Draws:
    """Chance for one sampled value, with what the caller fixed and the ranges the caller asked for.

    Parameters
    ----------
    cls
        The class of the value: its paths are those that may be fixed.
    key
        What addresses the draws, such as ``("person", 7)``.
    fix
        Values by dotted path. A mapping or a nested value fixes each of its fields; None leaves an optional part out,
        and fixing something inside an optional part puts it in.
    ranges
        ``(low, high)`` by dotted path of a number. A number that falls inside by itself stays as it is; another is
        drawn anew, evenly from the range.
    """

    def __init__(
        self,
        cls: type[Value],
        key: tuple[str | int, ...],
        fix: Mapping[str, Any] | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        for part in key:
            if isinstance(part, bool) or (not isinstance(part, str) and (not hasattr(part, "__index__") or part < 0)):
                raise WorldError(f"A {key[0]} is numbered 0, 1, 2, …; {part!r} is not such a number.")
        self._prefix = "/".join(("ipse", VERSION, *(str(part) for part in key))) + "/"
        self._fix: dict[str, Any] = {}
        if fix or ranges:
            self._known = leaves(cls)
            self._name = cls.__name__
            for path, value in (fix or {}).items():
                self._add_fix(path, value)
            for path, limits in (ranges or {}).items():
                self._check_range(path, limits)
        self._parts = {path[:dot] for path in self._fix for dot, char in enumerate(path) if char == "."}
        for path in sorted(self._parts & self._fix.keys()):
            raise WorldError(f"fix says both that {path} is {self._fix[path]!r} and what is inside it; choose one.")
        self._ranges = dict(ranges or {})

    def _add_fix(self, path: str, value: Any) -> None:
        if path not in self._known:
            raise unknown(f"{self._name} has no field to fix called", path, self._known)
        if value is not None and self._known[path].kind in ("part", "numbers"):
            if isinstance(value, Value):
                value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            if not isinstance(value, Mapping):
                raise WorldError(f"fix says {path} is {value!r}; it must be a mapping or a value of its own class.")
            for name, inner in value.items():
                self._add_fix(f"{path}.{name}", inner)
        else:
            self._fix[path] = self._known[path].convert(value, f"{self._name}.{path}")

    def _check_range(self, path: str, limits: tuple[float, float]) -> None:
        numbers = [name for name, leaf in self._known.items() if leaf.kind == "number"]
        if path not in numbers:
            raise unknown(f"{self._name} has no number to limit called", path, numbers)
        if not isinstance(limits, (tuple, list)) or len(limits) != 2:
            raise WorldError(f"The range of {path} is {limits!r}; it must be (low, high).")
        low, high = (self._known[path].convert(limit, f"The range of {self._name}.{path}") for limit in limits)
        if not low <= high:
            raise WorldError(f"The range of {path} is {limits!r}; low must not be above high.")
        if path in self._fix:
            raise WorldError(f"{path} is both fixed and given a range; choose one.")

    def is_fixed(self, path: str) -> bool:
        """Whether the caller fixed this field itself."""
        return path in self._fix

    def uniforms(self, path: str, count: int) -> list[float]:
        """Numbers evenly spread over [0, 1), which nothing fixes."""
        stream = hashlib.shake_256((self._prefix + path).encode()).digest(8 * count)
        return [(word >> 11) * _UNIT for word in struct.unpack(f"<{count}Q", stream)]

    def normals(self, path: str, count: int) -> list[float]:
        """Standard normal numbers, which nothing fixes."""
        return [_NORMAL.inv_cdf(clip(u, _UNIT, 1 - _UNIT)) for u in self.uniforms(path, count)]

    def settle(self, path: str, natural: Any, again: float) -> Any:
        """What the caller fixed, or a natural value moved into the caller's range by a second draw in [0, 1)."""
        if path in self._fix:
            return self._fix[path]
        if path in self._ranges:
            low, high = self._ranges[path]
            if not low <= natural <= high:
                return round(low + again * (high - low), DIGITS)
        return natural

    def number(self, path: str, quantile: Callable[[float], float]) -> float:
        """A number with a distribution given by its quantile function."""
        u, again = self.uniforms(path, 2)
        return self.settle(path, round(quantile(u), DIGITS), again)

    def uniform(self, path: str, low: float, high: float) -> float:
        """A number evenly from low to high."""
        return self.number(path, lambda u: low + u * (high - low))

    def normal(self, path: str, mean: float, deviation: float, low: float, high: float) -> float:
        """A normal number, cut off (not piled up) at low and high."""
        return self.number(path, lambda u: truncated_normal(u, mean, deviation, low, high))

    def choice(self, path: str, weights: Mapping[str, float]) -> str:
        """One of the names, by weight."""
        if path in self._fix:
            return self._fix[path]
        return pick(self.uniforms(path, 1)[0], weights)

    def color(self, path: str, palette: Mapping[str, RGB], weights: Mapping[str, float], vary: float = 0.15) -> Color:
        """A named color by weight, its brightness varied by up to the fraction `vary` and its hue a little."""
        if path in self._fix:
            return self._fix[path]
        which, bright, *tint = self.uniforms(path, 5)
        name = pick(which, weights)
        scale = 1 + vary * (2 * bright - 1)
        rgb = tuple(
            round(clip(c * scale + 0.15 * vary * (2 * t - 1), 0, 1), DIGITS)
            for c, t in zip(palette[name], tint, strict=True)
        )
        return Color(name, rgb)  # type: ignore[arg-type]

    def present(self, path: str, probability: float) -> bool:
        """Whether an optional part is there."""
        if path in self._fix:
            return self._fix[path] is not None
        return path in self._parts or self.uniforms(f"{path}?", 1)[0] < probability

    def numbers(self, path: str, natural: Mapping[str, float]) -> Numbers:
        """Several numbers under one name; those fixed or limited by the caller are taken over, others stay."""
        if path in self._fix:
            return self._fix[path]
        found = {name: round(value, DIGITS) for name, value in natural.items()}
        inside = f"{path}."
        for key in (key for key in (*self._fix, *self._ranges) if key.startswith(inside)):
            name = key.removeprefix(inside)
            found[name] = self.settle(key, found.get(name, 0.0), self.uniforms(key, 1)[0])
        return Numbers(found)


def pick(u: float, weights: Mapping[str, float]) -> str:
    """The name in whose share of the weights u (in [0, 1)) falls."""
    left = u * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    # Rounding carried u past the end.
    return next(name for name in reversed(list(weights)) if weights[name] > 0)


def truncated_normal(u: float, mean: float, deviation: float, low: float, high: float) -> float:
    """The quantile at u of a normal distribution cut off at low and high."""
    bottom = _NORMAL.cdf((low - mean) / deviation)
    top = _NORMAL.cdf((high - mean) / deviation)
    p = clip(bottom + u * (top - bottom), 1e-12, 1 - 1e-12)
    return clip(mean + deviation * _NORMAL.inv_cdf(p), low, high)
