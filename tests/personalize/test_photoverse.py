"""PhotoVerse: two branches, each of which can be taken out, and a loss that knows whose face comes out."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.errors import TrainingError  # noqa: E402
from ipse.faces import align  # noqa: E402
from ipse.personalize import open_method  # noqa: E402
from ipse.personalize.adapting import Options, read_record, read_weights  # noqa: E402
from ipse.personalize.likeness import Likeness, critic_of  # noqa: E402
from ipse.personalize.references import FaceReader  # noqa: E402
from ipse.personalize.training import train_adapter  # noqa: E402


def test_faces_are_cut_as_the_encoder_wants_them(base, photographs):
    reader = FaceReader(base)
    likeness, picture = Likeness(base, reader.encoder), photographs[1][0]
    (found,) = reader.find(picture)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    five = torch.from_numpy(reader.features([picture], [found.face], ["five"])["five"])
    ours = 255 * likeness._chips(pixels, five)[0].permute(1, 2, 0).numpy()
    theirs = align(picture, [found.face], "arcface112")[0]
    assert np.abs(ours - theirs).mean() < 1
    latents = torch.randn(1, *base.latent, requires_grad=True)
    vector = likeness(latents, five)
    vector[0, 0].backward()
    assert float(vector.detach().norm()) == pytest.approx(1, abs=1e-4) and latents.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::ipse.personalize.references.ReferenceWarning")
def test_each_branch_can_be_taken_out(base, trained, photographs):
    run = trained("photoverse")
    assert "unlike" in (run / "log.jsonl").read_text()
    made = []
    for text, image in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        method = open_method("photoverse", base, adapter=run / "photoverse.safetensors", steps=1)
        method.text_share, method.image_share = text, image
        made.append(next(method.fit(photographs[1]).generate("A portrait of {a woman}.", 1, 2)).image)
    assert not any(np.array_equal(made[a], made[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_loss_on_identity_sees_some_noise_only(untrained, batch_of):
    method = untrained("photoverse")
    method.options = replace(Options(), likeness=0.5, seen=3)
    batch = batch_of(method)
    told = {}
    # Its rows are at steps 100, 450 and 800 of 1,000.
    for between in ((0.0, 0.1), (0.0, 0.3), (0.3, 0.9), (0.0, 0.9)):
        method.options = replace(method.options, likeness_from=between[0], likeness_to=between[1])
        told[between] = method.unlike(batch.goal, batch).item()
    none, one, two, every = told.values()
    assert none == 0 and 0 < one < 2 and every == pytest.approx((one + 2 * two) / 3, rel=1e-4)
    error, parts = method.error(batch.goal, batch)
    assert error.item() == pytest.approx(0.5 * parts["unlike"].item()) and parts["unlike"].item() == every


def test_a_critic_says_what_the_encoder_says_and_is_recorded(base, portraits, cache, recipe_of, trained, tmp_path):
    encoder = FaceReader(base).encoder
    critic = critic_of("face-robust", encoder)
    assert critic_of("", encoder) is encoder and critic.fingerprint != encoder.fingerprint
    with pytest.raises(TrainingError, match="not trained to say what face-world says"):
        critic_of("body-world", encoder)
    train_adapter(recipe_of("photoverse", critic="face-robust"), base, [portraits], tmp_path, cache=cache)
    own, other = (folder / "photoverse.safetensors" for folder in (tmp_path, trained("photoverse")))
    assert {encoder.fingerprint, critic.fingerprint} < {*read_record(own)["trained_with"]}
    assert critic.fingerprint not in read_record(other)["trained_with"]
    ours, theirs = read_weights(own)[0], read_weights(other)[0]
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())
