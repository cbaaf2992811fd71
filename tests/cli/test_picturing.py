"""``ipse invert``, ``generate --from`` and ``inpaint``, with a tiny base of random weights."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("torch")

from ipse import cli

PROMPT = "A portrait of a woman with red hair"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(pixels.repeat(12, 0).repeat(12, 1)).save(tmp_path / "Ada.png")
    return tmp_path / "Ada.png"


def provenance(path):
    with Image.open(path) as image:
        return image.text, json.loads(image.text["ipse"])


def test_a_picture_is_inverted_and_changed(capsys, base_folder, picture, tmp_path):
    file, again, out = tmp_path / "a.safetensors", tmp_path / "again.png", tmp_path / "out"
    common = ("--base", base_folder, "--prompt")
    code, told, err = run(
        capsys, "invert", picture, *common, "A wizard", "--steps", 4, "--out", file, "--again", again,
        "--method", "edit-friendly", "--seed", 7,
    )  # fmt: skip
    assert code == 0 and "does not know the word 'wizard'" in err
    *paths, last = told.splitlines()
    words = last.split()
    assert paths == [str(file), str(again)] and words[0] == "PSNR"
    # Independent of the weights, edit-friendly inversion gives back all that the autoencoder leaves.
    assert float(words[1]) == pytest.approx(float(words[-2]), abs=0.1)
    text, made = provenance(again)
    assert text["Description"] == "A wizard" and made["inversion"]["method"] == "edit-friendly"

    code, told, _ = run(capsys, "generate", "--from", file, *common, PROMPT, "--strength", 0.8, "--out", out)
    assert (code, told) == (0, f"{out / 'a-a-portrait-of-a-woman-with-red-hair-7.png'}\n")
    text, made = provenance(told.strip())
    assert text["Description"] == PROMPT and made["prompt"] == PROMPT and made["strength"] == 0.8
    assert made["inversion"]["prompt"] == "A wizard" and (made["seed"], made["steps"]) == (7, 4)
    assert {"name", "kind", "sha256"} == made["base"].keys() and "diffusers" in made["versions"]


def test_files_of_another_base_are_refused(capsys, base_folder, picture, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = tmp_path / "a.safetensors"
    assert (
        run(capsys, "invert", picture, "--base", base_folder, "--prompt", PROMPT, "--steps", 2, "--out", file)[0] == 0
    )
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    made = json.loads(metadata["made"])
    made["base"] |= {"name": "another-base", "sha256": "0" * 64}
    save_file(load_file(file), file, metadata=metadata | {"made": json.dumps(made)})
    code, out, err = run(capsys, "generate", "--from", file, "--base", base_folder, "--prompt", PROMPT)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "with the base another-base (000000000000)" in err and "--base" in err and "invert the picture again" in err


def test_a_mask_is_painted(capsys, base_folder, picture, tmp_path):
    pixels = np.zeros((48, 48), np.uint8)
    pixels[:, 20:30] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    code, told, err = run(
        capsys, "inpaint", picture, "--mask", tmp_path / "mask.png", "--base", base_folder, "--prompt", PROMPT,
        "--steps", 2, "-n", 2, "--seed", 5, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0 and "s per picture" in err
    names = [f"ada-a-portrait-of-a-woman-with-red-hair-{seed}.png" for seed in (5, 6)]
    assert told.splitlines() == [str(tmp_path / "out" / name) for name in names]
    before, after = (np.asarray(Image.open(path)) for path in (picture, told.splitlines()[0]))
    np.testing.assert_array_equal(after[pixels == 0], before[pixels == 0])
    assert not np.array_equal(after, before)
    text, made = provenance(told.splitlines()[1])
    assert text["Source"].startswith("Partly") and made["seed"] == 6 and len(made["inpaint"]["picture"]) == 64


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("invert", "broken.png"), "broken.png is empty"),
        (("invert", "nothing.png"), "nothing.png does not exist"),
        (("invert", "wide.png"), "64×48 pixels, and the base world-base makes 32×32. Cut it to that shape"),
        (("invert", "Ada.png", "--steps", 2, "--out", "Ada.png/a"), "Cannot write"),
        (("inpaint", "broken.png", "--mask", "mask.png"), "broken.png is empty"),
        (("inpaint", "Ada.png", "--mask", "broken.png"), "broken.png is empty"),
        (("inpaint", "Ada.png", "--mask", "wide.png"), "mask has 64×48 pixels, and the picture 48×48"),
        (("inpaint", "Ada.png", "--mask", "mask.png"), "The mask is empty"),
        (("inpaint", "Ada.png"), "either --mask or --region"),
        (("inpaint", "Ada.png", "--mask", "mask.png", "--region", "hair"), "either --mask or --region"),
        (("inpaint", "Ada.png", "--region", "hair,nose"), "called 'nose'"),
        (("generate", "--from", "Ada.png"), "Ada.png is damaged"),
        (("generate", "--from", "nothing"), "Cannot read nothing"),
        (("generate", "--from", "nothing", "--steps", 3, "-n", 1), "Drop -n and --steps"),
        (("generate", "--strength", 0.5), "nothing to change"),
        (("generate", "--who", "Ada.png", "--sampler", "dpm"), "Drop --sampler"),
        (("generate", "--sampler", "euler"), "There are ddim and dpm"),
        (("generate", "--method", "bare"), "--method needs somebody to show. Name them by --who"),
        (("generate", "--who", "Ada.png", "--from", "a"), "Drop --from, or --who"),
        (("generate", "--who", "nobody.png"), "There is no photograph nobody.png, and no gallery in ipse-gallery"),
        (("generate", "--who", "Ada.png", "--method", "magic"), "There are: bare, face-adapter"),
        (("generate", "--who", "Ada.png"), "No adapter for face-adapter comes with ipse yet"),
        (("generate", "--who", "Ada.png", "--method", "bare", "--adapter", "x"), "The method bare has no adapter"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, base_folder, picture, tmp_path, monkeypatch, arguments, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"")
    Image.new("RGB", (64, 48)).save("wide.png")
    Image.new("L", (48, 48)).save("mask.png")
    code, out, err = run(capsys, *arguments, "--base", base_folder, "--prompt", PROMPT)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err
    assert not list(tmp_path.glob("*.safetensors")) and not (tmp_path / "out").exists()


def test_help_loads_no_network():
    for verb in ("generate", "invert", "inpaint"):
        script = (
            "import sys\nfrom ipse import cli\n"
            f"try:\n    cli.main([{verb!r}, '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
            "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.fixture(scope="module")
def two_photographs(tmp_path_factory):
    """Of one person who does not exist, in files."""
    from ipse.images import save_png
    from ipse.world import look, person, render, shot

    folder, who = tmp_path_factory.mktemp("ada"), person(3)
    for number in range(2):
        taken = shot(number, ranges={"head.yaw": (-10, 10)}, fix={"occluder": None})
        save_png(render(who, look(0, who), taken, "portrait", size=256).image, folder / f"{number}.png", {})
    return folder


@pytest.fixture
def adapter(base_folder, tmp_path):
    """An untrained adapter for the tiny base."""
    import torch

    from ipse.diffusion import load_base
    from ipse.personalize.adapting import save_trained
    from ipse.personalize.face_adapter import FaceAdapter
    from ipse.personalize.references import FaceReader

    base = load_base(base_folder, device="cpu")
    torch.manual_seed(0)
    options, encoders = {"tokens": 2, "hidden": 8}, FaceReader(base).fingerprints(FaceAdapter.features)
    record = {"system": "face-adapter", "network": options, "sizes": {"vector": 256}, "encoder": "face-world"}
    record |= {"base": {"name": base.name, "sha256": base.fingerprint}, "encoders": encoders}
    network = FaceAdapter.build(base, {"vector": 256}, **options)
    return save_trained(tmp_path / "mine.safetensors", network, record | {"trained_with": list(encoders.values())})


def test_somebody_is_shown_by_photographs(capsys, base_folder, two_photographs, adapter, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "out"
    code, told, err = run(
        capsys, "generate", "--base", base_folder, "--who", two_photographs, "--prompt", "A portrait of {a woman}.",
        "--adapter", adapter, "--steps", 1, "-n", 2, "--seed", 4, "--strength", 0.5, "--report", page, "--out", out,
        "--gallery", tmp_path / "none",
    )  # fmt: skip
    assert code == 0 and "Photograph 2 of 2" in err
    assert told.splitlines() == [str(out / f"face-adapter-a-portrait-of-a-woman-{seed}.png") for seed in (4, 5)]
    text, made = provenance(told.splitlines()[1])
    assert text["Description"] == "A portrait of a woman." and made["consent"] == ["not recorded"]
    assert (made["method"], made["strength"], made["seed"]) == ("face-adapter", 0.5, 5)
    assert len(made["adapter"]["sha256"]) == 64 and len(made["photographs"][0]) == 2
    assert "seed 5" in page.read_text()


def test_who_does_not_allow_it_is_not_shown(capsys, base_folder, two_photographs, adapter, tmp_path):
    gallery = ("--gallery", tmp_path / "gallery")
    assert run(capsys, "enroll", "Ada", two_photographs, *gallery, "--allow", "recognize")[0] == 0
    given = ("generate", "--base", base_folder, "--adapter", adapter, "--prompt", "A portrait of {a woman}.", *gallery)
    given += ("--steps", 1, "-n", 1, "--out", tmp_path / "out")
    # By name, and by a photograph that the gallery knows.
    for who in ("Ada", two_photographs / "0.png"):
        code, out, err = run(capsys, *given, "--who", who)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "Ada may not be used to generate: the recorded consent does not mention it" in err
    assert not (tmp_path / "out").exists()
    allowed = ("--allow", "recognize", "--allow", "generate", "--consent-source", "form 12")
    assert run(capsys, "gallery", "forget", "Ada", *gallery, "--yes")[0] == 0
    assert run(capsys, "enroll", "Ada", two_photographs, *gallery, *allowed)[0] == 0
    code, out, err = run(capsys, *given, "--who", "Ada")
    assert code == 0 and provenance(out.strip())[1]["consent"][0]["source"] == "form 12"


def test_nobody_is_shown_while_a_gallery_cannot_be_asked(capsys, base_folder, two_photographs, adapter, tmp_path):
    from ipse.gallery import EncoderSpec, Gallery

    # Of an encoder that is not to be had, so that nobody on a photograph can be looked up.
    Gallery.create(tmp_path / "gallery", EncoderSpec("toy", "f" * 64, "l2", 16, threshold=0.5))
    code, out, err = run(
        capsys, "generate", "--base", base_folder, "--adapter", adapter, "--prompt", "A portrait of {a woman}.",
        "--who", two_photographs / "0.png", "--gallery", tmp_path / "gallery", "--steps", 1, "--out", tmp_path / "out",
    )  # fmt: skip
    assert (code, out) == (2, "") and "could not be checked" in err and "toy" in err
    assert not (tmp_path / "out").exists()


def test_somebody_is_painted_into_a_picture(capsys, base_folder, two_photographs, adapter, tmp_path):
    from ipse.images import read_image, resize, save_png

    picture = save_png(resize(read_image(two_photographs / "0.png"), 32, 32), tmp_path / "Ada.png", {})
    mask = np.zeros((32, 32, 3), np.uint8)
    mask[8:24, 8:24] = 255
    save_png(mask, tmp_path / "mask.png", {})
    given = ("inpaint", picture, "--mask", tmp_path / "mask.png", "--base", base_folder, "--steps", 1)
    given += ("--prompt", "A portrait of {a woman}.", "--out", tmp_path / "out", "--gallery", tmp_path / "none")
    shown = ("--who", two_photographs / "1.png", "--method", "face-adapter", "--adapter", adapter)
    code, told, _ = run(capsys, *given, *shown)
    assert code == 0
    painted, before = read_image(told.strip()), read_image(picture)
    kept = mask[..., 0] == 0
    np.testing.assert_array_equal(painted[kept], before[kept])
    made = provenance(told.strip())[1]
    assert made["method"] == "face-adapter" and made["inpaint"]["mask"] and made["consent"] == ["not recorded"]
    # Nobody: the base alone.
    (tmp_path / "bare").mkdir()
    code, told, _ = run(capsys, *given, *shown, "--strength", 0, "--out", tmp_path / "bare")
    assert code == 0 and not np.array_equal(read_image(told.strip())[~kept], painted[~kept])
    for wrong, hint in (
        (("--strength", 0.5), "--strength needs somebody to paint"),
        (("--who", two_photographs / "1.png", "--method", "bare"), "bare does not paint within a mask"),
    ):
        code, _, err = run(capsys, *given, *wrong)
        assert code == 2 and hint in err
