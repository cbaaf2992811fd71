"""How KPR learns: who is pasted where, what is still known of both, and that prompts decide who is found."""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

from walking import recipe  # noqa: E402

from ipse.encoders.backbones.kpr import prompts  # noqa: E402
from ipse.errors import DataError, TrainingError  # noqa: E402
from ipse.gallery.visible_parts import VisibleParts  # noqa: E402
from ipse.training.kpr import Boxes, Chances, PromptedParts, _moved, occlude, part_map, paste, read_boxes  # noqa: E402
from ipse.training.learning import embed, learn  # noqa: E402
from ipse.training.networks import load_network  # noqa: E402

HEIGHT, WIDTH = 32, 24
NETWORK = {
    "backbone": "kpr", "width": 32, "depth": 2, "heads": 2, "dim": 16, "size": [HEIGHT, WIDTH], "patch": 4, "stride": 4,
    "drop": 0.0,
}  # fmt: skip
PLAN = {"network": NETWORK, "cut": {"kind": "whole", "size": [HEIGHT, WIDTH]}}


def standing(left=8, width=8):
    """(17, 3) keypoints of somebody who stands upright, eight pixels broad."""
    heights = np.array([3, 2, 2, 3, 3, 8, 8, 12, 12, 17, 17, 18, 18, 23, 23, 28, 28]) + 0.5
    sides = np.array([0, *[1, -1] * 8])
    return np.stack([left + width / 2 + sides * (width / 2 - 1.5), heights, np.ones(17)], 1).astype(np.float32)


def people(count=8, each=4, seed=0):
    """Boxes of people in two colors, each in the middle of a gray picture."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(count), each)
    pictures = draw.normal(120, 8, (len(who), HEIGHT, WIDTH, 3))
    for picture, person in zip(pictures, who, strict=True):
        own = np.random.default_rng(int(person)).uniform(0, 255, (2, 3))
        picture[1:15, 8:16] += own[0] - 120
        picture[15:30, 8:16] += own[1] - 120
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[1:30, 8:16] = True
    parts = np.stack([part_map(mask, standing())] * len(who))
    shots = np.tile(np.arange(each), count)
    points = np.stack([standing()] * len(who))
    return Boxes(pictures.clip(0, 255).astype(np.uint8), who, np.zeros_like(who), shots, parts, points)


def encoded(pixels):
    """As the world writes pictures."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_parts_lie_from_above_to_below():
    parts = people(1, 1).parts[0]
    assert (parts[:, :8] == 0).all() and (parts[:, 16:] == 0).all()
    middle = parts[1:30, 12]
    assert (np.diff(middle.astype(int)) >= 0).all() and sorted(set(middle)) == [1, 2, 3, 4, 5]


def test_who_is_pasted_hides_and_is_told():
    two = people(2, 1)
    both = paste(two, 4, 0)
    assert (both.pictures[0] == both.pictures[1]).all() and both.people.tolist() == [0, 1]
    # Four columns of the first can be seen, and all of the second.
    assert (both.parts[0] > 0).any(0).tolist() == [8 <= x < 12 for x in range(WIDTH)]
    assert (both.parts[1] > 0).any(0).tolist() == [12 <= x < 20 for x in range(WIDTH)]
    assert (both.pictures[0][:, 12:20] == two.pictures[1][:, 8:16])[1:30].all()
    assert (both.pictures[0][:, :12] == two.pictures[0][:, :12]).all()
    # The right side's keypoints lie at 9.5, the left's at 14.5.
    assert both.points[0, 6, 2] == 1 and both.points[0, 5, 2] == 0
    assert both.points[1, :, 2].all() and both.points[1, 5, 0] == two.points[1, 5, 0] + 4
    back = paste(two, 4, 0, behind=True)
    assert (back.parts[0] == two.parts[0]).all() and back.points[0, :, 2].all()
    assert (back.parts[1] > 0).any(0).tolist() == [16 <= x < 20 for x in range(WIDTH)]
    assert back.points[1, 5, 2] == 1 and back.points[1, 6, 2] == 0
    outside = paste(two, 12, 8)
    assert outside.points[1, 5, 2] == 0 and outside.points[1, 16, 2] == 0


def test_strangers_alone_occlude_and_the_batch_itself_stays():
    batch = people(2, 4)
    before = batch.pictures.copy()
    changed, others = occlude(batch, batch.people, 1.0, np.random.default_rng(0))
    assert (batch.pictures == before).all() and (changed.pictures != before).any((1, 2, 3)).all()
    assert others[:, :, 2].any(1).all()
    kept, nobody = occlude(batch, batch.people, 0.0, np.random.default_rng(0))
    assert (kept.pictures == before).all() and not nobody.any()
    same, nobody = occlude(batch, np.zeros(8, int), 1.0, np.random.default_rng(0))
    assert (same.pictures == before).all() and not nobody.any()
    for i in range(8):
        # What came has a stranger's colors.
        hidden = (batch.parts[i] > 0) & (changed.parts[i] == 0)
        if hidden.any():
            own, now = batch.pictures[i][hidden].mean(0), changed.pictures[i][hidden].mean(0)
            assert np.abs(own - now).max() > 10


