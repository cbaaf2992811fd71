"""Readers of published data sets: whatever the layout on disk, `records` gives pictures, who they show and how.

::

    data = open_dataset("market1501", "Market-1501-v15.09.15")
    for record in data.records("query"):
        ...  # record.image, record.person, record.group, record.attributes

The layouts are those in which the data sets are published; `LAYOUTS` says what each reader expects. Nothing is
downloaded: who wants a data set asks its authors.
"""

from __future__ import annotations

import csv
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipse.errors import DataError


@dataclass(frozen=True)
class Record:
    """One picture of a data set; the world's data sets (`ipse.world.dataset`) give records of the same form.

    Attributes
    ----------
    image
        What `ipse.read_image` takes: a path, or the encoded bytes where the picture is in an archive.
    person
        Who, or for Omniglot which character; None where the data set does not say.
    group
        What was taken together: the camera, the side of the head, the media. Empty where there is no such thing.
    attributes
        Plain values by name; ``split`` is always there, and ``image``, a name that is unique within the data set.
    """

    image: Path | bytes = field(repr=False)
    person: int | str | None
    group: int | str
    attributes: Mapping[str, Any]


class Pair(NamedTuple):
    """Two pictures (or, for IJB, templates) to verify: names, whether they show one person, and the fold."""

    first: str
    second: str
    same: bool
    fold: int


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes
    ----------
    name, about
        What `open_dataset` calls it; what it is and where it is from.
    expects
        The layout in words.
    read
        Gives the records of a folder, in the order of their names.
    pairs
        Gives its verification pairs; None if it has none.
    """

    name: str
    about: str
    expects: str
    read: Callable[[Path], Iterator[Record]]
    pairs: Callable[[Path], Iterator[Pair]] | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set on disk, opened by `open_dataset`."""

    layout: Layout
    folder: Path

    def records(self, split: str | None = None) -> Iterator[Record]:
        """All pictures, or those of a split, in the order of their names.

        Raises
        ------
        DataError
            If there are none, with what was expected and what is there.
        """
        found, seen = False, set()
        for record in self.layout.read(self.folder):
            seen.add(record.attributes["split"])
            if split is None or record.attributes["split"] == split:
                found = True
                yield record
        if not found and seen:
            raise DataError(
                f"{self.folder} has no split {split!r} of {self.layout.name}, but {', '.join(sorted(seen))}.",
                "Name one of these.",
            )
        if not found:
            raise _wrong(self.layout, self.folder)

    def pairs(self) -> list[Pair]:
        """The verification pairs, by fold.

        Raises
        ------
        DataError
            If the data set has none, or their list is missing or damaged.
        """
        if self.layout.pairs is None:
            raise DataError(f"{self.layout.name} has no list of pairs.", "Evaluate retrieval, or all pairs.")
        found = list(self.layout.pairs(self.folder))
        if not found:
            raise _wrong(self.layout, self.folder)
        return found

    def notes(self, split: str | None = None) -> list[str]:
        """What to know before evaluating: people with one image, images of nobody."""
        return diagnose(list(self.records(split)))


def open_dataset(name: str, folder: str | os.PathLike[str]) -> Dataset:
    """Open a data set; the first record tells whether the layout is the expected one.

    Parameters
    ----------
    name
        As in `LAYOUTS`.
    folder
        The one that `Layout.expects` describes.

    Raises
    ------
    DataError
        If there is no such reader or folder, or it holds something else; the message names what was expected and
        what was found.
    """
    if name not in LAYOUTS:
        raise DataError(f"There is no reader of {name!r}.", f"There are: {', '.join(LAYOUTS)}.")
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"{place} is not a folder.", f"{name} is expected as {LAYOUTS[name].expects}.")
    data = Dataset(LAYOUTS[name], place)
    next(data.records())
    return data


def diagnose(records: Sequence[Record]) -> list[str]:
    """Say what is odd about the labels.

    Parameters
    ----------
    records
        Such as those of one split.
    """
    counts = Counter(record.person for record in records if record.person is not None)
    notes = []
    if unknown := sum(record.person is None for record in records):
        notes.append(f"{unknown:,} of {len(records):,} images do not say whom they show.")
    if single := [person for person, count in counts.items() if count == 1]:
        notes.append(
            f"{len(single):,} of {len(counts):,} people have one image, such as {single[0]}: as a query it has nothing "
            "to find, and it makes no pair of one person."
        )
    return notes


