import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from ipse import cli  # noqa: E402
from ipse.training.plip import PersonWords, Plan, Vocabulary, open_words  # noqa: E402

SMALL = {"backbone": "iresnet", "depths": [1, 1, 1, 1], "width": 0.125, "stem": 2, "dim": 32, "size": [32, 16]}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def test_words_order_the_pictures_of_a_folder(tmp_path, capsys):
    torch.manual_seed(0)
    words = tmp_path / "words.safetensors"
    plan = Plan(network=SMALL, start="", dim=16, width=16, layers=1)
    PersonWords(plan, Vocabulary(("coat", "man", "red"), frozenset({"red"}))).eval().save(words)
    folder = tmp_path / "people"
    folder.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (5, 60, 30, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    options = ("find", folder, "--text", "A man in a red coat", "--words", words)
    code, out, _ = run(capsys, *options, "--json", "--report", tmp_path / "page.html")
    lines = [json.loads(line) for line in out.splitlines()]
    network = open_words(words)
    expected = network.encode_pictures(list(pictures)) @ network.encode_texts(["a man in a red coat"])[0]
    assert code == 0 and [int(line["path"][-5]) for line in lines[:-1]] == np.argsort(-expected).tolist()
    assert lines[-1]["summary"] == {"text": "A man in a red coat", "pictures": 5, "problems": 1}
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 5 and "broken.png" in page
    code, out, err = run(capsys, *options)
    assert code == 0 and "5 pictures, 1 file not usable." in out and "broken.png" in err
    code, _, err = run(capsys, "find", folder, "--text", "zebra", "--words", words)
    assert code == 2 and "No word of" in err
    code, _, err = run(capsys, "find", folder, "--text", "red", "--words", tmp_path / "none")
    assert code == 2 and "ipse train words" in err
    (tmp_path / "empty").mkdir()
    assert run(capsys, "find", tmp_path / "empty", "--text", "red", "--words", words)[0] == 3
