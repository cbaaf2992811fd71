"""Beards and eyelashes as geometry: short strands that follow the face's expressions."""

from __future__ import annotations

from ipse.world.body import Rest
from ipse.world.look import Look
from ipse.world.parts import Part
from ipse.world.person import Person


def beard_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """The beard of a person in a Look; stubble is painted on the skin instead."""
    return []


def lash_parts(person: Person, rest: Rest) -> list[Part]:
    """The upper eyelashes."""
    return []
