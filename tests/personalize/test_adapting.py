"""What all trained systems keep to: they train, go on exactly, act as strong as asked, and say what is wrong."""

import json
import warnings

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from ipse.diffusion.training.data import parts_of  # noqa: E402
from ipse.errors import IpseError, TrainingError, WeightsError  # noqa: E402
from ipse.faces.parts import LABELS  # noqa: E402
from ipse.personalize import METHODS, open_method  # noqa: E402
from ipse.personalize.adapting import Adapting  # noqa: E402
from ipse.personalize.contract import class_of  # noqa: E402
from ipse.personalize.references import ReferenceWarning  # noqa: E402
from ipse.personalize.training import AdapterRecipe, features_of, stage_of, train_adapter  # noqa: E402

SYSTEMS = [name for name in METHODS if issubclass(class_of(name), Adapting)]
PROMPT = "A portrait of {a young woman}, smiling."


class Killed(Exception):
    pass


def quiet(method, *people):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReferenceWarning)
        return method.fit(*people)


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_learns_and_goes_on_exactly_where_it_was(system, base, portraits, cache, trained, recipe_of, tmp_path):
    whole = trained(system)
    before = base.fingerprint
    record = json.loads((whole / "record.json").read_text())
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert record["steps"] == 4 and log[-1]["figures"]["loss"] > 0 and list(whole.glob("sheets/*.png"))

    def kill(step):
        if step.step >= 2:
            raise Killed

    with pytest.raises(Killed):
        train_adapter(recipe_of(system), base, [portraits], tmp_path / "run", cache=cache, on_step=kill)
    train_adapter(recipe_of(system), base, [portraits], tmp_path / "run", cache=cache, resume=True)
    name = f"{system}.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert type(base)(base.name, base.kind, base.pipeline).fingerprint == before


def test_faces_count_more_than_what_is_around_them(base, portraits, cache, recipe_of):
    recipe = recipe_of("face-adapter", options={"features": 8.0, "focus": 1.0})
    recipe, corpus, make = stage_of(recipe, base, [portraits], features_of(recipe, base, [portraits], cache))
    stage = make(recipe, corpus, torch.device("cpu"))
    rows = np.arange(4)
    tokens, known = stage.captions.full(corpus.rows[rows]), torch.ones(4, dtype=torch.bool)
    batch = stage.batch(corpus, rows, rows, tokens, torch.full((4,), 500), known)
    assert batch.weight.shape == (4, 1, 16, 16)
    torch.testing.assert_close(batch.weight.mean((1, 2, 3)), torch.ones(4))
    most = batch.weight.flatten(1).argmax(1)
    closest = np.isin(parts_of([portraits], corpus)[corpus.rows[rows]], [LABELS.index(x) for x in ("eyes", "lips")])
    there = closest.reshape(4, 16, 8, 16, 8).mean((2, 4)).reshape(4, -1)
    assert (there[range(4), most] > 0).all()
    # An error there is dearer than the same elsewhere.
    losses = []
    for place in (most, batch.weight.flatten(1).argmin(1)):
        wrong = batch.goal.clone()
        wrong.flatten(2)[range(4), :, place] += 1
        losses.append(float(stage.method.denoising_error(wrong, batch)[0]))
    assert losses[0] > 3 * losses[1]
    # Steps are drawn as the options say: around equal signal and noise.
    seen = []
    stage.method.loss = lambda batch: (seen.append(batch.share), {})
    for number in range(20):
        stage.loss(rows, np.random.default_rng(number))
    assert abs(float(torch.logit(torch.cat(seen).double()).mean())) < 0.8


