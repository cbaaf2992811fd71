"""Make the pictures of README and docs: `python docs/pictures.py` (a minute). People are taken by number, not
picked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ipse.world import LABELS, Picture, look, person, render, shot

OUT = Path(__file__).parent / "images"


def grid(rows: list[list[np.ndarray]], gap: int = 4) -> Image.Image:
    """Pictures of equal size in rows and columns on white."""
    height, width = rows[0][0].shape[:2]
    sheet = np.full((len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            sheet[i * (height + gap) : i * (height + gap) + height, j * (width + gap) : j * (width + gap) + width] = (
                image
            )
    return Image.fromarray(sheet)


def part_colors(parts: np.ndarray) -> np.ndarray:
    """Segmentation classes as colors."""
    rng = np.random.default_rng(5)
    colors = rng.integers(60, 245, (len(LABELS), 3)).astype(np.uint8)
    colors[0] = 24
    return colors[parts]


def truth_row(picture: Picture) -> list[np.ndarray]:
    """The image, its parts, landmarks, depth, normals and texture coordinates."""
    t, image = picture.truth, picture.image
    marked = (image * 0.55).astype(np.uint8)
    points, visible = (t.keypoints, t.keypoints_visible) if t.framing == "person" else (t.dense, t.dense_visible)
    for (x, y), seen in zip(points, visible, strict=True):
        i, j = int(y), int(x)
        if 1 <= i < image.shape[0] - 1 and 1 <= j < image.shape[1] - 1:
            marked[i - 1 : i + 2, j - 1 : j + 2] = (80, 255, 120) if seen else (255, 80, 80)
    here = t.depth > 0
    depth = np.zeros(t.depth.shape)
    depth[here] = 0.15 + 0.85 * (t.depth[here].max() - t.depth[here]) / max(np.ptp(t.depth[here]), 1e-6)
    uv = np.concatenate([np.clip(t.uv, 0, 1), np.zeros((*t.depth.shape, 1))], 2)
    uv[t.uv[..., 0] < 0] = 0.1
    return [
        image,
        part_colors(t.parts),
        marked,
        np.repeat((depth * 255).astype(np.uint8)[..., None], 3, 2),
        ((t.normals * 0.5 + 0.5) * 255 * here[..., None]).astype(np.uint8),
        (uv * 255).astype(np.uint8),
    ]


def main() -> None:
    OUT.mkdir(exist_ok=True)
    # Six people balanced over age, gender and skin; columns: two Looks, four Shots each.
    rows = []
    for n in range(1, 7):
        who = person(n, balance=("age", "gender", "skin"))
        rows.append(
            [
                render(
                    who, look(k // 4, who, fix={"mask": None}), shot(8 * n + k, fix={"occluder": None}), size=128
                ).image
                for k in range(8)
            ]
        )
    grid(rows).save(OUT / "world.png", optimize=True)

    who = person(3)
    worn = look(1, who)
    rows = [truth_row(render(who, worn, shot(21), size=192))]
    grid(rows).save(OUT / "truth.png", optimize=True)

    rows = []
    for start in (1, 9):
        row = []
        for n in range(start, start + 8):
            who = person(n)
            row.append(render(who, look(n, who), shot(n, "person", fix={"occluder": None}), "person").image)
        rows.append(row)
    grid(rows).save(OUT / "bodies.png", optimize=True)


if __name__ == "__main__":
    main()
