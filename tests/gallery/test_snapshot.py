"""The copy that searches of a small gallery read in place of the table."""

import subprocess
import sys

import numpy as np
import pytest

from ipse.gallery import Gallery

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")


def said(answers):
    return [[(m.name, m.template_id, m.provenance) for m in answer.matches] for answer in answers]


def test_a_snapshot_answers_as_the_table_does(gallery, people):
    for name, vectors in people.items():
        consent = {"purposes": {"recognize": name != "Person 03"}}
        gallery.enroll(name, vectors, provenance=[{"source": f"{name}-{i}"} for i in range(3)], consent=consent)
    queries = np.concatenate([vectors[:1] + 0.01 for vectors in people.values()])
    before, names, count = gallery.search(queries, 12), gallery.names(), len(gallery)
    gallery.keep_snapshot()
    assert gallery._store.snapshot() is not None
    after = gallery.search(queries, 12)
    assert (gallery.names(), len(gallery), len(before[0].matches)) == (names, count, 11)
    assert said(before) == said(after)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose([m.distance for m in a.matches], [m.distance for m in b.matches], atol=1e-6)


def test_an_empty_gallery_has_one_too(gallery):
    gallery.keep_snapshot()
    assert gallery.search(np.ones(16))[0].matches == () and gallery.names() == []


def test_every_write_outdates_it(full, people):
    other = Gallery.open(full.path)
    # Nearest to somebody, but not so near that nobody could be nearer.
    query = people["Person 05"][0] + np.float32(0.01)

    def nearest():
        other.keep_snapshot()
        assert other._store.snapshot() is not None
        return other.search(query)[0].nearest.name

    assert nearest() == "Person 05"
    full.enroll("Newcomer", query)
    assert other._store.snapshot() is None and nearest() == "Newcomer"
    full.set_consent("Newcomer", {"purposes": {"recognize": False}})
    assert other._store.snapshot() is None and nearest() == "Person 05"
    full.forget("Person 05")
    assert other._store.snapshot() is None and nearest() not in ("Person 05", "Newcomer")
    full.rekey(None, "secret")
    assert Gallery.open(full.path, key="secret")._store.snapshot() is None


def test_a_protected_gallery_keeps_turned_vectors(full, people):
    full.rekey(None, "secret")
    full.keep_snapshot()
    query = people["Person 05"][0]
    plain = np.concatenate(list(people.values()))
    # The secret differs from run to run, but never leaves a vector where it was.
    assert np.abs(full._store.snapshot().vectors[:, None] - plain).max(2).min() > 0.1
    assert full.search(query)[0].nearest.name == "Person 05"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_one_is_not_read(full, people, damage):
    full.keep_snapshot()
    (file,) = full.path.glob("gen-*/snapshot.npz")
    file.write_bytes(file.read_bytes()[:-40] if damage is None else damage)
    reopened = Gallery.open(full.path)
    assert reopened._store.snapshot() is None
    assert reopened.search(people["Person 05"][0])[0].nearest.name == "Person 05"


def test_what_a_killed_process_left_is_cleared_away(full):
    (generation,) = full.path.glob("gen-*")
    (generation / ".snapshot.npz.0123.part").write_bytes(b"half")
    full.keep_snapshot()
    assert sorted(path.name for path in generation.iterdir()) == ["snapshot.npz", "templates.lance"]


def test_searches_do_without_lance(full):
    full.keep_snapshot()
    script = (
        "import sys; from ipse.gallery import Gallery; import numpy as np; g = Gallery.open(sys.argv[1]);"
        "assert g.search(np.ones(16), threshold=1.0)[0].matches and len(g.names()) == len(g) // 3 == 12;"
        "print(*sorted({'lancedb', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(full.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
