"""Judges: their classes, what the world's facts are in them, and whatever picture they are given."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.attributes.judge import PictureJudge, fact_of, open_judge  # noqa: E402
from ipse.encoders.contract import ChipSpec  # noqa: E402
from ipse.encoders.trained import save_network  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402
from ipse.world import look, person, render, shot  # noqa: E402
from ipse.world.caption import facts  # noqa: E402

CLASSES = ("hair_color", "glasses", "clothes_color", "expression")


def test_a_judge_tells_classes_and_features_of_pictures_of_any_size(judge_file):
    judge = open_judge(judge_file)
    assert isinstance(judge, PictureJudge) and judge.attributes == CLASSES and len(judge.fingerprint) == 64
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, shape, np.uint8) for shape in ((32, 32, 3), (50, 40, 3), (128, 128, 3)) * 8]
    told, features = judge.tell(pictures, batch=7)
    assert {name: len(values) for name, values in told.items()} == dict.fromkeys(CLASSES, 24)
    assert set(told["hair_color"]) <= {"black", "brown", "red"}, "shades of brown are one class"
    assert set(told["glasses"]) != {"none"}, "what is frequent was told because it is frequent"
    assert features.shape == (24, 8) and np.isfinite(features).all()
    np.testing.assert_allclose(judge.tell(pictures[1:2])[1], features[1:2], atol=1e-5)
    assert {len(v) for v in judge.tell([])[0].values()} == {0}


def test_facts_of_the_world_are_put_in_the_judges_classes(judge_file):
    judge = open_judge(judge_file)
    facts = [
        {"hair_color": "auburn", "glasses": "round", "top_color": "blue", "expression": "surprise"},
        {"hair_color": "red", "expression": "smirk"},
    ]
    assert judge.truth("hair_color", facts).tolist() == ["brown", "red"]
    assert judge.truth("glasses", facts).tolist() == ["worn", ""]
    assert judge.truth("clothes_color", facts).tolist() == ["blue", ""] and fact_of("clothes_color") == "top_color"
    # No class of its own, and no class of all others: not judged.
    assert judge.truth("expression", facts).tolist() == ["surprise", ""]


def test_the_judge_that_comes_with_ipse_tells_light_and_heads_of_the_world():
    judge = open_judge("world")
    pictures, known = [], []
    for number in range(8):
        who, side = person(number), 1 if number % 2 else -1
        fixed = {"head.yaw": 35.0 * side, "light.key_azimuth_deg": -70.0 * side, "light.key": 1.5, "light.fill": 0.1}
        worn, taken = look(number, who), shot(number, fix=fixed | {"light.ambient": 0.2, "occluder": None})
        picture = render(who, worn, taken)
        pictures.append(picture.image)
        known.append(facts(who, worn, taken, "portrait"))
    told, features = judge.tell(pictures)
    for name in ("light_side", "head"):
        true = judge.truth(name, known)
        # Of light from far above or below no side is said.
        said = true != ""
        assert set(true[said]) == {"left", "right"} and (told[name] == true)[said].mean() > 0.8
    assert features.shape == (8, 256)


def test_a_network_for_something_else_is_no_judge(tmp_path):
    from ipse.encoders.backbones import backbone

    shape = {"width": 0.125, "scale": 1, "dim": 8, "blocks": [1, 1, 1, 1], "size": [32, 32]}
    chip = ChipSpec(32, 32, None, "rgb", (127.5,) * 3, (127.5,) * 3)
    contract = {"name": "x", "task": "identity", "modality": "face", "license": "none", "chip": chip, "outputs": {}}
    path = tmp_path / "x.safetensors"
    network = backbone("mobilefacenet", **shape)
    save_network(network, contract | {"network": {"backbone": "mobilefacenet"} | shape}, path)
    with pytest.raises(WeightsError, match="A judge tells attributes"):
        open_judge(path)
