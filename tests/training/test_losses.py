"""Losses: against their definitions written out, and their gradients in the right direction."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.errors import TrainingError  # noqa: E402
from ipse.training.losses import (  # noqa: E402
    LOSSES,
    Center,
    Circle,
    Distilled,
    HarmonicTriplet,
    MarginSoftmax,
    Softmax,
    SumOfLosses,
    SupervisedContrastive,
    Traits,
    Triplet,
)

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2])


@pytest.fixture
def points():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64).float()


def triplets(points, squared):
    d = torch.cdist(points, points) ** (2 if squared else 1)
    for a in range(7):
        for p in range(7):
            for n in range(7):
                if a != p and LABELS[a] == LABELS[p] and LABELS[a] != LABELS[n]:
                    yield a, p, n, float(d[a, p]), float(d[a, n])


def test_batch_all_is_the_mean_of_unsatisfied_triplets(points):
    losses = [max(0, positive - negative + 0.3) for *_, positive, negative in triplets(points, False)]
    expected = sum(losses) / sum(loss > 0 for loss in losses)
    assert Triplet("batch_all", 0.3)(points, LABELS).item() == pytest.approx(expected, rel=1e-4)


def test_batch_hard_takes_the_furthest_and_the_nearest(points):
    hardest = {}
    for a, _, _, positive, negative in triplets(points, False):
        far, near = hardest.get(a, (0, np.inf))
        hardest[a] = max(far, positive), min(near, negative)
    expected = np.mean([max(0, far - near + 0.3) for far, near in hardest.values()])
    assert Triplet("batch_hard", 0.3)(points, LABELS).item() == pytest.approx(expected, rel=1e-4)
    soft = np.mean([math.log1p(math.exp(far - near)) for far, near in hardest.values()])
    assert Triplet("batch_hard", None)(points, LABELS).item() == pytest.approx(soft, rel=1e-4)


def test_semi_hard_takes_the_nearest_beyond_the_positive(points):
    unit = torch.nn.functional.normalize(points)
    found = {}
    for a, p, _, positive, negative in triplets(unit, True):
        found.setdefault((a, p, positive), []).append(negative)
    expected = []
    for (_, _, positive), negatives in found.items():
        beyond = [negative for negative in negatives if negative > positive]
        expected.append(max(0, positive - (min(beyond) if beyond else max(negatives)) + 0.2))
    loss = Triplet("semi_hard", 0.2, normalize=True)(points, LABELS).item()
    assert loss == pytest.approx(np.mean(expected), rel=1e-4)


def test_harmonic_triplets_mix_both_networks_and_leave_out_the_earlier_alone(points):
    earlier = torch.randn(7, 5, generator=torch.Generator().manual_seed(4))
    both = torch.nn.functional.normalize(torch.cat([points, earlier]))
    d, labels = torch.cdist(both, both) ** 2, LABELS.repeat(2)
    expected = []
    for a in range(14):
        for p in range(14):
            if a == p or labels[a] != labels[p]:
                continue
            # A positive may be the same picture by the other network; 7 and up are the earlier one's.
            negatives = [n for n in range(14) if labels[n] != labels[a] and min(a, p, n) < 7]
            beyond = [float(d[a, n]) for n in negatives if d[a, n] > d[a, p]]
            nearest = min(beyond) if beyond else max(float(d[a, n]) for n in negatives)
            expected.append(max(0, float(d[a, p]) - nearest + 0.2))
    loss = HarmonicTriplet(0.2)(points, LABELS, earlier).item()
    assert loss == pytest.approx(np.mean(expected), rel=1e-4)


def test_distilled_embeddings_point_where_the_earlier_network_has_them(points):
    turned = torch.stack([points[:, 1], -points[:, 0], *points.T[2:]], 1)
    own = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    theirs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert Distilled()(own, LABELS[:3], theirs).item() == pytest.approx((0 + 1 + 2) / 3)
    cosines = (points * turned).sum(1) / points.norm(dim=1) ** 2
    assert Distilled()(points, LABELS, turned).item() == pytest.approx(1 - cosines.mean().item(), rel=1e-5)
    # No pairs are needed, and none but those two losses are given what the earlier network says.
    both = SumOfLosses({"distilled": {"weight": 2.0}, "margin": {}}, 5, 3)
    assert not both.needs_pairs and SumOfLosses({"harmonic": {}}, 5, 3).needs_pairs
    total, parts = both(points, LABELS, turned)
    assert total.item() == pytest.approx(2 * parts["distilled"].item() + parts["margin"].item(), rel=1e-5)


def test_harmonic_triplets_bring_embeddings_to_where_the_earlier_network_has_them():
    draw = torch.Generator().manual_seed(5)
    labels = torch.arange(8).repeat_interleave(4)
    earlier = torch.nn.functional.normalize(torch.randn(8, 16, generator=draw))[labels]
    earlier = (earlier + 0.1 * torch.randn(32, 16, generator=draw)).requires_grad_()

    def rank1(loss, *more):
        points = torch.randn(32, 16, generator=torch.Generator().manual_seed(6), requires_grad=True)
        follow = torch.optim.Adam([points], 0.05)
        for _ in range(80):
            follow.zero_grad()
            loss(points, labels, *more).backward()
            follow.step()
        found = torch.nn.functional.normalize(points) @ torch.nn.functional.normalize(earlier).T
        return (labels[found.argmax(1)] == labels).float().mean().item()

    assert rank1(HarmonicTriplet(), earlier) > 0.95
    assert earlier.grad is None
    assert rank1(Triplet("semi_hard", 0.2, normalize=True)) < 0.5


def test_circle_by_its_equation(points):
    unit = torch.nn.functional.normalize(points)
    s = (unit @ unit.T).tolist()
    losses = []
    for a in range(7):
        positive = negative = 0.0
        for b in range(7):
            if a != b and LABELS[a] == LABELS[b]:
                positive += math.exp(-16 * max(0, 1.25 - s[a][b]) * (s[a][b] - 0.75))
            elif LABELS[a] != LABELS[b]:
                negative += math.exp(16 * max(0, s[a][b] + 0.25) * (s[a][b] - 0.25))
        losses.append(math.log1p(positive * negative))
    assert Circle(0.25, 16)(points, LABELS).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_supervised_contrastive_by_its_equation(points):
    unit = torch.nn.functional.normalize(points)
    s = (unit @ unit.T / 0.2).tolist()
    losses = []
    for a in range(7):
        total = sum(math.exp(s[a][b]) for b in range(7) if b != a)
        same = [b for b in range(7) if b != a and LABELS[a] == LABELS[b]]
        losses.append(-np.mean([s[a][b] - math.log(total) for b in same]))
    assert SupervisedContrastive(0.2)(points, LABELS).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_center_and_softmax(points):
    center = Center(5, 3)
    expected = (points - center.centers[LABELS]).pow(2).sum(1).mean() / 2
    assert torch.allclose(center(points, LABELS), expected)
    softmax = Softmax(5, 3, smoothing=0.3)
    logs = (points @ softmax.weight.T).log_softmax(1)
    target = torch.full((7, 3), 0.1)
    target[torch.arange(7), LABELS] += 0.7
    assert torch.allclose(softmax(points, LABELS), -(target * logs).sum(1).mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("margin", "true"),
    [("arcface", lambda c, m: math.cos(math.acos(c) + m)), ("cosface", lambda c, m: c - m)],
)
def test_margins_by_their_equations(points, margin, true):
    loss = MarginSoftmax(5, 3, margin, size=0.3, scale=10)
    with torch.no_grad():
        loss.weight.normal_(generator=torch.Generator().manual_seed(1))
    cosines = torch.nn.functional.normalize(points) @ torch.nn.functional.normalize(loss.weight).T
    logits = cosines.detach().clone()
    for i, label in enumerate(LABELS):
        logits[i, label] = true(float(cosines[i, label].detach()), 0.3)
    expected = torch.nn.functional.cross_entropy(10 * logits, LABELS)
    assert torch.allclose(loss(points, LABELS), expected, atol=1e-4)


def test_arcface_stays_monotone_past_pi():
    loss = MarginSoftmax(2, 2, "arcface", size=0.5)
    angles = torch.linspace(0.01, math.pi - 0.01, 200)
    with torch.no_grad():
        smaller = loss._smaller(angles.cos(), torch.ones(200))
    assert (smaller.diff() < 0).all()


def test_adaface_asks_more_of_good_pictures():
    loss = MarginSoftmax(4, 3, "adaface").eval()
    loss.norm_mean.fill_(20.0)
    loss.norm_std.fill_(5.0)
    cosine = torch.tensor([0.6, 0.6])
    with torch.no_grad():
        bad, good = loss._smaller(cosine, torch.tensor([5.0, 40.0]))
    # Kim et al., section 3.3: at quality -1 the margin turns the angle, as ArcFace does; at 1 the other way, and more
    # is taken off the cosine.
    assert float(bad) == pytest.approx(math.cos(math.acos(0.6) + 0.4), abs=1e-5)
    assert float(good) == pytest.approx(math.cos(math.acos(0.6) - 0.4) - 0.8, abs=1e-5)
    before = float(loss.norm_mean)
    loss.train()(10 * torch.randn(6, 4), torch.arange(6) % 3)
    assert float(loss.norm_mean) != before


def test_sampled_classes_hold_all_that_are_present():
    torch.manual_seed(0)
    loss = MarginSoftmax(6, 100, sample=0.1)
    labels = torch.tensor([3, 97, 41, 3])
    loss(torch.randn(4, 6), labels).backward()
    touched = loss.weight.grad.abs().sum(1) > 0
    assert touched.sum() == 10
    assert touched[[3, 41, 97]].all()
    full = MarginSoftmax(6, 100, sample=0.1).eval()
    full(torch.randn(4, 6), labels).backward()
    assert (full.weight.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_when_it_is_followed(name):
    torch.manual_seed(0)
    parts = SumOfLosses({name: {}}, 5, 3, traits=torch.randn(3, 4))
    points, earlier = torch.randn(7, 5, requires_grad=True), torch.randn(3, 5)[LABELS]
    follow = torch.optim.Adam([points, *parts.parameters()], 0.05)
    first, _ = parts(points, LABELS, earlier)
    for _ in range(60):
        follow.zero_grad()
        loss, told = parts(points, LABELS, earlier)
        loss.backward()
        follow.step()
    assert loss.item() < 0.7 * first.item()
    assert set(told) == {name}


def test_traits_that_do_not_show_stop_to_count():
    torch.manual_seed(0)
    table = torch.randn(40, 2)
    loss = Traits(3, table)
    follow = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(300):
        labels = torch.randint(0, 40, (32,))
        # The embedding holds the first trait and nothing of the second.
        embeddings = torch.cat([table[labels, :1], torch.randn(32, 2)], 1)
        follow.zero_grad()
        loss(embeddings, labels).backward()
        follow.step()
    shown, hidden = loss.variances.detach()
    assert shown < 0.05 and hidden > 0.7


def test_traits_must_be_given():
    with pytest.raises(TrainingError, match="traits"):
        SumOfLosses({"traits": {}}, 4, 3)


def test_a_batch_without_pairs_gives_zero_with_a_gradient():
    for name in ("triplet", "circle", "supcon"):
        points = torch.randn(3, 4, requires_grad=True)
        loss, _ = SumOfLosses({name: {}}, 4, 3)(points, torch.arange(3))
        loss.backward()
        assert loss.item() == 0 and points.grad is not None


def test_what_recipes_can_get_wrong():
    for parts, message in (
        ({}, "no loss"),
        ({"tripple": {}}, "no loss 'tripple'"),
        ({"triplet": {"mining": "easy"}}, "no mining"),
        ({"margin": {"margin": "sphere"}}, "no margin"),
        ({"margin": {"sample": 0}}, "sample"),
        ({"softmax": {"smooth": 1}}, "cannot be made"),
    ):
        with pytest.raises(TrainingError, match=message):
            SumOfLosses(parts, 4, 3)
