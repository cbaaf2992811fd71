import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from ipse.diffusion.attention import Capture, attached
from ipse.diffusion.spatial import (
    CONDITIONS,
    Control,
    SideAdapter,
    Together,
    condition,
    control_for,
    dense_picture,
    depth_picture,
    five_picture,
    normals_picture,
    parts_picture,
    side_adapter_for,
)
from ipse.diffusion.trajectory import Denoiser, sample, seeded_noise
from ipse.diffusion.tuning import denoising_loss, fit
from ipse.errors import IpseError
from ipse.faces.parts import LABELS


def picture(seed=0, size=64):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def denoiser(unet, spatial=None):
    maker = torch.Generator().manual_seed(2)
    text, negative = torch.randn(2, 1, 6, unet.config.cross_attention_dim, generator=maker)
    added = None
    if unet.config.addition_embed_type == "text_time":
        added = {"text_embeds": torch.randn(1, 12, generator=maker), "time_ids": torch.ones(1, 6)}
    return Denoiser(unet, DDIMScheduler(clip_sample=False, steps_offset=1), text, negative, 2.0, added, spatial=spatial)


@torch.no_grad()
def run(unet, spatial=None, rows=1):
    return sample(denoiser(unet, spatial), seeded_noise((4, 8, 8), list(range(rows))), 2)


def awake(control):
    """A ControlNet that has something to say."""
    torch.manual_seed(5)
    for convolution in [*control.controlnet_down_blocks, control.controlnet_mid_block]:
        torch.nn.init.normal_(convolution.weight, std=0.3)
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, std=0.3)
    return control.requires_grad_(False)


def test_new_and_switched_off_controls_change_nothing(unet):
    plain = run(unet)
    new = control_for(unet)
    torch.testing.assert_close(run(unet, Control(new, picture())), plain, rtol=1e-5, atol=1e-6)
    control = awake(new)
    side = side_adapter_for(unet).requires_grad_(False)
    for off in (Control(control, picture(), 0.0), SideAdapter(side, picture(), 0.0), Together([])):
        assert torch.equal(run(unet, off), plain)


def test_controls_follow_their_picture(unet):
    plain = run(unet)
    for make, network in ((Control, awake(control_for(unet))), (SideAdapter, side_adapter_for(unet))):
        network.requires_grad_(False)
        full, half = run(unet, make(network, picture())), run(unet, make(network, picture(), 0.2))
        assert (full - plain).norm() > (half - plain).norm() > 1e-4
        assert (full - run(unet, make(network, picture(1)))).abs().max() > 1e-5
        # Several rows, each with a picture of its own.
        both = run(unet, make(network, torch.cat([picture(), picture(1)])), rows=2)
        torch.testing.assert_close(both[:1], full, rtol=1e-3, atol=1e-4)
        with pytest.raises(IpseError, match="4 rows and conditions for 3"):
            run(unet, make(network, torch.cat([picture()] * 3)), rows=2)


def test_controls_act_on_their_part_of_the_way_and_with_their_own_text(tiny):
    unet = tiny("world")
    control = awake(control_for(unet))
    plain, full = run(unet), run(unet, Control(control, picture()))
    early, late = (run(unet, Control(control, picture(), levels=levels)) for levels in ((0, 0.6), (0.6, 1)))
    for part in (early, late):
        assert not torch.equal(part, plain) and not torch.equal(part, full)
    assert torch.equal(run(unet, Control(control, picture(), levels=(2, 3))), plain)
    tokens = torch.randn(1, 16, 12)  # such as InstantID's
    own = run(unet, Control(control, picture(), text=tokens))
    assert not torch.equal(own, full)


def test_controls_add_up_and_work_beside_attention_handles(tiny):
    unet = tiny("world")
    control, side = awake(control_for(unet)), side_adapter_for(unet).requires_grad_(False)
    twice = run(unet, Together([Control(control, picture(), 0.5), Control(control, picture(), 0.5)]))
    torch.testing.assert_close(twice, run(unet, Control(control, picture())), rtol=1e-4, atol=1e-4)
    both = Together([Control(control, picture()), SideAdapter(side, picture())])
    mixed = run(unet, both)
    assert not torch.equal(mixed, run(unet, both.controls[0])) and not torch.equal(mixed, run(unet, both.controls[1]))
    capture = Capture()
    with attached(unet, capture), attached(control, capture):
        assert torch.equal(run(unet, both), mixed)


