"""DP-Adapter: two paths, each in its region, and layers that find the regions themselves."""

import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.attention import attached, layers_of  # noqa: E402
from ipse.personalize.dp_adapter import PathOptions, region_error  # noqa: E402


@pytest.fixture
def method(untrained):
    return untrained("dp-adapter")


def first_layer(method, handle, text):
    """What the first cross-attention layer makes of a feature map of 16 × 16 with the handle, and without."""
    unet = method.unet
    layer = next(layer for layer in layers_of(unet) if layer.cross)
    seen = []
    hook = unet.get_submodule(layer.name).register_forward_hook(lambda *given: seen.append(given[-1]))
    with torch.no_grad():
        for handles in ([], [handle]):
            with attached(unet, *handles):
                unet(torch.zeros(len(text), *method.base.latent), 500, encoder_hidden_states=text)
    hook.remove()
    return seen


def test_each_path_acts_in_its_region_alone(method, batch_of):
    batch = batch_of(method)
    face = batch.own["face"]
    inside = face.flatten(1) > 0
    for path, acts in (("visual", inside), ("textual", ~inside)):
        silent = "textual" if path == "visual" else "visual"
        for layer in getattr(method.network, silent).layers.values():
            layer.to_v.weight.data.zero_()
        plain, with_path = first_layer(method, method.paths(batch.people, 1.0, face), batch.words.text)
        changed = (plain - with_path).abs().amax(-1) > 1e-6
        assert changed.shape == acts.shape and torch.equal(changed, acts)
        torch.manual_seed(1)
        for layer in getattr(method.network, silent).layers.values():
            torch.nn.init.normal_(layer.to_v.weight, std=0.2)


def test_between_the_regions_features_are_mixed(method, batch_of):
    batch = batch_of(method)
    shares = [torch.full_like(batch.own["face"], share) for share in (0.0, 0.25, 1.0)]
    textual, mixed, visual = (
        first_layer(method, method.paths(batch.people, 1.0, share), batch.words.text)[1] for share in shares
    )
    torch.testing.assert_close(mixed, 0.25 * visual + 0.75 * textual, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(visual, textual)


def test_layers_learn_to_find_the_face(method, batch_of):
    batch = batch_of(method)
    told = []
    optimizer = torch.optim.Adam(method.network.region.parameters(), 0.3)
    for _ in range(8):
        method.options = PathOptions(region=1.0)
        optimizer.zero_grad()
        loss, parts = method.loss(batch)
        loss.backward()
        optimizer.step()
        told.append(float(parts["region"].detach()))
    assert told[0] == pytest.approx(0.6931, abs=1e-3) and told[-1] < 0.6
    # What was found is what making a picture goes by: no face is given there.
    paths = method.condition(batch.people, batch.words, 1.0).handles[0]
    assert paths.face is None
    found = first_layer(method, paths, batch.words.text)[1]
    for finder in method.network.region.values():
        torch.nn.init.zeros_(finder.weight)
        torch.nn.init.zeros_(finder.bias)
    assert not torch.allclose(first_layer(method, paths, batch.words.text)[1], found)


def test_the_error_of_a_region():
    face = torch.zeros(1, 4, 4)
    face[:, :2] = 1
    right = (20 * (face - 0.5)).flatten(1)
    assert region_error([(right, (4, 4))], face) < 1e-3 and region_error([(-right, (4, 4))], face) > 5


def test_outside_of_the_face_it_has_to_be_as_the_base(method, batch_of):
    batch = batch_of(method)
    method.options = PathOptions(consistency=0.0, region=0.0)
    plain, told = method.loss(batch)
    assert told["outside"] > 0
    method.options = PathOptions(consistency=10.0, region=0.0)
    loss, told = method.loss(batch)
    torch.testing.assert_close(loss, plain + 10 * told["outside"])
    everywhere = {**batch.own, "face": torch.ones_like(batch.own["face"])}
    _, told = method.loss(type(batch)(**{**vars(batch), "own": everywhere}))
    assert told["outside"] == 0
