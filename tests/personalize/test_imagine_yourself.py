"""Imagine yourself: an attention for each encoding, an image encoder that is trained along, and stages."""

import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.errors import TrainingError, WeightsError  # noqa: E402
from ipse.personalize.adapting import Conditions  # noqa: E402
from ipse.personalize.imagine_yourself import StagedOptions  # noqa: E402
from ipse.personalize.training import AdapterRecipe  # noqa: E402


@pytest.fixture
def method(untrained):
    return untrained("imagine-yourself")


def opened(method, *which):
    """With linear maps that are not zero behind some encoders."""
    for place in which:
        reader = method.network.readers[place]
        torch.nn.init.normal_(getattr(reader, "projection", reader).linear.weight, std=0.3)
    return method


def test_training_begins_with_the_base(method, batch_of):
    batch = batch_of(method)
    with torch.no_grad():
        plain = method.predict(batch, Conditions(batch.words.text))
        torch.testing.assert_close(method.predict(batch), plain, rtol=0, atol=1e-6)
        assert not torch.allclose(opened(method, 0).predict(batch), plain)
    # Zero is a beginning and no end: the maps are moved by the first gradient, what is behind them by the next.
    method.loss(batch)[0].backward()
    assert method.network.readers[1].projection.linear.weight.grad.abs().max() > 0


def test_each_encoding_has_an_attention_of_its_own(method, batch_of):
    batch = batch_of(opened(method, 0, 1))
    face, text = method.network.readers
    with torch.no_grad():
        both = method.predict(batch)
        acting = method.condition(batch.people, batch.words, 1.0)
        assert acting.text is batch.words.text and len(acting.handles) == 3
        for silent in (text, face):
            kept = {name: layer.to_v.weight.clone() for name, layer in silent.layers.items()}
            for layer in silent.layers.values():
                layer.to_v.weight.zero_()
            assert not torch.allclose(method.predict(batch), both)
            for name, layer in silent.layers.items():
                layer.to_v.weight.copy_(kept[name])
        assert [handle.tokens.shape[1] for handle in acting.handles[1:]] == [17, 77]


def test_without_it_all_stand_in_one_row(untrained, batch_of):
    method = opened(untrained("imagine-yourself", parallel=False), 0, 1)
    batch = batch_of(method)
    with torch.no_grad():
        acting = method.condition(batch.people, batch.words, 1.0)
        assert acting.text.shape[1] == 77 + 17 + 77 and len(acting.handles) == 1
        assert torch.equal(acting.text[:, :77], batch.words.text)
        off = method.condition(batch.people, batch.words, 0.0)
        assert torch.equal(off.text, batch.words.text)
        plain = method.predict(batch, Conditions(batch.words.text))
        torch.testing.assert_close(method.predict(batch, off), plain, rtol=0, atol=0)
        assert not torch.allclose(method.predict(batch, acting), plain)


def test_the_image_encoder_is_trained_and_the_base_keeps_its_own(method, batch_of):
    batch = batch_of(opened(method, 0))
    before = method.base.pipeline.image_encoder.vision_model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    optimizer = torch.optim.SGD(method.network.parameters(), 1.0)
    method.loss(batch)[0].backward()
    optimizer.step()
    now = method.network.vision.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(now[name], value)}
    assert any("patch_embedding" in name for name in moved) and any("layers.1." in name for name in moved)
    kept = method.base.pipeline.image_encoder.vision_model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in before.items())


def test_photographs_are_looked_at_one_by_one(method, batch_of):
    batch = batch_of(opened(method, 0))
    one, other = batch.people[0]["portrait"], batch.own["portrait"]
    states = [batch.words.text]
    with torch.no_grad():
        alone = [method.network.tokens(portraits, states)[0] for portraits in (one, other)]
        both, _ = method.network.tokens(torch.cat([one, other], 1), states)
    torch.testing.assert_close(both, torch.cat(alone, 1), rtol=1e-4, atol=1e-5)


def test_training_goes_from_stage_to_stage(method):
    stages = [{"until": 0.5, "same": 1.0}, {"until": 0.8}, {"until": 1.0, "full": 1.0, "short": 0.0}]
    method.options = StagedOptions(same=0.1, stages=stages)
    told = [method.options_at(progress) for progress in (0.0, 0.49, 0.5, 0.8, 0.99)]
    assert [options.same for options in told] == [1.0, 1.0, 0.1, 0.1, 0.1]
    assert [options.full for options in told] == [0.5, 0.5, 0.5, 1.0, 1.0] and told[-1].short == 0
    for wrong in ([{"until": 0.5}], [{"until": 0.7}, {"until": 0.5}, {"until": 1}], [{"same": 1.0}]):
        with pytest.raises(TrainingError, match="stages end at"):
            StagedOptions(stages=wrong)
    with pytest.raises(TrainingError, match="A stage has no key 'sane'"):
        StagedOptions(stages=[{"until": 1, "sane": 1.0}])


def test_the_recipe_ends_with_pairs(pytestconfig):
    recipe = AdapterRecipe.load(pytestconfig.rootpath / "recipes" / "adapters" / "imagine-yourself.yaml")
    options = StagedOptions(**recipe.options)
    assert options.at(0.0).same == 1 and options.at(0.99).same == 0 and options.at(0.99).full == 1


def test_layers_that_are_not_there(untrained):
    with pytest.raises(WeightsError, match="has 1 layers"):
        untrained("imagine-yourself", layers=[1])
