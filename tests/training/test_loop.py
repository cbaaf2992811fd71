"""The loop: it learns, it goes on exactly after a kill, it stops on nonsense, and what it writes is an encoder."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("kornia")
torch = pytest.importorskip("torch")

from ipse.encoders.trained import TrainedEncoder  # noqa: E402
from ipse.errors import DataError, TrainingError, WeightsError  # noqa: E402
from ipse.training.data import Cut, pack, person_of  # noqa: E402
from ipse.training.loop import rate_at, train  # noqa: E402
from ipse.training.networks import load_network  # noqa: E402
from ipse.training.recipe import TrainRecipe  # noqa: E402
from ipse.training.tasks.identity import IdentityTask  # noqa: E402

from .test_data import full_disk  # noqa: E402

IDENTITY = {
    "name": "tiny",
    "steps": 12,
    "data": {"holdout": 0.34, "group": "look"},
    "cut": {"kind": "whole", "size": [32, 32]},
    "batch": {"people": 4, "each": 2},
    "network": {
        "backbone": "mobilefacenet",
        "width": 0.125,
        "scale": 1,
        "dim": 16,
        "blocks": [1, 1, 1, 1],
        "size": [32, 32],
    },
    "losses": {"margin": {"margin": "adaface", "scale": 16.0, "sample": 0.8}, "triplet": {"weight": 0.5}},
    "augment": {"geometry": {"turn": 5.0, "shift": 0.05, "flip": 0.5}, "color": {}, "noise": {}, "erase": {}},
    "optimizer": {"rate": 0.003, "warmup": 3},
    "ema": 0.5,
    "save_every": 4,
    "evaluate_every": 6,
}


def recipe(people, **changes):
    plain = TrainRecipe.from_dict(IDENTITY | changes)
    return replace(plain, data=replace(plain.data, source=str(people)))


class Killed(Exception):
    pass


def weights_of(folder, name="tiny"):
    return (folder / f"{name}.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(people, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    record = train(recipe(people), folder / "run", cache=folder / "cache")
    return folder, record


def test_what_a_run_leaves(finished):
    folder, record = finished
    run = folder / "run"
    assert json.loads((run / "record.json").read_text()) == record
    assert record["people"] == 4 and record["judged_people"] == 2 and record["steps"] == 12
    assert {"rank1", "map", "eer"} <= record["figures"].keys()
    assert record["versions"]["torch"] and record["machine"] and len(record["data_fingerprint"]) == 64
    page = (run / "report.html").read_text()
    assert "data:image/png;base64," in page and "adaface" in page and "http" not in page
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 4, 6, 8, 10, 12]


def test_the_result_is_an_encoder(finished, people):
    folder, _ = finished
    encoder = TrainedEncoder(folder / "run" / "tiny.safetensors")
    assert (encoder.name, encoder.dim, encoder.modality, encoder.metric) == ("tiny", 16, "face", "cosine")
    chips = pack(people, Cut("whole", (32, 32)), folder / "cache").images(np.arange(5))
    found = encoder.encode(chips)
    assert found.shape == (5, 16) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(encoder.encode(chips[2:3])[0], found[2], atol=1e-5)
    pixels = torch.from_numpy(chips).permute(0, 3, 1, 2).float() / 255
    pixels.requires_grad_(True)
    told = encoder.torch_module()(pixels)
    assert np.allclose(told.detach().numpy(), found, atol=1e-5)
    told.sum().backward()
    assert pixels.grad.abs().max() > 0
    stored = folder / "run" / "tiny.safetensors"
    other = folder / "other.safetensors"
    other.write_bytes(stored.read_bytes())
    with pytest.raises(WeightsError, match="copy them together"):
        TrainedEncoder(other)


def test_a_killed_run_goes_on_as_if_it_had_not_been(finished, people):
    folder, record = finished
    run = folder / "killed"

    def kill(step):
        if step.step == 10:
            raise Killed

    with pytest.raises(Killed):
        train(recipe(people), run, cache=folder / "cache", on_step=kill)
    assert not (run / "tiny.safetensors").exists()
    again = train(recipe(people), run, cache=folder / "cache", resume=True)
    assert weights_of(run) == weights_of(folder / "run")
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "pictures_per_second"}
            for line in path.read_text().splitlines()
        ]
        for path in (run / "log.jsonl", folder / "run" / "log.jsonl")
    ]
    # Taken up at step 8, it looks at its loss at step 9 once more.
    assert [line for line in logs[0] if line["step"] in (1, 4, 6, 8, 12)][:4] == logs[1][:4]
    assert logs[0][-1]["figures"] == logs[1][-1]["figures"]
    assert again["figures"] == record["figures"]


def test_a_network_is_trained_beside_a_frozen_earlier_one(finished, people, tmp_path):
    folder, _ = finished
    first, _ = load_network(folder / "run" / "tiny.safetensors")
    changes = {"name": "second", "seed": 1, "losses": {"harmonic": {}}, "augment": {}, "steps": 6, "save_every": 3}
    for copy in ("there", "here"):
        shutil.copytree(folder / "run", tmp_path / copy)
    changes["earlier"] = str(tmp_path / "there" / "tiny.safetensors")

    def kill(step):
        if step.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(recipe(people, **changes), tmp_path / "run", cache=folder / "cache", on_step=kill)
    # Where the earlier network lies is no part of the run.
    changes["earlier"] = str(tmp_path / "here" / "tiny.safetensors")
    record = train(recipe(people, **changes), tmp_path / "run", cache=folder / "cache", resume=True)
    assert record["recipe"]["earlier"] == "tiny.safetensors"
    _, contract = load_network(tmp_path / "run" / "second.safetensors")
    assert contract["matches"] == TrainedEncoder(tmp_path / "here" / "tiny.safetensors").fingerprint
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["task"]
    # Neither weights nor statistics of norms have moved.
    for key, value in first.state_dict().items():
        assert torch.equal(state[f"earlier.network.{key}"], value), key
    assert not torch.equal(state["network.stem.conv.weight"], state["earlier.network.stem.conv.weight"])


def test_a_network_that_says_what_an_earlier_one_says(finished, people, tmp_path):
    folder, _ = finished
    before = str(folder / "run" / "tiny.safetensors")
    changes = {"losses": {"distilled": {}}, "earlier": before, "start": before, "steps": 1, "name": "same"}
    changes |= {"optimizer": {"rate": 1e-9, "warmup": 0}}
    told = []
    for size in (0.0, 4.0):
        out = tmp_path / f"{size}"
        train(recipe(people, **changes, adversarial={"size": size, "warmup": 1}), out, cache=folder / "cache")
        told.append(json.loads((out / "log.jsonl").read_text().splitlines()[-1])["parts"]["distilled"])
        assert TrainedEncoder(out / "same.safetensors").matches == TrainedEncoder(before).fingerprint
    # The weights are the same: beside the batch's statistics, only what changed the pictures makes a difference.
    assert told[1] > told[0] + 0.01 and TrainedEncoder(before).matches == ""


def test_a_network_begins_with_another(finished, people, tmp_path):
    folder, _ = finished
    begun, _ = load_network(folder / "run" / "tiny.safetensors")
    changes = {"start": str(folder / "run" / "tiny.safetensors"), "steps": 1, "optimizer": {"rate": 1e-12, "warmup": 0}}
    wider = {**IDENTITY["network"], "dim": 24}
    record = train(recipe(people, **changes, network=wider), tmp_path / "wider", cache=folder / "cache")
    assert record["recipe"]["start"] == "tiny.safetensors"
    state = load_network(tmp_path / "wider" / "tiny.safetensors")[0].state_dict()
    for name, value in begun.state_dict().items():
        if name.endswith("weight") and value.ndim > 1 and state[name].shape == value.shape:
            assert torch.equal(state[name], value), name
    telling_too = replace(telling(people, {}), start=changes["start"], steps=1, cut=Cut("whole", (32, 32)))
    telling_too = replace(telling_too, optimizer=replace(telling_too.optimizer, rate=1e-12, warmup=0))
    train(telling_too, tmp_path / "telling", cache=folder / "cache")
    state = load_network(tmp_path / "telling" / "attributes.safetensors")[0].state_dict()
    assert torch.equal(state["trunk.stem.conv.weight"], begun.state_dict()["stem.conv.weight"])
    other = {"backbone": "osnet", "width": 0.25, "dim": 16}
    with pytest.raises(TrainingError, match="no filter of a form"):
        train(recipe(people, **changes, network=other), tmp_path / "other", cache=folder / "cache")
    with pytest.raises(WeightsError):
        train(recipe(people, **changes | {"start": "nobody"}), tmp_path / "other", cache=folder / "cache")


def test_an_earlier_network_must_fit(finished, people, tmp_path):
    folder, _ = finished
    known = {"losses": {"harmonic": {}}, "earlier": str(folder / "run" / "tiny.safetensors")}
    for changes, message in (
        ({"network": {**IDENTITY["network"], "dim": 8}}, "has the dim 16, this recipe 8"),
        ({"std": 64.0}, "has the std"),
        ({"earlier": ""}, "need each other"),
        ({"losses": {"triplet": {}}}, "need each other"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(recipe(people, **{**known, **changes}), tmp_path / "run", cache=folder / "cache")
    with pytest.raises(WeightsError, match="not a network of ipse"):
        train(recipe(people, **{**known, "earlier": "nowhere.safetensors"}), tmp_path / "run", cache=folder / "cache")


def test_folders_and_checkpoints_that_do_not_fit(finished, people, tmp_path):
    folder, _ = finished
    with pytest.raises(TrainingError, match="holds a run already"):
        train(recipe(people), folder / "run", cache=folder / "cache")
    with pytest.raises(TrainingError, match="no checkpoint"):
        train(recipe(people), tmp_path, cache=folder / "cache", resume=True)
    with pytest.raises(TrainingError, match="another recipe"):
        train(recipe(people, seed=1), folder / "run", cache=folder / "cache", resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(DataError, match="damaged"):
        train(recipe(people), tmp_path, cache=folder / "cache", resume=True)


def test_a_loss_that_is_no_number_stops_the_run(finished, people, tmp_path):
    folder, _ = finished
    wild = {"rate": 1e30, "warmup": 0, "clip": 0.0, "kind": "sgd"}
    with pytest.raises(TrainingError, match=r"The loss is .* at step \d+\.") as caught:
        train(recipe(people, optimizer=wild, save_every=1), tmp_path, cache=folder / "cache")
    assert "checkpoint of step" in str(caught.value)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert f"step {state['step']} is good" in str(caught.value)


def test_a_full_disk_keeps_the_last_checkpoint(finished, people, tmp_path):
    folder, _ = finished
    run = tmp_path / "run"

    def fill(step):
        if step.step == 4:
            disk.__enter__()

    disk = full_disk(20_000)
    try:
        with pytest.raises(DataError, match=r"cannot take more.*--resume"):
            train(recipe(people), run, cache=folder / "cache", on_step=fill)
    finally:
        disk.__exit__(None, None, None)
    train(recipe(people), run, cache=folder / "cache", resume=True)
    assert weights_of(run) == weights_of(folder / "run")


def test_batches_by_parts_take_as_many_steps(finished, people, tmp_path):
    folder, _ = finished
    record = train(recipe(people, accumulate=2, steps=2, evaluate_every=2), tmp_path, cache=folder / "cache")
    assert record["steps"] == 2 and json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_clothes_may_be_a_part_of_who_somebody_is(people, tmp_path):
    plan = {
        "losses": {"margin": {"scale": 16.0}, "traits": {}},
        "data": {**IDENTITY["data"], "label": "look"},
    }
    plan = recipe(people, **plan, steps=1)
    figures = train(plan, tmp_path, cache=tmp_path / "cache")["figures"]
    assert {"rank1", "within_look.rank1", "within_look.map"} <= set(figures)
    chips, _ = pack(people, plan.cut, tmp_path / "cache").split(0.34)
    labels = chips.labels("look")
    assert len(np.unique(labels)) == 8 and np.array_equal(person_of(labels, "look"), chips.column("person"))
    # Of four people in two Looks each: eight classes, each with its person's traits.
    task = IdentityTask(plan, chips)
    table = task.losses.parts["traits"].table
    assert len(table) == 8 and torch.equal(table[0], table[1]) and not torch.equal(table[1], table[2])
    assert task.targets(chips, np.array([0, 1, 2, 4]))["label"].tolist() == [0, 0, 1, 2]


def test_the_loss_falls(finished, people, tmp_path):
    folder, _ = finished
    losses = []
    losing = {"margin": {"margin": "cosface", "scale": 16.0}}
    plan = recipe(people, steps=20, evaluate_every=20, save_every=20, augment={}, losses=losing)
    train(plan, tmp_path, cache=folder / "cache", on_step=lambda step: losses.append(step.loss))
    assert losses[-1] < 0.7 * losses[0]


def telling(people, losses):
    return recipe(
        people,
        name="attributes",
        task="attributes",
        steps=40,
        evaluate_every=40,
        save_every=40,
        batch={"size": 8},
        augment={"color": {"hue": 0.0}},
        network={**IDENTITY["network"], "dim": 32},
        losses=losses,
        targets={
            "glasses": {"classes": ["none", "worn"], "otherwise": "worn"},
            "mask": {"column": "mask", "classes": ["no", "yes"]},
            "age": {"column": "age", "number": [0, 90], "seen": "age_group"},
        },
        optimizer={"rate": 0.01, "warmup": 5},
        ema=0.8,
    )


def test_attributes(people, tmp_path):
    plan = telling(people, {})
    record = train(plan, tmp_path / "run", cache=tmp_path / "cache")
    figures = record["figures"]
    assert figures["glasses.balanced_accuracy"] > 0.7
    assert figures["age.error"] < 15 and 0 <= figures["glasses.calibration_error"] <= 1
    assert figures["balanced_accuracy.min"] <= figures["balanced_accuracy.mean"]
    network, contract = load_network(tmp_path / "run" / "attributes.safetensors")
    assert contract["outputs"]["glasses"] == {"kind": "classes", "classes": ["none", "worn"]}
    told = network(torch.zeros(2, 3, 32, 32))
    assert {name: tuple(out.shape) for name, out in told.items()} == {"glasses": (2, 2), "mask": (2, 2), "age": (2, 2)}
    assert float(network.temperatures["glasses"]) != 1
    with pytest.raises(WeightsError, match="not an encoder"):
        TrainedEncoder(tmp_path / "run" / "attributes.safetensors")


def test_attributes_are_told_by_the_numbers_behind_them_too(people, tmp_path):
    traits = []
    plan = telling(people, {"traits": {"weight": 5.0}})
    record = train(
        plan, tmp_path / "run", cache=tmp_path / "cache", on_step=lambda step: traits.append(step.parts["traits"])
    )
    assert traits[-1] < traits[0] - 0.1  # a color and a place are seen
    network, _ = load_network(tmp_path / "run" / record["weights"])
    assert set(network(torch.zeros(2, 3, 32, 32))) == {"glasses", "mask", "age"}


def test_landmarks(people, tmp_path):
    plan = recipe(
        people,
        name="landmarks",
        task="landmarks",
        steps=50,
        evaluate_every=50,
        save_every=50,
        cut={"kind": "whole", "size": [48, 48], "parts": True},
        batch={"size": 8},
        network={"width": 0.25, "depths": [1, 1, 1, 1]},
        augment={"geometry": {"turn": 10.0, "flip": 0.5}},
        losses={},
        optimizer={"rate": 0.01, "warmup": 5},
        ema=0.8,
    )
    losses = []
    record = train(
        plan, tmp_path / "run", cache=tmp_path / "cache", on_step=lambda step: losses.append(dict(step.parts))
    )
    assert losses[-1]["points"] < 0.5 * losses[0]["points"]
    assert record["figures"]["parts_iou"] > 0.6
    network, _ = load_network(tmp_path / "run" / "landmarks.safetensors")
    told = network(torch.zeros(1, 3, 48, 48))
    assert told["points"].shape == (1, 70, 2) and told["parts"].shape == (1, 21, 12, 12)


def test_the_schedule_rises_and_falls():
    plan = TrainRecipe.from_dict({"steps": 100, "optimizer": {"rate": 2.0, "warmup": 10, "last": 0.1}})
    rates = [rate_at(plan, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.1) and rates[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(rates[10:]))


TELLING = {"task": "attributes", "targets": {"mask": {"column": "mask", "classes": ["no", "yes"]}}}


def test_recipes_that_cannot_be(people, tmp_path):
    for changes, message in (
        ({"stepz": 3}, "Did you mean steps"),
        ({"steps": 0}, "whole number"),
        ({"ema": 1}, "from 0 to below 1"),
        ({"optimizer": {"rate": "fast"}}, "of type float"),
        ({"task": "gait"}, "no task"),
        ({"data": []}, "mapping"),
        ({"data": {"label": "clothes"}}, "person or look"),
    ):
        with pytest.raises(TrainingError, match=message):
            TrainRecipe.from_dict(changes)
    for changes, message in (
        ({"network": {"backbone": "mobilefacenet"}}, "does not take chips"),
        ({"network": {}}, "no `backbone`"),
        ({"losses": {}}, "no loss"),
        ({"augment": {"blurr": {}}}, "no augmentation"),
        ({"augment": {"blur": {"size": 3}}}, "does not take"),
        ({"batch": {"people": 9}}, "fewer than the 9"),
        ({"task": "attributes"}, "no targets"),
        ({"task": "attributes", "targets": {"hat": {"classes": ["cap", "none"]}}}, "No picture of the data shows hat"),
        ({"task": "attributes", "targets": {"glasses": {"classes": ["none", "round", "cat"]}}}, "as cat"),
        (TELLING | {"losses": {"triplet": {}}}, "none but `traits`"),
        (TELLING | {"losses": {"traits": {}}, "augment": {"geometry": {"flip": 0.5}}}, "left from right"),
        ({"task": "landmarks"}, "parts: true"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(recipe(people, **changes), tmp_path / "run", cache=tmp_path / "cache")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(DataError, match="not YAML"):
        TrainRecipe.load(tmp_path / "bad.yaml")


def test_norms_stand_still_in_the_end(people, tmp_path):
    moved = {}

    def look(step):
        state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["task"]
        moved[step.step] = torch.cat([v.flatten() for k, v in state.items() if k.endswith("running_var")])

    train(recipe(people, still=4, save_every=1), tmp_path / "run", cache=tmp_path / "packs", on_step=look)
    steps = sorted(moved)
    assert steps[-1] == 12 and {8, 9, 12} <= set(steps)
    assert not torch.equal(moved[7], moved[8])
    assert torch.equal(moved[8], moved[9]) and torch.equal(moved[8], moved[12])
    with pytest.raises(TrainingError, match="still"):
        recipe(people, still=12)


def test_the_average_forgets_the_untrained_network():
    from torch.optim.swa_utils import AveragedModel

    from ipse.training.loop import averaging

    network = torch.nn.BatchNorm1d(3)
    average = AveragedModel(network, multi_avg_fn=averaging(0.999), use_buffers=True)
    with torch.no_grad():
        network.running_var.fill_(0.001)
        network.weight.fill_(5.0)
        network.num_batches_tracked.fill_(400)
    for _ in range(400):
        average.update_parameters(network)
    assert torch.allclose(average.module.running_var, network.running_var, rtol=1e-4)
    assert torch.allclose(average.module.weight, network.weight)
    assert average.module.num_batches_tracked == 400
    # And its memory is long in the end.
    with torch.no_grad():
        network.weight.fill_(6.0)
    average.update_parameters(network)
    assert average.module.weight.max() < 5.05
