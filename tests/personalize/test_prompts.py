import json

import pytest

from ipse.errors import DataError
from ipse.personalize.prompts import read_prompts


def test_prompts_in_any_of_the_formats(tmp_path):
    (tmp_path / "a.txt").write_text("# of a text\n\nA man.\nA man, smiling.\n")
    assert {p.name: p.text for p in read_prompts(tmp_path / "a.txt").values()} == {
        "1": "A man.",
        "2": "A man, smiling.",
    }
    entries = ["A man.", {"name": "smile", "text": "A man, smiling.", "asks": {"expression": "smile"}}]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    (tmp_path / "a.yaml").write_text(json.dumps({"prompts": entries}))
    for name in ("a.json", "a.yaml"):
        found = read_prompts(tmp_path / name)
        assert list(found) == ["1", "smile"] and found["smile"].asks == {"expression": "smile"}
        assert found["1"].people == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[]", "holds no prompts"),
        ("{}", "holds no prompts"),
        ("[1]", "Prompt 1 of"),
        ('[{"name": "x"}]', "Prompt 1 of"),
        ('["a", {"text": "b", "ask": {}}]', "Prompt 2 of"),
        ('[{"text": "b", "only": {"gender": "male"}}]', "Prompt 1 of"),
        ('[{"text": "a", "name": "x"}, {"text": "b", "name": "x"}]', "are called 'x'"),
        ("[", "cannot be read"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path, content, what):
    for name in ("p.json", "p.yaml"):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=what):
            read_prompts(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(DataError, match="holds no prompts"):
        read_prompts(tmp_path / "empty.txt")
