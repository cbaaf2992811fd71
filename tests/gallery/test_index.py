import os
import shutil
import textwrap

import numpy as np
import pytest
from PIL import Image

from ipse.errors import DataError
from ipse.gallery.index import Entry, Listing, PhotoIndex, Reader
from ipse.gallery.video import Span, clock, merged_spans, sampled_frames, tracks
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


@pytest.fixture(scope="module")
def portraits():
    """Two people of the world, 128 px."""
    bare = {"mask": None, "hat": None, "glasses": None, "scarf": None, "hair.style": "short"}
    people = [person(n) for n in (1, 3)]
    return [render(who, look(0, who, fix=bare), shot(0, fix=EVEN), "portrait", 128).image for who in people]


class Counting(Reader):
    """A reader that notes what it reads."""

    def __init__(self):
        super().__init__()
        self.names = []

    def read_all(self, entries):
        self.names += [entry.path.name for entry in entries]
        return super().read_all(entries)


@pytest.fixture
def folder(tmp_path, portraits):
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    Image.fromarray(portraits[0]).save(place / "a.png")
    Image.fromarray(portraits[1]).save(place / "more" / "b.png")
    (place / "notes.txt").write_text("not a picture")
    return place


def look_into(folder, reader, file=None, **options):
    with PhotoIndex(file, reader) as index:
        run = index.update(Listing([folder]), **options)
        return {photo.path.name: photo for photo in index.photos(run)}


def test_faces_are_found_with_vectors_and_crops(folder):
    listing = Listing([folder])
    with PhotoIndex(None, Reader()) as index:
        photos = list(index.photos(index.update(listing)))
    assert [photo.path.name for photo in photos] == ["a.png", "b.png"] and listing.others == {".txt": 1}
    for photo in photos:
        (face,) = photo.reading.faces
        assert face.vector.shape == (128,) and 0 < face.quality <= 1 and face.crop[:2] == b"\xff\xd8"
        assert photo.reading.width == 128 and photo.reading.step is None and face.time is None
    a, b = (photo.reading.faces[0].vector for photo in photos)
    assert np.linalg.norm(a - b) > 0.3


def test_only_what_is_new_is_read(folder, tmp_path):
    reader, file = Counting(), tmp_path / "index.sqlite"
    first = look_into(folder, reader, file)
    assert sorted(reader.names) == ["a.png", "b.png"]
    reader.names.clear()
    os.utime(folder / "a.png", (1, 1))
    (folder / "more" / "b.png").rename(folder / "moved.png")
    again = look_into(folder, reader, file)
    assert reader.names == [] and sorted(again) == ["a.png", "moved.png"]
    assert np.array_equal(again["moved.png"].reading.faces[0].vector, first["b.png"].reading.faces[0].vector)
    Image.open(folder / "a.png").rotate(180).save(folder / "a.png")
    look_into(folder, reader, file)
    assert reader.names == ["a.png"]


def test_another_setting_reads_again(folder, tmp_path):
    file = tmp_path / "index.sqlite"
    look_into(folder, Reader(), file)
    reader = Counting()
    reader.crop_side = 64
    look_into(folder, reader, file)
    assert len(reader.names) == 2


def test_a_run_that_was_stopped_goes_on(tmp_path, portraits):
    folder, file = tmp_path / "photos", tmp_path / "index.sqlite"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(portraits[0][: 100 + number]).save(folder / f"{number:02}.png")

    def stop(done, total):
        raise KeyboardInterrupt

    reader = Counting()
    with pytest.raises(KeyboardInterrupt):
        look_into(folder, reader, file, on_progress=stop)
    before = len(reader.names)
    assert 0 < before < 12
    assert len(look_into(folder, reader, file)) == 12 and len(reader.names) == 12


def test_several_processes_find_the_same(tmp_path, portraits):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(18):
        path = folder / f"{number:02}.png"
        Image.fromarray(portraits[number % 2]).save(path)
        # Equal files would be read once.
        path.write_bytes(path.read_bytes() + bytes([number]))
    one, two = (look_into(folder, Reader(), workers=workers) for workers in (1, 2))
    assert list(one) == list(two)
    for name in one:
        ours, theirs = one[name].reading.faces, two[name].reading.faces
        assert len(ours) == len(theirs) == 1
        assert np.allclose(ours[0].vector, theirs[0].vector, atol=1e-4)


