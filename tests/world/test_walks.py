"""Walks of the world: strips on disk that are taken up again, read, and trained on."""

import numpy as np
import pytest
from typer.testing import CliRunner

from ipse.errors import DataError, WorldError
from ipse.world import look, person
from ipse.world.walks import read_walks, walked, write_walks

SMALL = {"looks": 1, "azimuths": (0, 90), "frames": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks"), people=2, start=70, **SMALL)


def test_walks_say_who_walked_in_what_and_seen_from_where(folder):
    walks = read_walks(folder)
    assert walks.strips.shape == (4, 64, 3 * 44, 3) and (folder / "examples.png").exists()
    assert walks.people.tolist() == [70, 70, 71, 71] and walks.looks.tolist() == [0] * 4
    assert walks.azimuths.tolist() == [0, 90, 0, 90]
    shown = (walks.strips[..., 0] > 127).mean((1, 2))
    assert (shown > 0.1).all() and (shown < 0.6).all()
    # Legs open at the side, and more than in front.
    below = (walks.strips[:, 44:, :, 0] > 127).reshape(4, 20, 3, 44).any(1).sum(2).max(1)
    assert below[1] > below[0] and below[3] > below[2]


def test_a_stride_repeats_itself_and_begins_where_it_is_told_to():
    who = person(70)
    worn = look(0, who)
    first, turned = (walked(who, worn, 90.0, 4, start) for start in (0.25, 0.5))
    frames = [strip.reshape(64, 4, 44, 3) for strip in (first, turned)]
    # A quarter of a stride later, the second of four frames is the first.
    apart = np.abs(frames[0][:, 1].astype(int) - frames[1][:, 0]) > 127
    assert apart.mean() < 0.01
    assert (np.abs(frames[0][:, 0].astype(int) - frames[1][:, 0]) > 127).mean() > 0.02


def test_a_run_is_taken_up_again_and_other_walks_are_refused(folder):
    path = folder / "data" / "train-00000.parquet"
    before = path.stat().st_mtime_ns
    told = []
    write_walks(folder, people=2, start=70, **SMALL, on_walk=lambda done, total: told.append((done, total)))
    assert path.stat().st_mtime_ns == before and told == [(4, 4)]
    with pytest.raises(DataError, match="frames is 3 there and 4 here"):
        write_walks(folder, people=2, start=70, **{**SMALL, "frames": 4})
    with pytest.raises(WorldError, match="two frames"):
        write_walks(folder, people=2, start=70, **{**SMALL, "frames": 1})
    with pytest.raises(DataError, match="no walks in"):
        read_walks(folder / "data")
    path.with_name("train-00001.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="holds no walks"):
        read_walks(folder)
    path.with_name("train-00001.parquet").unlink()


def test_training_reads_them_as_they_are_but_not_those_for_judging(folder, tmp_path):
    from ipse.training.data import Cut, pack

    chips = pack(folder, Cut(size=(64, 132)), tmp_path / "packs")
    walks = read_walks(folder)
    assert np.array_equal(chips.images(np.arange(4)), walks.strips)
    assert chips.column("person").tolist() == walks.people.tolist() and set(chips.column("look")) == {0}
    judged = write_walks(tmp_path / "judged", people=1, start=900_499, looks=1, azimuths=[90], frames=2)
    with pytest.raises(DataError, match="judging only"):
        pack(judged, Cut(size=(64, 88)), tmp_path / "packs")


def test_the_command_writes_them(folder, tmp_path):
    from ipse.cli.world import world

    options = ["--people", "1", "--looks", "1", "--start", "70", "--frames", "2"]
    run = CliRunner().invoke(world, ["walks", "--out", str(tmp_path / "out"), *options, "--views", "-90"])
    assert run.exit_code == 0, run.output
    assert "1 walks of 1 people" in run.stdout
    assert read_walks(tmp_path / "out").azimuths.tolist() == [-90]
    run = CliRunner().invoke(world, ["walks", "--out", str(tmp_path / "out"), "--views", "side"])
    assert isinstance(run.exception, WorldError)
