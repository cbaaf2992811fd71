"""Packing: pictures and points cut alike, once; bad sources and full disks are told."""

import io
import resource
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ipse.errors import DataError, TrainingError
from ipse.faces.align import TEMPLATES
from ipse.training.data import Cut, carry, pack

from .conftest import rows, write


@contextmanager
def full_disk(size):
    """Files cannot grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "cut",
    [
        Cut("whole", (48, 48)),
        Cut("whole", (96, 64)),
        Cut("face_box", (64, 64), margin=0.4, parts=True),
        Cut("arcface112", (112, 112), parts=True),
    ],
    ids=lambda cut: f"{cut.kind}{cut.size[0]}",
)
def test_points_stay_on_what_they_mark(tmp_path, people, cut):
    chips = pack(people, cut, tmp_path)
    assert len(chips) == 24 and chips.images(np.arange(3)).shape == (3, *cut.size, 3)
    # The ring of points was drawn around the disk; the last twenty are untouched by the eyes.
    dense = chips.column("dense")[:, 48:]
    radius = np.linalg.norm(dense - dense.mean(1, keepdims=True), axis=2).max(1)
    if cut.parts:
        for points, parts in zip(chips.column("dense"), chips.parts(np.arange(24)), strict=True):
            # A disk of radius 12 around the middle of the ring of radius 10: its points lie inside.
            x, y = points[50:68].round().astype(int).T
            ok = (x >= 0) & (x < cut.size[1]) & (y >= 0) & (y < cut.size[0])
            assert ok.sum() < 4 or (parts[y[ok], x[ok]] == 2).mean() > 0.9
    if cut.kind == "arcface112":
        placed = chips.column("five")
        wanted = TEMPLATES["arcface112"].points["arcface5"]
        assert np.abs(placed.mean(1) - wanted.mean(0)).max() < 1e-3  # least squares keeps the middle
    assert radius.min() > 1


def test_whole_pictures_are_kept_exactly(tmp_path, people):
    chips = pack(people, Cut("whole", (48, 48)), tmp_path)
    first = next(rows())
    assert np.array_equal(chips.column("dense")[0], np.float32(np.array(first["dense"]) - 0.5))
    assert np.array_equal(chips.images(np.array([0]))[0], np.asarray(Image.open(io.BytesIO(first["image"]["bytes"]))))


def test_packed_once_and_again_when_the_source_changes(tmp_path):
    source = write(tmp_path / "source", people=3)
    cut, told = Cut("whole", (16, 16)), []
    chips = pack(source, cut, tmp_path / "cache", lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    again = pack(source, cut, tmp_path / "cache", lambda done, total: told.append("again"))
    assert "again" not in told and again.fingerprint == chips.fingerprint
    pq.write_table(pa.Table.from_pylist(list(rows(people=4))), source / "data" / "train-00000.parquet")
    other = pack(source, cut, tmp_path / "cache")
    assert len(other) == 16 and other.fingerprint != chips.fingerprint


def test_other_people_are_held_out(tmp_path, people):
    chips = pack(people, Cut("whole", (16, 16)), tmp_path)
    kept, out = chips.split(0.3)
    assert set(kept.column("person")) == {100, 101, 102, 103} and set(out.column("person")) == {104, 105}
    assert np.array_equal(out.images(np.array([1])), chips.images(np.array([17])))
    with pytest.raises(DataError, match="held out"):
        chips.split(0.01)
    with pytest.raises(DataError, match="no column 'camera'"):
        chips.column("camera")


def test_traits_are_what_differs_among_people(tmp_path, people):
    kept, _ = pack(people, Cut("whole", (48, 48)), tmp_path).split(0.34)
    who = np.unique(kept.column("person"))
    names, values = kept.traits(who)
    # Equal for all: red and green of the iris; without a fixed place: moles; the number is a name.
    assert names == ["age", "iris.rgb.2", "shape.nose"]
    assert values.shape == (4, 3) and np.abs(values.mean(0)).max() < 1e-5 and np.abs(values.std(0) - 1).max() < 1e-5
    assert (np.diff(values[:, 0]) > 0).all()
    assert values[0, 2] == values[2, 2]  # two without a change of the nose
    carry(people, Cut("whole", (48, 48)), tmp_path / "chips")
    again, _ = pack(tmp_path / "chips", Cut("whole", (48, 48)), tmp_path).split(0.34)
    assert np.array_equal(again.traits(who)[1], values)


def test_circumstances_are_what_differs_among_pictures(tmp_path, people):
    chips = pack(people, Cut("whole", (48, 48)), tmp_path)
    names, values = chips.circumstances()
    assert names == ["expression.jawOpen", "head.yaw"] and values.shape == (24, 2)
    assert set(values[:, 0].round(3).tolist()) == {-1.0, 1.0}  # in every other picture
    table = pq.read_table(people / "data" / "train-00000.parquet")
    (tmp_path / "bare").mkdir()
    pq.write_table(table.drop_columns(["shot_json"]), tmp_path / "bare" / "a.parquet")
    with pytest.raises(DataError, match="shot_json"):
        pack(tmp_path / "bare", Cut("whole", (48, 48)), tmp_path).circumstances()


def test_carried_chips_are_small_and_train_alike(tmp_path, people):
    cut = Cut("face_box", (32, 32), parts=True)
    files = carry(people, cut, tmp_path / "carried")
    assert [path.name for path in files] == ["chips-00000.parquet"]
    here, there = pack(people, cut, tmp_path / "a"), pack(tmp_path / "carried", cut, tmp_path / "b")
    assert np.abs(here.images(np.arange(24)).astype(int) - there.images(np.arange(24))).mean() < 6
    assert np.array_equal(here.parts(np.arange(24)), there.parts(np.arange(24)))
    assert np.allclose(here.column("dense"), there.column("dense"))
    assert here.columns["facts"].tolist() == there.columns["facts"].tolist()
    with pytest.raises(DataError, match="not empty"):
        carry(people, cut, tmp_path / "carried")


def test_people_of_whom_nothing_is_told_have_no_traits(tmp_path, people):
    table = pq.read_table(people / "data" / "train-00000.parquet")
    (tmp_path / "bare").mkdir()
    pq.write_table(table.drop_columns(["person_json"]), tmp_path / "bare" / "a.parquet")
    chips = pack(tmp_path / "bare", Cut("whole", (48, 48)), tmp_path)
    with pytest.raises(DataError, match="person_json"):
        chips.traits(np.unique(chips.column("person")))


def test_pictures_named_like_market1501(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("0002_c1s1_000451_03.jpg", "0002_c3s1_000551_01.jpg", "0007_c2s3_1_01.jpg", "-1_c1s1_2_00.jpg"):
        Image.new("RGB", (64, 128), (200, 30, 60)).save(folder / name)
    chips = pack(folder, Cut("whole", (64, 32)), tmp_path / "cache")
    assert chips.column("person").tolist() == [2, 2, 7] and chips.column("camera").tolist() == [1, 3, 2]


def test_sources_that_cannot_be(tmp_path):
    cut = Cut("whole", (16, 16))
    with pytest.raises(DataError, match="no data folder"):
        pack(tmp_path / "absent", cut, tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither Parquet files nor"):
        pack(tmp_path / "empty", cut, tmp_path / "cache")
    judged = write(tmp_path / "judged", people=1, start=900_000)
    with pytest.raises(DataError, match="for judging only"):
        pack(judged, cut, tmp_path / "cache")
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"text": ["a"]}), other / "x.parquet")
    with pytest.raises(DataError, match="no columns `image` and `person`"):
        pack(other, cut, tmp_path / "cache")
    (other / "x.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match="damaged"):
        pack(other, cut, tmp_path / "cache")
    bare = tmp_path / "bare"
    bare.mkdir()
    pq.write_table(
        pa.Table.from_pylist([{k: row[k] for k in ("image", "person")} for row in rows(people=1)]), bare / "x.parquet"
    )
    for kind, size in (("face_box", (16, 16)), ("arcface112", (112, 112))):
        with pytest.raises(DataError, match="which this cut needs"):
            pack(bare, Cut(kind, size), tmp_path / "cache")
    with pytest.raises(DataError, match="no map `parts`"):
        pack(bare, Cut("whole", (16, 16), parts=True), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*")) + list((tmp_path / "cache").glob(".*.part"))


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, people):
    with full_disk(50_000), pytest.raises(DataError, match=r"cannot take the pack.*Make room for about 0.0 GB"):
        pack(people, Cut("whole", (48, 48)), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert len(pack(people, Cut("whole", (48, 48)), tmp_path / "cache")) == 24


def test_cuts_that_cannot_be():
    for options, message in (
        ({"kind": "square"}, "no cut 'square'"),
        ({"kind": "arcface112", "size": (96, 96)}, "112 × 112"),
        ({"size": (4, 64)}, "8 or more"),
    ):
        with pytest.raises(TrainingError, match=message):
            Cut(**options)
