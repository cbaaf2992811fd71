"""Re-identification measured on photographs: how they are cut, what is kept, and ten ways to search."""

import os

import numpy as np
import pytest
from PIL import Image

from ipse.encoders import DlibFaceEncoder, open_encoder
from ipse.errors import DataError, WeightsError
from ipse.gallery.reid import WAYS, Photographs, Seen, Way, measure, open_photographs, ranked, search, see
from ipse.measure import PROTOCOLS, Features


def write(folder, names):
    """Small pictures of these names, in the colors of their people."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number)
        color = np.random.default_rng(abs(int(path.name.split("_")[0]))).uniform(30, 225, (2, 1, 1, 3))
        pixels = np.concatenate(list(np.broadcast_to(color, (2, 16, 16, 3)))) + draw.normal(0, 9, (32, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return folder


def market(side, people=range(1, 5), cameras=(1, 2), each=2):
    return [f"{side}/{p:04d}_c{c}s1_{i:06d}_00.jpg" for p in people for c in cameras for i in range(each)]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    names = market("query", each=1) + market("bounding_box_test", each=2)
    return write(
        folder, [*names, "bounding_box_test/-1_c1s1_000001_00.jpg", "bounding_box_test/0000_c1s1_000001_00.jpg"]
    )


def planted(noise=1.0, people=12, each=6, seed=0):
    """Photographs that are not there, with features that are planted: people in two Looks each."""
    draw = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), each)
    look = 2 * person + np.arange(len(person)) % 2
    own = np.random.default_rng(9).normal(size=(people, 16))[person]
    plain = own + noise * draw.normal(size=(len(person), 16))
    mirrored = own + noise / 2 * draw.normal(size=(len(person), 16))
    colors = np.random.default_rng(8).normal(size=(2 * people, 8))[look] + 0.1 * draw.normal(size=(len(person), 8))
    columns = {"person": person, "camera": np.arange(len(person)) % 3}
    rows = np.arange(len(person))
    query = rows[rows % each == 0]
    photographs = Photographs("market1501", [], columns, query, np.setdiff1d(rows, query), "planted")
    return photographs, Seen(*(side.astype(np.float32) for side in (plain, mirrored, colors)))


def test_published_queries_and_gallery_are_taken_as_they_are(published):
    found = open_photographs(published, "market1501")
    assert len(found.query) == 8 and len(found.gallery) == 18 and "as published" in found.about
    assert {found.images[row].parent.name for row in found.query} == {"query"}
    assert sorted(set(found.columns["person"][found.gallery])) == [-1, 0, 1, 2, 3, 4]


def test_a_split_is_cut_and_nobody_asks_for_nobody(tmp_path):
    names = market("val") + ["val/0000_c1s1_000000_00.jpg", "val/-1_c2s1_000000_00.jpg"]
    found = open_photographs(write(tmp_path, names), "market1501")
    assert len(found.query) == 8 and len(found.images) == 18 and "split val" in found.about
    pairs = list(zip(found.columns["person"][found.query], found.columns["camera"][found.query], strict=True))
    assert len(set(pairs)) == 8 and min(found.columns["person"][found.query]) == 1
    write(tmp_path, market("train", people=range(7, 9)))
    assert len(open_photographs(tmp_path, "market1501", "train").query) == 4


def test_what_cannot_be_opened_says_why(tmp_path, published):
    with pytest.raises(DataError, match=r"'market' is unknown.*market1501"):
        open_photographs(published, "market")
    with pytest.raises(DataError, match="no queries and gallery in a layout"):
        open_photographs(published, "viper")
    with pytest.raises(DataError, match="no split 'val'"):
        open_photographs(published, "market1501", "val")
    write(tmp_path, market("train"))
    with pytest.raises(DataError, match="nor a split val, but train"):
        open_photographs(tmp_path, "market1501")
    with pytest.raises(DataError, match="not occluded-duke as published"):
        open_photographs(published, "occluded-duke")
    with pytest.raises(DataError, match="no data set"):
        open_photographs(published, "world-across-looks")
    with pytest.raises(DataError, match="no splits"):
        open_photographs(published, "world-across-looks", "val")


def test_clothes_of_ltcc_are_read(tmp_path):
    names = [
        f"{side}/{p:03d}_{o}_c{c}_{p}{o}{c}.png"
        for side in ("query", "test")
        for p in (1, 2)
        for o in (1, 2)
        for c in (1, 2)
    ]
    found = open_photographs(write(tmp_path, names), "ltcc-changed")
    assert set(found.columns) >= {"person", "camera", "clothes"} and len(found.query) == len(found.gallery) == 8


def test_what_is_encoded_is_kept_until_a_photograph_or_the_encoder_is_another(tmp_path, published):
    photographs, encoder = open_photographs(published, "market1501"), open_encoder("body-world")
    told = []
    seen = see(photographs, encoder, tmp_path / "kept", lambda done, total: told.append((done, total)))
    assert seen.plain.shape == seen.mirrored.shape == (26, encoder.dim) and told == [(26, 26)]
    assert np.linalg.norm(seen.plain, axis=1) == pytest.approx(1, abs=1e-4)
    kept = list((tmp_path / "kept").iterdir())
    stamp = kept[0].stat().st_mtime_ns
    again = see(photographs, encoder, tmp_path / "kept")
    assert (again.plain == seen.plain).all() and (again.colors == seen.colors).all()
    assert [path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()] == [stamp]
    os.utime(photographs.images[0], (1, 1))
    see(photographs, encoder, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    with pytest.raises(WeightsError, match="aligned to"):
        see(photographs, DlibFaceEncoder(), tmp_path / "kept")


def test_a_broken_photograph_is_named(tmp_path):
    folder = write(tmp_path / "photos", market("val"))
    (folder / "val" / "0001_c1s1_000000_00.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match="0001_c1s1_000000_00"):
        see(open_photographs(folder, "market1501"), open_encoder("body-world"), tmp_path / "kept")


def test_every_way_finds_people_and_neighbors_help():
    photographs, seen = planted()
    found = {name: measure(photographs, seen, way).mean_ap() for name, way in WAYS.items()}
    assert min(found.values()) > 0.3
    # Averaged features were planted with half of the noise.
    assert found["mirror"] > found["cosine"] < found["together"]
    assert found["kreciprocal"] > found["cosine"] < found["expansion"]
    orders = [tuple(measure(photographs, seen, WAYS[name]).first) for name in ("cosine", "pose2id", "faim")]
    assert len(set(orders)) == 3
    assert isinstance(search(photographs, seen, Way()), Features)


def test_clothes_are_needed_for_intermediaries():
    features = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    with pytest.raises(ValueError, match="clothes"):
        Way(bridged=3).search(features[:5], features[5:])


@pytest.mark.parametrize("way", ["cosine", "together"])
def test_ranked_answers_leave_out_what_the_protocol_ignores(way):
    photographs, seen = planted(noise=0.3)
    photographs.columns["person"][1] = -1
    distances = search(photographs, seen, WAYS[way])
    result = measure(photographs, seen, WAYS[way])
    for query in (0, 3):
        answer = ranked(photographs, distances, query, 100)
        person, camera = (photographs.columns[name] for name in ("person", "camera"))
        row = photographs.query[query]
        assert not ((person[answer] == person[row]) & (camera[answer] == camera[row])).any()
        assert (person[answer] != -1).all() and set(answer) <= set(photographs.gallery)
        # The evaluation counts the same places.
        first = 1 + int(np.flatnonzero(person[answer] == person[row])[0])
        assert first == result.first[list(result.query).index(query)]
        assert len(ranked(photographs, distances, query, 3)) == 3
    assert PROTOCOLS[photographs.protocol].junk
