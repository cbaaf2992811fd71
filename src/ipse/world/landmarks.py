"""Landmarks of the face as vertices of the fixed mesh, so that every person, expression and pose has them exactly.

Seventy points in the customary order: 17 along the jaw, 5 + 5 on the brows, 9 on the nose, 6 + 6 around the eyes, 12
+ 8 on the lips, and the two
pupils. Left and right are those of the image of a face that looks into the camera: point 0 is at the image's left.
Each point is the mesh vertex nearest to a place on the template's face.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ipse.world.body import body

DENSE_GROUPS: dict[str, slice] = {
    "jaw": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "lips": slice(48, 68),
    "pupils": slice(68, 70),
}
"""Rows of the dense landmarks by part of the face."""

FIVE_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""The five points in the order of the common alignment templates; left is the image's left."""

# x and y on the template's face, meters, of the half at the image's right (the person's left).
_BROW = ((0.0125, 0.7500), (0.0225, 0.7535), (0.0330, 0.7550), (0.0435, 0.7530), (0.0525, 0.7480))
_NOSE_BASE = ((0.0, 0.6810), (0.0070, 0.6815), (0.0140, 0.6855))
_LIPS_OUTER_TOP = ((0.0, 0.6672), (0.0065, 0.6692), (0.0155, 0.6660), (0.0250, 0.6612))
_LIPS_OUTER_BOTTOM = ((0.0, 0.6500), (0.0080, 0.6510), (0.0165, 0.6550))
_LIPS_INNER = ((0.0210, 0.6611), (0.0090, 0.6612), (0.0, 0.6608))
_EYE_RIM = (
    (-0.0125, -0.0008),
    (-0.0050, 0.0050),
    (0.0055, 0.0050),
    (0.0135, 0.0010),
    (0.0055, -0.0038),
    (-0.0050, -0.0038),
)


@lru_cache(maxsize=1)
def dense_vertices() -> np.ndarray:
    """(68,) vertex numbers of the dense landmarks but the pupils."""
    b = body()
    t = b.template
    skin = np.unique(b.triangles[b.triangles_of("body")])
    front = skin[(t[skin, 2] > 0.03) & (b.mask("ears")[skin] < 0.2) & (b.mask("inside_mouth")[skin] < 0.5)]
    front = front[(t[front, 1] > 0.60) & (t[front, 1] < 0.82)]

    def nearest(x: float, y: float) -> int:
        near = front[np.hypot(t[front, 0] - x, t[front, 1] - y) < 0.006]
        # Of the layers behind one another (lip and gum), the one in front is meant.
        near = near[t[near, 2] > t[near, 2].max() - 0.006]
        return int(near[np.argmin(np.hypot(t[near, 0] - x, t[near, 1] - y))])

    # The neck is as wide as the jaw; the mask of the face ends at the edge of the jaw.
    face = front[(b.mask("face")[front] > 0.3) & (t[front, 1] < 0.732)]
    jaw = []
    for angle in np.radians(np.linspace(-98, 98, 17)):
        reach = t[face, 0] * np.sin(angle) - (t[face, 1] - 0.70) * np.cos(angle)
        jaw.append(int(face[np.argmax(reach)]))
    brows = [nearest(-x, y) for x, y in _BROW[::-1]] + [nearest(x, y) for x, y in _BROW]
    bridge = [nearest(0.0, y) for y in (0.7351, 0.7196, 0.7066, 0.6938)]
    base = [nearest(-x, y) for x, y in _NOSE_BASE[:0:-1]] + [nearest(x, y) for x, y in _NOSE_BASE]

    lids = []
    for side in (-1, 1):
        ball = np.unique(b.triangles[b.triangles_of("helper-r-eye" if side < 0 else "helper-l-eye")])
        center = t[ball].mean(0)
        rim = front[np.abs(np.linalg.norm(t[front] - center, axis=1) - 0.0158) < 0.0011]
        for dx, dy in _EYE_RIM if side > 0 else [(-_EYE_RIM[i][0], _EYE_RIM[i][1]) for i in (3, 2, 1, 0, 5, 4)]:
            lids.append(int(rim[np.argmin(np.hypot(t[rim, 0] - center[0] - dx, t[rim, 1] - center[1] - dy))]))

    top, bottom, inner = _LIPS_OUTER_TOP, _LIPS_OUTER_BOTTOM, _LIPS_INNER
    outer = [(-x, y) for x, y in top[:0:-1]] + list(top) + list(bottom[:0:-1]) + [(-x, y) for x, y in bottom]
    lips = [nearest(x, y) for x, y in outer]
    ring = [(-x, y) for x, y in inner[:2]] + [inner[2], *inner[1::-1]]
    lips += [nearest(x, y + 0.0016 * (abs(x) < 0.02)) for x, y in ring]
    lips += [nearest(x, y - 0.0022) for x, y in (inner[1], inner[2], (-inner[1][0], inner[1][1]))]
    return np.array(jaw + brows + bridge + base + lids + lips)


def dense_landmarks(skin: np.ndarray, pupils: np.ndarray) -> np.ndarray:
    """(70, 3) landmarks from the 68 skin points and the two pupils (2, 3)."""
    return np.concatenate([skin, pupils])


def five_points(dense: np.ndarray) -> np.ndarray:
    """(5, 3): middles of the eye openings, tip of the nose and corners of the mouth, from (70, 3) dense landmarks."""
    return np.stack([dense[36:42].mean(0), dense[42:48].mean(0), dense[30], dense[48], dense[54]])
