import random
import tracemalloc

import numpy as np
import pytest

from ipse.errors import WeightsError
from ipse.zoo import DLIB_FACE_NETWORK
from ipse.zoo.dlib_format import read_face_network


@pytest.fixture(scope="module")
def content() -> bytes:
    return DLIB_FACE_NETWORK.read()


def test_reads_the_whole_network(content):
    network = read_face_network(content)
    assert network.size == 150 and network.scale == 256
    assert network.mean == pytest.approx([122.782, 117.001, 104.298], abs=1e-3)
    assert network.stem.weight.shape == (32, 3, 7, 7) and network.head.shape == (256, 128)
    assert [len(block.second.bias) for block in network.blocks] == [32] * 3 + [64] * 4 + [128] * 3 + [256] * 4
    assert [i for i, block in enumerate(network.blocks) if block.down] == [3, 7, 10, 13]


@pytest.mark.parametrize("size", [0, 1, 2, 100, 700, 20_000, 22_466_065])
def test_a_truncated_file_is_an_error(content, size):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_face_network(content[:size])


def test_bytes_behind_the_end_are_an_error(content):
    with pytest.raises(WeightsError, match="end of the file"):
        read_face_network(content + b"\0")


def test_weights_that_are_not_numbers_are_an_error(content):
    at = content.index(np.float32(read_face_network(content).head[0, 0]).tobytes())
    with pytest.raises(WeightsError, match="not a number"):
        read_face_network(content[:at] + np.float32(np.nan).tobytes() + content[at + 4 :])


def test_huge_sizes_allocate_nothing(content):
    """Eight-byte sizes in the first tensor: their product is far beyond any memory."""
    at = content.index(b"con_4") + 5
    for size in (b"\x08" + b"\xff" * 7 + b"\x7f", b"\x04\xff\xff\xff\x7f", b"\x84\xff\xff\xff\x7f"):
        damaged = content[:at] + b"\x01\x02" + size * 4 + content[at + 12 :]
        tracemalloc.start()
        with pytest.raises(WeightsError, match="shape"):
            read_face_network(damaged)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def _records(content: bytes) -> list[int]:
    """Places in the file that hold structure rather than weights: around every layer's name."""
    names = (
        b"loss_metric_2",
        b"input_rgb_image_sized",
        b"con_4",
        b"affine_",
        b"relu_",
        b"add_prev_",
        b"pool_2",
        b"fc_2",
    )
    places = [0]
    for name in names:
        at = content.find(name)
        while at >= 0:
            places.append(at)
            at = content.find(name, at + 1)
    return places


def test_mutated_files_are_read_or_refused(content):
    """Whatever is changed, added or cut, the answer is a network or a WeightsError."""
    rng = random.Random(0)
    places = _records(content)
    refused = 0
    for _ in range(150):
        data = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = min(len(data) - 1, max(0, rng.choice(places) + rng.randint(-150, 150)))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del data[at : at + rng.randint(1, 20)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 20))
        try:
            read_face_network(data)
        except WeightsError:
            refused += 1
    assert refused > 75


def test_random_bytes_are_refused():
    rng = random.Random(1)
    for _ in range(2000):
        with pytest.raises(WeightsError):
            read_face_network(rng.randbytes(rng.randint(0, 200)))
