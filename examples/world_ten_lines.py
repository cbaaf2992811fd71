"""Ten lines from nothing to a picture and its truth."""

from PIL import Image

from ipse.world import look, person, render, shot
from ipse.world.caption import captions
from ipse.world.parts import shares
from ipse.world.show import truth_sheet

who = person(4)  # who: the same on every machine
picture = render(who, look(0, who), shot(0))  # in what, and how it is taken
truth = picture.truth

Image.fromarray(picture.image).save("person.png")
truth_sheet(picture).save("truth.png")
print(captions(who, truth.look, truth.shot, truth.framing, shares(truth.parts))[0])
print("Eyes, nose and mouth corners:", truth.five.round(1).tolist())
