import numpy as np
import pytest

from ipse.errors import WorldError
from ipse.world.body import body
from ipse.world.person import person
from ipse.world.pose import body_rotations, gait_angles, root_motion
from ipse.world.scene import rest_body
from ipse.world.shot import POSES, BodyPose

# An adult, a child, a heavy adult.
PEOPLE = [person(0), person(15), person(60)]


def joints(pose, who):
    b, rest = body(), rest_body(who)
    t = b.transforms(rest, body_rotations(pose, who))
    return {name: t[j, :, :3] @ rest.heads[j] + t[j, :, 3] for j, name in enumerate(b.bones)}


@pytest.mark.parametrize("who", PEOPLE, ids=["adult", "child", "heavy"])
@pytest.mark.parametrize("name", POSES)
def test_rotations_are_rotations_of_bones(name, who):
    turns = body_rotations(BodyPose(name, 0.3), who)
    assert set(turns) <= set(body().bones)
    for turn in turns.values():
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(turn) > 0


def test_same_pose_same_rotations():
    first, second = (body_rotations(BodyPose("walking", 0.4), PEOPLE[0]) for _ in range(2))
    assert all(np.array_equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("who", PEOPLE, ids=["adult", "child", "heavy"])
def test_arms_hang_beside_the_body_when_standing(who):
    at = joints(BodyPose("standing", 0.2), who)
    rest = rest_body(who)
    for side in "LR":
        assert at[f"wrist.{side}"][1] < at[f"lowerarm01.{side}"][1] < at[f"upperarm01.{side}"][1]
        # Near the body, and outside of it.
        out = abs(at[f"wrist.{side}"][0])
        assert abs(at[f"upperleg01.{side}"][0]) < out < 0.26 * rest.height
    assert at["wrist.L"][0] > 0 > at["wrist.R"][0]


def test_poses_put_the_hands_where_their_names_say():
    at = {name: joints(BodyPose(name, 0.3), PEOPLE[0]) for name in POSES}
    assert at["arms_up"]["wrist.L"][1] > at["arms_up"]["head"][1]
    assert at["arms_up"]["wrist.R"][1] > at["arms_up"]["head"][1]
    assert at["one_hand_raised"]["wrist.R"][1] > at["one_hand_raised"]["upperarm01.R"][1]
    assert at["one_hand_raised"]["wrist.L"][1] < at["one_hand_raised"]["upperleg01.L"][1] + 0.15
    # Crossed arms end before the other side of the chest.
    assert at["arms_crossed"]["wrist.L"][0] < 0 < at["arms_crossed"]["wrist.R"][0]
    assert at["hands_on_hips"]["lowerarm01.L"][0] > at["hands_on_hips"]["wrist.L"][0] > 0.1
    knee, hip = at["sitting"]["lowerleg01.L"], at["sitting"]["upperleg01.L"]
    assert knee[2] - hip[2] > 0.3 and abs(knee[1] - hip[1]) < 0.1


@pytest.mark.parametrize("who", PEOPLE, ids=["adult", "child", "heavy"])
def test_walking_swings_legs_and_arms_against_each_other(who):
    strike = joints(BodyPose("walking", 0.0), who)
    assert strike["foot.L"][2] > strike["foot.R"][2] + 0.1
    assert strike["wrist.L"][2] < strike["wrist.R"][2]
    other = joints(BodyPose("walking", 0.5), who)
    assert other["foot.R"][2] > other["foot.L"][2] + 0.1


def test_knees_never_bend_backward():
    for gait in ({"stride": 0.25, "bounce": 1.0}, {"stride": 0.6, "bounce": 0.0}):
        who = PEOPLE[0].replace(gait=PEOPLE[0].gait.replace(**gait))
        assert min(gait_angles(who, phase)[1] for phase in np.linspace(0, 1, 41)) >= 0
        for phase in np.linspace(0, 1, 11):
            at = joints(BodyPose("walking", float(phase)), who)
            for side in "LR":
                hip, knee, ankle = (at[f"{bone}.{side}"] for bone in ("upperleg01", "lowerleg01", "foot"))
                straight = hip + (ankle - hip) * (hip - knee)[1] / (hip - ankle)[1]
                assert knee[2] > straight[2] - 1e-3


def test_a_longer_stride_takes_longer_steps():
    reach = []
    for stride in (0.3, 0.5):
        at = joints(BodyPose("walking", 0.0), PEOPLE[0].replace(**{"gait.stride": stride}))
        reach.append(at["foot.L"][2] - at["foot.R"][2])
    assert reach[1] > 1.3 * reach[0]


def test_root_motion_rises_over_the_carrying_leg_and_travels():
    who = PEOPLE[0]
    rest = rest_body(who)
    moves = np.array([root_motion(BodyPose("walking", p), who, rest) for p in (0.05, 0.3, 0.55, 0.8)])
    assert moves[[1, 3], 1].min() > moves[[0, 2], 1].max()
    assert np.all(np.diff(moves[:, 2]) > 0)
    assert moves[1, 0] > 0 > moves[3, 0]
    standing = root_motion(BodyPose("standing", 0.0), who, rest)
    assert standing[0] == standing[2] == 0


def test_bounce_is_the_persons_own():
    rest = rest_body(PEOPLE[0])

    def rise(bounce):
        who = PEOPLE[0].replace(**{"gait.bounce": bounce})
        return np.ptp([root_motion(BodyPose("walking", p), who, rest)[1] for p in (0.05, 0.3)])

    assert rise(1.0) > rise(0.0) + 0.01


def test_joints_bend_on_top_of_the_pose():
    plain = joints(BodyPose("standing", 0.0), PEOPLE[0])
    bent = joints(BodyPose("standing", 0.0, {"lowerarm01.L": 60}), PEOPLE[0])
    assert bent["wrist.L"][2] > plain["wrist.L"][2] + 0.1
    np.testing.assert_allclose(bent["wrist.R"], plain["wrist.R"])
    turned = joints(BodyPose("standing", 0.0, {"spine01:y": 30}), PEOPLE[0])
    assert turned["upperarm01.L"][2] < plain["upperarm01.L"][2] - 0.03


@pytest.mark.parametrize("key", ["elbow", "head:w"])
def test_unknown_joints_are_named(key):
    with pytest.raises(WorldError, match=r"elbow|axis"):
        body_rotations(BodyPose("standing", 0.0, {key: 5}), PEOPLE[0])
