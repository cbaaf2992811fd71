import pytest

from ipse.world import look, person, render, shot

BARE = {"glasses": None, "hat": None, "mask": None, "scarf": None, "hair.style": "short"}
EVEN = {
    "mood": "neutral",
    "head.pitch": 0,
    "head.roll": 0,
    "gaze.yaw": 0,
    "gaze.pitch": 0,
    "camera.roll_deg": 0,
    "light.key_azimuth_deg": 20,
    "light.softness": 0.8,
    "light.fill": 0.6,
    "background.kind": "plain",
    "occluder": None,
    **{"degrade.blur_px": 0, "degrade.noise": 0, "degrade.low_res": 1, "degrade.jpeg": 100, "degrade.exposure": 0},
}


@pytest.fixture(scope="session")
def portrait():
    """Takes pictures of people of the world in even light: ``portrait(number, yaw=0, size=192)``."""
    taken = {}

    def take(number, yaw=0.0, size=192):
        key = (number, yaw, size)
        if key not in taken:
            who = person(number)
            taken[key] = render(who, look(0, who, fix=BARE), shot(0, fix={**EVEN, "head.yaw": yaw}), "bust", size)
        return taken[key]

    return take
