"""Made-up people for trainings without labels: a color for each, walking past made-up cameras."""

import numpy as np

from ipse.training.frames import Frames
from ipse.training.recipe import TrainRecipe

SIZE = (32, 16)
NETWORK = {"backbone": "iresnet", "depths": [1, 1, 1, 1], "width": 0.125, "stem": 2, "dim": 16, "size": list(SIZE)}


def recipe(**plan):
    """A recipe for a tiny network."""
    common = {
        "steps": 6,
        "modality": "body",
        "cut": {"kind": "whole", "size": list(SIZE)},
        "network": NETWORK,
        "batch": {"size": 16, "people": 4, "each": 4},
        "optimizer": {"rate": 0.002, "warmup": 2},
        "ema": 0.9,
        "save_every": 2,
    }
    return TrainRecipe.from_dict(common | plan)


def pictures(people, seed=0, tint=(1.0, 1.0, 1.0)):
    """(N, 32, 16, 3) of people, by number: two colors, one above the other, noise, and the tint of a camera."""
    out = np.empty((len(people), *SIZE, 3))
    draw = np.random.default_rng(seed)
    for picture, person in zip(out, people, strict=True):
        own = np.random.default_rng(int(person)).uniform(30, 225, (2, 3))
        picture[:16], picture[16:] = own
    return (out * tint + draw.normal(0, 12, out.shape)).clip(0, 255).astype(np.uint8)


def walks(people=12, cameras=2, frames=4, at_once=3, seed=0):
    """Frames of all people past all cameras, some at once; and who they are."""
    draw = np.random.default_rng(seed)
    who, camera, video, frame = [], [], [], []
    for number in range(cameras):
        for v, group in enumerate(draw.permutation(people).reshape(-1, at_once)):
            for f in range(frames):
                for person in draw.permutation(group):
                    who.append(person)
                    camera.append(number)
                    video.append(v)
                    frame.append(10 * f)
    who, camera = np.array(who), np.array(camera)
    seen = np.empty((len(who), *SIZE, 3), np.uint8)
    for number in range(cameras):
        tint = np.random.default_rng(100 + number).uniform(0.7, 1.0, 3)
        mine = camera == number
        seen[mine] = pictures(who[mine], seed + number, tint)
    return Frames(seen, camera, np.array(video), np.array(frame)), who
