import numpy as np
import pytest

from ipse.world.body import body
from ipse.world.clothes import clothes_parts, covered
from ipse.world.cuts import bottom_field, neckline, outer_field, sleeves, top_field
from ipse.world.look import BOTTOMS, NECKLINES, OUTERS, TOPS, Garment, Look, look
from ipse.world.parts import LABEL, LABELS
from ipse.world.person import person
from ipse.world.render import render
from ipse.world.scene import rest_body
from ipse.world.shot import shot
from ipse.world.skirt import skirt
from ipse.world.suit import SHOULDER, body_places, refine, suit

ADULT = person(0, fix={"age": 35, "weight": 0.5})
CHILD = person(1, fix={"age": 6})
HEAVY = person(2, fix={"age": 50, "weight": 0.95})
BARE = {"hat": None, "scarf": None, "bag": None, "mask": None, "outer": None, "dress": None}


def dressed(who=ADULT, **changes) -> Look:
    return look(0, who, fix=BARE).replace(**changes)


def looks() -> dict[str, Look]:
    made = {f"top {k}": dressed(top=Garment(kind=k, sleeve=0.9 if k != "tanktop" else 0.0)) for k in TOPS}
    made |= {f"bottom {k}": dressed(bottom=Garment(kind=k, length=0.6)) for k in BOTTOMS}
    made |= {f"outer {k}": dressed(outer=Garment(kind=k, sleeve=1.0, length=0.5, neckline="collar")) for k in OUTERS}
    made["dress"] = dressed(dress=Garment(kind="dress", neckline="round"))
    return made


LOOKS = looks()


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("who", [ADULT, CHILD, HEAVY], ids=["adult", "child", "heavy"])
def test_geometry_is_sound(name, who):
    rest = rest_body(who)
    parts = clothes_parts(who, LOOKS[name], rest)
    assert sum(len(p.triangles) for p in parts) < 24_000
    for part in parts:
        count = len(part.vertices)
        assert part.label in LABELS
        assert part.triangles.min() >= 0 and part.triangles.max() < count
        assert part.anchor.shape == (count,) and part.anchor.max() < len(body().template)
        assert np.isfinite(part.vertices).all()
        if part.keep is not None:
            assert np.isfinite(part.keep).all() and (part.keep > 0).any()
        if part.coordinate is not None:
            assert np.isfinite(part.coordinate).all()
        # Nothing far off: within half a meter of the vertex it moves with.
        assert np.linalg.norm(part.vertices - rest.vertices[part.anchor], axis=1).max() < 0.5


@pytest.mark.parametrize("name", LOOKS)
def test_every_garment_is_seen(name):
    at = {"background.kind": "plain", "occluder": None, "camera.azimuth_deg": 20, "pose.name": "standing"}
    parts = render(ADULT, LOOKS[name], shot(0, "person", fix=at), "person", (64, 128), supersample=1).truth.parts
    wanted = {"top": "top", "bottom": "bottom", "outer": "coat", "dress": "dress"}[name.split()[0]]
    assert (parts == LABEL[wanted]).sum() > 150
    assert (parts == LABEL["shoes"]).sum() > 10


def test_lengths_and_sleeves_change_the_cut():
    place = suit().places
    for field, short, long in (
        (top_field, Garment(length=0.1), Garment(length=0.9)),
        (top_field, Garment(sleeve=0.2), Garment(sleeve=0.9)),
        (bottom_field, Garment(kind="trousers", length=0.3), Garment(kind="trousers", length=1.0)),
        (outer_field, Garment(kind="coat", length=0.1), Garment(kind="coat", length=0.2)),
    ):
        assert (field(place, short) > 0).sum() < (field(place, long) > 0).sum()


def test_necklines_differ():
    place = suit().places
    shown = {n: int((neckline(place, Garment(neckline=n)) < 0).sum()) for n in NECKLINES}
    assert shown["turtle"] < shown["crew"] < min(shown["round"], shown["vee"])
    assert len(set(shown.values())) == len(NECKLINES)


def test_a_tank_top_has_no_sleeves():
    place = suit().places
    field = sleeves(place, Garment(kind="tanktop", sleeve=0.0))
    assert (field[place.along > 0.08] < 0).all()


@pytest.mark.parametrize("who", [ADULT, CHILD, HEAVY], ids=["adult", "child", "heavy"])
def test_cloth_lies_outside_of_the_skin(who):
    shell = suit()
    points, normals = shell.over_skin(rest_body(who), 0.003)
    skin = shell._skin @ rest_body(who).vertices
    height = np.einsum("ni,ni->n", points - skin, normals)
    torso = (shell.places.y > -0.6) & (shell.places.neck > 0.1)
    assert (height[torso] < 0).mean() < 0.02
    assert np.median(height[torso]) < 0.02


def test_loose_cloth_is_wider_than_tight_cloth():
    def volume(fit: float) -> float:
        rest = rest_body(ADULT)
        parts = clothes_parts(ADULT, dressed(top=Garment(kind="tshirt", fit=fit)), rest)
        part = max((p for p in parts if p.label == "top"), key=lambda p: len(p.triangles))
        return float(np.hypot(part.vertices[:, 0], part.vertices[:, 2]).mean())

    assert volume(1.0) > volume(0.0) + 0.003


def test_covered_skin_is_under_cloth_only():
    rest = rest_body(ADULT)
    place = body_places()
    tee = covered(ADULT, dressed(top=Garment(kind="tshirt", sleeve=0.35)), rest)
    assert (tee[(np.abs(place.y - 0.35) < 0.05) & (place.arm < 0.1)] > 0).all()
    assert (tee[place.head > 0.5] < 0).all()
    assert (tee[(place.along > 0.3) & (place.arm > 0.9)] < 0).all()
    shorts = covered(ADULT, dressed(bottom=Garment(kind="shorts", length=0.3)), rest)
    calf = (place.y < -0.5) & (place.y > -0.65) & (place.leg > 0.9)
    assert (shorts[calf] < 0).all()


def test_the_same_numbers_give_the_same_clothes():
    rest = rest_body(ADULT)
    first, second = (clothes_parts(ADULT, LOOKS["outer coat"], rest) for _ in range(2))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.vertices, b.vertices) and np.array_equal(a.triangles, b.triangles)


def test_refinement_leaves_no_crack():
    triangles = np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4]])
    matrix, fine = refine(triangles, 5, np.array([True, False, False]))
    assert np.allclose(matrix.sum(1), 1)
    edges = np.sort(np.concatenate([fine[:, [0, 1]], fine[:, [1, 2]], fine[:, [2, 0]]]), 1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert uses.max() == 2
    # Five edges ran along the rim; two of them are split.
    assert (uses == 1).sum() == 5 + 2


def test_the_skirt_goes_around_both_legs():
    rest = rest_body(HEAVY)
    base, _ = suit().over_skin(rest, 0.003)
    points = skirt().shape(rest, base, flare=0.2, gap=0.004, taper=0.1).reshape(20, 72, 3)
    assert np.isfinite(points).all()
    assert (np.diff(points[..., 1].mean(1)) < 0).all()
    assert np.abs(points[8, :, 0]).max() > np.abs(SHOULDER[0]) * 0.7
