import hashlib
import os

import pytest

from ipse.errors import WeightsError
from ipse.zoo import DLIB_FACE_NETWORK, DLIB_FIVE_POINTS, Weights, cache_dir, cached


@pytest.mark.parametrize("weights", [DLIB_FACE_NETWORK, DLIB_FIVE_POINTS], ids=lambda w: w.name)
def test_packaged_weights_are_the_ones_that_are_named(weights):
    assert hashlib.sha256(weights.read()).hexdigest() == weights.sha256
    assert weights.checked_path().name == weights.file.rpartition("/")[2]


def test_a_missing_package_says_what_to_install():
    weights = Weights("the network", "x.dat", "CC0", package="no_such_package_here")
    with pytest.raises(WeightsError, match="pip install no_such_package_here"):
        weights.read()


def test_a_file_missing_from_its_package_says_how_to_mend_it():
    weights = Weights("the network", "no/such/file.dat", "CC0", package="numpy")
    with pytest.raises(WeightsError, match=r"lacks no/such/file.dat.*--force-reinstall"):
        weights.path()


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no file .*gone.onnx"):
        Weights("mine", str(tmp_path / "gone.onnx"), "mine").read()
    with pytest.raises(WeightsError, match="there is no file"):
        Weights("mine", str(tmp_path), "mine").read()


def test_truncated_and_changed_files_are_refused(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(b"weights")
    weights = Weights("mine", str(path), "mine", sha256=hashlib.sha256(b"weights").hexdigest())
    assert weights.read() == b"weights"
    for content in (b"weight", b"", b"Weights"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="cut short, damaged or another version"):
            weights.checked_path()


def test_cache_makes_once_and_mends_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("IPSE_CACHE", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache"
    made = []

    def make() -> bytes:
        made.append(1)
        return b"content"

    assert [cached("a.bin", make) for _ in range(3)] == [b"content"] * 3 and len(made) == 1
    for damage in (b"conten", b"", b"CONTENT"):
        (tmp_path / "cache" / "a.bin").write_bytes(damage)
        assert cached("a.bin", make) == b"content"
    (tmp_path / "cache" / "a.bin.sha256").unlink()
    assert cached("a.bin", make) == b"content"
    assert len(made) == 5
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["a.bin", "a.bin.sha256"]


def test_an_unusable_cache_folder_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IPSE_CACHE", str(tmp_path / "file" / "below"))
    assert cached("a.bin", lambda: b"content") == b"content"


def test_the_cache_folder_without_a_setting_lies_in_the_users_cache(monkeypatch):
    monkeypatch.delenv("IPSE_CACHE", raising=False)
    assert cache_dir().name == "ipse" and os.path.isabs(cache_dir())