def test_controls_train_while_the_base_stands_still(tiny):
    unet = tiny("world")
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    clean, text = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 12)
    for network, make in ((control_for(unet), Control), (side_adapter_for(unet), SideAdapter)):

        def loss(generator, network=network, make=make):
            seeded = torch.Generator().manual_seed(0)
            return denoising_loss(unet, scheduler, clean, text, seeded, spatial=make(network, picture()))

        losses = fit(network.parameters(), loss, 6, rate=1e-2)
        assert losses[-1] < losses[0]
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_points_are_drawn_where_they_are():
    points = np.array([[20, 20], [44, 20], [32, 32], [22, 46], [42, 46]], np.float32)
    drawn = five_picture(points, np.ones(5, bool), (64, 64))
    assert drawn.shape == (3, 64, 64) and drawn.max() == 1
    for (x, y), color in zip(points.astype(int), ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)), strict=True):
        assert drawn[:, y, x].tolist() == list(color)
    # A dim line leads from an eye to the nose; hidden points are not drawn.
    assert drawn[0, 26, 26] == pytest.approx(0.6, abs=0.01) and drawn[:, 0, 0].sum() == 0
    hidden = five_picture(points, np.array([False, True, True, True, True]), (64, 64))
    assert hidden[0, 20, 20] == 0 and hidden[0, 26, 26] == 0
    dense = dense_picture(points, np.array([True, False, True, True, True]), (64, 64))
    assert dense[:, 20, 20].tolist() == [1, 0, 0] and dense[:, 20, 44].sum() == 0 and dense[:, 32, 32].sum() > 0


def test_maps_become_pictures():
    parts = np.array([[0, 1], [2, 3]], np.uint8)
    drawn = parts_picture(parts, 4)
    colors = {tuple(drawn[:, y, x].tolist()) for y in range(2) for x in range(2)}
    assert len(colors) == 4 and drawn[:, 0, 0].sum() == 0
    assert len({tuple(c) for c in parts_picture(np.arange(21)[None], 21)[:, 0].T.tolist()}) == len(LABELS)
    depth = depth_picture(np.array([[0, 1.0], [1.5, 2.0]], np.float32))
    assert depth[0].flatten().tolist() == pytest.approx([0, 1, 0.55, 0.1])
    assert depth_picture(np.zeros((2, 2), np.float32)).sum() == 0
    normals = normals_picture(np.array([[[0, 0, 0], [0, 0, 1], [-1, 0, 0]]], np.float32))
    assert normals[:, 0].T.tolist() == [[0, 0, 0], [0.5, 0.5, 1], [0, 0.5, 0.5]]


def test_the_world_has_the_truth_for_every_condition():
    from ipse.world import look, person, render, shot

    who = person(3)
    bare = {"hat": None, "glasses": None, "mask": None, "scarf": None, "beard.style": "none"}
    frontal = {"occluder": None, "head.roll": 0, "head.pitch": 0, "head.yaw": 0}
    truth = render(who, look(0, who, fix=bare), shot(5, fix=frontal), size=64).truth
    drawn = {kind: condition(truth, kind) for kind in CONDITIONS}
    for kind, found in drawn.items():
        assert found.shape == (3, 64, 64) and found.min() >= 0 and found.max() <= 1, kind
        assert 0.01 < (found.sum(0) > 0).float().mean() < 1, kind
    nose_x, nose_y = truth.five[2].round().astype(int)
    assert drawn["five"][2, nose_y, nose_x] == 1
    # The nose is near, so depth is bright there.
    assert drawn["depth"][0, nose_y, nose_x] > 0.9
    with pytest.raises(IpseError, match=r"no condition 'canny'.*five, dense, parts, depth, normals"):
        condition(truth, "canny")
