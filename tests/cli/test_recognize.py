import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from ipse import cli
from ipse.world import look, person, render, shot

EVEN = {
    "mood": "neutral",
    "head.yaw": 0,
    "head.pitch": 0,
    "head.roll": 0,
    "camera.roll_deg": 0,
    "light.key_azimuth_deg": 20,
    "light.softness": 0.8,
    "light.fill": 0.6,
    "background.kind": "plain",
    "occluder": None,
    "degrade.low_res": 1,
    "degrade.blur_px": 0,
    "degrade.noise": 0,
    "degrade.exposure": 0,
}
BARE = {"mask": None, "hat": None, "glasses": None, "scarf": None, "hair.style": "short"}
# Chosen to be told apart easily.
PEOPLE = {"Ada": 5, "Ben": 12, "Chi": 14}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Portraits of three people on two days, one of a stranger, two people side by side, and files without a face."""
    root = tmp_path_factory.mktemp("pictures")

    def take(number, day):
        who = person(number)
        return Image.fromarray(render(who, look(day, who, fix=BARE), shot(day, fix=EVEN), "portrait", 128).image)

    taken = {name: [take(number, day) for day in (0, 1)] for name, number in PEOPLE.items()}
    for name, images in taken.items():
        (root / "people" / name).mkdir(parents=True)
        images[0].save(root / "people" / name / "first.png")
        (root / "photos").mkdir(exist_ok=True)
        images[1].save(root / "photos" / f"{name}.png")
    both = Image.new("RGB", (256, 128))
    for place, name in enumerate(("Ada", "Ben")):
        both.paste(taken[name][0], (128 * place, 0))
    both.save(root / "both.png")
    (root / "photos" / "empty.jpg").write_bytes(b"")
    (root / "photos" / "list.txt").write_text("")
    Image.new("RGB", (64, 64), (90, 120, 80)).save(root / "meadow.png")
    return root


@pytest.fixture(scope="module")
def enrolled(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("enrolled") / "gallery"
    with pytest.raises(SystemExit) as caught:
        cli.main(["enroll", "--people", str(pictures / "people"), "--gallery", str(folder)])
    assert caught.value.code == 0
    return folder


@pytest.fixture
def gallery(enrolled, tmp_path):
    """A gallery of three people that may be changed."""
    import shutil

    return shutil.copytree(enrolled, tmp_path / "gallery")


def test_find_names_the_people_and_what_cannot_be_used(capsys, gallery, pictures, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, "find", pictures / "photos", "-g", gallery, "--json", "--report", page)
    *files, last = [json.loads(line) for line in out.splitlines()]
    found = {entry["path"].rsplit("/", 1)[1]: entry for entry in files}
    assert code == 0 and sorted(found) == ["Ada.png", "Ben.png", "Chi.png", "empty.jpg"]
    for name in PEOPLE:
        (one,) = found[f"{name}.png"]["people"]
        assert one["name"] == name and one["known"] and one["nearest"][0]["distance"] == one["distance"]
    assert found["empty.jpg"]["reason"] == "empty" and found["empty.jpg"]["people"] == []
    assert last["summary"]["people"] == {name: {"photos": 1, "videos": 0} for name in PEOPLE}
    assert last["summary"]["problems"] == 1 and last["summary"]["passed_over"] == {".txt": 1}
    text = page.read_text()
    assert "Ada — 1 photograph" in text and "empty.jpg" in text and ".txt" in text
    assert not re.search(r"https?:", text)
    # The second time, nothing is read, and the answer is the same.
    assert run(capsys, "find", pictures / "photos", "-g", gallery, "--json")[1] == out
    code, out, _ = run(capsys, "find", pictures / "photos", "-g", gallery)
    assert code == 0 and "Ada.png" in out and "3 people found" in out


def test_nobody_found_has_status_3_and_names_the_nearest(capsys, gallery, pictures):
    code, out, _ = run(capsys, "find", pictures / "photos" / "Ada.png", "-g", gallery, "--threshold", "0.01", "--json")
    one = json.loads(out.splitlines()[0])["people"][0]
    assert code == 3 and one["name"] == "unknown" and one["nearest"][0]["name"] == "Ada"


def test_without_a_gallery_it_says_how_to_begin(capsys, pictures, tmp_path):
    code, _, err = run(capsys, "find", pictures / "photos", "-g", tmp_path / "none")
    assert code == 2 and "ipse enroll" in err


def test_enroll_names_every_photograph_it_does_not_use(capsys, pictures, tmp_path):
    ada, meadow, both = (pictures / name for name in ("people/Ada/first.png", "meadow.png", "both.png"))
    folder, page = tmp_path / "gallery", tmp_path / "page.html"
    code, out, _ = run(capsys, "enroll", "Ada", meadow, both, "-g", folder, "--json")
    assert code == 3 and {r["reason"] for r in json.loads(out)[0]["refused"]} == {"no-face", "several-faces"}
    # With another photograph it is clear who of the two is meant.
    code, out, _ = run(capsys, "enroll", "Ada", ada, both, "-g", folder, "--json", "--report", page)
    record = json.loads(out)[0]
    assert code == 0 and len(record["enrolled"]) == 2 and "like the other" in record["enrolled"][1]["note"]
    assert "Ada — enrolled from 2 photographs" in page.read_text()


def test_enroll_refuses_a_taken_name_and_another_face(capsys, gallery, pictures):
    ben = pictures / "people" / "Ben" / "first.png"
    code, _, err = run(capsys, "enroll", "Ada", ben, "-g", gallery)
    assert code == 2 and "--add" in err
    code, out, _ = run(capsys, "enroll", "Ada", ben, "-g", gallery, "--add", "--json")
    assert code == 3 and json.loads(out)[0]["refused"][0]["reason"] == "other-person"
    code, out, _ = run(capsys, "enroll", "Benjamin", ben, "-g", gallery)
    assert code == 0 and "looks like Ben" in out
    assert run(capsys, "enroll", "-g", gallery)[0] == 2


def test_verify(capsys, pictures, tmp_path):
    first, second = pictures / "people" / "Ada" / "first.png", pictures / "photos" / "Ada.png"
    code, out, _ = run(capsys, "verify", first, second, "-g", tmp_path, "--report", tmp_path / "page.html")
    assert code == 0 and out.startswith("The same person") and (tmp_path / "page.html").exists()
    code, out, _ = run(capsys, "verify", first, pictures / "people" / "Chi" / "first.png", "-g", tmp_path, "--json")
    record = json.loads(out)
    assert code == 3 and not record["same"] and record["distance"] > record["threshold"]
    assert "No face" in run(capsys, "verify", first, pictures / "meadow.png", "-g", tmp_path)[2]


def test_turned_photographs_are_read_on_request(capsys, pictures, tmp_path):
    upright = pictures / "photos" / "Ada.png"
    turned = tmp_path / "turned.png"
    Image.open(upright).transpose(Image.Transpose.ROTATE_90).save(turned)
    assert run(capsys, "verify", turned, upright)[0] == 2
    assert run(capsys, "verify", "--turned", turned, upright)[0] == 0


def test_a_second_search_starts_without_what_is_slow(gallery, pictures):
    arguments = ["find", str(pictures / "photos"), "--gallery", str(gallery), "--json"]
    script = (
        f"import sys; sys.argv[1:] = {arguments!r}; from ipse import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(*sorted({'lancedb', 'pyarrow', 'onnxruntime', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert second.stdout == first.stdout and "Ada" in first.stdout
    assert second.stderr.split() == []


def test_cluster_sorts_faces_into_people(capsys, gallery, pictures, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = run(
        capsys, "cluster", pictures / "people", pictures / "photos", "-g", gallery, "--json", "--report", page
    )
    record = json.loads(out)
    assert code == 0 and {group["name"]: group["faces"] for group in record["groups"]} == dict.fromkeys(PEOPLE, 2)
    assert record["problems"][0]["path"].endswith("empty.jpg") and "Chi — 2 faces in 2 files" in page.read_text()


def test_a_gallery_is_listed_shown_and_calibrated(capsys, gallery, tmp_path):
    record = json.loads(run(capsys, "gallery", "list", "-g", gallery, "--json")[1])
    assert [entry["name"] for entry in record["people"]] == list(PEOPLE) and record["threshold"]["value"] == 0.6
    assert "3 people" in run(capsys, "gallery", "list", "-g", gallery)[1]
    code, out, _ = run(capsys, "gallery", "show", "Ada", "-g", gallery, "--report", tmp_path / "ada.html")
    assert code == 0 and "recognize" in out and "data:image/jpeg" in (tmp_path / "ada.html").read_text()
    assert run(capsys, "gallery", "show", "Adda", "-g", gallery)[0] == 2
    code, out, _ = run(capsys, "gallery", "calibrate", "--fpir", "0.1", "-g", gallery)
    assert code == 0 and "Threshold" in out and "too few" in out
    assert run(capsys, "gallery", "calibrate", "--fpir", "2", "-g", gallery)[0] == 2


def test_whoever_is_forgotten_is_gone_from_every_file(capsys, gallery, pictures):
    run(capsys, "find", pictures / "photos", "-g", gallery)
    code, out, _ = run(capsys, "gallery", "forget", "Ada", "--yes", "-g", gallery, "--json")
    assert code == 0 and json.loads(out) == {"forgotten": ["Ada"], "templates": 1, "index_files": 1}
    for path in gallery.rglob("*"):
        assert not path.is_file() or b"Ada" not in path.read_bytes(), path


def test_export_import_and_keys(capsys, gallery, pictures, tmp_path):
    file, other, key = tmp_path / "people.parquet", tmp_path / "other", tmp_path / "key.txt"
    assert run(capsys, "gallery", "export", file, "Ada", "Ben", "-g", gallery)[0] == 0
    assert "2 people" in run(capsys, "gallery", "import", file, "-g", other)[1]
    key.write_text("a long passphrase\n")
    locked = tmp_path / "locked"
    picture = pictures / "people" / "Ada" / "first.png"
    assert run(capsys, "enroll", "Ada", picture, "-g", locked, "--key-file", key)[0] == 0
    assert run(capsys, "find", picture, "-g", locked, "--key-file", key)[0] == 0
    assert not (locked / "photographs.sqlite").exists()
    assert run(capsys, "find", picture, "-g", locked)[0] == 2
    assert run(capsys, "gallery", "rekey", "-g", locked, "--key-file", key)[0] == 0
    assert run(capsys, "find", picture, "-g", locked)[0] == 0
    assert "cannot be read" in run(capsys, "find", picture, "-g", locked, "--key-file", tmp_path / "none")[2]
