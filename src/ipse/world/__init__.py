"""People who do not exist, with the truth about them.

A picture of the world is made from three values that are set separately: a `Person` (who), a `Look` (what changes with
the day) and a `Shot` (what changes with the picture)::

    from ipse.world import look, person, render, shot

    who = person(7)
    picture = render(who, look(0, who), shot(0))
    picture.image              # (128, 128, 3) uint8
    picture.truth.five         # (5, 2) eyes, nose and mouth corners in pixels
    picture.truth.parts        # (128, 128) segmentation, classes of `LABELS`
"""

from ipse.world.body import Body, body
from ipse.world.caption import captions
from ipse.world.look import Look, look
from ipse.world.parts import LABELS
from ipse.world.person import Person, age_group, balanced_people, gender_presentation, person, skin_group
from ipse.world.render import SIZES, Camera, Picture, Truth, render
from ipse.world.shot import Shot, expression, shot
from ipse.world.version import VERSION

__all__ = [
    "LABELS",
    "SIZES",
    "VERSION",
    "Body",
    "Camera",
    "Look",
    "Person",
    "Picture",
    "Shot",
    "Truth",
    "age_group",
    "balanced_people",
    "body",
    "captions",
    "expression",
    "gender_presentation",
    "look",
    "person",
    "render",
    "shot",
    "skin_group",
]
