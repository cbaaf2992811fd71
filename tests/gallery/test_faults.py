"""Processes that are killed, write at once, or may not write: nothing that was acknowledged is lost."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from ipse.errors import GalleryError
from ipse.gallery import Gallery

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")

WRITER = """
import sys
import numpy as np
from ipse.gallery import Gallery
gallery, prefix, count = Gallery.open(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for i in range(count):
    gallery.enroll(f"{prefix}{i}", np.full((2, 16), i, np.float32))
    print("enrolled", f"{prefix}{i}", flush=True)
    if i % 3 == 2:
        print("forgetting", f"{prefix}{i - 1}", flush=True)
        gallery.forget(f"{prefix}{i - 1}")
        print("forgot", f"{prefix}{i - 1}", flush=True)
"""


def start(path, prefix, count, **options):
    command = [sys.executable, "-W", "ignore", "-c", WRITER, str(path), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def acknowledged(lines):
    """Who must be there, and who must not, by what a process said; who is neither was under way."""
    there, gone = set(), set()
    for line in lines:
        what, name = line.split()
        if what == "enrolled":
            there.add(name)
        elif what == "forgetting":
            there.discard(name)
        else:
            gone.add(name)
    return there, gone


def test_a_kill_at_any_moment_loses_nothing_acknowledged(full, people):
    generator = random.Random(0)
    for trial in range(3):
        with start(full.path, f"T{trial}-", 10_000) as writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0.05, 1))
            writer.kill()
            lines = writer.stdout.read().splitlines()
        # A line may be cut in the middle only if the kill fell into a print.
        there, gone = acknowledged(line for line in lines if len(line.split()) == 2)
        gallery = Gallery.open(full.path)
        names = set(gallery.names())
        assert there <= names and not gone & names and set(people) <= names
        assert all(len(gallery.person(name)) == 2 for name in there)
        gallery.enroll(f"After {trial}", np.full(16, -1 - trial))
        assert gallery.search(np.full(16, -1 - trial))[0].name == f"After {trial}"
        assert len(list(full.path.glob("gen-*"))) == 1


def test_processes_writing_at_once_lose_nothing(full):
    writers = [start(full.path, prefix, 9) for prefix in ("A", "B")]
    lines = [writer.communicate()[0].splitlines()[1:] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    names = set(full.names())
    for theirs in lines:
        there, gone = acknowledged(theirs)
        assert len(there) == 6 and there <= names and len(gone) == 3 and not gone & names
    assert len(names) == 12 + 12 and len(full) == 36 + 24


def test_one_name_from_two_processes_is_one_person(full):
    code = (
        "import sys, numpy as np\nfrom ipse.gallery import Gallery\n"
        "Gallery.open(sys.argv[1]).enroll('Same', np.ones((1, 16)))"
    )
    command = [sys.executable, "-c", code, str(full.path)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1]
    assert "somebody called 'Same' already" in "".join(errors) and len(full.person("Same")) == 1


def test_a_writer_that_waits_too_long_says_so(full):
    full._store.patience = 0.05
    with (
        Gallery.open(full.path)._store.writing(),
        pytest.raises(GalleryError, check=lambda error: error.reason == "busy"),
    ):
        full.enroll("New", np.ones(16))
    full.enroll("New", np.ones(16))


@pytest.mark.parametrize("what", ["gallery.enroll('Big', np.ones((5000, 16)))", "gallery.forget('Person 03')"])
def test_a_failed_write_loses_nothing(full, people, what):
    """A limit on the size of files stands in for a full disk: the write of the data fails in the same place."""
    code = (
        "import sys, resource, signal, numpy as np\nfrom ipse.gallery import Gallery\n"
        "gallery = Gallery.open(sys.argv[1]); gallery.names(); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        f"try:\n    {what}\nexcept Exception as error:\n    print(type(error).__name__, error.reason, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(full.path)], capture_output=True, text=True)
    assert run.stdout.startswith("GalleryError unwritable "), run.stderr
    # Forgetting, once begun, is completed; an enrollment that failed is not there.
    gallery = Gallery.open(full.path)
    gone = {"Person 03"} if "forget" in what else set()
    assert ("whoever opens the gallery next completes it" in run.stdout) == bool(gone)
    assert set(gallery.names()) == set(people) - gone
    gallery.enroll("Big", np.ones((5000, 16)))
    assert "Big" in gallery and len(list(full.path.glob("gen-*"))) == 1


# Root may write anywhere: without this capability it must keep to the rights of files, as everybody does.
WITHOUT_PRIVILEGE = """
import ctypes, os, sys
if os.geteuid() == 0 and ctypes.CDLL(None).prctl(24, 1, 0, 0, 0):
    sys.exit("cannot give up the privilege")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_a_folder_that_may_only_be_read(full):
    for path in [full.path, *full.path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = (
        "import sys, numpy as np\nfrom ipse.gallery import Gallery\n"
        "gallery = Gallery.open(sys.argv[1]); print(len(gallery.search(np.ones(16), k=3)[0].matches))\n"
        "writes = lambda: gallery.enroll('B', np.ones(16)), lambda: gallery.forget('Person 01'), gallery.optimize\n"
        "for use in writes:\n"
        "    try:\n        use()\n    except Exception as error:\n        print(error.reason)\n"
    )
    command = [sys.executable, "-c", WITHOUT_PRIVILEGE, "-W", "ignore", "-c", code, str(full.path)]
    run = subprocess.run(command, capture_output=True, text=True)
    for path in [full.path, *full.path.rglob("*")]:
        path.chmod(0o755)
    if "cannot give up" in run.stderr:
        pytest.skip("root cannot give up its privilege here")
    assert run.stdout.split() == ["3", "unwritable", "unwritable", "unwritable"], run.stderr
    assert len(full) == 36
