"""Data sets: what is in them, that they come out the same however they are made, and that nothing finished is lost."""

import fcntl
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from ipse.errors import DataError, WorldError
from ipse.images import read_image
from ipse.world import LABELS, Look, Person, Shot, look, person, render, shot
from ipse.world.dataset import ATTRIBUTES, decode_map, encode_map, read_dataset, write_dataset
from ipse.world.recipe import Recipe

ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "Three",
    "size": 48,
    "people": {"count": 3, "start": 20, "balance": ["age", "gender"]},
    "looks": {"count": 2, "fix": {"hat": None}},
    "shots": {"count": 2, "ranges": {"head.yaw": [-10, 10]}},
    "truth": ["parts", "depth", "normals", "uv"],
    "shard_people": 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    summary = write_dataset(RECIPE, folder, workers=1, progress=False)
    assert (summary.people, summary.pictures, summary.shards, summary.written) == (3, 12, 3, 3)
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}


def command(*arguments):
    code = "from ipse.cli import main; main()"
    return [sys.executable, "-c", code, "world", "dataset", *(str(argument) for argument in arguments)]


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


# What is in it


def test_the_numbers_give_the_values_and_the_values_the_picture(made):
    row = next(iter(read_dataset(made).records(truth=True)))
    who = person(20, balance=["age", "gender"])
    worn = look(row.attributes["look"], who, fix={"hat": None})
    taken = shot(row.attributes["shot"], "portrait", ranges={"head.yaw": (-10, 10)})
    assert Person.from_json(row.truth["person_json"]) == who
    assert Look.from_json(row.truth["look_json"]) == worn
    assert Shot.from_json(row.truth["shot_json"]) == taken

    picture = render(who, worn, taken, "portrait", 48)
    np.testing.assert_array_equal(row.pixels(), picture.image)
    truth = picture.truth
    np.testing.assert_array_equal(row.truth["parts"], truth.parts)
    np.testing.assert_allclose(row.truth["depth"], truth.depth, atol=0.0006)
    np.testing.assert_allclose(row.truth["normals"], truth.normals, atol=0.005)
    np.testing.assert_allclose(row.truth["uv"], truth.uv, atol=1e-4)
    for name in ("five", "five_visible", "dense", "dense_visible", "keypoints", "keypoints_visible", "face_box"):
        np.testing.assert_allclose(row.truth[name], getattr(truth, name), atol=1e-3)
    np.testing.assert_allclose(row.truth["intrinsics"], truth.camera.intrinsic)
    np.testing.assert_allclose(row.truth["extrinsics"], truth.camera.extrinsic)


def test_records_come_in_order_and_no_two_have_the_same_shot(made):
    data = read_dataset(made)
    records = list(data.records())
    assert len(data) == len(records) == 12
    assert [record.person for record in records] == sorted(record.person for record in records)
    assert {record.person for record in records} == {20, 21, 22}
    assert len({record.attributes["shot"] for record in records}) == 12
    assert len({(record.person, record.group) for record in records}) == 6
    for record in records:
        assert set(record.attributes) == {column.name for column in ATTRIBUTES} and not record.truth
        assert record.attributes["hat"] == "none" and abs(record.attributes["yaw"]) <= 10
    assert data.recipe == Recipe.from_dict(RECIPE)


def test_another_seed_gives_the_same_people_other_looks_and_shots(made, tmp_path):
    write_dataset(RECIPE, tmp_path, seed=1, people=1, workers=1, progress=False)
    first, other = next(read_dataset(made).records(truth=True)), next(read_dataset(tmp_path).records(truth=True))
    assert first.truth["person_json"] == other.truth["person_json"]
    assert first.truth["look_json"] != other.truth["look_json"]
    assert first.attributes["shot"] != other.attributes["shot"]


def test_captions_speak_of_what_is_seen(made):
    for record in read_dataset(made).records(truth=True):
        assert 1 <= len(record.truth["captions"]) <= 3
        assert all(text.endswith(".") for text in record.truth["captions"])


def test_pictures_can_be_jpeg(made, tmp_path):
    write_dataset(RECIPE | {"image": {"format": "jpeg"}}, tmp_path, people=1, workers=1, progress=False)
    exact, small = next(read_dataset(made).records()), next(read_dataset(tmp_path).records())
    assert Image.open(io.BytesIO(small.image)).format == "JPEG"
    assert np.abs(exact.pixels().astype(int) - small.pixels()).mean() < 8


def test_maps_survive_their_png():
    rng, shape = np.random.default_rng(0), (5, 7)
    here = rng.random(shape) < 0.6
    normals = rng.normal(size=(*shape, 3))
    normals = np.where(here[..., None], normals / np.linalg.norm(normals, axis=-1, keepdims=True), 0)
    maps = {
        "parts": (rng.integers(0, len(LABELS), shape).astype(np.uint8), 0),
        "depth": (np.where(here, rng.uniform(0.3, 60, shape), 0).astype(np.float32), 0.0006),
        "normals": (normals.astype(np.float32), 0.005),
        "uv": (np.where(here[..., None], rng.random((*shape, 2)), -1).astype(np.float32), 1e-4),
    }
    for name, (values, tolerance) in maps.items():
        file = io.BytesIO()
        Image.fromarray(encode_map(name, values)).save(file, "PNG")
        np.testing.assert_allclose(decode_map(name, file.getvalue()), values, atol=tolerance)


