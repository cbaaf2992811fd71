import pytest
import torch

from ipse.diffusion.attention import Capture, Where, attached
from ipse.diffusion.reference import Record, Reference, Shared
from ipse.errors import IpseError


def given(unet, rows=1, seed=7):
    maker = torch.Generator().manual_seed(seed)
    text = torch.randn(1, 6, unet.config.cross_attention_dim, generator=maker).repeat(rows, 1, 1)
    return torch.randn(rows, 4, 8, 8, generator=maker), text


def test_recording_changes_nothing_and_no_strength_is_off(unet, predict):
    plain = predict(unet)
    record = Record()
    with attached(unet, record):
        assert torch.equal(predict(unet), plain)
    assert {name for _, name in record.states} == {
        key.removesuffix(".processor") for key in unet.attn_processors if "attn1" in key
    }
    with attached(unet, Reference(record, strength=0.0)):
        assert torch.equal(predict(unet), plain)


def test_a_picture_that_looks_at_itself_stays_as_it_is(tiny, predict):
    unet = tiny("world")
    plain = predict(unet)
    record = Record()
    with attached(unet, record):
        predict(unet)
    for options in ({}, {"instead": True}, {"strength": 0.5}, {"step": 0}):
        with attached(unet, Reference(record, **options)):
            torch.testing.assert_close(predict(unet), plain, rtol=1e-4, atol=1e-5)
            assert (predict(unet, seed=2) - plain).abs().max() > 1e-3


def test_another_picture_is_seen(unet, predict):
    other = given(unet)[0]
    record = Record()
    with attached(unet, record):
        predict(unet, rows=1, sample=other)
    plain = predict(unet)
    results = []
    for reference in (Reference(record), Reference(record, instead=True), Reference(record, strength=0.1)):
        with attached(unet, reference):
            results.append(predict(unet))
            assert (results[-1] - plain).abs().max() > 1e-4
    assert (results[2] - plain).norm() < (results[0] - plain).norm() < (results[1] - plain).norm()


def test_only_the_region_and_only_for_some_rows(tiny, predict):
    unet = tiny("world")
    other = given(unet)[0]
    record, capture = Record(), Capture(Where("self", layers=(0,)))
    with attached(unet, record):
        predict(unet, rows=1, sample=other)
    left = torch.zeros(8, 8)
    left[:, :4] = 1
    plain = predict(unet)
    with attached(unet, Reference(record, region=left, rows=slice(1, 2)), capture):
        out = predict(unet)
    (weights,) = capture.maps.values()
    reference = weights[..., 64:].unflatten(-1, (8, 8))
    assert weights.shape == (2, 64, 128) and reference[0].max() < 1e-6 and reference[1, :, :, 4:].max() < 1e-6
    assert reference[1, :, :, :4].min() > 1e-4
    torch.testing.assert_close(out[0], plain[0], rtol=1e-4, atol=1e-5)
    assert (out[1] - plain[1]).abs().max() > 1e-4
    with attached(unet, Reference(record, instead=True, rows=slice(0, 1))):
        instead = predict(unet)
    torch.testing.assert_close(instead[1], plain[1], rtol=1e-4, atol=1e-5)
    assert (instead[0] - plain[0]).abs().max() > 1e-4


def test_a_second_network_can_be_the_reference(tiny, predict):
    main, other = tiny("world"), tiny("world", seed=9)
    record = Record()
    with attached(other, record):
        predict(other, timestep=0)
    with attached(main, Reference(record, step=0)):
        changed = [predict(main, timestep=t) for t in (900, 500)]
    assert all((out - predict(main, timestep=t)).abs().max() > 1e-4 for out, t in zip(changed, (900, 500), strict=True))


def test_steps_and_rows_must_be_recorded(tiny, predict):
    unet = tiny("world")
    record = Record()
    with attached(unet, Reference(record)), pytest.raises(IpseError, match="Nothing was recorded at step 0"):
        predict(unet)
    with attached(unet, record):
        predict(unet, rows=3)
    with attached(unet, Reference(record)), pytest.raises(IpseError, match="runs 2 rows and the reference has 3"):
        predict(unet)
    record.clear()
    with attached(unet, record):
        predict(unet, rows=1, size=16)
    with attached(unet, Reference(record, instead=True)), pytest.raises(IpseError, match="of another size"):
        predict(unet)
    with attached(unet, Reference(record)):
        predict(unet)


def test_rows_share_what_they_see(tiny, predict):
    unet = tiny("world")
    sample, text = given(unet, 3)
    args = {"sample": sample, "encoder_hidden_states": text}
    plain = predict(unet, **args)
    with attached(unet, Shared()):
        shared = predict(unet, **args)
    assert (shared - plain).abs().amax((1, 2, 3)).min() > 1e-4
    # The only source sees nothing but itself; the others see it.
    with attached(unet, Shared(sources=(1,))):
        anchored = predict(unet, **args)
    torch.testing.assert_close(anchored[1], plain[1], rtol=1e-4, atol=1e-5)
    assert (anchored - plain)[[0, 2]].abs().amax((1, 2, 3)).min() > 1e-4
    # Rows that show nothing to each other are alone, and so are rows of different groups.
    for alone in (Shared(regions=torch.zeros(3, 8, 8)), Shared(groups=3)):
        with attached(unet, alone):
            torch.testing.assert_close(predict(unet, **args), plain, rtol=1e-4, atol=1e-5)
    with attached(unet, Shared(groups=2)), pytest.raises(IpseError, match="3 rows do not fall into 2 groups"):
        predict(unet, **args)
