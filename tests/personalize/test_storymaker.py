"""StoryMaker: characters have tokens of their own, and training draws attention to where each of them is."""

import warnings

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

import pyarrow.parquet as pq  # noqa: E402

from ipse.diffusion.training.data import pack, persons_of  # noqa: E402
from ipse.errors import DataError  # noqa: E402
from ipse.personalize.adapting import Batch, Conditions, Trained, Words  # noqa: E402
from ipse.personalize.references import FaceReader, ReferenceWarning  # noqa: E402
from ipse.personalize.storymaker import StoryMaker, StoryOptions, Watched, misplaced  # noqa: E402

NETWORK = {"tokens": 2, "figure_tokens": 2, "hidden": 16, "width": 16, "depth": 1, "heads": 2, "rank": 2}
TWO = "A photo of {a young woman} and {a boy}."


@pytest.fixture
def method(base):
    torch.manual_seed(0)
    network = StoryMaker.build(base, {"vector": 256, "patches": 32, "figure": 32}, **NETWORK)
    return StoryMaker(base, Trained(network, {"trained_with": []}), steps=2)


@pytest.fixture
def batch(base, method):
    """Three rows: random pictures, each of somebody in its middle third."""
    torch.manual_seed(1)
    clean, noise = torch.randn(3, *base.latent), torch.randn(3, *base.latent)
    scheduler, steps = base.pipeline.scheduler, torch.tensor([100, 400, 800])
    texts = ["A portrait of a young woman, smiling.", "A photo of an elderly man.", ""]
    ids = base.pipeline.tokenizer(texts, padding="max_length", return_tensors="pt")["input_ids"]
    subject = torch.zeros_like(ids, dtype=torch.bool)
    for row, word in ((0, "woman"), (1, "man")):
        last = next(i for i, token in enumerate(ids[row].tolist()) if base.pipeline.tokenizer.decode(token) == word)
        subject[row, last - 1 : last + 1] = True
    with torch.no_grad():
        words = Words(base.pipeline.text_encoder(ids).last_hidden_state, ids, [subject])
    person = {"vector": torch.randn(3, 256), "patches": torch.randn(3, 17, 32), "figure": torch.randn(3, 17, 32)}
    where = torch.zeros(3, 16, 16)
    where[:, 4:, 5:11] = 1
    own = {"five": torch.full((3, 5, 2), 0.5), "person": where}
    return Batch(
        clean, noise, scheduler.add_noise(clean, noise, steps), steps, scheduler.alphas_cumprod[steps],
        scheduler.get_velocity(clean, noise, steps), words, [person], own, torch.ones(3, dtype=torch.bool),
    )  # fmt: skip


def test_tokens_of_the_background_and_of_each_character(method, batch):
    (person,) = batch.people
    other = {name: value.roll(1, 0) for name, value in person.items()}
    projection = method.network["adapter"].projection.eval()
    each, both = projection.each, projection([person, other], 16.0)
    assert both.shape == (3, 3 * each, 32)
    torch.testing.assert_close(both[:, :each], projection.background.expand(3, -1, -1))
    torch.testing.assert_close(both[:, : 2 * each], projection([person], 16.0))
    # The same person is told apart as the first and as the second character, and face and figure both count.
    twice = projection([person, person], 16.0)
    assert not torch.allclose(twice[:, each : 2 * each], twice[:, 2 * each :])
    for name in ("vector", "patches", "figure"):
        assert not torch.allclose(projection([{**person, name: -person[name]}], 16.0), projection([person], 16.0))


def test_attention_is_shared_out_and_drawn_to_its_place(method, batch):
    adapter = method.network["adapter"].eval()
    wide, masks, _ = method.paired(batch)
    optimizer = torch.optim.Adam(adapter.parameters(), 0.02)
    far = []
    for _ in range(12):
        handle = Watched(adapter, adapter.tokens(wide.people, adapter.scale), adapter.projection.each)
        method.predict(wide, Conditions(wide.words.text, [handle]))
        assert all(torch.allclose(one.sum(1), torch.ones_like(one.sum(1)), atol=1e-5) for one in handle.maps)
        loss = misplaced(handle.maps, masks).mean()
        far.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert far[-1] < 0.9 * far[0]


def test_misplaced_is_0_where_attention_is_right():
    masks = torch.zeros(1, 2, 16, 16)
    masks[:, 0, :, :8], masks[:, 1, :, 12:] = 1, 1
    right = torch.cat([1 - masks.sum(1, keepdim=True), masks], 1)
    halved = torch.nn.functional.avg_pool2d(right, 2)
    assert misplaced([halved], masks) == 0
    assert misplaced([halved[:, [0, 2, 1]]], masks) > 0.3