# The card


def test_the_card_counts_everybody(made):
    text = (made / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["pretty_name"] == "Three" and front["size_categories"] == ["n<1K"]
    for name in ("age_group", "gender", "skin_group"):
        rows = [line.split("|") for line in text.splitlines() if line.startswith(f"| {name} ")]
        assert sum(int(row[3]) for row in rows) == 3 and sum(int(row[4]) for row in rows) == 12
    for column in pq.read_schema(made / "data" / "train-00000.parquet").names:
        assert f"| `{column}` |" in text
    assert Recipe.load(made / "recipe.yaml") == Recipe.from_dict(RECIPE)
    assert read_image(made / "examples.png").shape[1] > 48


# The same bytes, again and again


def test_workers_do_not_change_a_byte(made, tmp_path):
    write_dataset(RECIPE, tmp_path, workers=2, progress=False)
    assert content(tmp_path) == content(made)


def test_what_is_finished_is_kept_and_what_is_missing_restored(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    assert write_dataset(RECIPE, folder, workers=1, progress=False).written == 0
    (folder / "data" / "train-00001.parquet").unlink()
    damaged = folder / "data" / "train-00002.parquet"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    kept = (folder / "data" / "train-00000.parquet").stat().st_ino
    assert write_dataset(RECIPE, folder, workers=1, progress=False).written == 2
    assert (folder / "data" / "train-00000.parquet").stat().st_ino == kept
    assert content(folder) == content(made)


def test_people_can_be_added_but_nothing_else_changed(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    summary = write_dataset(RECIPE, folder, people=4, workers=1, progress=False)
    assert (summary.written, summary.pictures, sum(summary.counts["gender"].values())) == (1, 16, 16)
    with pytest.raises(DataError, match="more people than the 2"):
        write_dataset(RECIPE, folder, people=2, progress=False)
    with pytest.raises(DataError, match=r"seed is 0 there and 5 here; shots\.count is 2 there and 3 here"):
        write_dataset(RECIPE, folder, shots=3, seed=5, progress=False)
    assert len(read_dataset(folder)) == 16


def processes_below(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [below for child in children for below in processes_below(int(child))]


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_run_cut_off_leaves_whole_shards_and_goes_on(made, tmp_path, recipe_file, sign):
    folder = tmp_path / "cut"
    run = subprocess.Popen(
        command(recipe_file, "--out", folder, "--workers", 2), stderr=subprocess.PIPE, start_new_session=True
    )
    # Cut off while the first shards are being written, at the latest when one is there.
    until(lambda: list(folder.glob("data/.train-*.part")) or list(folder.glob("data/*.parquet")))
    workers = processes_below(run.pid)
    run.send_signal(sign)
    _, errors = run.communicate(timeout=120)
    until(lambda: not any(running(pid) for pid in workers))
    if sign == signal.SIGINT:
        assert run.returncode == 130 and b"Finished shards are kept" in errors
        assert not list(folder.glob("data/*.part"))
    finished = {path: path.stat().st_ino for path in folder.glob("data/*.parquet")}
    assert len(finished) < 3
    for path in finished:
        assert path.read_bytes() == (made / "data" / path.name).read_bytes()

    summary = write_dataset(RECIPE, folder, workers=1, progress=False)
    assert summary.written == 3 - len(finished)
    assert all(path.stat().st_ino == inode for path, inode in finished.items())
    assert content(folder) == content(made)


def test_a_full_disk_keeps_what_is_finished(made, tmp_path, recipe_file):
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    (folder / "data" / "train-00002.parquet").unlink()
    run = subprocess.run(
        command(recipe_file, "--out", folder, "--workers", 1),
        capture_output=True,
        text=True,
        # No file may grow beyond 4 kB: a disk with nothing left, for this process only.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert run.returncode == 2 and "Make room. Finished shards are kept" in run.stderr
    assert "Traceback" not in run.stderr
    shards = sorted(path.name for path in (folder / "data").iterdir() if path.name != ".lock")
    assert shards == ["train-00000.parquet", "train-00001.parquet"]
    write_dataset(RECIPE, folder, workers=1, progress=False)
    assert content(folder) == content(made)


# Other engines and readers


@pytest.fixture(scope="module")
def ray_session():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    with ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error"):
        yield ray


def test_ray_makes_the_same_bytes(made, tmp_path, ray_session):
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    for shard in ("train-00000.parquet", "train-00002.parquet"):
        (folder / "data" / shard).unlink()
    assert write_dataset(RECIPE, folder, engine="ray", progress=False).written == 2
    assert content(folder) == content(made)


def test_ray_data_reads_it(made, ray_session):
    import ray.data

    rows = ray.data.read_parquet(str(made / "data")).select_columns(["person", "image"]).take_all()
    assert sorted(row["person"] for row in rows) == [20] * 4 + [21] * 4 + [22] * 4
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (48, 48)


def test_hugging_face_datasets_reads_it(made, tmp_path):
    from datasets import load_dataset

    people = load_dataset("parquet", data_dir=str(made), split="train", cache_dir=str(tmp_path))
    row = people[5]
    assert len(people) == 12 and row["image"].size == row["parts"].size == row["depth"].size == (48, 48)
    assert isinstance(row["captions"][0], str) and np.shape(row["dense"]) == (70, 2)
    assert len(people.filter(lambda gender: gender == "female", input_columns="gender")) in (4, 8)


def test_pyarrow_reads_it(made):
    table = pyarrow.dataset.dataset(made / "data").to_table(columns=["person", "five"])
    assert table.num_rows == 12 and table.schema.field("five").type == pa.list_(pa.list_(pa.float32()))


def test_lance_reads_it(made, tmp_path):
    import lancedb

    batches = pyarrow.dataset.dataset(made / "data").scanner().to_reader()
    people = lancedb.connect(tmp_path).create_table("people", batches)
    found = people.search().where("person = 21").select(["image", "captions"]).to_list()
    assert people.count_rows() == 12 and len(found) == 4
    assert Image.open(io.BytesIO(found[0]["image"]["bytes"])).size == (48, 48)


# What cannot be


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"framin": "bust"}, "Did you mean 'framing'"),
        ({"people": {"cuont": 3}}, "The recipe's people has no key 'cuont'. Did you mean 'count'"),
        ({"people": {"count": 0}}, "people.count is 0; it must be a whole number from 1"),
        ({"people": {"ranges": {"age": [18, 400]}}}, "age is 400"),
        ({"people": {"balance": ["height"]}}, "nothing to balance called 'height'"),
        ({"looks": {"fix": {"top.kind": "tshrit"}}}, "Did you mean 'tshirt'"),
        ({"looks": {"fix": {"hair.stile": "long"}}}, "Did you mean 'hair.style'"),
        ({"shots": {"fix": {"head.yaw": 300}}}, "Shot.head.yaw is 300"),
        ({"shots": 0}, "shots.count is 0"),
        ({"framing": "potrait"}, "Did you mean 'portrait'"),
        ({"size": 8}, "size is 8"),
        ({"size": [64, 64, 3]}, r"must be one number or \[width, height\]"),
        ({"image": {"format": "webp"}}, "image.format cannot be 'webp'"),
        ({"truth": ["dept"]}, "Did you mean 'depth'"),
        ({"truth": "depth"}, "truth is 'depth'; it must be a list"),
        ({"captions": True}, "captions is True"),
    ],
)
def test_a_recipe_that_cannot_be_says_why(change, message, tmp_path):
    with pytest.raises(WorldError, match=message):
        write_dataset(RECIPE | change, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_recipe_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Recipe.load(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("people: [1")
    with pytest.raises(DataError, match="is not YAML"):
        Recipe.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(WorldError, match="must be a mapping"):
        Recipe.load(tmp_path / "list.yaml")


def test_a_folder_that_cannot_be_used_says_why(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written: .*Choose a folder"):
        write_dataset(RECIPE, tmp_path / "file" / "below", progress=False)

    theirs = tmp_path / "theirs" / "data"
    theirs.mkdir(parents=True)
    pq.write_table(pa.table({"a": [1]}), theirs / "train-00000.parquet")
    with pytest.raises(DataError, match="was not written by ipse"):
        write_dataset(RECIPE, tmp_path / "theirs", progress=False)
    with pytest.raises(DataError, match="was not written by ipse"):
        read_dataset(tmp_path / "theirs")
    with pytest.raises(DataError, match="There is no data set"):
        read_dataset(tmp_path)

    busy = tmp_path / "busy" / "data"
    busy.mkdir(parents=True)
    with open(busy / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="Another run"):
            write_dataset(RECIPE, tmp_path / "busy", progress=False)


def test_engines_that_are_not_there_say_so(tmp_path, recipe_file):
    with pytest.raises(WorldError, match="no engine called 'spark'"):
        write_dataset(RECIPE, tmp_path / "out", engine="spark", progress=False)
    # A module that is None in sys.modules cannot be imported, as if it were not installed.
    code = "import sys; sys.modules['ray'] = None; from ipse.cli import main; main()"
    arguments = ["world", "dataset", str(recipe_file), "--out", str(tmp_path / "out"), "--engine", "ray"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 2 and "needs Ray, which is not installed. pip install 'ipse[scale]'" in run.stderr


# What ships beside the package


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "world").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_work(path, tmp_path):
    summary = write_dataset(path, tmp_path, people=1, looks=1, shots=1, workers=1, progress=False)
    record = next(iter(read_dataset(tmp_path).records(truth=True)))
    width, height = Recipe.load(path).pixels
    assert summary.pictures == 1 and record.pixels().shape == (height, width, 3)


def test_the_example_runs(tmp_path):
    example = ROOT / "examples" / "world_ten_lines.py"
    run = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Eyes, nose and mouth corners" in run.stdout
    assert read_image(tmp_path / "person.png").shape == (128, 128, 3) and (tmp_path / "truth.png").exists()
