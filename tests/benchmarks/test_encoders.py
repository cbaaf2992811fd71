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
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def bench():
    """The script as a module; its folder stays on the path, for it imports its neighbors."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import encoders

    yield encoders
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a tiny network of each kind, untrained, as they are shipped."""
    from ipse.encoders.backbones import backbone
    from ipse.encoders.contract import ChipSpec
    from ipse.encoders.trained import save_network
    from ipse.training.recipe import TrainRecipe
    from ipse.training.ship import ship
    from ipse.training.tasks.attributes import AttributeNetwork, Target
    from ipse.training.tasks.landmarks import LandmarkNetwork

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)

    def write(name, task, chip, network, options, **more):
        run = tmp_path_factory.mktemp(name)
        contract = {"name": name, "task": task, "modality": name.split("-")[0], "license": "none", "chip": chip}
        save_network(network.eval(), contract | {"network": options, **more}, run / f"{name}.safetensors")
        cut = {"kind": "face_box" if task == "landmarks" else "whole", "size": [chip.height] * 2, "margin": 0.25}
        (run / "record.json").write_text(json.dumps({"name": name, "recipe": {"cut": cut}}))
        ship(run, folder)

    def chip(height, width, template=None):
        return ChipSpec(height, width, template, "rgb", (127.5,) * 3, (127.5,) * 3)

    embedding = {"dim": 8, "metric": "cosine", "outputs": {"embedding": {"kind": "embedding"}}}
    small = {"width": 0.125, "dim": 8, "blocks": [1, 1, 1, 1], "scale": 1}
    network, options = backbone("mobilefacenet", **small), {"backbone": "mobilefacenet", **small}
    write("face-world", "identity", chip(112, 112, "arcface112"), network, options, **embedding)
    network, options = backbone("osnet", width=0.125, dim=8), {"backbone": "osnet", "width": 0.125, "dim": 8}
    write("body-world", "identity", chip(64, 32), network, options, **embedding)

    recipe = TrainRecipe.load(ROOT / "recipes" / "encoders" / "attributes-world.yaml")
    targets = [Target.from_recipe(name, told) for name, told in recipe.targets.items()]
    outputs = {}
    for target in targets:
        kind = {"classes": list(target.classes)} if target.classes else {"number": list(target.number)}
        outputs[target.name] = {"kind": next(iter(kind)), **kind}
    small |= {"size": [128, 128]}
    network = AttributeNetwork(backbone("mobilefacenet", **small), targets)
    options = {"backbone": "mobilefacenet", **small}
    write("attributes-world", "attributes", chip(128, 128), network, options, outputs=outputs)
    options, outputs = (
        {"width": 0.125, "depths": [1, 1, 1, 1], "neck": 16},
        {name: {} for name in ("points", "visible", "parts")},
    )
    network = LandmarkNetwork(**options)
    write("landmarks-world", "landmarks", chip(128, 128), network, options, outputs=outputs)
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
        "landmarks_world_nme_true_cut", "landmarks_world_five_nme", "landmarks_world_nme_spoiled",
        "landmarks_world_speedup_vs_dlib", "landmarks_world_speedup_vs_dlib_one_look",
    }  # fmt: skip
    json.dumps(evidence.figures)
    # dlib's points are where the world says they are, untrained ones are not.
    five = next(f for f in evidence.figures if f["name"] == "encoders.landmarks_world_five_nme")
    assert five["against"]["value"] < 10 < five["value"]
