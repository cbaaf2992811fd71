"""Walks as chips: silhouettes that are aligned, strips, the mean silhouette, and a network that sees a set."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ipse.encoders.gait import HEIGHT, WIDTH, GaitEnergy, silhouette, strip, strip_spec
from ipse.errors import ImageError, WeightsError


def figure(step=0.0, scale=1.0, x=60, y=20, size=(240, 160)):
    """A mask of somebody with a head, a trunk and two legs `step` apart."""
    image = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(image)
    a, b = int(8 * scale), int(100 * scale)
    draw.ellipse((x - a, y, x + a, y + 2 * a), fill=1)
    draw.rectangle((x - int(12 * scale), y + 2 * a, x + int(12 * scale), y + b // 2), fill=1)
    for side in (-1, 1):
        foot = x + side * int((6 + 20 * step) * scale)
        draw.line((x + side * int(5 * scale), y + b // 2, foot, y + b), fill=1, width=max(int(8 * scale), 1))
    return np.asarray(image) > 0


@pytest.fixture(scope="module")
def walks():
    """(4, 64, 12 frames, 3) strips of two people, one slim and one with wide steps, two walks each."""
    steps = [np.abs(np.sin(np.pi * (np.arange(12) / 12 + shift))) for shift in (0.0, 0.3)]
    rows = [strip([silhouette(figure(wide * step)) for step in walk]) for wide in (0.3, 1.0) for walk in steps]
    return np.stack(rows)


def test_neither_place_nor_size_of_a_person_is_left():
    seen = silhouette(figure(0.5))
    assert seen.shape == (HEIGHT, WIDTH) and seen.dtype == np.uint8
    assert seen[0].any() and seen[-1].any() and seen.max() == 255
    mass = seen.astype(float).sum(0)
    left, right = mass[: WIDTH // 2].sum(), mass[WIDTH // 2 :].sum()
    assert abs(left - right) < 0.2 * mass.sum()
    assert np.array_equal(silhouette(figure(0.5, y=60)), seen)
    for moved in (figure(0.5, x=25, y=60), figure(0.5, x=135)):
        assert (np.abs(silhouette(moved).astype(int) - seen) > 128).mean() < 0.04
    larger = silhouette(figure(0.5, scale=1.5, x=80))
    assert (np.abs(larger.astype(int) - seen) > 128).mean() < 0.04
    assert (np.abs(silhouette(figure(1.5)).astype(int) - seen) > 128).mean() > 0.04


def test_who_is_wider_than_high_is_cut_and_nobody_is_refused():
    wide = np.zeros((40, 200), bool)
    wide[10:30, 5:195] = True
    assert (silhouette(wide) == 255).all()
    with pytest.raises(ImageError, match="nobody"):
        silhouette(np.zeros((40, 20), bool))


def test_a_strip_takes_frames_at_even_distances():
    frames = [np.full((HEIGHT, WIDTH), value, np.uint8) for value in range(24)]
    values = strip(frames)[0, ::WIDTH, 0]
    assert values.tolist() == list(range(0, 24, 2))
    assert strip(frames[:3], 6)[5, ::WIDTH, 2].tolist() == [0, 0, 1, 1, 2, 2]
    assert strip(frames).shape == (strip_spec().height, strip_spec().width, 3)
    for wrong in ([], [np.zeros((HEIGHT, WIDTH + 1), np.uint8)]):
        with pytest.raises(ImageError, match="silhouettes"):
            strip(wrong)


def test_the_energy_image_is_the_mean_in_any_order(walks):
    encoder = GaitEnergy()
    found = encoder.encode(walks)
    assert found.shape == (4, encoder.dim) and np.allclose(np.linalg.norm(found, axis=1), 1)
    frames = walks[0, :, :, 0].reshape(HEIGHT, 12, WIDTH)
    mean = frames.mean(1).ravel()
    assert np.allclose(found[0], mean / np.linalg.norm(mean), atol=1e-5)
    near = found @ found.T
    assert near[0, 1] > near[0, 2:].max() and near[2, 3] > near[2, :2].max()
    assert encoder.fingerprint != GaitEnergy(frames=6).fingerprint
    with pytest.raises(ImageError, match=r"\(64, 528, 3\)"):
        encoder.encode(walks[:, :, : 6 * WIDTH])


class TestGaitSet:
    torch = pytest.importorskip("torch")

    @pytest.fixture
    def network(self):
        from ipse.encoders.backbones import backbone

        self.torch.manual_seed(0)
        return backbone("gaitset", channels=[4, 6, 8], bins=[1, 4], part=3).eval()

    def pixels(self, walks):
        return self.torch.from_numpy(walks).permute(0, 3, 1, 2).float() / 255

    def test_a_walk_is_a_set(self, network, walks):
        with self.torch.no_grad():
            found = network(self.pixels(walks))
            frames = walks.reshape(4, HEIGHT, 12, WIDTH, 3)
            order = np.random.default_rng(0).permutation(12)
            for same in (frames[:, :, order], np.concatenate([frames, frames[:, :, 3:7]], 2)):
                assert self.torch.allclose(network(self.pixels(same.reshape(4, HEIGHT, -1, 3))), found, atol=1e-5)
            other = network(self.pixels(frames[:, :, :1].reshape(4, HEIGHT, -1, 3)))
        assert found.shape == (4, network.dim) and network.dim == 2 * (1 + 4) * 3
        assert network.feature_map(self.pixels(walks)).shape == (4, 16, 16, 11)
        assert not self.torch.allclose(other, found, atol=1e-2)

    def test_a_training_step_draws_silhouettes_by_chance(self, walks):
        from ipse.encoders.backbones import backbone

        network = backbone("gaitset", channels=[4, 6, 8], bins=[1], part=3, drawn=2)
        seen = []
        network.frames[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        for mode in (True, True, False):
            network.train(mode)(self.pixels(walks))
        assert [len(frames) for frames in seen] == [8, 8, 48]
        assert not self.torch.equal(seen[0], seen[1])

    def test_stripes_that_do_not_fit_are_refused(self):
        from ipse.encoders.backbones import backbone

        for options in ({"bins": [3]}, {"bins": []}, {"channels": [4, 8]}):
            with pytest.raises(WeightsError, match="stripes"):
                backbone("gaitset", **options)

    def test_its_file_is_an_encoder_like_any_other(self, network, walks, tmp_path):
        from ipse.encoders.trained import TrainedEncoder, save_network

        contract = {
            "name": "tiny", "task": "identity", "modality": "gait", "license": "Apache-2.0", "chip": strip_spec(),
            "network": {"backbone": "gaitset", "channels": [4, 6, 8], "bins": [1, 4], "part": 3},
            "dim": network.dim, "metric": "cosine",
        }  # fmt: skip
        save_network(network, contract, tmp_path / "tiny.safetensors")
        encoder = TrainedEncoder(tmp_path / "tiny.safetensors")
        found = encoder.encode(walks)
        assert encoder.modality == "gait" and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        with self.torch.no_grad():
            plain = self.torch.nn.functional.normalize(network(self.pixels(walks))).numpy()
        assert (found * plain).sum(1).min() > 0.999
