"""`ipse evaluate` on files of each kind."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ipse.cli import app
from ipse.errors import DataError
from ipse.measure.tables import read_features


def people(seed=0, count=20, each=5):
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(count), each)
    features = np.random.default_rng(9).normal(size=(count, 12))[person] + generator.normal(size=(len(person), 12))
    return features.astype(np.float32), {"person": person, "camera": generator.integers(0, 3, len(person))}


@pytest.fixture
def files(tmp_path):
    for name, seed in (("query", 1), ("gallery", 2)):
        features, columns = people(seed)
        np.savez(tmp_path / f"{name}.npz", features=features, **columns)
        save_file({"features": features, **columns}, tmp_path / f"{name}.safetensors")
        table = pa.table({"features": list(features), "image": [str(i) for i in range(100)], **columns})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "parquet"])
def test_every_kind_of_file_gives_the_same(files, suffix):
    done = run(files / f"query.{suffix}", files / f"gallery.{suffix}", "--protocol", "market1501", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["queries"] > 80 and record["people"] == 20
    again = json.loads(
        run(files / "query.npz", files / "gallery.npz", "--protocol", "market1501", "--memory", 0.1, "--json").stdout
    )
    assert record["figures"] == again["figures"]
    low, high = record["figures"]["mAP"]["ci95"]
    assert 0 < low < record["figures"]["mAP"]["value"] < high < 1


def test_table_report_and_reranking(files):
    report = files / "page.html"
    done = run(files / "query.npz", files / "gallery.npz", "--rerank", "--report", report)
    assert done.exit_code == 0, done.output
    assert "mINP" in done.stdout and "re-ranked" in done.stdout and "95 % over people" in done.stdout
    assert "Evaluation: all" in report.read_text() and "mAP (trapezoid)" in report.read_text()
    alone = run(files / "query.parquet", "--metric", "l2")
    assert alone.exit_code == 0 and "leave-one-out: 100 queries" in alone.stdout
    assert "prcc-changed" in run("--protocols").stdout


def test_nothing_to_find_is_said_and_is_no_success(files):
    features, columns = people()
    np.savez(files / "one.npz", features=features, person=columns["person"], camera=np.zeros(100, int))
    done = run(files / "one.npz", files / "one.npz", "--protocol", "market1501")
    assert done.exit_code == 3
    assert "All 100 queries come from camera 0" in " ".join(done.stdout.split())


def test_wrong_input_says_what_to_do(files):
    for arguments, message in (
        (("query.npz", "--protocol", "marked"), "There are: all"),
        (("query.npz", "--metric", "l1"), "cosine, l2"),
        (("query.npz", "--features", "vectors"), "has no 'vectors', but"),
        (("query.npz", "gallery.npz", "--protocol", "ltcc-changed"), "needs the column 'clothes'"),
        ((), "Name a file"),
    ):
        done = run(*(files / word if word.endswith(".npz") else word for word in arguments))
        assert isinstance(done.exception, DataError) and message in str(done.exception), arguments


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.npz").write_text("no")
    (tmp_path / "a.safetensors").write_text("no")
    (tmp_path / "a.parquet").write_text("no")
    for suffix in ("npz", "safetensors", "parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            read_features(tmp_path / f"a.{suffix}")
    with pytest.raises(DataError, match="none of"):
        read_features(tmp_path / "a.csv")
    np.savez(tmp_path / "b.npz", features=np.ones((3, 2)), person=[1, 2])
    with pytest.raises(DataError, match="'person' of"):
        read_features(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", features=np.ones(3))
    with pytest.raises(DataError, match="Features are"):
        read_features(tmp_path / "c.npz")
    pq.write_table(pa.table({"features": [[1.0, 2.0, 3.0], [1.0]]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="not equally long"):
        read_features(tmp_path / "d.parquet")
