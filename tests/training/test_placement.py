"""The search for places of attention: its rule on known trials, and the whole of it on a backbone."""

import pytest

torch = pytest.importorskip("torch")

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.errors import DataError, TrainingError  # noqa: E402
from ipse.training.placement import SearchLog, Trial, latency_increase, rule, search  # noqa: E402

TRIALS = (
    Trial({}, 0.0, 0.50),
    Trial({"stage1": "se"}, 0.03, 0.53),
    Trial({"stage1": "eca"}, 0.02, 0.52),
    Trial({"stage1": "spatial"}, 0.20, None),
    Trial({"stage2": "se"}, 0.02, 0.49),
    Trial({"stage2": "eca"}, 0.01, 0.52),
    Trial({"stage3": "se"}, 0.03, 0.51),
    Trial({"stage4": "se"}, -0.01, 0.505),
)


def test_the_rule_takes_the_best_block_of_a_slot_in_the_order_of_gain_per_latency():
    # Gains per latency: 1 behind stage1, 2 behind stage2, 1/3 behind stage3; stage4's latency counts as 1 %.
    assert rule(TRIALS, 0.04) == [
        {"stage2": "eca"},
        {"stage2": "eca", "stage1": "se"},
        {"stage2": "eca", "stage1": "se", "stage4": "se"},
    ]
    # With more room stage3, too, which gains less for its latency than stage4.
    assert list(rule(TRIALS, 0.1)[-1]) == ["stage2", "stage1", "stage4", "stage3"]
    # With less, the block that gains most behind stage1 is out, and the next best takes its place.
    assert rule(TRIALS, 0.025)[0] == {"stage2": "eca"}
    assert rule(TRIALS, 0.02)[-1] == {"stage2": "eca", "stage4": "se"}
    assert rule(TRIALS[:1] + TRIALS[4:5], 0.1) == []


def test_the_log_leads_to_the_same_choice_and_can_be_read(tmp_path):
    both = {"stage2": "eca", "stage1": "se"}
    log = SearchLog(0.04, (*TRIALS, Trial(both, 0.04, 0.55), Trial(both | {"stage4": "se"}, 0.05, 0.60)))
    assert log.chosen == both  # the last one gains more, but takes too long
    log.save(tmp_path / "log.json")
    again = SearchLog.load(tmp_path / "log.json")
    assert again == log and again.chosen == both
    text = str(again)
    assert "| eca behind stage2 | +1.0 % | 52.00 % | +2.00 |" in text and "not trained" in text
    assert text.endswith("Chosen: eca behind stage2, se behind stage1.")
    assert SearchLog(0.04, TRIALS[:1] + TRIALS[4:5]).chosen == {}
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(DataError, match="no log of a search"):
        SearchLog.load(tmp_path / "log.json")


def build(placement):
    return backbone("osnet", width=0.25, attention=placement)


def test_every_block_is_tried_in_every_slot_and_then_together():
    gains = {
        "stage1": {"se": 0.02, "eca": 0.01},
        "stage2": {"se": -0.1, "eca": -0.2},
        "stage3": {"se": 0.0, "eca": 0.03},
    }
    trained, told = [], []

    def train(placement):
        trained.append(dict(placement))
        return 0.5 + sum(gains[slot][kind] for slot, kind in placement.items())

    log = search(
        build, train, torch.zeros(1, 3, 32, 32), kinds=("se", "eca"), budget=1e9, rounds=1, on_trial=told.append
    )
    singles = [{slot: kind} for slot in ("stage1", "stage2", "stage3") for kind in ("se", "eca")]
    assert trained[:7] == [{}, *singles] and len(trained) == 8
    assert trained[7] == log.chosen == {"stage1": "se", "stage3": "eca"}
    assert told == list(log.trials) and log.trials[-1].mean_ap == pytest.approx(0.55)


def test_what_takes_too_long_is_not_trained():
    trained = []

    def train(placement):
        trained.append(placement)
        return 0.5

    log = search(build, train, torch.zeros(1, 3, 32, 32), kinds=("eca",), budget=-1.0, rounds=1)
    assert trained == [{}] and len(log.trials) == 4 and all(trial.mean_ap is None for trial in log.trials[1:])


def test_latency_is_a_share_and_a_network_without_slots_is_refused():
    network = build({})
    assert latency_increase(network, network, torch.zeros(1, 3, 32, 32), rounds=2) > -1
    network.slots = {}
    with pytest.raises(TrainingError, match="no slots"):
        search(lambda placement: network, lambda placement: 0.5, torch.zeros(1, 3, 32, 32))