def test_pictures_of_two_are_two_halves(base, method, batch):
    wide, masks, five = method.paired(batch)
    for row, before in ((0, 2), (1, 0), (2, 1)):
        torch.testing.assert_close(wide.clean[row, ..., :8], batch.clean[row, ..., 4:12])
        torch.testing.assert_close(wide.clean[row, ..., 8:], batch.clean[before, ..., 4:12])
    scheduler = base.pipeline.scheduler
    torch.testing.assert_close(wide.noisy, scheduler.add_noise(wide.clean, wide.noise, wide.steps))
    torch.testing.assert_close(wide.goal, scheduler.get_velocity(wide.clean, wide.noise, wide.steps))
    assert not (masks[:, 0] * masks[:, 1]).any() and masks[:, 0, :, :8].any() and masks[:, 1, :, 8:].any()
    assert five.shape == (3, 2, 5, 2) and np.allclose(five[:, 0, :, 0], 0.25) and np.allclose(five[:, 1, :, 0], 0.75)
    said = base.pipeline.tokenizer.batch_decode(wide.words.ids, skip_special_tokens=True)
    assert said[1].replace(" .", ".") == "a photo of an elderly man and a young woman." and not said[0] and not said[2]


def test_the_loss_counts_characters_more_and_misplaced_attention(method, batch):
    method.options = StoryOptions(two=0.0, drop_pose=1.0)
    method.network.eval()
    torch.manual_seed(0)
    whole, parts = method.loss(batch)
    method.options = StoryOptions(two=0.0, drop_pose=1.0, attention=0.0)
    free, _ = method.loss(batch)
    torch.testing.assert_close(whole - free, 0.1 * parts["misplaced"], atol=1e-5, rtol=1e-3)
    method.options = StoryOptions(two=0.0, drop_pose=1.0, attention=0.0, inside=0.0)
    plain, _ = method.loss(batch)
    torch.testing.assert_close(plain, method.denoising_error(method.predict(batch), batch)[0], atol=0, rtol=1e-4)
    assert free > plain
    method.options = StoryOptions(two=1.0, drop_pose=0.0)
    method.loss(batch)[0].backward()
    touched = [name for name, one in method.network.named_parameters() if one.grad is not None and one.grad.any()]
    for part in ("adapter.projection.background", "adapter.projection.face", "lora", "control.controlnet_down"):
        assert any(part in name for name in touched), part


def test_two_people_and_a_pose(base, method, photographs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReferenceWarning)
        told = method.fit(photographs[1], photographs[3])
    (plain,) = base.generate("A photo of a young woman and a boy.", 1, 7, 2)
    (off,), (on,) = (told.generate(TWO, 1, 7, strength) for strength in (0.0, 1.0))
    np.testing.assert_array_equal(off.image, plain.image)
    assert not np.array_equal(on.image, plain.image)
    (swapped,) = method.fitted(told.people[::-1], [[], []]).generate(TWO, 1, 7)
    assert not np.array_equal(swapped.image, on.image)
    # A ControlNet that has learned nothing adds nothing.
    control = method.network["control"]
    for silent in (*control.controlnet_down_blocks, control.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(silent.weight)
    posed = []
    for x in (0.3, 0.6):
        method.pose = np.full((2, 5, 2), 0.5, np.float32) + np.float32([x - 0.5, 0])
        posed.append(next(told.generate(TWO, 1, 7)).image)
    assert not np.array_equal(posed[0], posed[1]) and not np.array_equal(posed[0], on.image)


def test_the_truth_tells_where_people_are(portraits, cache, tmp_path):
    corpus = pack([portraits], cache)
    where = persons_of([portraits], corpus)
    assert where.shape == (len(corpus.pixels), 16, 16) and where.min() == 0 and where.max() == 1
    assert where[:, 6:10, 7:9].mean() > 0.95 > where[:, 0, 0].mean()
    (shard,) = (portraits / "data").glob("*.parquet")
    pq.write_table(pq.read_table(shard).drop_columns(["parts"]), tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="no column parts"):
        persons_of([tmp_path], pack([tmp_path], cache))


def test_a_figure_is_more_than_a_face(base, photographs):
    reader = FaceReader(base)
    picture, face = next((one, found[0].face) for one in photographs[1] if (found := reader.find(one)))
    below = np.concatenate([picture, np.full((128, 128, 3), (255, 0, 0), np.uint8)])
    near, far, cut = reader.figure(picture, face), reader.figure(below, face), reader.portrait(below, face)
    red, cut_red = ((one == (255, 0, 0)).all(2).mean() for one in (far, cut))
    assert near.shape == far.shape == (128, 128, 3) and red > 0.1 > cut_red
