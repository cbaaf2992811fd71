import io
import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from PIL import Image  # noqa: E402

from ipse.errors import DataError, TrainingError, WeightsError  # noqa: E402
from ipse.training.plip import PersonWords, Plan, _sampler, fit_words, open_words, read_described, run_fingerprint  # noqa: E402

COLORS = {"red": (210, 40, 40), "green": (40, 190, 60), "blue": (50, 60, 210), "white": (235, 235, 235)}
SMALL = {"backbone": "iresnet", "depths": [1, 1, 1, 1], "width": 0.125, "stem": 2, "dim": 32, "size": [32, 16]}


def drawn(top, bottom, seed):
    noise = np.random.default_rng(seed).integers(-20, 20, (32, 16, 3))
    pixels = np.concatenate([np.tile(COLORS[top], (16, 16, 1)), np.tile(COLORS[bottom], (16, 16, 1))])
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def write(folder, people=16, start=100, **without):
    rows = []
    for person in range(people):
        top, bottom = list(COLORS)[person % 4], list(COLORS)[person // 4 % 4]
        for shot in range(2):
            file = io.BytesIO()
            Image.fromarray(drawn(top, bottom, 10 * person + shot)).save(file, "PNG")
            told = f"A person in a {top} coat and {bottom} trousers, facing left."
            rows.append(
                {
                    "image": {"bytes": file.getvalue(), "path": None},
                    "person": start + person,
                    "look": 0,
                    "captions": [told, f"Somebody wears a {top} coat."],
                    "facts": json.dumps({"coat_color": top, "bottom_color": bottom}),
                }
            )
    table = pa.Table.from_pylist(rows).drop_columns(list(without))
    (folder / "data").mkdir(parents=True)
    pq.write_table(table, folder / "data" / "train-00000.parquet")
    return folder


def plan(**changes):
    return Plan(
        **{"steps": 40, "people": 6, "network": SMALL, "start": "", "dim": 32, "width": 32, "layers": 1, "rate": 3e-3}
        | changes
    )


def test_words_find_pictures(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))
    assert len(data) == 32 and data.pictures.shape == (32, 32, 16, 3) and len(np.unique(data.labels)) == 16
    assert data.vocabulary().telling == {"red", "green", "blue", "white"}
    weights = fit_words(data, tmp_path / "run", plan())
    network = open_words(weights)
    tops = list(COLORS)
    pictures = [drawn(top, bottom, 900 + i) for i, (top, bottom) in enumerate((a, b) for a in tops for b in tops)]
    found = network.encode_texts([f"a person in a {top} coat" for top in tops]) @ network.encode_pictures(pictures).T
    best = np.argsort(-found, axis=1)[:, :2]
    assert np.mean([tops[column // 4] == tops[row] for row in range(4) for column in best[row]]) >= 0.75
    with pytest.raises(DataError, match="No word"):
        network.encode_texts(["zxyq 42"])


def test_every_task_has_its_loss_and_can_be_left_out(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))
    fit_words(data, tmp_path / "run", plan(steps=2, identity=False, color=0.0, attributes=0.0))
    network = open_words(tmp_path / "run" / "words.safetensors")
    pixels = torch.from_numpy(data.pictures[:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    numbers = torch.from_numpy(network.vocabulary.encode([texts[0] for texts in data.captions[:4]]))
    with torch.no_grad():
        labels = torch.tensor([0, 0, 1, 1])
        seen, said = network.picture_vectors(pixels), network.text_vectors(numbers)
        alone = network.contrast(seen, said, labels)
        assert torch.allclose(alone, network.contrast(seen, said, torch.arange(4)))
        assert network.colorize(pixels, numbers) > 0
        assert network.predict(pixels, numbers, torch.zeros_like(numbers, dtype=torch.bool)) == 0
        padded = network.text_vectors(torch.nn.functional.pad(numbers[:, :20], (0, 9)))
        assert torch.allclose(network.text_vectors(numbers[:, :20]), padded, atol=1e-5)


def test_contrast_between_instances_has_batches_by_chance(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))
    ours, chance = (_sampler(data, plan(people=4, identity=identity)) for identity in (True, False))
    assert ours.size == chance.size == 8
    assert all(len(np.unique(data.labels[ours.batch(number)])) == 4 for number in range(4))
    # Every picture once an epoch, whosever it is.
    assert sorted(np.concatenate([chance.batch(number) for number in range(4)])) == list(range(32))
    assert max(len(np.unique(data.labels[chance.batch(number)])) for number in range(4)) > 4


def test_statistics_are_of_the_pass_that_is_used_alone(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))
    torch.manual_seed(0)
    network = PersonWords(plan(), data.vocabulary()).train()
    pixels = torch.from_numpy(data.pictures[:8]).permute(0, 3, 1, 2).float() / 127.5 - 1
    numbers = torch.from_numpy(network.vocabulary.encode([texts[0] for texts in data.captions[:8]]))
    before = {name: value.clone() for name, value in network.trunk.named_buffers()}
    in_training = network.colorize(pixels, numbers)
    network.predict(pixels, numbers, numbers > 2)
    assert before and all(torch.equal(value, before[name]) for name, value in network.trunk.named_buffers())
    # The batch is what they saw, all the same.
    assert not torch.isclose(in_training, network.eval().colorize(pixels, numbers), rtol=1e-3)
    network.train().picture_vectors(pixels)
    assert not all(torch.equal(value, before[name]) for name, value in network.trunk.named_buffers())


def test_a_run_that_was_stopped_goes_on(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))

    def stop(done, steps, loss):
        if done == 110:
            raise KeyboardInterrupt

    quick = plan(steps=120, color=0.0, attributes=0.0, people=4)
    with pytest.raises(KeyboardInterrupt):
        fit_words(data, tmp_path / "run", quick, stop)
    assert (tmp_path / "run" / "checkpoint.pt").exists()
    told = []
    fit_words(data, tmp_path / "run", quick, lambda *step: told.append(step[0]))
    fit_words(data, tmp_path / "whole", quick)
    assert told == [110, 120]
    ours, theirs = (open_words(tmp_path / name / "words.safetensors").state_dict() for name in ("run", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_folder_is_of_one_run(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))
    quick = plan(steps=2, color=0.0, attributes=0.0, people=4)
    weights = fit_words(data, tmp_path / "run", quick)
    before = weights.stat().st_mtime_ns
    assert fit_words(data, tmp_path / "run", quick) == weights and weights.stat().st_mtime_ns == before
    repainted = replace(data, pictures=255 - data.pictures)
    told = replace(data, captions=[texts[:1] for texts in data.captions])
    for others, changed in ((repainted, quick), (told, quick), (data, replace(quick, seed=1))):
        with pytest.raises(TrainingError, match="another folder"):
            fit_words(others, tmp_path / "run", changed)

    def stop(done, steps, loss):
        if done == 110:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_words(data, tmp_path / "stopped", replace(quick, steps=120), stop)
    with pytest.raises(TrainingError, match="another folder"):
        fit_words(repainted, tmp_path / "stopped", replace(quick, steps=120))


def test_the_first_weights_are_a_part_of_the_run(tmp_path):
    data = read_described(write(tmp_path / "people"), (32, 16))
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    assert run_fingerprint(data, plan(start=str(first))) == run_fingerprint(data, plan(start=str(second)))
    assert run_fingerprint(data, plan(start=str(first))) != run_fingerprint(data, plan())
    second.write_bytes(b"others")
    assert run_fingerprint(data, plan(start=str(first))) != run_fingerprint(data, plan(start=str(second)))
    with pytest.raises(WeightsError, match="cannot be read"):
        run_fingerprint(data, plan(start=str(tmp_path / "none")))


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(DataError, match="captions: 3"):
        read_described(write(tmp_path / "bare", captions=1))
    with pytest.raises(DataError, match="judging only"):
        read_described(write(tmp_path / "judged", start=899_990))
    with pytest.raises(DataError, match="holds no data set"):
        read_described(tmp_path)
    with pytest.raises(WeightsError, match="ipse train words"):
        open_words(tmp_path / "none.safetensors")
    data = read_described(write(tmp_path / "few", people=4), (32, 16))
    with pytest.raises(TrainingError, match="fewer than"):
        fit_words(data, tmp_path / "run", plan())
