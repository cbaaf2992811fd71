import hashlib
import json

import numpy as np
import pytest

from ipse.encoders import ChipSpec, Encoder
from ipse.encoders.contract import fingerprint_of
from ipse.errors import DataError, WorldError
from ipse.faces import Face
from ipse.images import read_image, save_png
from ipse.synth import sig
from ipse.synth.sig import CELLS, PixelEncoder, SigPlan, audit_vectors, cell_sizes, make_set, read_set, similarity
from ipse.world import render


class Middle:
    """Takes the middle of a portrait for its face: the world puts it there. It is blind to the people it is told."""

    name = "middle"

    def __init__(self, misses=0):
        self.misses = misses
        self.calls = 0

    def detect(self, image):
        self.calls += 1
        if self.calls <= self.misses:
            return []
        side = image.shape[0]
        points = np.array([(0.72, 0.42), (0.6, 0.42), (0.28, 0.42), (0.4, 0.42), (0.5, 0.62)], np.float32) * side
        return [Face((side * 0.2, side * 0.2, side * 0.8, side * 0.9), 1.0, points, "dlib5")]


PLAN = SigPlan(identities_per_cell=1, poses=(0, 30), max_similarity=0.9999, size=96)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set of one identity a cell, whose first candidate is not seen; with what `make_set` said of it."""
    folder = tmp_path_factory.mktemp("sig")
    return folder, make_set(PLAN, folder, encoder=PixelEncoder(), detector=Middle(1), progress=False)


def test_the_grid_is_exactly_balanced(made):
    folder, summary = made
    sizes = cell_sizes(read_set(folder))
    assert len(sizes) == CELLS * 2 == summary.pictures
    assert set(sizes.values()) == {1}


def test_who_is_not_seen_is_replaced_by_the_next_of_the_cell(made):
    folder, summary = made
    rows = read_set(folder)
    people = {row["person"] for row in rows}
    assert 0 not in people
    assert 30 in people
    assert summary.tried["unseen"] == 1
    assert sum(summary.unseen.values()) == 1
    assert summary.tried["accepted"] == CELLS


def test_the_manifest_tells_what_is_in_the_pictures(made):
    folder, _ = made
    for row in read_set(folder)[::13]:
        image = read_image(folder / row["file_name"])
        assert image.shape == (96, 96, 3)
        assert hashlib.sha256(image.tobytes()).hexdigest() == row["sha256"]
        assert row["group"] == f"{row['skin_group']}-{row['gender']}"
    assert "0.9999" in (folder / "README.md").read_text()


def test_no_two_identities_are_more_alike_than_the_threshold(made):
    folder, summary = made
    encoder = PixelEncoder()
    first = [row for row in read_set(folder) if row["yaw"] == 0]
    faces, seen = sig.chips(folder, first, encoder, Middle())
    vectors = encoder.encode(faces)
    alike = similarity(encoder, vectors, vectors) - 2 * np.eye(len(vectors))
    assert seen.all()
    assert alike.max() < PLAN.max_similarity
    assert alike.max() == pytest.approx(summary.max_similarity)


def test_a_run_that_was_cut_off_goes_on_to_the_same_set(made, tmp_path, monkeypatch):
    folder, summary = made
    copy = tmp_path / "set"
    copy.mkdir()
    (copy / "sig.json").write_bytes((folder / "sig.json").read_bytes())
    log = (folder / "candidates.jsonl").read_text().splitlines()
    kept = [json.loads(line)["person"] for line in log[:-2]]
    # The last line is half written.
    (copy / "candidates.jsonl").write_text("\n".join(log[:-2]) + "\n" + log[-2][:20])
    for row in read_set(folder):
        if row["person"] in kept:
            save_png(read_image(folder / row["file_name"]), copy / row["file_name"])
    drawn = []
    monkeypatch.setattr(
        sig, "render", lambda who, *rest, **size: drawn.append(who.number) or render(who, *rest, **size)
    )
    again = make_set(PLAN, copy, encoder=PixelEncoder(), detector=Middle(), progress=False)
    assert len(drawn) == 2 * 2
    assert not set(drawn) & set(kept)
    assert again.tried == summary.tried
    for name in ("metadata.jsonl", "candidates.jsonl", "README.md"):
        assert (copy / name).read_text() == (folder / name).read_text()


def test_a_threshold_that_nobody_meets_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sig, "_TRIES", 2)
    plan = SigPlan(identities_per_cell=1, poses=(0,), max_similarity=-1.0, size=96)
    with pytest.raises(DataError, match="Raise the highest similarity above -1"):
        make_set(plan, tmp_path / "set", encoder=PixelEncoder(), detector=Middle(), progress=False)


def test_another_plan_is_refused(made):
    folder, _ = made
    with pytest.raises(DataError, match="size is 96 there"):
        make_set(SigPlan(1, (0, 30), 0.9999, size=128), folder, encoder=PixelEncoder(), detector=Middle(1))


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        make_set(PLAN, tmp_path, encoder=PixelEncoder(), detector=Middle())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_set_with_a_missing_picture_is_damaged(made, tmp_path):
    folder, _ = made
    for name in ("sig.json", "metadata.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(DataError, match="is missing"):
        read_set(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"identities_per_cell": 0}, {"poses": (0, 60)}, {"poses": ()}, {"max_similarity": 2}, {"size": 20}, {"start": -1}],
)
def test_an_impossible_plan_is_refused(options):
    with pytest.raises(WorldError):
        SigPlan(**options)


def rows_of(people, poses=3):
    """A manifest of people in six groups and five ages."""
    skins, genders, ages = (
        ("dark", "light", "medium"),
        ("female", "male"),
        ("child", "teen", "young", "middle", "elder"),
    )
    return [
        {
            "person": n,
            "skin_group": skins[n % 3],
            "gender": genders[n % 2],
            "age_group": ages[n % 5],
            "group": f"{skins[n % 3]}-{genders[n % 2]}",
            "yaw": k,
        }
        for n in range(people)
        for k in range(poses)
    ]


@pytest.fixture(scope="module")
def vectors():
    """A manifest and vectors of an encoder that treats all alike: a place per person and noise per picture."""
    rows, generator = rows_of(120), np.random.default_rng(3)
    places = generator.normal(size=(120, 16))
    return rows, np.repeat(places, 3, 0) + 0.45 * generator.normal(size=(360, 16))


def test_a_planted_bias_shows_in_its_group_and_only_there(vectors):
    rows, fair = vectors
    mine = np.array([row["group"] == "dark-female" for row in rows])
    biased = fair + 0.6 * mine[:, None] * np.random.default_rng(4).normal(size=fair.shape)
    before = audit_vectors(rows, fair, "fair", held_out=True, fmr=0.01)
    after = audit_vectors(rows, biased, "biased", held_out=True, fmr=0.01)
    for group in before.by["group"]:
        assert before.excess("group", group)[1][0] <= 0, "the fair encoder misses nobody more often"
        low = after.excess("group", group)[1][0]
        assert (low > 0) == (group == "dark-female")
    assert after.by["group"]["dark-female"].rate > 3 * before.by["group"]["dark-female"].rate


def test_a_face_that_is_not_found_is_an_error(vectors):
    rows, fair = vectors
    blind = fair.copy()
    blind[[row["group"] == "light-male" and row["yaw"] == 2 for row in rows]] = np.nan
    found = audit_vectors(rows, blind, "blind", held_out=True, fmr=0.01)
    assert found.missed == 20
    # Two of three pairs of each person have the picture.
    assert found.by["group"]["light-male"].rate >= 2 / 3
    assert found.by["group"]["dark-female"].rate < 0.2


def test_too_few_pairs_for_the_rate_are_told(vectors):
    rows, fair = vectors
    with pytest.raises(DataError, match="too small"):
        audit_vectors(rows[:30], fair[:30], "fair", held_out=True, fmr=1e-6)


class Constant(Encoder):
    name, dim, modality, metric, license = "constant", 2, "face", "l2", "none"
    chip = ChipSpec(150, 150, "dlib150")
    fingerprint = fingerprint_of("constant", chip)

    def _encode(self, batch):
        return np.ones((len(batch), 2), np.float32) * batch.mean((1, 2, 3))[:, None]


def test_an_audit_of_a_folder_reads_its_pictures(made, tmp_path):
    folder, _ = made
    told = []
    found = sig.audit(
        folder, Constant(), detector=Middle(), fmr=0.1, on_progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (60, 60)
    assert found.held_out
    assert len(found.mated) == 30
    assert len(found.non_mated) == 60 * 59 / 2 - 30
    assert not sig.audit(folder, PixelEncoder(), detector=Middle(), fmr=0.1).held_out
    assert read_image(sig.plot_audit(found, tmp_path / "plot.png")).shape[2] == 3
    assert json.loads(json.dumps(found.to_dict()))["by"]["group"].keys() == {r["group"] for r in read_set(folder)}


def test_similarity_is_the_cosine_of_unit_vectors():
    a = np.random.default_rng(0).normal(size=(5, 8))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    assert similarity(Constant(), a, a) == pytest.approx(a @ a.T)


def test_controlface_is_read(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    for orientation in range(3):
        save_png(picture, tmp_path / f"Asian/female/30/identity-ab/r1_g0_a30_o{orientation}_c0a1B2c.png")
    rows = list(sig.controlface(tmp_path))
    assert [row["orientation"] for row in rows] == [0, 1, 2]
    assert {(row["person"], row["group"], row["age"]) for row in rows} == {("ab", "Asian-female", 30)}
    with pytest.raises(DataError, match="no copy"):
        list(sig.controlface(tmp_path / "Asian/female/30/identity-ab"))