def first_of_each(records: Sequence[Record], *attributes: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Cut one set into queries and gallery: the first image of every person and attribute is a query.

    Parameters
    ----------
    records
        (N,) in the order of their names.
    attributes
        Such as ``camera``: one query of each person in each camera.

    Returns
    -------
    tuple
        Rows of the queries and rows of the gallery, ascending.
    """
    seen: set[tuple[Any, ...]] = set()
    query = []
    for row, record in enumerate(records):
        key = (record.person, *(record.attributes[name] for name in attributes))
        if key not in seen:
            seen.add(key)
            query.append(row)
    first = np.array(query, np.intp)
    return first, np.setdiff1d(np.arange(len(records)), first)


def random_halves(people: Sequence[Any], count: int = 10, seed: int = 0) -> Iterator[list[Any]]:
    """Random halves of the people to test on, the rest being there to train: how VIPeR is measured."""
    names = sorted(set(people))
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield [names[i] for i in sorted(generator.permutation(len(names))[: len(names) // 2])]


# -- layouts that are folders of names ---------------------------------------------------------------------------------


def _names(
    splits: Mapping[str, Sequence[str]],
    pattern: str,
    *,
    group: str = "camera",
    make: Callable[[dict[str, Any]], dict[str, Any]] = lambda found: found,
) -> Callable[[Path], Iterator[Record]]:
    """A reader of files whose path below the folder says everything.

    Parameters
    ----------
    splits
        By split, glob patterns of its files; the first that finds any counts.
    pattern
        Of the path below the folder, with a group `person`; numbers become int. Other files are passed over.
    group
        Which attribute is the record's group.
    make
        Changes what was found, such as to tell the clothes of one person from those of another.
    """
    matcher = re.compile(pattern)

    def read(folder: Path) -> Iterator[Record]:
        for split, globs in splits.items():
            paths = next(filter(None, (sorted(folder.glob(one)) for one in globs)), [])
            for path in paths:
                name = path.relative_to(folder).as_posix()
                if match := matcher.search(name):
                    values = make({key: _number(value) for key, value in match.groupdict().items()})
                    person = values.pop("person", None)
                    yield Record(path, person, values.get(group, ""), {"split": split, "image": name, **values})

    return read


def _number(text: str | None) -> int | str | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else text


def _folders(suffix: str = "jpg") -> dict[str, tuple[str, ...]]:
    """The three folders of Market-1501, which many have copied; and those of a part of it."""
    return {
        "train": (f"bounding_box_train/*.{suffix}", f"train/*.{suffix}"),
        "val": (f"val/*.{suffix}",),
        "query": (f"query/*.{suffix}",),
        "gallery": (f"bounding_box_test/*.{suffix}",),
    }


def _prcc(found: dict[str, Any]) -> dict[str, Any]:
    found["camera"] = found.pop("place") or found["camera"]
    # Cameras A and B saw a person in the same clothes, C in others.
    return found | {"clothes": f"{found['person']}-{2 if found['camera'] == 'C' else 1}"}


def _own_clothes(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"clothes": f"{found['person']}-{found['clothes']}"}


# -- layouts with lists --------------------------------------------------------------------------------------------


def _msmt17(folder: Path) -> Iterator[Record]:
    # The second version blurs faces, under other names.
    older = (folder / "train").is_dir()
    for split in ("train", "val", "query", "gallery"):
        listing = folder / f"list_{split}.txt"
        part = "train" if split in ("train", "val") else "test"
        place = folder / (part if older else f"mask_{part}_v2")
        for number, line in enumerate(_lines(listing) if listing.exists() else [], 1):
            match = re.fullmatch(r"(\S+/\d+_\d+_(\d+)_\d*([a-z]*)\S*) (\d+)", line)
            if not match:
                raise _bad_line(listing, number, line, "0000/0000_000_01_0303morning_0008_0.jpg 0")
            name, camera, time, person = match.groups()
            # People of both parts are counted from 0.
            attributes = {"split": split, "image": f"{part}/{name}", "camera": int(camera), "time": time}
            yield Record(place / name, f"{part}-{int(person):04d}", int(camera), attributes)


def _lfw(folder: Path) -> Iterator[Record]:
    place = folder / "images" if (folder / "images").is_dir() else folder
    for path in sorted(place.glob("*/*_*.jpg")):
        if path.stem.startswith(f"{path.parent.name}_"):
            name = path.relative_to(place).as_posix()
            yield Record(path, path.parent.name, "", {"split": "all", "image": name})


def _lfw_pairs(folder: Path) -> Iterator[Pair]:
    table, listing = folder / "pairs.csv", folder / "pairs.txt"
    if table.exists():
        with open(table, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                try:
                    yield Pair(row["a"], row["b"], bool(int(row["same"])), int(row["fold"]))
                except (KeyError, ValueError, TypeError) as error:
                    raise _bad_line(table, number, str(row), "fold,same,a,b") from error
        return
    if not listing.exists():
        raise DataError(f"{folder} has neither pairs.txt nor pairs.csv.", "Get pairs.txt from the data set's page.")
    head, *lines = _lines(listing)
    if not re.fullmatch(r"\d+\s+\d+", head):
        raise _bad_line(listing, 1, head, "10 300, the number of folds and of pairs of each kind in one")
    size = 2 * int(head.split()[1])

    def picture(person: str, number: str) -> str:
        return f"{person}/{person}_{int(number):04d}.jpg"

    for number, line in enumerate(lines):
        parts = line.split()
        fold = number // size + 1
        if len(parts) == 3:
            yield Pair(picture(parts[0], parts[1]), picture(parts[0], parts[2]), True, fold)
        elif len(parts) == 4:
            yield Pair(picture(parts[0], parts[1]), picture(parts[2], parts[3]), False, fold)
        else:
            raise _bad_line(listing, number + 2, line, "name 1 2, or name 1 other_name 2")


def _cfp_pairs(folder: Path) -> Iterator[Pair]:
    def pictures(kind: str) -> dict[str, str]:
        found = {}
        for line in _lines(folder / "Protocol" / f"Pair_list_{kind}.txt"):
            number, path = line.split(maxsplit=1)
            found[number] = path.removeprefix("../")
        return found

    frontal, profile = pictures("F"), pictures("P")
    for place in sorted((folder / "Protocol" / "Split" / "FP").glob("*")):
        for kind in ("same", "diff"):
            listing = place / f"{kind}.txt"
            for number, line in enumerate(_lines(listing), 1):
                first, _, second = line.partition(",")
                if first not in frontal or second not in profile:
                    raise _bad_line(listing, number, line, "two numbers of the pair lists, such as 12,7")
                yield Pair(frontal[first], profile[second], kind == "same", int(place.name))


def _ijb_lists(folder: Path) -> tuple[Path, Path] | None:
    for letter in "bc":
        media, pairs = (folder / "meta" / f"ijb{letter}_{name}.txt" for name in ("face_tid_mid", "template_pair_label"))
        if media.exists() and pairs.exists():
            return media, pairs
    return None


def _ijb(folder: Path) -> Iterator[Record]:
    lists = _ijb_lists(folder)
    for number, line in enumerate(_lines(lists[0]) if lists else [], 1):
        parts = line.split()
        if len(parts) != 3:
            raise _bad_line(lists[0], number, line, "1.jpg 1 69544: image, template, media")
        image, template, media = parts
        attributes = {"split": "all", "image": image, "template": int(template), "media": int(media)}
        # The lists name templates, and pairs of them that show one person, but nobody.
        yield Record(folder / "loose_crop" / image, None, int(media), attributes)


def _ijb_pairs(folder: Path) -> Iterator[Pair]:
    lists = _ijb_lists(folder)
    for number, line in enumerate(_lines(lists[1]) if lists else [], 1):
        parts = line.split()
        if len(parts) != 3 or parts[2] not in "01":
            raise _bad_line(lists[1], number, line, "1 11065 0: two templates, and 1 if they show one person")
        yield Pair(parts[0], parts[1], parts[2] == "1", 1)


def _awe(folder: Path) -> Iterator[Record]:
    for listing in sorted(folder.glob("*/annotations.json")):
        try:
            entries = json.loads(listing.read_text(encoding="utf-8"))["data"]
            for _, entry in sorted(entries.items()):
                path = listing.parent / entry["file"]
                attributes = {
                    "split": "all",
                    "image": path.relative_to(folder).as_posix(),
                    "side": entry["d"],
                    "accessories": entry["accessories"],
                    "overlap": entry["overlap"],
                    "pitch": entry["hPitch"],
                    "yaw": entry["hYaw"],
                    "roll": entry["hRoll"],
                }
                if path.exists():
                    yield Record(path, int(listing.parent.name), entry["d"], attributes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{listing} is damaged or of another form ({error!r}).", "Unpack the data set again."
            ) from error


_CHARACTER = re.compile(r"([^/]+)/([^/]+)/(character\d+)/(\d+)_(\d+)\.png$")


def _omniglot(folder: Path) -> Iterator[Record]:
    def record(name: str, image: Path | bytes) -> Record | None:
        match = _CHARACTER.search(name)
        if not match:
            return None
        split, alphabet, character, _, drawer = match.groups()
        attributes = {"split": split, "image": match[0], "alphabet": alphabet, "drawer": int(drawer)}
        return Record(image, f"{alphabet}/{character}", int(drawer), attributes)

    for archive in sorted(folder.glob("images_*.zip")):
        try:
            with zipfile.ZipFile(archive) as file:
                for name in sorted(file.namelist()):
                    if _CHARACTER.search(name) and (found := record(name, file.read(name))):
                        yield found
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{archive} cannot be read: {error}.", "Get it again.") from error
    for path in sorted(folder.glob("images_*/*/*/*.png")):
        if found := record(path.relative_to(folder).as_posix(), path):
            yield found


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}.", "Is the data set complete?") from error


def _bad_line(path: Path, number: int, line: str, expected: str) -> DataError:
    return DataError(f"Line {number} of {path} reads {line!r}.", f"Expected is a line like: {expected}.")


def _wrong(layout: Layout, folder: Path) -> DataError:
    try:
        found = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        found = [str(error)]
    shown = ", ".join(found[:6]) + (f" and {len(found) - 6:,} more" if len(found) > 6 else "")
    return DataError(
        f"{folder} is not {layout.name} as published: found {shown or 'nothing'}.", f"Expected: {layout.expects}."
    )


_MARKET_FOLDERS = "bounding_box_train/, query/ and bounding_box_test/"

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "market1501",
            "1,501 people, 6 cameras (Zheng et al. 2015); person -1 is no person, 0 a bystander.",
            f"{_MARKET_FOLDERS} (or train/ and val/) with files like 0002_c1s1_000451_03.jpg",
            _names(_folders(), r"(?P<person>-?\d+)_c(?P<camera>\d)s(?P<sequence>\d)_(?P<frame>\d+)_(?P<box>\d+)\.jpg"),
        ),
        Layout(
            "msmt17",
            "4,101 people, 15 cameras, four times of day (Wei et al. 2018).",
            "list_train.txt, list_val.txt, list_query.txt, list_gallery.txt beside train/ and test/ (or mask_train_v2/ "
            "and mask_test_v2/)",
            _msmt17,
        ),
        Layout(
            "cuhk03-np",
            "1,467 people, 2 cameras, the new protocol (Zhong et al. 2017).",
            f"{_MARKET_FOLDERS} with files like 0003_c1_21.png: the folder labeled/ or the folder detected/",
            _names(_folders("png"), r"(?P<person>\d+)_c(?P<camera>\d)_(?P<box>\d+)\.png"),
        ),
        Layout(
            "prcc",
            "221 people, cameras A and B in the same clothes, C in others (Yang et al. 2019).",
            "rgb/train/ and rgb/val/ with a folder per person and files like A_cropped_rgb001.jpg, and rgb/test/A, B "
            "and C with a folder per person",
            _names(
                {
                    split: (f"rgb/{split}/*/*.jpg" if split != "test" else "rgb/test/[ABC]/*/*.jpg",)
                    for split in ("train", "val", "test")
                },
                r"rgb/\w+/(?:(?P<place>[ABC])/)?(?P<person>\d+)/(?P<camera>[ABC])?\w*\.jpg",
                make=_prcc,
            ),
        ),
        Layout(
            "ltcc",
            "152 people, 12 cameras, 478 clothes (Qian et al. 2020).",
            "train/, query/ and test/ with files like 094_1_c9_015833.png: person, clothes, camera",
            _names(
                {"train": ("train/*.png",), "query": ("query/*.png",), "gallery": ("test/*.png",)},
                r"(?P<person>\d+)_(?P<clothes>\d+)_c(?P<camera>\d+)_\d+\.png",
                make=_own_clothes,
            ),
        ),
        Layout(
            "last",
            "10,862 people of films (Shu et al. 2021); only the split train tells clothes.",
            "train/ with a folder per person; val/ and test/, each with query/ and, by person, gallery/",
            _names(
                {
                    "train": ("train/*/*.jpg",),
                    **{
                        f"{part}-{side}": (f"{part}/{side}/{'' if side == 'query' else '*/'}*.jpg",)
                        for part in ("val", "test")
                        for side in ("query", "gallery")
                    },
                },
                r"(?P<person>\d+)_\w*?(?P<clothes>[^_/]+)\.jpg",
                group="",
                make=_own_clothes,
            ),
        ),
        Layout(
            "occluded-duke",
            "1,404 people, 8 cameras, occluded queries (Miao et al. 2019).",
            f"{_MARKET_FOLDERS} with files like 0001_c2_f0046182.jpg",
            _names(_folders(), r"(?P<person>\d+)_c(?P<camera>\d)_f(?P<frame>\d+)\.jpg"),
        ),
        Layout(
            "occluded-reid",
            "200 people, five occluded and five whole pictures of each (Zhuo et al. 2018).",
            "occluded_body_images/ and whole_body_images/, each with a folder per person",
            _names(
                {"query": ("occluded_body_images/*/*.*",), "gallery": ("whole_body_images/*/*.*",)},
                r"_images/(?P<person>\d+)/\d+_(?P<number>\d+)\.(?:tif|jpg|png)",
                group="",
            ),
        ),
        Layout(
            "viper",
            "632 people, one picture in each of two cameras (Gray and Tao 2008).",
            "cam_a/ and cam_b/ with files like 000_45.bmp: person, viewpoint in degrees",
            _names({"all": ("cam_[ab]/*.bmp",)}, r"cam_(?P<camera>[ab])/(?P<person>\d+)_(?P<viewpoint>\d+)\.bmp"),
        ),
        Layout(
            "lfw",
            "Labeled Faces in the Wild: 5,749 people, ten folds of 600 pairs (Huang et al. 2007).",
            "a folder per person with files like Name/Name_0001.jpg (or these in images/), and pairs.txt or pairs.csv",
            _lfw,
            _lfw_pairs,
        ),
        Layout(
            "cfp-fp",
            "500 people, ten frontal and four profile pictures of each (Sengupta et al. 2016).",
            "Data/Images/001/frontal/01.jpg and profile/, Protocol/Pair_list_F.txt, Pair_list_P.txt and Split/FP/",
            _names(
                {"all": ("Data/Images/*/*/*.jpg",)},
                r"Images/(?P<person>\d+)/(?P<view>frontal|profile)/(?P<number>\d+)\.jpg",
                group="view",
            ),
            _cfp_pairs,
        ),
        Layout(
            "agedb",
            "568 people over their years (Moschoglou et al. 2017).",
            "files like 0_MariaCallas_35_f.jpg: number, name, age, gender",
            _names(
                {"all": ("*.jpg",)},
                r"^(?P<number>\d+)_(?P<person>[^/]+)_(?P<age>\d+)_(?P<gender>[fm])\.jpg",
                group="age",
            ),
        ),
        Layout(
            "ijb",
            "IJB-B and IJB-C as lists of templates (Whitelam et al. 2017, Maze et al. 2018); pairs name templates.",
            "meta/ijbc_face_tid_mid.txt and meta/ijbc_template_pair_label.txt (or ijbb_...) beside loose_crop/",
            _ijb,
            _ijb_pairs,
        ),
        Layout(
            "utkface",
            "Faces with age, gender (0 male, 1 female) and race; nobody is named (Zhang et al. 2017).",
            "files like 26_0_1_20170116153040656.jpg: age, gender, race, date",
            _names(
                {"all": ("*.jpg",)},
                r"^(?P<age>\d+)_(?P<gender>[01])_(?P<race>[0-4])_(?P<date>\d+)(?:\.jpg\.chip)?\.jpg",
                group="",
            ),
        ),
        Layout(
            "awe",
            "Annotated Web Ears: 100 people, ten pictures of each (Emeršič et al. 2017).",
            "a folder per person, such as 001/, with pictures and annotations.json",
            _awe,
        ),
        Layout(
            "omniglot",
            "1,623 characters, each by 20 drawers (Lake et al. 2015); who is to be told apart is the character.",
            "images_background.zip and the like, or the same unpacked: images_background/Latin/character01/0001_01.png",
            _omniglot,
        ),
    )
}
"""By name, the data sets that can be read."""
