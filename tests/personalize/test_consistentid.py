"""ConsistentID: words for parts of the face, where they stand, and a loss on where they look."""

import numpy as np
import pytest

pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from ipse.diffusion.attention import Call, Capture, Layer  # noqa: E402
from ipse.personalize.adapting import Trained  # noqa: E402
from ipse.personalize.consistentid import ConsistentID  # noqa: E402
from ipse.personalize.references import REGIONS, FaceReader  # noqa: E402


@pytest.fixture(scope="module")
def method(base):
    torch.manual_seed(0)
    network = ConsistentID.build(
        base, {"vector": 256, "patches": 32, "regions": 32}, tokens=2, hidden=8, heads=2, width=16, rank=2
    )
    return ConsistentID(base, Trained(network, {"trained_with": []}))


def test_parts_of_a_face_are_where_they_are(base, photographs):
    reader, picture = FaceReader(base), photographs[1][0]
    (found,) = reader.find(picture)
    told = reader.features([picture], [found.face], ["masks", "regions", "region_patches"])
    assert told["masks"].shape == (1, 5, 16, 16) and told["regions"].shape == (1, 5, 32)
    assert told["region_patches"].shape == (1, 5, 17, 32)
    middle = {
        name: np.average(np.arange(16), weights=mask.sum(1))
        for name, mask in zip(REGIONS, told["masks"][0], strict=True)
        if mask.any()
    }
    assert middle["eyes"] < middle["nose"] < middle["mouth"] and told["regions"][0, :4].any(1).all()


def test_words_for_parts_stand_behind_the_prompt(method):
    tokenizer = method.base.pipeline.tokenizer
    given = {"padding": "max_length", "max_length": 77, "return_tensors": "pt", "truncation": True}
    ids = tokenizer(["A portrait of a woman.", "red " * 80], **given).input_ids
    out, places, room = method._with_parts(ids)
    assert room.tolist() == [True, False] and torch.equal(out[1], ids[1])
    assert tokenizer.decode(out[0], skip_special_tokens=True).replace(" ", "") == (
        "aportraitofawoman.,face,eyes,nose,mouth,ears"
    )
    ends = tokenizer.convert_ids_to_tokens(out[0, places[0]].tolist())
    assert all(word.endswith(end.removesuffix("</w>")) for word, end in zip(REGIONS, ends, strict=True))


def test_the_loss_falls_where_words_look_at_their_parts(method):
    layer, capture = Layer(1, "x.attn2", True, 8, 8), Capture(heads=True)
    masks = torch.zeros(1, 5, 16, 16)
    masks[0, :, :4] = 1
    places, spoken = torch.arange(5)[None], torch.ones(1, 5, dtype=torch.bool)

    def beside(weights):
        capture.clear()
        capture.see(Call(layer, 0, 0.0, (16, 16), 1), weights)
        return float(method._beside(capture, places, spoken, masks))

    everywhere = torch.full((1, 2, 256, 8), 0.1)
    inside = everywhere * masks[0, 0].flatten()[:, None]
    assert beside(everywhere) == pytest.approx(0, abs=1e-4)
    assert beside(inside) == pytest.approx(-1, abs=1e-4)
    assert method._beside(capture, places, ~spoken, masks) == 0
