"""Readers on small trees of the published layouts."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ipse.errors import DataError
from ipse.measure import Features, evaluate
from ipse.measure.datasets import LAYOUTS, diagnose, first_of_each, open_dataset, random_halves
from ipse.measure.protocols import columns_of

# By data set, its files, and of some of them: split, person, group and some attributes.
TREES = {
    "market1501": (
        [
            "bounding_box_train/0002_c1s1_000451_03.jpg",
            "query/0001_c2s1_001051_00.jpg",
            "bounding_box_test/-1_c3s2_001051_00.jpg",
            "bounding_box_test/0000_c3s2_001051_00.jpg",
            "bounding_box_test/Thumbs.db",
        ],
        [
            ("train", 2, 1, {"camera": 1, "sequence": 1, "frame": 451, "box": 3}),
            ("query", 1, 2, {"image": "query/0001_c2s1_001051_00.jpg"}),
            ("gallery", -1, 3, {"sequence": 2}),
            ("gallery", 0, 3, {}),
        ],
    ),
    "msmt17": (
        {
            "list_train.txt": "0000/0000_000_01_0303morning_0008_0.jpg 0\n",
            "list_val.txt": "0001/0001_000_14_0303noon_0008_0.jpg 1\n",
            "list_query.txt": "0000/0000_000_05_0303afternoon_0006_1.jpg 0\n",
            "list_gallery.txt": "0000/0000_001_02_0303morning_0008_0.jpg 0\n",
            "mask_train_v2/0000/0000_000_01_0303morning_0008_0.jpg": "",
        },
        [
            ("train", "train-0000", 1, {"time": "morning"}),
            ("val", "train-0001", 14, {"time": "noon"}),
            ("query", "test-0000", 5, {"time": "afternoon"}),
            ("gallery", "test-0000", 2, {"camera": 2}),
        ],
    ),
    "cuhk03-np": (
        ["bounding_box_train/0003_c1_21.png", "query/0001_c1_1.png", "bounding_box_test/0001_c2_7.png"],
        [("train", 3, 1, {"box": 21}), ("query", 1, 1, {}), ("gallery", 1, 2, {})],
    ),
    "prcc": (
        [
            "rgb/train/001/A_cropped_rgb001.jpg",
            "rgb/train/001/C_cropped_rgb225.jpg",
            "rgb/val/002/B_cropped_rgb001.jpg",
            "rgb/test/A/003/cropped_rgb001.jpg",
            "rgb/test/C/003/cropped_rgb001.jpg",
        ],
        [
            ("train", 1, "A", {"clothes": "1-1"}),
            ("train", 1, "C", {"clothes": "1-2"}),
            ("val", 2, "B", {"clothes": "2-1"}),
            ("test", 3, "A", {"clothes": "3-1"}),
            ("test", 3, "C", {"clothes": "3-2"}),
        ],
    ),
    "ltcc": (
        ["train/000_1_c9_015833.png", "query/094_2_c11_015833.png", "test/094_1_c2_1.png"],
        [
            ("train", 0, 9, {"clothes": "0-1"}),
            ("query", 94, 11, {"clothes": "94-2"}),
            ("gallery", 94, 2, {"clothes": "94-1"}),
        ],
    ),
    "last": (
        [
            "train/000000/000000_0001_02_3.jpg",
            "val/query/000007_1_1.jpg",
            "val/gallery/000007/000007_2_1.jpg",
            "test/query/000009_1_1.jpg",
            "test/gallery/000009/000009_2_1.jpg",
        ],
        [
            ("train", 0, "", {"clothes": "0-3"}),
            ("val-query", 7, "", {}),
            ("val-gallery", 7, "", {}),
            ("test-query", 9, "", {}),
            ("test-gallery", 9, "", {}),
        ],
    ),
    "occluded-duke": (
        [
            "bounding_box_train/0001_c2_f0046182.jpg",
            "query/0005_c3_f0046.jpg",
            "bounding_box_test/0005_c8_f0046.jpg",
        ],
        [("train", 1, 2, {"frame": 46182}), ("query", 5, 3, {}), ("gallery", 5, 8, {})],
    ),
    "occluded-reid": (
        ["occluded_body_images/001/001_01.tif", "whole_body_images/001/001_02.tif"],
        [("query", 1, "", {"number": 1}), ("gallery", 1, "", {"number": 2})],
    ),
    "viper": (
        ["cam_a/000_45.bmp", "cam_b/000_135.bmp"],
        [("all", 0, "a", {"camera": "a", "viewpoint": 45}), ("all", 0, "b", {"viewpoint": 135})],
    ),
    "lfw": (
        {
            "Ann_Lee/Ann_Lee_0001.jpg": "",
            "Ann_Lee/Ann_Lee_0002.jpg": "",
            "Bo/Bo_0012.jpg": "",
            "Bo/notes.jpg": "",
            "pairs.txt": "2\t1\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBo\t12\nBo\t12\t12\nBo\t12\tAnn_Lee\t2\n",
        },
        [
            ("all", "Ann_Lee", "", {"image": "Ann_Lee/Ann_Lee_0001.jpg"}),
            ("all", "Ann_Lee", "", {}),
            ("all", "Bo", "", {}),
        ],
    ),
    "cfp-fp": (
        {
            "Data/Images/001/frontal/01.jpg": "",
            "Data/Images/001/profile/01.jpg": "",
            "Data/Images/002/profile/03.jpg": "",
            "Protocol/Pair_list_F.txt": "1 ../Data/Images/001/frontal/01.jpg\n",
            "Protocol/Pair_list_P.txt": "1 ../Data/Images/001/profile/01.jpg\n2 ../Data/Images/002/profile/03.jpg\n",
            "Protocol/Split/FP/01/same.txt": "1,1\n",
            "Protocol/Split/FP/01/diff.txt": "1,2\n",
        },
        [("all", 1, "frontal", {"number": 1}), ("all", 1, "profile", {}), ("all", 2, "profile", {"number": 3})],
    ),
    "agedb": (
        ["0_MariaCallas_35_f.jpg", "10363_Max_von_Sydow_62_m.jpg"],
        [("all", "MariaCallas", 35, {"age": 35, "gender": "f"}), ("all", "Max_von_Sydow", 62, {"gender": "m"})],
    ),
    "ijb": (
        {
            "meta/ijbc_face_tid_mid.txt": "1.jpg 1 69544\n2.jpg 11065 3\n",
            "meta/ijbc_template_pair_label.txt": "1 11065 0\n1 1 1\n",
            "loose_crop/1.jpg": "",
        },
        [("all", None, 69544, {"template": 1}), ("all", None, 3, {"template": 11065, "media": 3})],
    ),
    "utkface": (
        ["1_0_2_20161219140623097.jpg.chip.jpg", "26_1_4_20170116153040656.jpg", "39_1_20170116174525125.jpg"],
        [("all", None, "", {"age": 1, "gender": 0, "race": 2}), ("all", None, "", {"age": 26, "race": 4})],
    ),
    "awe": (
        {
            "001/01.png": "",
            "001/annotations.json": json.dumps(
                {
                    "data": {
                        "01": {
                            "file": "01.png",
                            "d": "r",
                            "accessories": 1,
                            "overlap": 2,
                            "hPitch": 0,
                            "hYaw": 1,
                            "hRoll": -1,
                        }
                    }
                }
            ),
        },
        [("all", 1, "r", {"side": "r", "accessories": 1, "overlap": 2, "yaw": 1, "roll": -1})],
    ),
    "omniglot": (
        ["images_background/Latin/character01/0683_01.png", "images_evaluation/Atlantean/character02/0001_20.png"],
        [
            ("images_background", "Latin/character01", 1, {"alphabet": "Latin", "drawer": 1}),
            ("images_evaluation", "Atlantean/character02", 20, {}),
        ],
    ),
}


def plant(folder: Path, name: str) -> Path:
    """Make a data set's tree."""
    files = TREES[name][0]
    for path, text in files.items() if isinstance(files, dict) else dict.fromkeys(files, "").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_every_layout_has_a_tree():
    assert TREES.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", TREES)
