"""The benchmark of the encoders: its measures with planted values, and its parts with tiny random networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ipse.measure import Evidence

ROOT = Path(__file__).parents[2]
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bench():
    """The script as a module; its folder stays on the path, for it imports its neighbors."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import encoders

    yield encoders
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a tiny network of each kind, untrained."""
    from ipse.encoders.backbones import backbone
    from ipse.encoders.contract import ChipSpec
    from ipse.encoders.trained import save_network
    from ipse.training.recipe import TrainRecipe
    from ipse.training.tasks.attributes import AttributeNetwork, Target
    from ipse.training.tasks.landmarks import LandmarkNetwork

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)

    def save(name, task, size, template, network, options, outputs, **more):
        chip = ChipSpec(*size, template, "rgb", (127.5,) * 3, (127.5,) * 3)
        contract = {"name": name, "task": task, "modality": name.split("-")[0], "license": "none", "chip": chip}
        contract |= {"network": options, "outputs": outputs, **more}
        save_network(network.eval(), contract, folder / f"{name}.safetensors")

    embedding = {"dim": 8, "metric": "cosine", "outputs": {"embedding": {"kind": "embedding"}}}
    small = {"width": 0.125, "dim": 8, "blocks": [1, 1, 1, 1], "scale": 1}
    options = {"backbone": "mobilefacenet", **small}
    network = backbone("mobilefacenet", **small)
    save("face-world", "identity", (112, 112), "arcface112", network, options, **embedding)
    options = {"backbone": "osnet", "width": 0.125, "dim": 8}
    save("body-world", "identity", (64, 32), None, backbone("osnet", width=0.125, dim=8), options, **embedding)
    recipe = TrainRecipe.load(ROOT / "recipes" / "encoders" / "attributes-world.yaml")
    targets = [Target.from_recipe(name, told) for name, told in recipe.targets.items()]
    outputs = {
        t.name: {"kind": "classes", "classes": list(t.classes)}
        if t.classes
        else {"kind": "number", "number": list(t.number)}
        for t in targets
    }
    small |= {"size": [128, 128]}
    network = AttributeNetwork(backbone("mobilefacenet", **small), targets)
    options = {"backbone": "mobilefacenet", **small}
    save("attributes-world", "attributes", (128, 128), None, network, options, outputs)
    options, outputs = {"width": 0.25, "depth": 1}, {name: {} for name in ("points", "visible", "parts")}
    save("landmarks-world", "landmarks", (128, 128), None, LandmarkNetwork(**options), options, outputs)
    return folder


def test_stripes_tell_clothes_and_their_place(bench):
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (64, 32, 3)).astype(np.uint8)
    picture[:32] //= 4
    found = bench.hsv_stripes([picture, picture[:, ::-1], picture[::-1], np.zeros((16, 8, 3), np.uint8)])
    assert found.shape == (4, 8 * 8 * 4 * 4)
    # Each stripe is a histogram, and the mirror image has the same ones.
    np.testing.assert_allclose((found**2).reshape(4, 8, -1).sum(2), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0] @ found[2] < 0.8 * (found[0] @ found[1])


def planted(people=5, shots=6, seed=0):
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(people, 1, 16))
    return (centers + 0.05 * generator.normal(size=(people, 2 * shots, 16))).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_face_that_is_not_found_is_a_failure(bench, metric):
    vectors = planted()
    hits, owner = bench.hits_across_looks(vectors, metric)
    assert hits.all() and owner.tolist() == np.repeat(range(5), 6).tolist()
    assert bench.error_across_looks(vectors, metric, 20) == (0, (0, 0))
    vectors[1, 8] = np.nan  # a probe
    vectors[2, :6] = np.nan  # all that is enrolled of somebody
    hits, _ = bench.hits_across_looks(vectors, metric)
    assert np.flatnonzero(hits == 0).tolist() == [8, *range(12, 18)]
    same, whose, different, between = bench.pairs_across_looks(vectors, metric)
    assert len(same) == 5 * 36 and len(different) == 20 * 36 and (between[:, 0] != between[:, 1]).all()
    refused = same >= 3
    assert np.bincount(whose[refused], minlength=5).tolist() == [0, 6, 36, 0, 0]
    assert bench.error_across_looks(vectors, metric, 20)[0] > 10


def write_market(folder):
    """Pictures of three people in two cameras for training and of two others for judging, three each."""
    generator = np.random.default_rng(0)
    for split, people in (("train", (2, 7, 9)), ("val", (11, 12))):
        (folder / "market1501" / split).mkdir(parents=True)
        for who in people:
            for camera in (1, 2):
                for frame in range(3):
                    pixels = generator.integers(0, 50, (128, 64, 3)).astype(np.uint8) + np.uint8(who)
                    pixels[..., who % 3] += 100
                    path = folder / "market1501" / split / f"{who:04d}_c{camera}s1_{frame:06d}_01.jpg"
                    Image.fromarray(pixels).save(path)
    return folder


def test_market_is_judged_as_its_protocol_says(bench, tmp_path):
    market = bench.Market.open(write_market(tmp_path))
    assert market.query.tolist() == [0, 3, 6, 9] and len(market.gallery) == 8
    result = market.evaluate(bench.hsv_stripes(market.images))
    assert result.rank(1) == 1 and result.relevant.tolist() == [2, 2, 2, 2]
    evidence = Evidence("encoders")
    bench.add_retrieval(evidence, "encoders.x", result, "a note", ("itself", result))
    values = {figure["name"]: figure["value"] for figure in evidence.figures}
    assert values == {"encoders.x_rank1": 100, "encoders.x_map": 100} | {
        f"encoders.x_{figure}_ahead": 0 for figure in ("rank1", "map")
    }


def test_a_run_that_saw_other_pictures_is_refused(bench, tmp_path):
    write_market(tmp_path)
    record = {"recipe": {"data": {"source": "train"}}, "people": 2, "judged_people": 1, "pictures": 12}
    bench.check_market_run(record | {"judged_pictures": 6}, tmp_path)
    for other in ({"judged_pictures": 7}, {"judged_pictures": 6, "recipe": {"data": {"source": "all"}}}):
        with pytest.raises(SystemExit, match="Market-1501 train has 18 of 3"):
            bench.check_market_run(record | other, tmp_path)
    for path in (tmp_path / "market1501" / "val").glob("0011_*"):
        path.rename(path.with_name(path.name.replace("0011", "0007")))
    with pytest.raises(SystemExit, match="People such as 7 are in"):
        bench.check_market_run(record | {"judged_pictures": 6}, tmp_path)


def test_crops_are_put_where_portraits_have_the_face(bench):
    crop = np.zeros((128, 128, 3), np.uint8)
    left, right, height = (round(128 * share) for share in bench._UTKFACE_EYES)
    crop[height - 2 : height + 3, left - 2 : left + 3, 0] = 255
    crop[height - 2 : height + 3, right - 2 : right + 3, 1] = 255
    portrait = bench.as_portrait(crop, 128)
    assert portrait.shape == (128, 128, 3)
    for channel, share in enumerate(bench._PORTRAIT_EYES[:2]):
        y, x = (places.mean() for places in np.nonzero(portrait[..., channel] > 60))
        assert (x / 128, y / 128) == pytest.approx((share, bench._PORTRAIT_EYES[2]), abs=0.015)


@pytest.mark.parametrize("side", [30.0, 150.0])
def test_points_of_a_chip_go_back_to_where_they_are_in_the_picture(bench, side):
    y, x = np.mgrid[:256, :256]
    image = np.stack([x, y, np.zeros_like(x)], 2).astype(np.uint8)
    chip, corner, whole = bench.cut_square(image, (120.0, 131.0, side), 64)
    assert whole == 1.5 * side
    # Each pixel of this picture says where it is, so each of the chip says where it was cut.
    rows, columns = np.mgrid[4:60:8, 4:60:8]
    places = (np.stack([columns, rows], 2) + 0.5) / 64 * whole + corner
    np.testing.assert_allclose(chip[rows, columns, :2], places, atol=1.0)


def test_meaning_a_point_to_be_elsewhere_is_no_error_of_finding_it(bench):
    generator = np.random.default_rng(0)
    dense = np.zeros((20, 70, 2))
    turn = np.exp(1j * generator.uniform(-0.5, 0.5, 20)) * generator.uniform(30, 60, 20)
    dense[:, 45] = np.stack([turn.real, turn.imag], 1)
    own = np.array([0.1, 0.05j, -0.02, 0, 0.03 + 0.01j]) * turn[:, None]
    habit = np.stack([own.real, own.imag], 2)
    np.testing.assert_allclose(bench.without_habit(habit, dense), 0, atol=1e-12)
    noise = generator.normal(size=(20, 5, 2))
    left = bench.without_habit(habit + noise, dense)
    assert 0.7 < np.abs(left).mean() / np.abs(noise).mean() < 1.1


def test_pairs_are_drawn_evenly(bench, tmp_path):
    (tmp_path / "lfw").mkdir()
    lines = [f"{fold},{same},A/{n}.jpg,B/{n}.jpg" for fold in (1, 2) for same in (0, 1) for n in range(10)]
    (tmp_path / "lfw" / "pairs.csv").write_text("\n".join(["fold,same,a,b", *lines]))
    drawn = list(bench.lfw_sample(tmp_path, 12))
    assert sorted((pair["fold"], pair["same"]) for pair in drawn) == sorted(
        [(fold, same) for fold in "12" for same in "01"] * 3
    )


def test_balanced_accuracy_is_over_what_can_be_seen(bench):
    true = np.array([0, 0, 0, 1, np.nan])
    assert bench.balanced_accuracy(np.array([0, 0, 1, 1, 1]), true) == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(bench.balanced_accuracy(np.zeros(2), np.full(2, np.nan)))


def test_what_cannot_be_measured_is_said(bench, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--only", "market"])
    assert "market cannot be measured without --shared" in capsys.readouterr().err


def test_every_part_runs_on_a_few_people_with_untrained_networks(bench, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(bench.world, "SHOTS", 2)
    people = 2
    for n in range(800_000, 800_000 + people):
        bench._portraits_of(tmp_path, n)
    setting = bench.Setting(weights, tmp_path, 800_000, people, 1, None, None, None, 10, 10)
    evidence = Evidence("encoders")
    for name in ("face", "body", "spans", "attributes", "landmarks"):
        bench.PARTS[name](evidence, setting)
    names = {figure["name"].removeprefix("encoders.") for figure in evidence.figures}
    assert names >= {
        "face_world_rank1", "face_world_rank1_true_points", "face_world_eer", "face_world_missed_faces",
        "body_world_across_looks_rank1", "body_world_across_looks_map_ahead", "spans.short.hsv_map",
        "spans.long.body_world_map", "spans.flips", "attributes_world_balanced_accuracy_mean",
        "attributes_world_balanced_accuracy_min", "attributes_world_error.age", "landmarks_world_nme",
        "landmarks_world_five_nme", "landmarks_world_nme_spoiled", "landmarks_world_speedup_vs_dlib",
    }  # fmt: skip
    json.dumps(evidence.figures)
    # dlib's points are where the world says they are, untrained ones are not.
    five = next(f for f in evidence.figures if f["name"] == "encoders.landmarks_world_five_nme")
    assert five["against"]["value"] < 10 < five["value"]