def test_points_follow_their_pixels():
    points = people(2, 1).points
    mirror = torch.tensor([[[-1.0, 0, WIDTH - 1], [0, 1, 0]], [[1, 0, 2], [0, 1, 0]]])
    moved = _moved(points, mirror)
    assert moved[0] == pytest.approx(points[0], abs=1e-4)  # symmetric: left and right trade places
    assert moved[1, :, 0] == pytest.approx(points[1, :, 0] + 2) and moved[1, :, 2].all()


def test_chances_thin_prompts_and_leave_them_out():
    boxes = people()
    learner = PromptedParts(recipe(**PLAN), boxes, boxes.people, Chances(0, 0.5, 1.0))
    others = np.zeros_like(boxes.points)
    prompt = learner._prompt(boxes.points, others, np.random.default_rng(0))
    known = prompt[:, :17, 2].sum(1)
    assert 5 < (known == 0).sum() < 27 and 5 < known[known > 0].mean() < 12
    never = PromptedParts(recipe(**PLAN), boxes, boxes.people, Chances(0, 1))
    assert not never._prompt(boxes.points, others, np.random.default_rng(0)).any()


def test_prompts_decide_who_is_found(tmp_path):
    boxes = people(6, 4)
    plan = recipe(
        name="kpr", steps=40, **PLAN, batch={"size": 24, "people": 6, "each": 4}, save_every=200,
        augment={"geometry": {"shift": 0.2}}, optimizer={"rate": 0.003, "warmup": 10}, ema=0.95,
    )  # fmt: skip
    learner = PromptedParts(plan, boxes, boxes.people, Chances(0.7, 0.2, 0.1))
    network, _ = load_network(learn(learner, tmp_path / "run"))
    fresh = people(6, 2, seed=1)
    single = embed(network, fresh.pictures).reshape(12, 6, 16)
    right = []
    for i in range(0, 12, 2):
        both = paste(fresh.choose(np.array([i, (i + 3) % 12])), 8, 1)
        for meant in (0, 1):
            told = prompts(both.points[[meant]], (HEIGHT, WIDTH), both.points[[1 - meant]])
            found = embed(network, both.pictures[:1], beside=told).reshape(1, 6, 16)
            nearest = fresh.people[VisibleParts(found, single).rows(0, 1)[0].argmin()]
            right.append(nearest == both.people[meant])
    # One of the two by chance would be half of them.
    assert np.mean(right) > 0.7


def test_boxes_are_read_and_wrong_ones_refused(tmp_path):
    draw = np.random.default_rng(0)
    rows = []
    for person in (5, 6):
        classes = np.zeros((64, 32), np.uint8)
        classes[4:60, 10:20] = 14
        classes[30:40, 10:15] = 20
        rows.append(
            {
                "image": encoded(draw.integers(0, 255, (64, 32, 3)).astype(np.uint8)), "parts": encoded(classes),
                "keypoints": (standing()[:, :2] * 2).tolist(), "keypoints_visible": [True] * 16 + [False],
                "person": person, "look": 0, "shot": person * 10,
            }
        )  # fmt: skip
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train-0.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    boxes = read_boxes(tmp_path, (32, 16))
    assert boxes.pictures.shape == (2, 32, 16, 3) and boxes.people.tolist() == [5, 6]
    assert boxes.points[0, :, :2] == pytest.approx(standing()[:, :2]) and boxes.points[0, :, 2].sum() == 16
    assert (boxes.parts[0] > 0)[2:30, 5:10].mean() == pytest.approx(1 - 5 * 2 / 140, abs=0.05)
    assert not boxes.parts[0][16:19, 5:7].any() and len(set(boxes.days)) == 2
    with pytest.raises(DataError, match="no data set"):
        read_boxes(tmp_path / "nothing")
    rows[0]["person"] = 900_001
    pq.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match="judging only"):
        read_boxes(tmp_path)
    pq.write_table(pa.Table.from_pylist([{k: v for k, v in row.items() if k != "parts"} for row in rows]), path)
    with pytest.raises(DataError, match="no column parts"):
        read_boxes(tmp_path)


def test_other_networks_and_lengths_are_refused():
    boxes = people(2, 2)
    with pytest.raises(TrainingError, match="network with prompts"):
        PromptedParts(recipe(), boxes, boxes.people)
    with pytest.raises(TrainingError, match="labels"):
        PromptedParts(recipe(**PLAN), boxes, boxes.people[1:])
