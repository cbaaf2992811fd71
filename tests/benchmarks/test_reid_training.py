"""The benchmark of trainings without labels: its videos, folders and other worlds, not its trainings."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks"), str(Path(__file__).parents[1] / "training")]

from walking import pictures, recipe, walks  # noqa: E402

import reid_training as bench  # noqa: E402
from ipse.encoders.backbones.contour import ContourNetwork  # noqa: E402
from ipse.encoders.trained import contract_path  # noqa: E402
from ipse.errors import DataError  # noqa: E402
from ipse.training.data import Chips, Cut  # noqa: E402
from ipse.training.described import Described  # noqa: E402
from ipse.training.domainmix import Plan  # noqa: E402
from ipse.training.isr import ISR  # noqa: E402


def person_file(world, number):
    """A data set of one picture of somebody."""
    (world / "data").mkdir(parents=True)
    content = io.BytesIO()
    Image.fromarray(pictures([number])[0]).save(content, "png")
    row = {"image": {"bytes": content.getvalue(), "path": "0.png"}, "person": number}
    pq.write_table(pa.Table.from_pylist([row]), world / "data" / "0.parquet")


def people(count=12, looks=2, shots=4):
    person, look, shot = (side.ravel() for side in np.mgrid[:count, :looks, :shots])
    columns = {"person": person, "look": look, "shot": 4 * look + shot}
    chips = Chips(Path("nowhere"), Cut("whole", (16, 8)), "", columns, np.arange(len(person)))
    draw = np.random.default_rng(0)
    return bench.People(draw.integers(0, 256, (len(person), 16, 8, 3)).astype(np.uint8), chips)


def test_videos_show_several_people_in_every_frame():
    everyone = people()
    frames = bench.videos(everyone, seed=1, at_once=6)
    assert sorted(set(frames.frame)) == [0, 1, 2, 3] and sorted(set(frames.video)) == [0, 1, 2, 3]
    days = everyone.day
    for video in range(4):
        mine = frames.video == video
        assert len(np.unique(days[mine])) == 6
        assert all(len(np.unique(days[mine & (frames.frame == f)])) == 6 for f in range(4))
    assert len(frames.pairs(1)) == 12
    assert (bench.videos(everyone, seed=2).video != frames.video).any()


def test_everybody_is_tracked_twice_and_some_pictures_go_astray():
    everyone = people(count=30)
    frames, told = bench.tracked(everyone, seed=0)
    days, of = np.unique(everyone.day, return_inverse=True)
    assert sorted(set(frames.frame)) == [0, 1]
    true = 2 * of + np.tile([0, 0, 1, 1], len(days))
    # A track lies in one video, and a picture goes astray within it.
    assert all(len(np.unique(frames.video[true == track])) == 1 for track in np.unique(true))
    assert all(len(np.unique(frames.video[told == track])) == 1 for track in np.unique(told))
    assert 0.02 < (told != true).mean() < 0.15


def test_wrong_detections_show_nobody_and_the_others_stay():
    everyone = people()
    clean = bench.videos(everyone, seed=1)
    wrong = bench.with_wrong(clean, 0.3, seed=1)
    changed = (wrong.pictures != clean.pictures).any((1, 2, 3))
    assert 0.15 < changed.mean() < 0.45 and (wrong.video == clean.video).all()


def test_another_world_is_the_same_for_all_its_pictures():
    pictures = people().pictures
    assert bench.another_world(pictures, 0) is pictures
    first, second = bench.another_world(pictures, 1), bench.another_world(pictures, 2)
    assert (first != second).any() and (bench.another_world(pictures[5:7], 1) == first[5:7]).all()


def test_folders_hold_others_and_some_people_are_there_twice():
    everyone = people(count=40)
    folders, person = bench.as_downloaded(everyone, seed=0), everyone.column("person")
    assert 0.5 < (folders % 40 == person).mean() < 0.75
    twice = np.unique(folders[folders >= 40]) - 40
    assert len(twice) == 4 and np.isin(twice, folders).all()


def test_pairs_are_of_one_picture_in_each_look_and_compared_by_the_same_people():
    everyone = people(count=40, looks=2, shots=3)
    pairs = bench.Pairs.across_looks(everyone)
    assert len(pairs.same) == 40 and len(pairs.different) == 40 * 39 * 2
    assert (everyone.column("look")[pairs.first[pairs.same]] == 0).all()
    assert (everyone.column("look")[pairs.second[pairs.same]] == 1).all()
    who = everyone.column("person")
    assert (np.stack([who[pairs.first], who[pairs.second]], 1) == pairs.people).all()
    draw = np.random.default_rng(0)

    def seen(noise):
        vectors = np.eye(40)[who] + noise * draw.normal(size=(len(who), 40))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    good, bad = (pairs.distances(seen(noise)) for noise in (0.05, 0.4))
    evidence = bench.Evidence("reid")
    runs = {"cast": [good, good], "noisy": [bad, bad], "again": [good, good]}
    bench.add_verification(evidence, "reid.cast", "cast", runs, pairs, "how")
    found = {figure["name"].removeprefix("reid.cast."): figure for figure in evidence.figures}
    assert all("how" in figure["note"] for figure in evidence.figures)
    assert found["tar_cast"]["value"] == 100 and found["eer_cast"]["value"] == 0 and found["tar_cast"]["n"] == 40
    for rate in ("tar", "eer"):
        gain, same = (found[f"{rate}_gain_over_{kind}"] for kind in ("noisy", "again"))
        assert gain["value"] > 0 and gain["ci95"][0] > 0
        assert gain["value"] == pytest.approx(abs(found[f"{rate}_noisy"]["value"] - found[f"{rate}_cast"]["value"]))
        # The same people are drawn for both kinds.
        assert same["value"] == 0 and same["ci95"] == [0, 0]


def test_labels_are_as_right_as_their_pairs_and_compared_by_the_same_people():
    who, draw = np.repeat(np.arange(30), 8), np.random.default_rng(0)

    def labels(wrong, gone):
        found = np.where(draw.random(len(who)) < wrong, draw.integers(0, 30, len(who)), who)
        return np.where(draw.random(len(who)) < gone, -1, found)

    noisy, once, cast = ([labels(*shares) for _ in range(2)] for shares in ((0.4, 0.0), (0.2, 0.1), (0.02, 0.02)))
    kinds = {"noisy": noisy, "once": once, "cast": cast}
    told = {kind: [bench.LabelPairs.of(who, each) for each in found] for kind, found in kinds.items()}
    evidence = bench.Evidence("reid")
    bench.add_labels(evidence, "reid.cast", told, "how")
    bench.add_labels(evidence, "reid.again", told | {"once": told["cast"]}, "how")
    found = {figure["name"].removeprefix("reid."): figure for figure in evidence.figures}
    for figure in ("precision", "recall"):
        values = {
            kind: 100 * np.mean([getattr(bench.pairwise_f(who, bench.alone(each)), figure) for each in found])
            for kind, found in kinds.items()
        }
        for kind in ("once", "cast"):
            one = found[f"cast.label_{figure}_{kind}"]
            assert one["value"] == pytest.approx(values[kind]) and one["n"] == 30
            assert one["against"] == {"name": "as they came", "value": pytest.approx(values["noisy"])}
            assert one["ci95"][0] < one["value"] < one["ci95"][1] and "how; by seed" in one["note"]
        gain, same = (found[f"{name}.label_{figure}_gain_over_once"] for name in ("cast", "again"))
        assert gain["value"] == pytest.approx(values["cast"] - values["once"]) and gain["ci95"][0] > 0
        # The same people are drawn for both.
        assert same["value"] == 0 and same["ci95"] == [0, 0]


def test_everybody_in_one_look_is_in_two_colorings_that_keep_the_form():
    everyone = people()
    outfits, days = bench.outfits(everyone), everyone.day
    assert outfits.tolist() == [0, 1, 0, 1] * 24
    shuffled = np.random.default_rng(0).permutation(len(days))
    assert (bench.outfits(everyone.choose(np.isin(np.arange(len(days)), shuffled[:50]))) < 2).all()
    parts = np.zeros((len(days), 16, 8), np.uint8)
    parts[:, 4:12, 2:6] = bench.LABELS.index("top")
    parts[:, 2:4, 3:5] = bench.LABELS.index("hair")
    kept = (*bench.STAYS, "hair")
    colored = bench.recolored(everyone, parts, kept)
    stays = np.isin(parts, [bench.LABELS.index(name) for name in kept])
    assert (colored[stays] == everyone.pictures[stays]).all() and (colored[~stays] != everyone.pictures[~stays]).any()
    flat = bench.People(np.full_like(everyone.pictures, 90), everyone.chips)
    tops = bench.recolored(flat, parts, kept)[:, 8, 4].astype(int)
    assert (tops[0] == tops[2]).all() and (tops[1] == tops[3]).all()
    assert (tops[0] != tops[1]).any() and (tops[0] != tops[4]).any()


def test_faces_are_hidden_and_nothing_else():
    everyone = people(count=2, looks=1, shots=2)
    five = np.tile(np.array([[28, 20], [36, 20], [32, 24], [29, 28], [35, 28]], np.float32), (4, 1, 1))
    five[3] += 1000  # outside of the picture
    shown = np.random.default_rng(0).integers(0, 256, (4, 128, 64, 3)).astype(np.uint8)
    columns = {**everyone.chips.columns, "five": five}
    chips = Chips(Path("nowhere"), Cut("whole", (128, 64)), "", columns, np.arange(4))
    for side in (128, 64):
        pictures = shown if side == 128 else bench.smaller(shown, 64)
        hidden = bench.faceless(bench.People(pictures, chips))
        changed = (hidden != pictures).any(3)
        down, right = np.nonzero(changed[0])
        scale = side / 128
        assert down.min() <= 20 * scale and down.max() >= 28 * scale and down.max() < 50 * scale
        assert right.min() <= 28 * scale and right.max() >= 36 * scale and len(np.unique(hidden[0][changed[0]])) <= 3
        assert not changed[3].any() and changed[0].mean() < 0.06


def test_mixed_styles_change_statistics_and_nothing_else():
    torch.manual_seed(0)
    maps = torch.randn(6, 3, 8, 4) * torch.rand(6, 3, 1, 1) + torch.randn(6, 3, 1, 1)
    mixed = bench.mixed_styles(None, (), maps)

    def plain(x):
        return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)

    assert torch.allclose(plain(mixed), plain(maps), atol=1e-3) and not torch.allclose(mixed, maps, atol=1e-2)
    means, before = mixed.mean((2, 3)), maps.mean((2, 3))
    assert (means <= before.amax(0) + 1e-4).all() and (means >= before.amin(0) - 1e-4).all()


def test_rays_that_were_not_moved_are_not_turned():
    network = ContourNetwork(width=0.125)
    assert bench.turned(network) == 0
    with torch.no_grad():
        network.streams[0].polar.gaps[0] += 0.5
    assert bench.turned(network) > 1


def test_detectors_are_asked_for_what_people_show():
    facts = np.array([json.dumps({"coat_color": color} if color else {}) for color in ("red", "blue", None)], object)
    nothing = dict.fromkeys((*bench.OTHERS, *bench.CLOTHES), np.array([None] * 3, object))
    hair = np.array(["brown", None, "black"], object)
    columns = {**nothing, "hair_color": hair, "hat": np.array([True, False, True]), "facts": facts}
    assert bench.targets(Chips(Path("nowhere"), Cut("whole", (16, 8)), "", columns, np.arange(3))) == {
        "hair_color": {"column": "hair_color", "classes": ["black", "brown"]},
        "hat": {"column": "hat", "classes": ["no", "yes"]},
        "coat_color": {"fact": "coat_color", "classes": ["blue", "red"]},
    }


def test_nobody_is_told_by_a_network_that_knows_them(tmp_path, monkeypatch):
    (tmp_path / "others" / "data").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "others" / "data" / f"people-{number:02}.parquet").touch()
    everyone = people(count=20)

    def packed(folder, *_):
        files = {int(path.stem[-2:]) for path in (folder / "data").iterdir()}
        return everyone.choose(np.isin(everyone.column("person"), list(files))).chips

    monkeypatch.setattr(bench, "pack", packed)
    monkeypatch.setattr(Chips, "images", lambda chips, rows: np.zeros((len(rows), 16, 8, 3), np.uint8))
    setting = bench.Setting(tmp_path, tmp_path / "work", [0], 1.0, None, None, None, tmp_path / "others")
    folder, learned, judged = bench.shares(setting)
    told = set(packed(folder).column("person"))
    assert [len(told), *(len(set(part.column("person"))) for part in (learned, judged))] == [8, 10, 2]
    assert not told & set(learned.column("person")) and not set(judged.column("person")) & set(learned.column("person"))
    for path in sorted((tmp_path / "others" / "data").iterdir())[4:]:
        path.unlink()
    with pytest.raises(DataError, match="4 files"):
        bench.shares(setting)


def test_every_figure_of_a_comparison_tells_how_it_was_made():
    everyone, evidence = people(), bench.Evidence("reid")
    right = np.eye(12, dtype=np.float32)[everyone.column("person")]
    found = [everyone.judge(vectors, "world-across-looks") for vectors in (right, right[::-1].copy())]
    runs = {"made": [found[0]] * 2, "without": [found[1]] * 2}
    bench.add_comparison(evidence, "reid.made", "made", runs, "how")
    names = [figure["name"].removeprefix("reid.made.") for figure in evidence.figures]
    assert names == ["map_made", "map_without", "map_gain_over_without"]
    assert all(figure["note"].startswith("how; by seed") for figure in evidence.figures)


def test_pictures_of_nobody_are_alone():
    assert bench.alone(np.array([1, -1, 0, 1, -1])).tolist() == [1, 3, 0, 1, 6]


def test_a_finished_run_is_known_by_all_that_decided_it(tmp_path):
    setting = bench.Setting(tmp_path, tmp_path, [0], 1.0, None, None, None, None)
    frames, who = walks(people=6, cameras=1)
    plan = recipe(name="run", steps=2)
    first = setting.trained(ISR, plan, frames, 10)
    written = first.stat().st_mtime_ns
    assert setting.trained(ISR, plan, frames, 10) == first and first.stat().st_mtime_ns == written
    darker = bench.Frames(frames.pictures // 2, frames.camera, frames.video, frames.frame)
    others = [(ISR, frames, 20), (ISR, frames, 10, False), (bench.Instances, frames, 10), (ISR, darker, 10)]
    assert len({first, *(setting.trained(kind, plan, *given) for kind, *given in others)}) == 5
    # Files of the same name that hold other weights are another start.
    start = tmp_path / "start.safetensors"
    later = recipe(name="later", steps=2, start=str(start), losses={"supcon": {}})
    found = []
    for weights in (first, setting.trained(ISR, plan, darker, 10)):
        start.write_bytes(weights.read_bytes())
        contract_path(start).write_bytes(contract_path(weights).read_bytes())
        found += [setting.trained(Described, later, frames.pictures, people, None) for people in (who, who % 5)]
    assert len(set(found)) == 4


def test_a_digest_tells_settings_and_data_and_refuses_what_it_cannot_read():
    shown = pictures([1, 2])
    given = [
        Plan(),
        Plan(gap=0.03),
        bench.Neighbors(),
        bench.Neighbors(k1=9),
        shown,
        shown[:1],
        shown.astype(int),
        1,
        "1",
        {"k": 1},
        {"k": 2},
    ]
    assert len({bench.digest(value) for value in given}) == len(given)
    assert bench.digest([1], 2) != bench.digest([1, 2]) and bench.digest(shown, None) == bench.digest(
        shown.copy(), None
    )
    with pytest.raises(TypeError, match="known by"):
        bench.digest(lambda: 1)
    with pytest.raises(TypeError, match="known by"):
        bench.digest(np.array(["a", None], object))


def test_groups_are_as_loose_as_frames_and_cameras_allow():
    def at(eps, contradiction, groups=10, across=5):
        return bench.Grouped(eps, groups, across, 0.5, 1.5, contradiction)

    # The loosest good one, not the one with the least contradiction; groups within one camera are not good.
    assert bench.best_of([at(0.3, 0.0), at(0.4, 0.004), at(0.5, 0.01), at(0.6, 0.02)]).eps == 0.5
    assert bench.best_of([at(0.3, 0.0), at(0.4, 0.004), at(0.5, 0.01, across=4)]).eps == 0.4
    # Where none is good, that with the most groups across cameras, up to five per cent.
    assert bench.best_of([at(0.3, 0.0, across=1), at(0.4, 0.03, across=3), at(0.5, 0.06, across=9)]).eps == 0.4
    # What cannot be told is not good, however often it is there.
    nothing = [at(eps, np.inf, 0, 0) for eps in (0.3, 0.4)]
    assert bench.best_of([*nothing, at(0.5, 0.2)]).eps == 0.5 and bench.best_of(nothing).eps == 0.3


def test_groups_are_told_by_number_share_cameras_and_contradiction():
    empty = np.zeros((6, 4, 4, 3), np.uint8)
    frames = bench.Frames(empty, np.array([1, 2, 1, 1, 1, 1]), np.ones(6, int), np.array([0, 0, 1, 1, 2, 2]))
    told = bench.grouped(np.array([0, 0, 1, 1, 2, -1]), frames, 0.4)
    assert told == bench.Grouped(0.4, 3, 1, 5 / 6, 4 / 3, 1.0)
    none = bench.grouped(np.full(6, -1), frames, 0.3)
    assert none == bench.Grouped(0.3, 0, 0, 0.0, 0.0, np.inf) and str(none) == "0 within 0.3 of 0 % of the pictures"


def test_frames_are_decoded_once_and_people_are_told_in_their_order(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "train"
    folder.mkdir()
    for i, person in enumerate([7, 2, 2, 9, 7, 9]):
        name = f"{person:04d}_c{1 + i % 2}s1_{100 + 10 * (i // 2):06d}_00.png"
        Image.fromarray(np.full((8, 4, 3), person, np.uint8)).save(folder / name)
    first = bench.frames_of(folder, tmp_path / "cache")
    people = bench.true_people(folder)
    assert (first.pictures[:, 0, 0, 0] == people).all() and sorted(people) == [2, 2, 7, 7, 9, 9]
    monkeypatch.setattr(bench, "read_frames", None)
    again = bench.frames_of(folder, tmp_path / "cache")
    assert all((getattr(first, name) == getattr(again, name)).all() for name in ("pictures", "camera", "frame"))
    bench.tell("here", np.array([0, 0, -1, 1, 1, -1]), first, np.array([1, 1, 2, 3, 4, 4]))
    assert "here: 2 groups of 67 % of the pictures" in (told := capsys.readouterr().out)
    assert "by labels 50.0 % of the pairs" in told
    # Other files under the same names are read again.
    Image.fromarray(np.full((9, 4, 3), 5, np.uint8)).save(next(folder.iterdir()))
    with pytest.raises(TypeError):
        bench.frames_of(folder, tmp_path / "cache")


def test_the_distance_of_groups_is_chosen_once(tmp_path, monkeypatch):
    frames, _ = walks(people=12, cameras=2)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((4, 1)), torch.nn.Flatten())
    found, labels = bench.groups_for(network, frames, tmp_path)
    assert found == bench.grouped(labels, frames, found.eps) and found.groups > 1
    monkeypatch.setattr(bench, "embed", None)
    again, same = bench.groups_for(network, frames, tmp_path)
    assert again == found and (same == labels).all()
    # Among other distances, or of other frames, it is chosen anew.
    with pytest.raises(TypeError):
        bench.groups_for(network, frames.choose(np.arange(len(frames) - 1)), tmp_path)
    monkeypatch.setattr(bench, "WITHIN", (0.3, 0.4))
    with pytest.raises(TypeError):
        bench.groups_for(network, frames, tmp_path)


def test_worlds_are_told_by_what_their_people_share_and_not_by_who_is_in_them():
    who = np.repeat(np.arange(40), 4)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((4, 2)), torch.nn.Flatten())
    plain = pictures(who)
    assert (bench.domains_told(network, [plain, plain], who) == 0.5).all()
    assert bench.domains_told(network, [plain, pictures(who, tint=(0.3, 1, 1))], who).mean() > 0.8
    # What changes by another world for each person alone can be learned by heart, but not told of anybody else.
    changed = bench.domains_told(network, [plain, pictures(who + 100)], who)
    assert changed.shape == (160,) and 0.3 < changed.mean() < 0.7
    evidence = bench.Evidence("reid")
    bench.add_domains_told(evidence, "reid.lde", {"plain": [changed, changed]}, who, 2, "how")
    (figure,) = evidence.figures
    low, high = figure["ci95"]
    assert figure["n"] == 40 and low < figure["value"] < high and figure["against"]["value"] == 50


def test_people_for_judging_are_refused(tmp_path):
    person_file(tmp_path / "world", 900_000)
    with pytest.raises(DataError, match=r"900000.*for judging only"):
        bench.Setting(tmp_path / "world", tmp_path, [0], 1.0, None, None, None, None).people("train")


def test_pairs_of_two_people_in_groups_are_counted():
    evidence = bench.Evidence("reid")
    labels, who = np.array([0, 0, 0, 1, 1, -1, 2, 2]), np.array([5, 5, 6, 7, 7, 7, 8, 9])
    bench.add_wrong_pairs(evidence, "reid.market.wrong_pairs", labels, who)
    (figure,) = evidence.figures
    assert figure["value"] == pytest.approx(60) and figure["n"] == 3  # of 3 + 1 + 1 pairs, 2 + 0 + 1
