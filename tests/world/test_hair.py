"""Hair, beards and lashes: sound on every head, outside of it, and different for every style and length."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ipse.world import scene
from ipse.world.body import body
from ipse.world.hair import hair_parts
from ipse.world.look import HAIR_STYLES, Look, look
from ipse.world.parts import LABEL, Part
from ipse.world.person import Person, person
from ipse.world.render import render
from ipse.world.shot import shot

CHILD = {"age": 6.0}
HEAVY = {"age": 45.0, "gender": 0.95, "weight": 0.95, "height": 0.3}
GROWN = [style for style in HAIR_STYLES if style != "bald"]


def styled(who: Person, style: str, **fix: object) -> Look:
    plain = {"hat": None, "glasses": None, "mask": None, "scarf": None, "beard.style": "none", "hair.style": style}
    return look(0, who, fix={**plain, **{k.replace("__", "."): v for k, v in fix.items()}})


def parts(who: Person, worn: Look, label: str = "hair") -> list[Part]:
    return [p for p in hair_parts(who, worn, scene.rest_body(who)) if p.label == label]


def strands(who: Person, worn: Look) -> Part:
    """The hair's strands without the shell beneath them."""
    return parts(who, worn)[1]


def check(part: Part) -> None:
    n = len(part.vertices)
    assert np.isfinite(part.vertices).all()
    assert part.triangles.min() >= 0 and part.triangles.max() < n
    assert part.toward is not None and part.toward.shape == (n,) and part.toward.max() < n
    assert part.anchor.shape == (n,) and part.anchor.max() < len(body().template)
    assert part.coordinate is not None and part.coordinate.shape == (n, 2)
    assert (part.color >= 0).all() and (part.color <= 1).all()


@pytest.mark.parametrize("style", GROWN)
@pytest.mark.parametrize("fix", [CHILD, HEAVY], ids=["child", "heavy"])
def test_every_style_fits_small_and_heavy_people(style: str, fix: dict[str, float]) -> None:
    who = person(31, fix=fix)
    worn = styled(who, style)
    made = hair_parts(who, worn, scene.rest_body(who))
    for part in made:
        check(part)
    assert sum(len(p.triangles) for p in made) <= 45_000
    # Inside means behind the nearest point of the skin.
    rest, b = scene.rest_body(who), body()
    corners = rest.vertices[b.triangles[b.triangles_of("body")]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    places = strands(who, worn).vertices
    nearest = cKDTree(corners.mean(1)).query(places)[1]
    depth = np.einsum("ni,ni->n", places - corners[nearest].mean(1), normal[nearest])
    assert (depth < -0.008).mean() < 0.02
    # Nor does it float: what is on the head is close to it.
    assert places[:, 1].max() < rest.height + 0.12


@pytest.mark.parametrize("style", GROWN)
def test_every_style_is_seen_as_hair(style: str) -> None:
    who = person(4)
    picture = render(who, styled(who, style), shot(0, "portrait", fix={"head.yaw": 20.0}), "portrait", 64)
    assert (picture.truth.parts == LABEL["hair"]).mean() > 0.02


def test_bald_has_no_hair_and_a_headscarf_hides_it() -> None:
    who = person(4)
    assert not parts(who, styled(who, "bald"))
    assert not parts(who, look(0, who, fix={"hair.style": "long", "hat.kind": "headscarf"}))


def test_longer_hair_reaches_lower() -> None:
    who = person(7)
    low = [
        strands(who, styled(who, "long", hair__length_m=length, outer=None)).vertices[:, 1].min()
        for length in (0.28, 0.4, 0.55)
    ]
    assert low[0] - 0.05 > low[1] > low[2] + 0.05


def test_volume_and_fringe_change_the_shape() -> None:
    who = person(7)
    flat, full = (strands(who, styled(who, "short", hair__length_m=0.07, hair__volume=v)) for v in (0.0, 1.0))
    assert full.vertices[:, 1].max() > flat.vertices[:, 1].max() + 0.008
    # The eyes' height tells how far the fringe comes down the forehead.
    rest, b = scene.rest_body(who), body()
    eyes = rest.vertices[np.unique(b.triangles[b.triangles_of("helper-l-eye")])]
    lowest = []
    for amount in (0.0, 1.0):
        v = strands(who, styled(who, "long", hair__fringe=amount)).vertices
        front = (np.abs(v[:, 0]) < 0.02) & (v[:, 2] > eyes[:, 2].max() - 0.02) & (v[:, 1] > eyes[:, 1].mean() - 0.05)
        lowest.append(v[front, 1].min() if front.any() else np.inf)
    assert lowest[1] < lowest[0] - 0.01
    assert lowest[1] > eyes[:, 1].max()


def test_same_values_give_the_same_hair() -> None:
    who = person(9)
    worn = styled(who, "wavy")
    first, second = (hair_parts(who, worn, scene.rest_body(who)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.vertices, b.vertices)
        np.testing.assert_array_equal(a.color, b.color)


def test_hat_presses_hair_to_the_head() -> None:
    who = person(20)
    bare, capped = (
        strands(who, styled(who, "curly", hair__length_m=0.15)),
        strands(who, look(0, who, fix={"hair.style": "curly", "hair.length_m": 0.15, "hat.kind": "cap"})),
    )
    assert bare.vertices[:, 1].max() > scene.rest_body(who).height + 0.02
    assert capped.vertices[:, 1].max() < scene.rest_body(who).height + 0.01


def test_hair_hangs_with_head_above_and_back_below() -> None:
    who = person(7)
    part = strands(who, styled(who, "long", hair__length_m=0.5))
    height = part.vertices[:, 1]
    assert (part.anchor[height > np.quantile(height, 0.9)] == scene.head_anchor()).all()
    assert (part.anchor[height < np.quantile(height, 0.1)] != scene.head_anchor()).all()


@pytest.mark.parametrize("style", ["moustache", "goatee", "full"])
def test_beards_follow_the_face(style: str) -> None:
    who = person(5, fix={"gender": 0.95, "age": 40.0, "beard_density": 0.9})
    short, long = (
        parts(who, styled(who, "short", beard__style=style, beard__length_m=length), "beard") for length in (0.01, 0.05)
    )
    check(short[0])
    assert long[0].vertices[:, 1].min() <= short[0].vertices[:, 1].min()
    moved = np.abs(body().action_offsets({"jawOpen": 1.0, "mouthSmileLeft": 1.0})[short[0].anchor]).max(1)
    assert (moved > 1e-4).mean() > 0.5


def test_stubble_and_smooth_chins_have_no_strands() -> None:
    who = person(5, fix={"gender": 0.95, "age": 40.0, "beard_density": 0.9})
    for style in ("none", "stubble"):
        assert not parts(who, styled(who, "short", beard__style=style, beard__length_m=0.002), "beard")


def test_lashes_follow_the_lids() -> None:
    who = person(5)
    (lash,) = parts(who, styled(who, "short"), "eyes")
    check(lash)
    shut = body().action_offsets({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})[lash.anchor]
    assert (shut[:, 1] < -0.002).mean() > 0.8
