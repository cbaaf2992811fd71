"""Short and long spans, with encoders that are planted: one reads clothes, one reads who somebody is."""

import numpy as np
import pytest

from ipse.errors import DataError
from ipse.measure.spans import LONG, SHORT, rank_over_spans, split_spans
from ipse.world import look, person

PEOPLE, SHOTS = 60, 3
AGES = (25, 33)


@pytest.fixture(scope="module")
def world():
    """What two encoders see of people in a Look at each of two ages, three Shots in each; columns, features."""
    shot_noise = np.random.default_rng(0)
    columns = {name: [] for name in ("person", "look", "shot", "age")}
    seen = {"clothes": [], "body": []}
    for n in range(PEOPLE):
        for day, age in enumerate(AGES):
            who = person(n, fix={"age": age})
            worn = look(day, who, fix={"dress": None, "outer": None})
            clothes = np.array([*worn.top.color.rgb, *worn.bottom.color.rgb]) - 0.5
            # A picture shows clothes plainly, and the shape of a body less so.
            body = np.array([who.height, who.weight, who.muscle, who.gender, *map(who.shape.get, sorted(who.shape))])
            for k in range(SHOTS):
                for name, value in zip(columns, (n, day, k, age), strict=True):
                    columns[name].append(value)
                seen["clothes"].append(clothes + shot_noise.normal(0, 0.02, clothes.shape))
                seen["body"].append(body[:40] + shot_noise.normal(0, 0.55, 40))
    return columns, {name: np.array(values, np.float32) for name, values in seen.items()}


def test_the_ranking_of_planted_encoders_turns_around(world):
    columns, features = world
    spans = rank_over_spans(features, columns)
    assert spans.order(spans.short) == ["clothes", "body"]
    assert spans.order(spans.long) == ["body", "clothes"]
    assert spans.flips() == [("clothes", "body")]
    assert all(result.protocol is SHORT for result in spans.short.values())
    assert all(result.protocol is LONG for result in spans.long.values())


def test_encoders_that_read_the_same_do_not_turn_around(world):
    columns, features = world
    assert rank_over_spans({"one": features["body"], "other": features["body"]}, columns).flips() == []


def test_distractors_are_in_the_gallery_and_are_not_looked_for(world):
    columns, features = world
    query, gallery = split_spans(columns, 0.25)
    who = np.array(columns["person"])
    assert len(np.unique(who[query])) == 45 and len(np.unique(who[gallery])) == PEOPLE
    assert set(np.array(columns["shot"])[query]) == {0} and len(query) + len(gallery) == len(who)
    for share, queries in ((0.0, 2 * PEOPLE), (0.5, PEOPLE)):
        assert len(rank_over_spans(features, columns, share).long["body"]) == queries


def test_people_who_do_not_grow_older_have_nothing_to_find(world):
    columns, features = world
    with pytest.raises(DataError, match="Nobody can be found under world-long-span"):
        rank_over_spans(features, columns | {"age": [30] * len(columns["age"])})
