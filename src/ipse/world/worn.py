"""What is worn on the head and carried: glasses, hats, face masks, scarves, bags."""

from __future__ import annotations

from ipse.world.body import Rest
from ipse.world.eyewear import glasses_parts
from ipse.world.headwear import hat_parts
from ipse.world.look import Look
from ipse.world.parts import Part
from ipse.world.person import Person


def worn_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """Glasses, hat, mask, scarf and bag of a Look, in the rest pose."""
    parts: list[Part] = []
    if look.glasses is not None:
        parts += glasses_parts(look.glasses, rest)
    if look.hat is not None and look.hat.kind != "headscarf":
        parts += hat_parts(look.hat, rest, person.number)
    return parts
