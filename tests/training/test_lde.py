"""LDE: the bound of its loss, what it remembers of domains, and people in a domain that it never saw."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

from walking import NETWORK, SIZE, pictures, recipe  # noqa: E402

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.errors import TrainingError  # noqa: E402
from ipse.training.lde import Expansion, LatentDomainExpansion, expanded_logits  # noqa: E402
from ipse.training.learning import embed, learn  # noqa: E402
from ipse.training.networks import load_network  # noqa: E402

SPLIT = NETWORK | {"backbone": "split_iresnet"}
TINTS = ((1.0, 0.8, 0.6), (0.6, 0.8, 1.0))


def seen(count=8, each=6):
    """Pictures of people in two domains, everybody in one; who they are, and which domain it is."""
    people = np.repeat(np.arange(count), each)
    domains = people % 2
    shown = np.empty((len(people), *SIZE, 3), np.uint8)
    for domain, tint in enumerate(TINTS):
        shown[domains == domain] = pictures(people[domains == domain], domain, tint)
    return shown, people, domains


def test_the_loss_bounds_the_mean_over_directions_drawn_by_chance():
    generator = torch.Generator().manual_seed(0)
    embeddings, weight = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    half = 0.2 * torch.randn(2, 4, 4, generator=generator)
    covariances, labels, domains = half @ half.mT, torch.tensor([0, 3, 4]), torch.tensor([1, 0, 1])
    logits = expanded_logits(embeddings, labels, weight, covariances, domains, strength=0.5)
    noise = torch.randn(200_000, 3, 4, generator=generator)
    moved = embeddings + 0.5**0.5 * torch.einsum("nde,sne->snd", half[domains], noise)
    scores = moved @ weight.T
    ahead = scores - scores[:, torch.arange(3), labels][:, :, None]
    # What another class gains on the true one is on average just what the bound has.
    expected = (logits - logits[torch.arange(3), labels][:, None]).exp()
    assert torch.allclose(ahead.exp().mean(0), expected, rtol=0.05)
    drawn = ahead.logsumexp(2).mean(0)
    bound = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    plain = torch.nn.functional.cross_entropy(embeddings @ weight.T, labels, reduction="none")
    assert (drawn < bound).all() and (bound > plain).all()
    nothing = expanded_logits(embeddings, labels, weight, covariances, domains, strength=0.0)
    assert torch.allclose(nothing, embeddings @ weight.T)


def test_both_parts_make_the_whole_and_the_last_layer_serves_identity_alone():
    torch.manual_seed(0)
    network = backbone(**{"name" if k == "backbone" else k: v for k, v in SPLIT.items()}).eval()
    pixels = torch.randn(3, 3, *SIZE)
    embeddings, moved = network.split(pixels)
    assert embeddings.shape == moved.shape == (3, 16) and torch.equal(embeddings, network(pixels))
    moved.sum().backward()
    assert network.neck.linear.weight.grad is None and network.gate.excite.weight.grad.abs().sum() > 0
    with torch.no_grad():
        whole = network.neck(network.feature_map(pixels).flatten(1))
        assert torch.allclose(whole, embeddings + moved, atol=1e-5)


def test_covariances_know_how_domains_vary_and_how_they_differ():
    shown, people, domains = seen()
    learner = LatentDomainExpansion(
        recipe(network=SPLIT, losses={"triplet": {}}), shown, people, domains, Expansion(keep=0.9)
    )
    draw = torch.Generator().manual_seed(0)
    which = torch.arange(400) % 2
    for _ in range(120):
        moved = torch.zeros(400, 16)
        moved[:, 0] = torch.where(which == 0, -3.0, 3.0)  # between domains
        moved[which == 1, 1] = 2 * torch.randn(200, generator=draw)  # within one of them
        learner.remember(moved, which)
    first, second = learner.covariances
    assert first[0, 0] == pytest.approx(9, rel=0.05) and second[0, 0] == pytest.approx(9, rel=0.05)
    assert first[1, 1] < 0.1 and second[1, 1] == pytest.approx(4, rel=0.2) and second[2:, 2:].abs().max() < 0.1


def test_people_are_learned_and_a_stopped_run_goes_on(tmp_path):
    shown, people, domains = seen()
    plan = recipe(
        name="lde", steps=20, network=SPLIT, losses={"triplet": {"margin": 0.3}}, save_every=10,
        optimizer={"rate": 0.005, "warmup": 2},
    )  # fmt: skip
    told = []
    weights = learn(LatentDomainExpansion(plan, shown, people, domains), tmp_path / "whole", told.append)
    assert told[-1].parts["domain"] < told[0].parts["domain"] and told[-1].parts["classes"] < told[0].parts["classes"]
    network, _ = load_network(weights)
    vectors = embed(network, shown)
    centers = np.stack([vectors[people == n].mean(0) for n in range(8)])
    assert ((vectors @ centers.T).argmax(1) == people).mean() > 0.9

    class Stopped(Exception):
        pass

    def stop(told):
        if told.step > 10:
            raise Stopped

    with pytest.raises(Stopped):
        learn(LatentDomainExpansion(plan, shown, people, domains), tmp_path / "cut", stop)
    assert (tmp_path / "cut" / "checkpoint.pt").exists()
    learn(LatentDomainExpansion(plan, shown, people, domains), tmp_path / "cut")
    assert (tmp_path / "cut" / "lde.safetensors").read_bytes() == weights.read_bytes()


def test_the_expansion_grows_and_changes_what_is_learned():
    shown, people, domains = seen()
    plan = recipe(network=SPLIT, losses={"triplet": {}}, steps=10)
    grown = []
    for strength in (0.0, 5.0):
        learner = LatentDomainExpansion(plan, shown, people, domains, Expansion(strength=strength))
        with torch.no_grad():
            learner.covariances += torch.eye(16)
            learner.weight *= 100
        told = []
        for step in (0, 9):
            torch.manual_seed(1)
            told.append(float(learner.loss(step)[1]["classes"]))
        grown.append(told)
    assert grown[0][0] == pytest.approx(grown[1][0], rel=1e-5)
    assert grown[1][1] > grown[0][1] + 0.1


def test_domains_leave_what_is_let_through_and_stay_in_what_is_held_back():
    shown, people, domains = seen()
    plan = recipe(network=SPLIT, losses={"triplet": {}}, optimizer={"rate": 0.005, "warmup": 2}, steps=60)
    learner = LatentDomainExpansion(plan, shown, people, domains, Expansion(strength=0, apart=4.0)).train()
    with torch.no_grad():
        # Who tells domains knows how, by the first number.
        learner.tell.weight.zero_()
        learner.tell.weight[:, 0] = torch.tensor([-1.0, 1.0])
    grown = []
    for apart in (0.0, 4.0):
        learner.expansion = Expansion(strength=0, domain=0, apart=apart)
        learner.zero_grad()
        torch.manual_seed(1)
        loss, parts = learner.loss(5)
        loss.backward()
        assert parts["sure"] > 0 and learner.tell.weight.grad.abs().sum() == 0
        grown.append(learner.network.neck.linear.weight.grad.clone())
    changed = (grown[1] - grown[0]).abs().sum(1)
    assert changed[0] > 1e-6 and changed[1:].max() < 1e-6 * changed[0].clamp(min=1)


def test_what_does_not_fit_is_refused():
    shown, people, domains = seen()
    plan = recipe(network=SPLIT, losses={"triplet": {}})
    with pytest.raises(TrainingError, match="two domains"):
        LatentDomainExpansion(plan, shown, people, np.zeros(len(people)))
    with pytest.raises(TrainingError, match="two domains"):
        LatentDomainExpansion(plan, shown, people, domains[1:])
    with pytest.raises(TrainingError, match="split_iresnet"):
        LatentDomainExpansion(recipe(losses={"triplet": {}}), shown, people, domains)
