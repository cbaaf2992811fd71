"""What is worn on the head and carried: glasses, hats, face masks, scarves, bags."""

from __future__ import annotations

from collections.abc import Sequence

from ipse.world.bags import bag_parts
from ipse.world.body import Rest
from ipse.world.clothes import clothes_parts
from ipse.world.coverings import headscarf_parts, mask_parts, scarf_parts
from ipse.world.eyewear import glasses_parts
from ipse.world.fitting import Clothes
from ipse.world.headwear import hat_parts
from ipse.world.look import Look
from ipse.world.parts import Part
from ipse.world.person import Person


def worn_parts(person: Person, look: Look, rest: Rest, garments: Sequence[Part] | None = None) -> list[Part]:
    """Glasses, hat, mask, scarf and bag of a Look, in the rest pose.

    What lies over the clothes is fitted to `garments`, the parts from `clothes_parts`; they are made if not given.
    """
    parts: list[Part] = []
    over = look.bag is not None or look.scarf is not None or (look.hat is not None and look.hat.kind == "headscarf")
    if over and garments is None:
        garments = clothes_parts(person, look, rest)
    clothes = Clothes(garments if over and garments else ())
    if look.glasses is not None:
        parts += glasses_parts(look.glasses, rest)
    if look.hat is not None and look.hat.kind == "headscarf":
        parts += headscarf_parts(look.hat.color, clothes, rest, person.number)
    elif look.hat is not None:
        parts += hat_parts(look.hat, rest, person.number)
    if look.mask is not None:
        parts += mask_parts(look.mask, rest)
    if look.scarf is not None:
        parts += scarf_parts(look.scarf, clothes, rest, person.number)
    if look.bag is not None:
        parts += bag_parts(look.bag, clothes, rest, person.number)
    return parts
