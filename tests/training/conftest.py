"""Small data sets of the world's layout, drawn and not rendered: blobs whose color is the person's."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

SIDE = 48


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def face(draw):
    """(70, 2) points of a made-up face, edges of pixels at whole numbers, as the world counts."""
    angles = np.linspace(0, 2 * np.pi, 70, endpoint=False)
    points = np.stack([24 + 10 * np.cos(angles), 24 + 10 * np.sin(angles)], 1) + draw.uniform(-4, 4, 2)
    points[36:42], points[42:48] = points[0] + (-16, -6), points[0] + (-4, -6)
    return points


def rows(people=6, looks=2, shots=2, start=100):
    """Rows of a data set."""
    for person in range(start, start + people):
        color = np.random.default_rng(person).uniform(40, 215, 3)
        for look in range(looks):
            for shot in range(shots):
                draw = np.random.default_rng([person, look, shot])
                points = face(draw)
                pixels = draw.integers(0, 40, (SIDE, SIDE, 3)).astype(np.uint8)
                y, x = np.mgrid[:SIDE, :SIDE]
                middle = points.mean(0)
                inside = np.hypot(x + 0.5 - middle[0], y + 0.5 - middle[1]) < 12
                pixels[inside] = color
                glasses = bool(look % 2)
                if glasses:
                    pixels[10:14] = 255
                facts = {"glasses": "round" if glasses else "none"} | ({"age_group": "young"} if shot else {})
                five = np.stack([points[36], points[42], points[30], points[48], points[54]])
                yield {
                    "image": encoded(pixels),
                    "person": person,
                    "look": look,
                    "shot": shot,
                    "age": float(20 + person % 40),
                    "mask": bool(person % 2),
                    "facts": json.dumps(facts),
                    "five": five.tolist(),
                    "five_visible": [True] * 5,
                    "dense": points.tolist(),
                    "dense_visible": [True] * 69 + [False],
                    "face_box": [*points.min(0).tolist(), *points.max(0).tolist()],
                    "parts": encoded(inside.astype(np.uint8) * 2),
                    "person_json": json.dumps(
                        {"number": person, "age": 20 + person % 40, "shape": {"nose": color[0]} if person % 2 else {}}
                        | {"iris": {"name": "brown", "rgb": [0.5, 0.2, color[1]]}, "skin": {"moles": [{"u": 0.5}]}}
                    ),
                    "shot_json": json.dumps(
                        {"mood": "smile", "expression": {"jawOpen": 0.5} if shot else {}, "head": {"yaw": middle[0]}}
                    ),
                }


def write(folder, **options):
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows(**options))), folder / "data" / "train-00000.parquet")
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Folder of 6 people × 2 Looks × 2 Shots."""
    return write(tmp_path_factory.mktemp("world") / "people")
