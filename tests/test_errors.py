import inspect
import pickle

import pytest

from ipse import errors

EXAMPLES = [
    errors.ImageError("It is cut short.", "Copy it again.", reason="truncated"),
    errors.FingerprintMismatch(("dlib", "a" * 64), ("arcface", "b" * 64)),
    errors.TrainingError("The loss of step 12 is not a number.", "Lower the learning rate."),
    errors.GalleryError("Nobody is called Ann.", "See who is there.", reason="unknown-person"),
    *(
        kind("What happened.", "What to do.")
        for kind in (errors.ConsentError, errors.WeightsError, errors.WorldError, errors.DataError, errors.IpseError)
    ),
]


def test_every_error_has_an_example_here():
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.IpseError)}
    assert kinds == {type(error) for error in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_say_what_to_do_and_cross_processes(error):
    assert isinstance(error, errors.IpseError)
    assert str(error) == f"{error.message} {error.hint}" and error.hint
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and vars(back) == vars(error) and str(back) == str(error)


def test_a_mismatch_names_both_encoders_and_the_way_out():
    text = str(EXAMPLES[1])
    assert "dlib (aaaaaaaaaaaa)" in text and "arcface (bbbbbbbbbbbb)" in text and "encode the original images" in text


def test_an_error_without_a_hint_is_its_message():
    assert str(errors.DataError("What happened.")) == "What happened."
