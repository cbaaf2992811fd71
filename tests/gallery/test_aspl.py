import numpy as np
import pytest

from ipse.errors import DataError
from ipse.gallery.aspl import SelfPacedLabels


def crowd(people=6, each=12, dim=16, noise=0.8, seed=0):
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    return draw.normal(size=(people, dim))[who] + noise * draw.normal(size=(len(who), dim)) + 5, who


def test_few_answers_label_all():
    features, who = crowd()
    made = SelfPacedLabels(features)
    for person in range(3):
        made.tell(12 * person, f"p{person}")
    asked = 3
    for _ in range(7):
        made.learn()
        for question in made.ask(4):
            made.tell(question.row, f"p{who[question.row]}")
            asked += 1
    made.learn()
    # Three of the six came later, and were found by questions.
    assert set(made.people) == {f"p{k}" for k in range(6)} and asked < 36
    other, truth = crowd(seed=0)
    assert np.mean([name == f"p{k}" for name, k in zip(made.identify(other), truth, strict=True)]) > 0.95
    told = np.array([label is not None for label in made.labels])
    right = [label == f"p{k}" for label, k in zip(made.labels, who, strict=True) if label is not None]
    assert told.mean() > 0.7 and np.mean(right) > 0.95


def test_what_is_sure_is_not_asked_and_grows():
    features, who = crowd(noise=0.5)
    made = SelfPacedLabels(features, pace=0.1, growth=0.3)
    for row in range(0, 72, 6):
        made.tell(row, int(who[row]))
    sure = []
    for _ in range(3):
        made.learn()
        unanswered = ~made.answered
        sure.append((made.weights[unanswered] > 0).sum())
        asked = {question.row for question in made.ask(60)}
        assert not asked & set(np.flatnonzero(made.weights > 0)) and all(unanswered[list(asked)])
    assert 0 < sure[0] < sure[1] <= sure[2]
    assert (made.weights[made.answered] == 1).all() and made.weights.max() <= 1
    assert not {question.row for question in made.ask(60, skip=[1, 2])} & {1, 2}


def test_the_least_decided_come_first_with_their_guesses():
    features = np.array([[4, 0.0], [0, 4.0], [2, 2.1], [3.9, 0.2], [-4, -4]])
    made = SelfPacedLabels(features, pace=0.0)
    made.tell(0, "right")
    made.learn()
    assert made.identify(features[:1]) == ["right"]
    made.tell(1, "up")
    with pytest.raises(DataError, match="Call `learn`"):
        made.ask(1)
    made.learn()
    # One lies between the two, one is like neither.
    questions = made.ask(2)
    assert {question.row for question in questions} == {2, 4}
    assert all(set(question.guesses) == {"right", "up"} for question in questions)
    assert made.rows_of("up").tolist() == [1] and made.likeness(0, np.array([3, 4])).argmax() == 0


def test_nothing_can_be_learned_from_nothing():
    with pytest.raises(DataError, match="Nobody has been named"):
        SelfPacedLabels(np.eye(3)).learn()
    with pytest.raises(DataError, match="no classifiers"):
        SelfPacedLabels(np.eye(3)).identify(np.eye(3))
