"""What is worn: geometry that is sound, sits where it should on everybody, and can be seen."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy.spatial import cKDTree

from ipse.world.body import body
from ipse.world.fitting import BODY_VERTICES, Clothes, crown, grid, oval, sweep
from ipse.world.headwear import skull_center
from ipse.world.look import BAG_KINDS, GLASSES_STYLES, HAT_KINDS, Look, look
from ipse.world.parts import LABEL, LABELS, Part
from ipse.world.person import Person, person
from ipse.world.render import render
from ipse.world.scene import rest_body
from ipse.world.shot import Shot
from ipse.world.worn import worn_parts

ITEMS = {
    **{f"glasses {s}": {"glasses.style": s} for s in GLASSES_STYLES},
    **{f"hat {k}": {"hat.kind": k} for k in HAT_KINDS},
    **{f"bag {k}": {"bag.kind": k} for k in BAG_KINDS},
    "mask": {"mask": "white"},
    "scarf": {"scarf": "red"},
}
NOTHING = {"glasses": None, "hat": None, "mask": None, "scarf": None, "bag": None, "outer": None, "hair.style": "bald"}
PEOPLE = {
    "child": {"age": 6.0},
    "heavy man": {"age": 45.0, "gender": 1.0, "weight": 0.95},
    "thin woman": {"age": 80.0, "gender": 0.0, "weight": 0.08},
    "wide head": {"age": 30.0, "shape": {"head-scale-horiz-incr": 0.8}},
    "narrow head": {"age": 30.0, "shape": {"head-scale-horiz-incr": -0.8}},
}


@lru_cache(maxsize=8)
def someone(name: str) -> Person:
    return person(31, fix=PEOPLE[name])


def wearing(who: Person, item: str, **fix: object) -> Look:
    wanted = ITEMS[item] | fix
    bare = {k: v for k, v in NOTHING.items() if not any(w == k or w.startswith(f"{k}.") for w in wanted)}
    return look(0, who, fix=bare | wanted)


def parts_of(who: Person, item: str, **fix: object) -> list[Part]:
    return worn_parts(who, wearing(who, item, **fix), rest_body(who))


def test_nothing_worn_is_no_geometry() -> None:
    who = someone("child")
    assert worn_parts(who, look(0, who, fix=NOTHING), rest_body(who)) == []


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("name", ["child", "heavy man"])
def test_parts_are_sound(name: str, item: str) -> None:
    parts = parts_of(someone(name), item)
    assert sum(len(p.triangles) for p in parts) <= 3000
    for p in parts:
        n = len(p.vertices)
        assert np.isfinite(p.vertices).all()
        assert p.triangles.min() >= 0 and p.triangles.max() < n
        assert p.anchor.shape == (n,) and p.anchor.min() >= 0 and p.anchor.max() < len(body().template)
        assert p.coordinate is not None and p.coordinate.shape == (n, 2)
        assert p.color.shape == (n, 3) and p.color.min() >= 0 and p.color.max() <= 1
        assert p.label == item.split()[0]


@pytest.mark.parametrize("item", ITEMS)
def test_same_again(item: str) -> None:
    who = someone("thin woman")
    for a, b in zip(parts_of(who, item), parts_of(who, item), strict=True):
        np.testing.assert_array_equal(a.vertices, b.vertices)
        np.testing.assert_array_equal(a.color, b.color)


@pytest.mark.parametrize("item", ITEMS)
def test_label_is_seen(item: str) -> None:
    who = someone("heavy man")
    framing = "person" if item.startswith("bag") else "bust" if item == "scarf" else "portrait"
    truth = render(who, wearing(who, item), Shot(), framing, (64, 128) if framing == "person" else 96).truth
    seen = (truth.parts == LABEL[item.split()[0]]).sum()
    assert seen >= 25, f"{item}: {seen} pixels of {[LABELS[k] for k in np.unique(truth.parts)]}"


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("style", GLASSES_STYLES)
def test_glasses_fit(name: str, style: str) -> None:
    who = someone(name)
    b, v = body(), rest_body(who).vertices
    frame, lenses = parts_of(who, f"glasses {style}")
    assert (frame.anchor == crown()).all() and (lenses.anchor == crown()).all()
    skin = np.unique(b.triangles[b.triangles_of("body")])
    face = skin[(b.template[skin, 2] > 0.08) & (np.abs(b.template[skin, 1] - 0.725) < 0.06)]
    near = cKDTree(v[face, :2]).query(lenses.vertices[:, :2], k=3)[1]
    clearance = lenses.vertices[:, 2] - v[face][near][..., 2].mean(1)
    assert (clearance > 0).mean() > 0.98
    for group, sign in (("helper-l-eye", 1), ("helper-r-eye", -1)):
        eye = v[np.unique(b.triangles[b.triangles_of(group)])]
        lens = lenses.vertices[np.sign(lenses.vertices[:, 0] - v[crown(), 0]) == sign]
        assert (lens[:, :2].min(0) < eye.mean(0)[:2]).all() and (lens[:, :2].max(0) > eye.mean(0)[:2]).all()
        assert lens[:, 2].max() - eye[:, 2].max() < 0.035
    ears = b.mask("ears") > 0.5
    assert frame.vertices[:, 2].min() < v[ears, 2].mean()


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("kind", HAT_KINDS)
def test_hats_are_outside_the_head(name: str, kind: str) -> None:
    who = someone(name)
    b, rest = body(), rest_body(who)
    (hat,) = parts_of(who, f"hat {kind}")
    center = skull_center(rest)
    top = np.flatnonzero(b.template[:BODY_VERTICES, 1] > 0.74)
    skull = rest.vertices[top] - center
    length = np.linalg.norm(skull, axis=1)
    above = hat.vertices[hat.vertices[:, 1] > rest.vertices[top, 1].min() + 0.01] - center
    reach = np.linalg.norm(above, axis=1)
    near = cKDTree(skull / length[:, None]).query(above / reach[:, None], k=3)[1]
    # The edge is tucked in to the skin, and the skull is rougher than three vertices tell.
    assert (reach > length[near].mean(1) - 0.003).mean() > 0.98
    assert hat.vertices[:, 1].max() > rest.vertices[top, 1].max()


def test_mask_hides_mouth_and_nose_and_follows_the_jaw() -> None:
    who = someone("child")
    worn = wearing(who, "mask")
    truth = render(who, worn, Shot(), "portrait", 96).truth
    nose, left, right = truth.five[2:].astype(int)
    for x, y in (nose, left, right):
        assert truth.parts[y, x] == LABEL["mask"]
    (mask,) = worn_parts(who, worn, rest_body(who))
    moves = np.linalg.norm(body().action_offsets({"jawOpen": 1.0})[mask.anchor], axis=1)
    assert moves.max() > 0.01 and moves.min() == 0


def test_glasses_answer_their_fields() -> None:
    who = someone("thin woman")
    thin = parts_of(who, "glasses rect", **{"glasses.thickness": 0.0})[0]
    thick = parts_of(who, "glasses rect", **{"glasses.thickness": 1.0})[0]
    assert np.ptp(thick.vertices[:, 1]) > np.ptp(thin.vertices[:, 1])
    clear = parts_of(who, "glasses rect", **{"glasses.tint": 0.0})[1]
    dark = parts_of(who, "glasses rect", **{"glasses.tint": 0.9})[1]
    sun = parts_of(who, "glasses sunglasses", **{"glasses.tint": 0.1})[1]
    assert clear.material.opacity < 0.1 < 0.85 < dark.material.opacity
    assert sun.material.opacity > 0.85


@pytest.mark.parametrize("item", ["bag backpack", "scarf"])
def test_a_coat_pushes_what_lies_over_it_outward(item: str) -> None:
    who = someone("thin woman")
    axis, sign = (2, -1) if item == "bag backpack" else (2, 1)
    bare = sign * parts_of(who, item)[0].vertices[:, axis]
    coat = sign * parts_of(who, item, **{"outer.kind": "coat"})[0].vertices[:, axis]
    assert coat.max() > bare.max() + 0.002


def test_clothes_clear_moves_only_what_is_too_close() -> None:
    none = Clothes(())
    points = np.array([[0.0, 1.0, 0.1], [0.0, 1.2, 0.1]])
    np.testing.assert_allclose(none.clear(points, np.array([0, 0, 1.0]), 0.01), points)


def test_sweeps_and_grids_face_outward() -> None:
    line = np.stack([np.zeros(5), np.zeros(5), np.linspace(0, 1, 5)], 1)
    ring = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6), np.zeros(12)], 1)
    for path, up, closed in ((line, [0.0, 1, 0], False), (ring, [0.0, 0, 1], True)):
        v, t = sweep(path, np.array(up), oval(0.1, 0.1, 8), closed=closed)
        normal = np.cross(v[t[:, 1]] - v[t[:, 0]], v[t[:, 2]] - v[t[:, 0]])
        middle = v[t].mean(1)
        out = middle - path[cKDTree(path).query(middle)[1]]
        assert ((normal * out).sum(1) > -1e-9).all()
    assert grid(3, 4).shape == (12, 3) and grid(3, 4, wrap=True).shape == (16, 3)
