"""The figures of personalization, on vectors and classes whose figures are known."""

from dataclasses import replace

import numpy as np
import pytest

from ipse.errors import IpseError
from ipse.measure import personalization as p

PEOPLE, EACH = 12, 4


@pytest.fixture(scope="module")
def people():
    """Unit vectors: a center for each person, and four held-out pictures around it."""
    draw = np.random.default_rng(0)
    centers = draw.normal(size=(PEOPLE, 16))
    person = np.repeat(np.arange(PEOPLE), EACH)
    vectors = centers[person] + 0.3 * draw.normal(size=(PEOPLE * EACH, 16))
    return centers, vectors, person


def test_similarity_is_the_cosine_or_one_less_the_distance():
    a, b = np.array([[3.0, 0.0], [np.nan, np.nan]]), np.array([[0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(p.similarity(a, b, "cosine")[0], [0, 1])
    np.testing.assert_allclose(p.similarity(a, b, "l2")[0], [1 - np.sqrt(13), -1])
    assert np.isnan(p.similarity(a, b, "l2")[1]).all() and np.isnan(p.similarity(a, b, "cosine")[1]).all()


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_right_people_are_at_the_ceiling_and_shuffled_ones_at_the_floor(people, metric):
    centers, held, person = people
    draw = np.random.default_rng(1)
    made = centers[person] + 0.3 * draw.normal(size=held.shape)
    given = (held, person, PEOPLE, metric)
    ceiling = p.identity_similarity(held, person, *given, missing=0, leave_out=True)
    floor = p.stranger_similarity(held, person, *given)
    right = p.identity_similarity(made, person, *given, missing=floor.value)
    wrong = p.identity_similarity(made, (person + 1) % PEOPLE, *given, missing=floor.value)
    assert floor.value + 0.4 < ceiling.value and right.value == pytest.approx(ceiling.value, abs=0.05)
    assert wrong.value == pytest.approx(floor.value, abs=0.3)
    assert p.rank1(made, person, *given).value == 1 and p.rank1(made, (person + 1) % PEOPLE, *given).value == 0
    assert p.rank1(held, person, *given, leave_out=True).value > 0.9
    low, high = right.minus(wrong).ci95()
    assert low > 0 and low < right.value - wrong.value < high


def test_a_picture_without_a_face_is_a_failure(people):
    centers, held, person = people
    made = centers.copy()
    made[:3] = np.nan
    numbers = np.arange(PEOPLE)
    assert p.rank1(made, numbers, held, person, PEOPLE, "l2").value == pytest.approx(9 / 12)
    whole = p.identity_similarity(centers, numbers, held, person, PEOPLE, "l2", missing=-5)
    figure = p.identity_similarity(made, numbers, held, person, PEOPLE, "l2", missing=-5)
    lost = whole.sums[:3, 0].sum()
    assert figure.value == pytest.approx((12 * whole.value - lost - 15) / 12)


def test_an_interval_draws_people_of_a_group_together():
    shared, people = np.random.default_rng(0).normal(size=10), 40
    group = np.arange(people) // 4
    figure = p.mean_of(shared[group], np.arange(people), people)
    grouped = replace(figure, groups=group)
    one, four = (np.ptp(one.ci95()) for one in (grouped, figure))
    # Four people who are alike say no more than one of them.
    assert one == pytest.approx(np.ptp(p.mean_of(shared, np.arange(10), 10).ci95())) and one > 1.5 * four
    assert np.ptp(grouped.minus(replace(figure, sums=np.roll(figure.sums, 20, 0))).ci95()) > 1.5 * four
    assert p.joined([figure, grouped], np.maximum).groups is group
    assert replace(figure, groups=0 * group).ci95() is None


def test_people_with_nothing_to_compare_are_left_out():
    made = np.eye(3)
    figure = p.identity_similarity(made, [0, 1, 2], np.eye(3)[:2], [0, 1], 3, "cosine", missing=0)
    assert figure.value == 1 and figure.people == 2
    assert p.rank1(made, [0, 1, 2], np.eye(3)[:2], [0, 1], 3, "cosine").people == 2
    alone = p.rank1(made[:1], [0], np.eye(3)[:1], [0], 1, "cosine")
    assert alone.value == 1 and alone.ci95() is None
    nothing = p.rank1(made[:1], [0], np.empty((0, 3)), [], 1, "cosine")
    assert np.isnan(nothing.value) and nothing.people == 0


def test_ties_are_no_hits():
    same = np.ones((2, 3))
    assert p.rank1(same, [0, 1], same, [0, 1], 2, "cosine").value == 0


def test_intervals_draw_people_not_pictures():
    """A hundred equal pictures of each of ten people tell no more than ten."""
    values = np.repeat(np.arange(10) % 2, 100)
    low, high = p.mean_of(values, np.repeat(np.arange(10), 100), 10).ci95()
    assert high - low > 0.4
    # Paired, what is the same for a person is no noise.
    other = p.mean_of(values + 0.1, np.repeat(np.arange(10), 100), 10)
    assert other.minus(p.mean_of(values, np.repeat(np.arange(10), 100), 10)).ci95() == pytest.approx((0.1, 0.1))


def signals(draw, count):
    """A class and a number that differ from picture to picture."""
    return {
        "facts.expression": draw.choice(["smile", "neutral", "sad"], count),
        "light": draw.normal(size=(count, 16)),
    }


def copied(made, person, asked=frozenset()):
    draw = np.random.default_rng(0)
    reference, held = signals(draw, PEOPLE), signals(draw, 3 * PEOPLE)
    made = reference if made == "reference" else made
    rest = [reference, np.arange(PEOPLE), held, np.repeat(np.arange(PEOPLE), 3), PEOPLE]
    return p.copy_paste(made, person, [asked] * len(person), *rest)


def test_a_copy_of_the_reference_is_all_copied_and_another_picture_is_not():
    everybody = np.arange(PEOPLE)
    copy = copied("reference", everybody)
    assert {name: figure.value for name, figure in copy.items()} == pytest.approx(
        {"expression": 1, "light": 1, "all": 1}
    )
    many = np.repeat(everybody, 20)
    other = copied(signals(np.random.default_rng(5), len(many)), many)
    low, high = other["all"].ci95()
    assert abs(other["all"].value) < 0.15 and low < 0.05 < 0.6 > high


def test_what_the_prompt_asked_for_is_not_copied():
    everybody = np.arange(PEOPLE)
    assert set(copied("reference", everybody, {"expression"})) == {"light", "all"}
    assert copied("reference", everybody, {"expression", "light_side"}) == {}


def test_of_several_references_the_nearest_counts():
    draw = np.random.default_rng(0)
    reference, held = signals(draw, 2 * PEOPLE), signals(draw, 3 * PEOPLE)
    owner = np.repeat(np.arange(PEOPLE), 2)
    second = {name: values[1::2] for name, values in reference.items()}
    rest = [reference, owner, held, np.repeat(np.arange(PEOPLE), 3), PEOPLE]
    assert p.copy_paste(second, np.arange(PEOPLE), [()] * PEOPLE, *rest)["all"].value == pytest.approx(1)


def test_what_a_picture_is_like_is_told_by_numbers():
    points = np.array([[0, 0], [4, 0], [2, 1], [1, 3], [3, 3]], float)
    np.testing.assert_allclose(p.pose_of(points), p.pose_of(7 * points + [30, -5]))
    turned = points + [[0, 0], [0, 0], [0.8, 0], [0.3, 0], [0.3, 0]]
    assert np.linalg.norm(p.pose_of(turned) - p.pose_of(points)) > 0.1
    ramp = np.repeat(np.linspace(20, 230, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    lit = p.light_of(ramp, (0, 0, 64, 64)).reshape(4, 4)
    assert (np.diff(lit, axis=1) > 0).all() and lit.mean() == pytest.approx(0, abs=1e-6)
    # A face at the edge of the picture, and a picture of a few pixels.
    assert p.light_of(ramp, (-10, -10, 30, 30)).shape == (16,)
    tiny = np.zeros((2, 3, 3), np.uint8)
    assert [f(tiny).shape for f in (p.background_of, p.clothes_of, p.layout_of)] == [(16,), (4,), (192,)]
    red = ramp.copy()
    red[-6:] = (200, 0, 0)
    assert p.clothes_of(red)[1] > 60
    np.testing.assert_allclose(p.background_of(red), p.background_of(ramp))


def test_prompt_accuracy_counts_each_attribute_alike():
    wanted = {"glasses": np.array(["worn", "worn", "worn", ""]), "hat": np.array(["", "", "", "worn"])}
    told = {"glasses": np.array(["worn", "none", "", "none"]), "hat": np.array(["none", "none", "none", "worn"])}
    found = p.prompt_accuracy(wanted, told, [0, 0, 1, 1], 2)
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(
        {"glasses": 1 / 3, "hat": 1, "mean": 2 / 3}
    )
    assert p.prompt_accuracy({"beard": np.array(["", ""])}, {"beard": np.array(["a", "b"])}, [0, 1], 2) == {}
    cost = p.prompt_accuracy(wanted, {**told, "glasses": wanted["glasses"]}, [0, 0, 1, 1], 2)["mean"]
    assert cost.minus(found["mean"]).value == pytest.approx(1 / 3)


def test_spread_is_the_mean_distance_within_groups():
    features = np.array([[0.0], [3.0], [10.0], [10.0], [np.nan]])
    figure = p.spread(features, [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], 2)
    assert figure.value == pytest.approx(1.5)
    assert figure.over(p.spread(features * 2, [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], 2)).value == pytest.approx(0.5)
    assert np.isnan(p.spread(features, np.arange(5), np.zeros(5), 1).value)


def test_a_judge_that_a_method_was_trained_with_is_refused():
    p.refuse_judges({"mine": {"abc"}}, {"dlib": "def"})
    with pytest.raises(IpseError, match=r"mine was trained with dlib \(def\)"):
        p.refuse_judges({"other": set(), "mine": {"abc", "def"}}, {"dlib": "def"})