@pytest.mark.parametrize("system", SYSTEMS)
def test_strength_0_is_the_base_and_more_is_not(system, base, trained, photographs):
    method = open_method(system, base, adapter=trained(system) / f"{system}.safetensors", steps=2)
    assert method.trained_with and all(len(fingerprint) == 64 for fingerprint in method.trained_with)
    ada, ben = (quiet(method, photographs[person]) for person in (1, 3))
    (plain,) = base.generate("A portrait of a young woman, smiling.", 1, 7, 2)
    (off,), (on,), (other) = (one.generate(PROMPT, 1, 7, s) for one, s in ((ada, 0.0), (ada, 1.0), (ben, 1.0)))
    np.testing.assert_array_equal(off.image, plain.image)
    assert not np.array_equal(on.image, plain.image)
    assert not np.array_equal(on.image, next(other).image)
    # Nothing stays on the base.
    np.testing.assert_array_equal(next(base.generate(plain.prompt, 1, 7, 2)).image, plain.image)
    assert on.more["method"] == system and on.more["strength"] == 1.0 and len(on.more["adapter"]["sha256"]) == 64


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_adapter_for_something_else_is_refused(system, base, other_base, trained, tmp_path):
    file = trained(system) / f"{system}.safetensors"
    with pytest.raises(WeightsError, match="was trained for the base tiny"):
        open_method(system, other_base, adapter=file)
    with safe_open(file, "pt") as content:
        record = json.loads(content.metadata()["ipse.adapter"])
    assert record == json.loads(file.with_suffix(".json").read_text())
    name = next(iter(record["encoders"]))
    wrong = record | {"encoders": record["encoders"] | {name: "0" * 64}}
    save_file(load_file(file), tmp_path / "wrong.safetensors", {"ipse.adapter": json.dumps(wrong)})
    with pytest.raises(WeightsError, match=rf"trained with .*{name} \(000000000000\)"):
        open_method(system, base, adapter=tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match="There is no adapter"):
        open_method(system, base, adapter=tmp_path / "nothing.safetensors")
    with pytest.raises(WeightsError, match="comes with ipse yet"):
        open_method(system, base)
    other = record | {"system": "another"}
    save_file(load_file(file), tmp_path / "other.safetensors", {"ipse.adapter": json.dumps(other)})
    with pytest.raises(WeightsError, match="adapter of another"):
        open_method(system, base, adapter=tmp_path / "other.safetensors")


def test_prompts_and_numbers_that_do_not_fit(base, trained, photographs):
    method = open_method("face-adapter", base, adapter=trained("face-adapter") / "face-adapter.safetensors", steps=1)
    ada = quiet(method, photographs[1])
    with pytest.raises(IpseError, match=r"marks words for nobody.*in braces"):
        next(ada.generate("A portrait of a woman."))
    with pytest.raises(IpseError, match="do not mark words"):
        next(ada.generate("A portrait of {a woman."))
    with pytest.raises(IpseError, match=r"'a woman' stand behind the 75 tokens.*nearer to the beginning"):
        next(ada.generate(f"{'A portrait, ' * 40} of {{a woman}}."))
    for before in range(68, 78):
        try:
            _, _, words = method.words(f"{'portrait ' * before}{{young woman}}", 1)
        except IpseError:
            assert before >= 75
        else:
            assert before < 75 and words.subjects[0][-1].sum() == min(2, 75 - before), "the end is no word"
    with pytest.raises(IpseError, match="strength"):
        next(ada.generate(PROMPT, strength=-1.0))
    with pytest.raises(IpseError, match="shows one person; photographs of 2"):
        method.fit(photographs[1], photographs[3])
    with pytest.raises(IpseError, match="has no adapter"):
        open_method("bare", base, adapter="x")


def test_trainings_that_cannot_be(base, portraits, cache, recipe_of, tmp_path):
    with pytest.raises(TrainingError, match="names no system"):
        AdapterRecipe.from_dict({"steps": 3})
    for wrong in ("bare", "nothing"):
        with pytest.raises(TrainingError, match="no system"):
            train_adapter(AdapterRecipe.from_dict({"system": wrong}), base, [portraits], tmp_path, cache=cache)
    judged = recipe_of("face-adapter", encoder="dlib-face-128")
    with pytest.raises(TrainingError, match="judges"):
        train_adapter(judged, base, [portraits], tmp_path, cache=cache)


def test_the_recipes_are_recipes(pytestconfig):
    files = sorted((pytestconfig.rootpath / "recipes" / "adapters").glob("*.yaml"))
    assert {AdapterRecipe.load(file).stage for file in files} == set(SYSTEMS)


def test_from_the_command_line(base, portraits, cache, recipe_of, tmp_path, capsys):
    from ipse.cli import main

    base.pipeline.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "ipse.json").write_text(json.dumps({"name": "tiny", "sha256": {}}))
    recipe = {"system": "face-adapter", "steps": 4, "batch": 4, "holdout": 0.3, "network": {"tokens": 1, "hidden": 8}}
    (tmp_path / "mine.yaml").write_text(json.dumps(recipe))
    told = ["train", "adapter", tmp_path / "mine.yaml", "--base", tmp_path / "base", "--data", portraits]
    told += ["--out", tmp_path / "run", "--cache", cache, "--steps", 2]

    def run(*more):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in (*told, *more)])
        return end.value.code or 0, capsys.readouterr()

    code, output = run("--minutes", 0)
    assert code == 0 and "Time is up" in output.out
    code, output = run("--resume")
    assert code == 0 and "loss_nobody" in output.out and "face-adapter.safetensors" in output.out
    code, output = run()
    assert code == 2 and "holds a run already" in output.err
    method = open_method("face-adapter", base, adapter=tmp_path / "run" / "face-adapter.safetensors")
    assert method.trained.record["steps"] == 2