def test_a_file_that_kills_its_process_is_named_and_the_rest_is_read(tmp_path, portraits, monkeypatch):
    (tmp_path / "deadly.py").write_text(
        textwrap.dedent("""
        import os
        from ipse.gallery.index import Reader

        class Deadly(Reader):
            def read_all(self, entries):
                if any("bomb" in entry.path.name for entry in entries):
                    os._exit(9)
                return super().read_all(entries)
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    from deadly import Deadly

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(17):
        Image.fromarray(portraits[0][: 60 + number, :60]).save(folder / f"{number:02}.png")
    shutil.copy(folder / "00.png", folder / "bomb.png")
    (folder / "bomb.png").write_bytes((folder / "bomb.png").read_bytes() + b"!")
    photos = look_into(folder, Deadly(), workers=2)
    assert photos.pop("bomb.png").reading.reason == "crashed"
    assert len(photos) == 17 and not any(photo.reading.problem for photo in photos.values())


def damaged(folder, portrait):
    """Files that are not as they should be: name -> the reason expected, empty where the file is of use."""
    picture = Image.fromarray(portrait)
    picture.save(folder / "whole.jpg")
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("I am no picture")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (folder / "nothing.pgm").write_bytes(b"P5 0 0 255\n")
    Image.new("1", (20_000, 10_000)).save(folder / "huge.png")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    picture.convert("CMYK").save(folder / "print.jpg")
    picture.save(folder / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
    return {
        "whole.jpg": "",
        "cut.jpg": "truncated",
        "empty.jpg": "empty",
        "text.png": "not-an-image",
        "phone.heic": "unsupported",
        "nothing.pgm": None,
        "huge.png": "too-large",
        "deep.png": "",
        "print.jpg": "",
        "moving.gif": "",
    }


def test_every_bad_file_is_named_and_stops_nothing(tmp_path, portraits):
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = damaged(folder, portraits[0])
    photos = look_into(folder, Reader())
    assert sorted(photos) == sorted(expected)
    for name, reason in expected.items():
        reading = photos[name].reading
        if reason == "":
            assert len(reading.faces) == 1 and not reading.problem, name
        else:
            assert reading.problem and not reading.faces and str(tmp_path) not in reading.problem, name
            assert reason is None or reading.reason == reason, name


def test_what_may_pass_is_tried_again(tmp_path, portraits):
    folder, file = tmp_path / "photos", tmp_path / "index.sqlite"
    folder.mkdir()
    os.symlink(folder / "later.png", folder / "link.png")
    assert look_into(folder, Reader(), file)["link.png"].reading.reason == "missing"
    Image.fromarray(portraits[0]).save(folder / "later.png")
    assert len(look_into(folder, Reader(), file)["link.png"].reading.faces) == 1


def test_names_that_are_no_text(tmp_path, portraits):
    folder = tmp_path / "photos"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Image.fromarray(portraits[0]).save(folder / name)
    except OSError:
        pytest.skip("the file system takes no such names")
    assert len(look_into(folder, Reader())[name].reading.faces) == 1


def test_a_file_named_twice_is_listed_once(folder):
    assert len(list(Listing([folder, folder / "a.png"]))) == 2
    assert [entry.kind for entry in Listing([folder / "notes.txt"])] == ["photo"]


def test_who_is_dropped_leaves_no_byte(folder, tmp_path):
    file = tmp_path / "index.sqlite"
    photos = look_into(folder, Reader(), file)
    gone, kept = photos["a.png"].reading.faces[0], photos["b.png"].reading.faces[0]
    assert gone.vector.tobytes() in file.read_bytes()
    with PhotoIndex(file, Reader()) as index:
        assert index.drop_people(lambda v: np.linalg.norm(v - gone.vector, axis=1) < 0.01) == 1
    content = file.read_bytes()
    assert gone.vector.tobytes()[:32] not in content and gone.crop[-40:-8] not in content
    assert b"a.png" not in content and kept.vector.tobytes()[:32] in content


def test_missing_files_are_dropped_with_their_faces(folder, tmp_path):
    file = tmp_path / "index.sqlite"
    vector = look_into(folder, Reader(), file)["a.png"].reading.faces[0].vector.tobytes()
    (folder / "a.png").unlink()
    with PhotoIndex(file, Reader()) as index:
        index.drop_missing(folder, index.update(Listing([folder])))
    assert vector[:32] not in file.read_bytes()


def test_a_file_that_is_no_index_is_said_so(tmp_path):
    (tmp_path / "index.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(DataError, match="Delete it"):
        PhotoIndex(tmp_path / "index.sqlite", Reader())


@pytest.fixture(scope="module")
def film(tmp_path_factory, portraits):
    """Three seconds of the first person, two of nobody, two of the second person; 5 frames a second."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    nobody = np.full_like(portraits[0], 127)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 128, "yuv420p", 2_000_000
        for image, frames in ((portraits[0], 15), (nobody, 10), (portraits[1], 10)):
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_videos_are_sampled(film):
    frames = list(sampled_frames(film, every=1.0))
    assert [round(time) for time, _ in frames] == list(range(7)) and frames[0][1].shape == (128, 128, 3)
    reading = Reader().read(Entry(film, "video"))
    assert reading.seconds == pytest.approx(7, abs=0.1) and [round(f.time) for f in reading.faces] == [0, 1, 2, 5, 6]
    vectors = np.stack([face.vector for face in reading.faces])
    boxes = [face.box for face in reading.faces]
    assert tracks([f.time for f in reading.faces], boxes, vectors, step=1.0, near=0.6) == [[0, 1, 2], [3, 4]]


def test_a_video_needs_pyav(film, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    reading = Reader().read(Entry(film, "video"))
    assert reading.reason == "needs-pyav" and "ipse[video]" in reading.problem


def test_a_damaged_video_is_said_so(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "bad.mp4").write_bytes(b"no film" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert Reader().read(Entry(tmp_path / "bad.mp4", "video")).reason == "corrupt"
    assert Reader().read(Entry(tmp_path / "empty.mp4", "video")).reason == "empty"


def test_spans():
    spans = [Span(8, 9), Span(0, 2), Span(3, 5)]
    assert merged_spans(spans, 1) == [Span(0, 5), Span(8, 9)] and merged_spans(spans, 0.5) == sorted(
        spans, key=lambda span: span.start
    )
    assert (clock(65), clock(7207), str(Span(0, 59.6))) == ("1:05", "2:00:07", "0:00–1:00")
