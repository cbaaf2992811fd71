"""Prompts with what they ask for, read from text, JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipse.errors import DataError
from ipse.world.caption import subject

SUBJECTS = ("{subject}", "{other}")
"""What stands in a prompt for the first person and the second."""


@dataclass(frozen=True)
class Prompt:
    """Words, and what a picture by them must show.

    Attributes
    ----------
    name
        Short and unlike any other.
    text
        With `SUBJECTS` in the place of people; in prompts of others than the bench's any words will do.
    asks
        Names and values of the world's facts (`ipse.world.caption.facts`) that the words ask for.
    only
        By fact, the values that a person must have one of for the prompt to be asked.
    """

    name: str
    text: str
    asks: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def people(self) -> int:
        """How many people it is about; at least one."""
        return max(1, sum(place in self.text for place in SUBJECTS))

    def suits(self, facts: Mapping[str, str]) -> bool:
        """Whether it can be asked of somebody with these facts."""
        return all(facts.get(name) in values for name, values in self.only.items())

    def of(self, *people: Mapping[str, str]) -> str:
        """The text for people with these facts, the words for each in braces; see `ipse.personalize.marked`."""
        text = self.text
        for place, facts in zip(SUBJECTS, people, strict=False):
            text = text.replace(place, f"{{{subject({**facts, **self.asks})}}}")
        return text


def read_prompts(path: str | Path) -> dict[str, Prompt]:
    """Prompts by name.

    Parameters
    ----------
    path
        ``.json``, ``.yaml`` or ``.yml``: a list, or a mapping with a list ``prompts``, of texts or of mappings with
        ``text`` and perhaps ``name``, ``asks`` and ``only``. Any other file: one text a line; empty lines and those
        that begin with # are passed over. What has no name is called by its place, from ``1`` on.

    Raises
    ------
    DataError
        If the file cannot be read, or holds no prompts or something else.
    """
    place = Path(path)
    try:
        content = place.read_text(encoding="utf-8")
        found = _parsed(place, content)
    except OSError as error:
        raise DataError(f"The prompts {place} cannot be read: {error.strerror}.", "Check the path.") from error
    except ValueError as error:
        raise DataError(f"The prompts {place} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{place} holds no prompts.", "Write one a line, or a list in JSON or YAML.")
    prompts: dict[str, Prompt] = {}
    for number, entry in enumerate(found, 1):
        prompt = _prompt({"text": entry} if isinstance(entry, str) else entry, number, place)
        if prompt.name in prompts:
            raise DataError(f"Two prompts of {place} are called {prompt.name!r}.", "Give each a name of its own.")
        prompts[prompt.name] = prompt
    return prompts


def _parsed(place: Path, content: str) -> Any:
    if place.suffix.lower() not in (".json", ".yaml", ".yml"):
        lines = (line.strip() for line in content.splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    if place.suffix.lower() == ".json":
        found = json.loads(content)
    else:
        import yaml

        try:
            found = yaml.safe_load(content)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    return found.get("prompts") if isinstance(found, dict) else found


def _prompt(entry: Any, number: int, place: Path) -> Prompt:
    wrong = DataError(
        f"Prompt {number} of {place} is {entry!r:.80}.",
        "It is a text, or a mapping with `text` and perhaps `name`, `asks` and `only`.",
    )
    if not isinstance(entry, Mapping) or set(entry) - {"name", "text", "asks", "only"}:
        raise wrong
    text, asks, only = entry.get("text"), entry.get("asks") or {}, entry.get("only") or {}
    if not isinstance(text, str) or not text.strip() or not all(isinstance(x, Mapping) for x in (asks, only)):
        raise wrong
    if not all(isinstance(values, list) for values in only.values()):
        raise wrong
    return Prompt(
        str(entry.get("name", number)),
        text.strip(),
        {str(name): str(value) for name, value in asks.items()},
        {str(name): tuple(map(str, values)) for name, values in only.items()},
    )