def test_records_tell_who_and_how(tmp_path, name):
    data = open_dataset(name, plant(tmp_path, name))
    records = list(data.records())
    expected = TREES[name][1]
    assert [(r.attributes["split"], r.person, r.group) for r in records] == [e[:3] for e in expected]
    for record, (split, *_, attributes) in zip(records, expected, strict=True):
        assert attributes.items() <= record.attributes.items()
        assert record in list(data.records(split))
    names = [record.attributes["image"] for record in records]
    assert len(set(names)) == len(names)
    with pytest.raises(DataError, match="has no split 'probe'"):
        list(data.records("probe"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_layout_is_named_with_what_is_there(tmp_path, name):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"is not .* as published: found pictures/, readme.txt. Expected: "):
        open_dataset(name, tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        open_dataset(name, tmp_path / "pictures")
    with pytest.raises(DataError, match="is not a folder"):
        open_dataset(name, tmp_path / "nowhere")


def test_an_unknown_name_lists_the_readers(tmp_path):
    with pytest.raises(DataError, match=r"no reader of 'market'\. There are: market1501"):
        open_dataset("market", tmp_path)


def test_pairs(tmp_path):
    lfw = open_dataset("lfw", plant(tmp_path / "lfw", "lfw"))
    assert [tuple(pair) for pair in lfw.pairs()] == [
        ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", True, 1),
        ("Ann_Lee/Ann_Lee_0001.jpg", "Bo/Bo_0012.jpg", False, 1),
        ("Bo/Bo_0012.jpg", "Bo/Bo_0012.jpg", True, 2),
        ("Bo/Bo_0012.jpg", "Ann_Lee/Ann_Lee_0002.jpg", False, 2),
    ]
    (lfw.folder / "pairs.csv").write_text("fold,same,a,b\n3,0,x/x_0001.jpg,y/y_0001.jpg\n")
    assert tuple(lfw.pairs()[0]) == ("x/x_0001.jpg", "y/y_0001.jpg", False, 3)
    cfp = open_dataset("cfp-fp", plant(tmp_path / "cfp", "cfp-fp"))
    assert sorted(map(tuple, cfp.pairs())) == [
        ("Data/Images/001/frontal/01.jpg", "Data/Images/001/profile/01.jpg", True, 1),
        ("Data/Images/001/frontal/01.jpg", "Data/Images/002/profile/03.jpg", False, 1),
    ]
    ijb = open_dataset("ijb", plant(tmp_path / "ijb", "ijb"))
    assert [tuple(pair) for pair in ijb.pairs()] == [("1", "11065", False, 1), ("1", "1", True, 1)]
    with pytest.raises(DataError, match="has no list of pairs"):
        open_dataset("agedb", plant(tmp_path / "agedb", "agedb")).pairs()


@pytest.mark.parametrize(
    ("name", "path", "text", "message"),
    [
        ("lfw", "pairs.txt", "2\t1\nAnn 1 2 3 4\n", "Line 2 of .*pairs.txt reads 'Ann 1 2 3 4'"),
        ("lfw", "pairs.txt", "Ann 1 2\n", "number of folds"),
        ("lfw", "pairs.csv", "fold,same,a,b\n1,yes,x,y\n", "fold,same,a,b"),
        ("cfp-fp", "Protocol/Split/FP/01/same.txt", "9,1\n", "two numbers of the pair lists"),
        ("ijb", "meta/ijbc_template_pair_label.txt", "1 2\n", "two templates"),
    ],
)
def test_damaged_pair_lists_are_named(tmp_path, name, path, text, message):
    data = open_dataset(name, plant(tmp_path, name))
    (tmp_path / path).write_text(text)
    with pytest.raises(DataError, match=message):
        data.pairs()


@pytest.mark.parametrize(
    ("name", "path", "text", "message"),
    [
        ("msmt17", "list_train.txt", "0000/x.jpg\n", "Line 1 of .*list_train.txt"),
        ("ijb", "meta/ijbc_face_tid_mid.txt", "1.jpg\n", "image, template, media"),
        ("awe", "001/annotations.json", "[]", "damaged or of another form"),
    ],
)
def test_damaged_lists_are_named(tmp_path, name, path, text, message):
    plant(tmp_path, name)
    (tmp_path / path).write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(name, tmp_path)


def test_omniglot_is_read_out_of_its_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "images_background_small1.zip", "w") as file:
        file.writestr("images_background_small1/Latin/character01/0683_07.png", b"picture")
    (record,) = open_dataset("omniglot", tmp_path).records("images_background_small1")
    assert (record.image, record.person, record.group) == (b"picture", "Latin/character01", 7)
    (tmp_path / "images_evaluation.zip").write_text("not one")
    with pytest.raises(DataError, match="cannot be read"):
        list(open_dataset("omniglot", tmp_path).records())


def test_odd_labels_are_told(tmp_path):
    notes = open_dataset("lfw", plant(tmp_path / "lfw", "lfw")).notes()
    assert len(notes) == 1 and notes[0].startswith("1 of 2 people have one image, such as Bo")
    assert "2 of 2 images do not say whom" in open_dataset("utkface", plant(tmp_path / "utk", "utkface")).notes()[0]
    assert diagnose([]) == []


def test_first_images_become_queries(tmp_path):
    for number, name in enumerate(
        ["0001_c1s1_1_0", "0001_c1s1_2_0", "0001_c2s1_1_0", "0001_c2s1_3_0", "0002_c1s1_1_0"]
    ):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / f"{name}{number}.jpg").touch()
    records = list(open_dataset("market1501", tmp_path).records("val"))
    query, gallery = first_of_each(records, "camera")
    assert query.tolist() == [0, 2, 4] and gallery.tolist() == [1, 3]
    columns = columns_of(records, "camera")
    features = np.eye(5, dtype=np.float32) + 0.1
    sides = [{name: column[rows] for name, column in columns.items()} for rows in (query, gallery)]
    result = evaluate(Features(features[query], features[gallery]), *sides, "market1501")
    assert len(result) == 2 and "1 person has no image in the gallery, such as 2" in str(result)


def test_halves_are_drawn_again_the_same():
    first, second = (list(random_halves([3, 1, 2, 4, 4, 1], 10, seed=5)) for _ in range(2))
    assert first == second and len(first) == 10 and len({tuple(half) for half in first}) > 1
    assert all(len(half) == 2 and set(half) <= {1, 2, 3, 4} for half in first)
