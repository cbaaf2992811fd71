"""Train the personalizing systems, and what each is held against, and measure what they claim.

One background run over everything: faces are looked at once, adapters trained, pictures of the bench made, judged, and
figures and claims written to benchmarks/results/personalize.json. It works off a queue with some processes of one
thread each. What is finished is not done again, and what was stopped, killed included, goes on where its last
checkpoint or picture was: start it by the same command.

    ipse world dataset recipes/world/faces.yaml --out faces
    python benchmarks/personalize.py --base world-base --data faces --work work
    python benchmarks/personalize.py … --only masterweaver          # one system and what it is held against
    python benchmarks/personalize.py … --train-only --minutes 240   # no pictures; stop by itself in time
    python benchmarks/personalize.py … --plan                       # what is to be done, and what is done
    python benchmarks/personalize.py … --work trial --dry           # a trial: few steps, other people, nothing written

All adapters of one comparison have the same base, data, batches and number of steps (`STEPS`); the face adapter and the
two best systems are trained with three seeds, the others with one. Pictures of one person and prompt start from the
same noise for everybody. The people of the bench are shared out: some people and some prompts to each of `GROUPS`, and
intervals draw groups, so that they are over people and over prompts.

Batches' base passes are not shared between systems: an adapter acts inside the U-Net from its first cross-attention on,
so what two of them compute is the same up to there and no further, a twentieth of a pass. What is the same to the bit
is kept for all of them: decoded pictures, latents, features of faces.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from ipse.attributes.judge import open_judge
from ipse.diffusion import Base, load_base
from ipse.diffusion.training.denoiser import latents_of
from ipse.encoders import DlibFaceEncoder
from ipse.faces import HogDetector
from ipse.measure.evidence import Evidence
from ipse.personalize import bench, open_method
from ipse.personalize.listing import read_people, read_pictures
from ipse.personalize.observing import Observer
from ipse.personalize.page import plot, write_page
from ipse.personalize.prompts import Prompt
from ipse.personalize.references import PIXEL_FEATURES, FaceReader
from ipse.personalize.scoring import Scores, chosen, score
from ipse.personalize.training import AdapterRecipe, FeatureStore, features_of, system_of, train_adapter
from ipse.training.loop import with_steps
from ipse.training.recipe import read_recipe
from personalize_claims import CLAIMS, POSE, Measured, add_claims, add_systems

RECIPES = Path(__file__).parents[1] / "recipes" / "adapters"

# -- what is trained and shown -----------------------------------------------------------------------------------------

STEPS = 1000
"""Of every training, so that all are held against each other at equal steps; batches are those of the recipes."""
OTHER_STEPS = {"id-aligner": 300}
"""Of systems that begin with a finished adapter."""
SEEDS = 3
"""Trainings of the face adapter and of the best systems."""
BEST = 2

STRENGTHS = (0.4, 0.7, 1.0)
SWEEP = (0.2, 0.4, 0.55, 0.7, 0.85, 1.0)
"""Of the baselines, whose curves others are held against."""
GROUPS, EACH = 10, 4
"""Of people and prompts; people of each."""
TUNED = 1
"""People of each group that are tuned for, where a method does that."""
PICTURE_STEPS = 20
TRIED_FROM = 890_000
"""The first person of a trial: nobody of the bench."""

POSES = tuple(tuple((x + dx, y) for x, y in POSE) for dx in (-0.25, 0.25))
"""`POSE` of two people side by side, moved as StoryMaker moves pictures that it pairs, and of the same size."""
SELF_PAIRED = [{"until": 0.8, "same": 1.0}, {"until": 1.0, "same": 1.0, "full": 1.0, "short": 0.0}]


@dataclass(frozen=True)
class Training:
    """An adapter to train: the recipe of a system with changes.

    Attributes
    ----------
    system
        Which.
    options, network
        What is other than in its recipe.
    seed
        Of the training.
    start
        The training whose adapter it begins with.
    """

    system: str
    options: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    start: str = ""


@dataclass(frozen=True)
class Shown:
    """Pictures to make.

    Attributes
    ----------
    training
        The adapter; empty for a method without.
    method
        Of `ipse.personalize.METHODS`, where it is not the training's system.
    settings
        Attributes of the method that are other than usual.
    strengths
        How much the person counts.
    twice
        Two pictures of each person and prompt at full strength, for diversity.
    each
        People of each group.
    people
        How many a picture shows.
    """

    training: str = ""
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    strengths: Sequence[float] = (1.0,)
    twice: bool = False
    each: int = EACH
    people: Sequence[int] = (1,)


TRAININGS = {
    "face-adapter": Training("face-adapter"),
    "image-adapter": Training("image-adapter"),
    "instantid": Training("instantid"),
    "photoverse": Training("photoverse"),
    "photoverse.no-loss": Training("photoverse", {"likeness": 0.0}),
    "arc2face": Training("arc2face"),
    "consistentid": Training("consistentid"),
    "consistentid.anywhere": Training("consistentid", {"localize": 0.0}),
    "infinite-id": Training("infinite-id"),
    "infinite-id.text-on": Training("infinite-id", {"text": True}),
    "facechain-fact": Training("facechain-fact"),
    "facechain-fact.no-fair": Training("facechain-fact", {"fair": 0.0}),
    "facechain-fact.unshuffled": Training("facechain-fact", {"same": 1.0}),
    "dp-adapter": Training("dp-adapter"),
    "masterweaver": Training("masterweaver"),
    "masterweaver.no-edit": Training("masterweaver", {"edit": 0.0}),
    "masterweaver.plain-faces": Training("masterweaver", {"own": 1.0, "both": 0.0}),
    "imagine-yourself": Training("imagine-yourself"),
    "imagine-yourself.self-paired": Training("imagine-yourself", {"stages": SELF_PAIRED}),
    "imagine-yourself.one-row": Training("imagine-yourself", network={"parallel": False}),
    "id-aligner": Training("id-aligner", start="face-adapter"),
    "id-aligner.no-reward": Training("id-aligner", {"identity": 0.0, "aesthetic": 0.0}, start="face-adapter"),
    "storymaker": Training("storymaker"),
    "storymaker.free": Training("storymaker", {"attention": 0.0}),
}
"""By name: the system's, or the system's and what is other, after a dot."""

_MAIN: dict[str, Any] = {"strengths": STRENGTHS, "twice": True}
NO_REWARD = {"options": {"identity": 0.0, "aesthetic": 0.0}}
SHOWN = {
    "bare": Shown(method="bare", strengths=(0.0,), twice=True),
    "face-adapter": Shown("face-adapter", strengths=SWEEP, twice=True),
    "image-adapter": Shown("image-adapter", strengths=SWEEP, twice=True),
    "instantid": Shown("instantid", **_MAIN),
    "instantid.no-identitynet": Shown("instantid", settings={"control_share": 0.0}),
    "instantid.no-tokens": Shown("instantid", settings={"token_share": 0.0}),
    "photoverse": Shown("photoverse", **_MAIN),
    "photoverse.text": Shown("photoverse", settings={"image_share": 0.0}, strengths=(0.5, 1.0)),
    "photoverse.image": Shown("photoverse", settings={"text_share": 0.0}, strengths=(0.5, 1.0)),
    "photoverse.no-loss": Shown("photoverse.no-loss"),
    "arc2face": Shown("arc2face", twice=True),
    "consistentid": Shown("consistentid", **_MAIN),
    "consistentid.anywhere": Shown("consistentid.anywhere"),
    "infinite-id": Shown("infinite-id", **_MAIN),
    "infinite-id.text-on": Shown("infinite-id.text-on"),
    "infinite-id.added": Shown("infinite-id", settings={"mixing": False}),
    "facechain-fact": Shown("facechain-fact", **_MAIN),
    "facechain-fact.no-fair": Shown("facechain-fact.no-fair"),
    "facechain-fact.unshuffled": Shown("facechain-fact.unshuffled", twice=True),
    "dp-adapter": Shown("dp-adapter", **_MAIN),
    "masterweaver": Shown("masterweaver", **_MAIN),
    "masterweaver.no-edit": Shown("masterweaver.no-edit"),
    "masterweaver.plain-faces": Shown("masterweaver.plain-faces"),
    "imagine-yourself": Shown("imagine-yourself", **_MAIN),
    "imagine-yourself.self-paired": Shown("imagine-yourself.self-paired"),
    "imagine-yourself.one-row": Shown("imagine-yourself.one-row"),
    "id-aligner": Shown("id-aligner", **_MAIN),
    "id-aligner.no-reward": Shown("id-aligner.no-reward"),
    "id-aligner.lora": Shown(method="id-aligner-lora", each=TUNED),
    "id-aligner.lora-no-reward": Shown(method="id-aligner-lora", settings=NO_REWARD, each=TUNED),
    "freecure": Shown("face-adapter", "freecure", **_MAIN),
    "freecure.photoverse": Shown("photoverse", "freecure"),
    "storymaker": Shown("storymaker", people=(1, 2), **_MAIN),
    "storymaker.free": Shown("storymaker.free", people=(1, 2)),
    "storymaker.posed": Shown("storymaker", settings={"pose": [POSE]}),
    "storymaker.placed": Shown("storymaker", settings={"pose": POSES}, people=(2,)),
    "storymaker.free-placed": Shown("storymaker.free", settings={"pose": POSES}, people=(2,)),
}
"""By name, as `TRAININGS`."""
SYSTEMS = tuple(name for name in SHOWN if "." not in name and name != "bare")
AGAINST = {
    "instantid": ("image-adapter",),
    "arc2face": ("face-adapter",),
    "consistentid": ("face-adapter",),
    "dp-adapter": ("face-adapter",),
    "id-aligner": ("face-adapter",),
    "freecure": ("face-adapter", "photoverse"),
}
"""The other systems that a system is held against, beside the bare base."""


def system(name: str) -> str:
    """The system of a training, or of pictures."""
    return name.partition(".")[0]


def seeded(name: str, seed: int) -> tuple[dict[str, Training], dict[str, Shown]]:
    """A system trained with another seed, together with what it begins with or goes over."""

    def again(training: str) -> str:
        old = TRAININGS[training]
        start = again(old.start) if old.start else ""
        label = f"{training}.seed-{seed}"
        trainings[label] = replace(old, seed=seed, start=start)
        return label

    trainings: dict[str, Training] = {}
    strengths = tuple(sorted({*SHOWN[name].strengths} & {*STRENGTHS}))
    told = replace(SHOWN[name], training=again(SHOWN[name].training), twice=False, strengths=strengths)
    return trainings, {f"{name}.seed-{seed}": told}


@dataclass(frozen=True)
class Plan:
    """What is to be trained and shown, by name."""

    trainings: Mapping[str, Training]
    shown: Mapping[str, Shown]

    @classmethod
    def of(cls, only: Collection[str], best: Sequence[str] = (), seeds: int = SEEDS) -> Plan:
        """Some systems and what they are held against; all seeds of the face adapter and of the best."""
        wanted = {*only, *(other for name in only for other in AGAINST.get(name, ())), "bare"}
        shown = {name: told for name, told in SHOWN.items() if system(name) in wanted}
        trainings: dict[str, Training] = {}
        again = [name for name in dict.fromkeys(["face-adapter", *best]) if name in wanted]
        for name in again:
            for seed in range(1, seeds):
                more, pictures = seeded(name, seed)
                trainings |= more
                shown |= pictures
        needed = {told.training for told in shown.values()} - {""}
        needed |= {(TRAININGS | trainings)[name].start for name in needed} - {""}
        # In the order of the table, so that what others begin with comes first.
        return cls({name: told for name, told in (TRAININGS | trainings).items() if name in needed}, shown)


# -- where and how -----------------------------------------------------------------------------------------------------


class TimeIsUp(Exception):
    """So that work ends between two pictures."""


@dataclass(frozen=True)
class Setting:
    """What jobs are given.

    Attributes
    ----------
    base, data, work
        The base, folders of pictures with captions, and where all is kept.
    judge
        Weights that tell what pictures show, or None.
    steps
        Of every training, in place of `STEPS`; others are more or fewer with them.
    batch
        Of every training, in place of the recipes'.
    trial
        ``people`` and ``start`` of a trial with few pictures; empty for the bench.
    cache
        Of decoded pictures and features; None for that of ipse.
    end
        When to stop, by `time.monotonic`.
    """

    base: Base
    data: Sequence[Path]
    work: Path
    judge: str | None = None
    steps: int | None = None
    batch: int | None = None
    trial: Mapping[str, int] = field(default_factory=dict)
    cache: Path | None = None
    end: float = float("inf")

    @cached_property
    def home(self) -> Path:
        """Where runs and pictures are: apart for each base, for other data or networks that look at them, and a trial.

        So nothing is taken for finished that began with something else, and a trial decides nothing for others.
        """
        decided = [self.files, FaceReader(self.base).fingerprints(["vector"])]
        digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()
        return self.work / f"{self.base.fingerprint[:12]}-{digest[:8]}{'-trial' if self.trial else ''}"

    @property
    def files(self) -> list[tuple[str, int]]:
        """Names and sizes of the files of the data."""
        found = [path for folder in self.data for path in sorted(folder.rglob("*.parquet"))]
        return [(path.name, path.stat().st_size) for path in found]

    @property
    def minutes(self) -> float | None:
        """What is left of the time."""
        return None if self.end == float("inf") else max(0.0, self.end - time.monotonic()) / 60

    def keep_on(self, done: int = 0, total: int = 0) -> None:
        """Called in the middle of long work: raises `TimeIsUp` when it is."""
        if time.monotonic() > self.end:
            raise TimeIsUp

    @cached_property
    def observer(self) -> Observer:
        """The judges."""
        judge = None if self.judge is None else open_judge(self.judge)
        return Observer(DlibFaceEncoder(threads=1), HogDetector(), judge, self.work / "seen.sqlite")

    @cached_property
    def people(self) -> bench.BenchSet:
        """Those of the bench, or of a trial."""
        return bench.prepare(self.work, self.observer.detector, workers=1, **self.trial)

    def groups(self, each: int = EACH) -> list[tuple[bench.BenchSet, dict[str, Prompt]]]:
        """People of each group, and what is asked of them; in a trial there are two, and one prompt of one person."""
        names = [name for name, prompt in bench.prompts().items() if prompt.people == 1]
        return groups_of(self.people, 2, each, names[1:8:4]) if self.trial else groups_of(self.people, GROUPS, each)

    def drawn(self, people: Sequence[str]) -> npt.NDArray[np.intp]:
        """(P,) the group of each of some people; who is in none has one alone."""
        group = {name: number for number, (own, _) in enumerate(self.groups()) for name in own.people}
        return np.array([group.get(name, -1 - row) for row, name in enumerate(people)], np.intp)

    # --- Trainings --------------------------------------------------------------------------------------------------

    def recipe(self, name: str, training: Training) -> AdapterRecipe:
        """Of a training."""
        told = read_recipe(RECIPES / f"{training.system}.yaml", str(RECIPES))
        told["options"] = told.get("options", {}) | training.options
        told["network"] = told.get("network", {}) | training.network
        steps = OTHER_STEPS.get(training.system, STEPS)
        if self.steps:
            steps = max(1, round(steps * self.steps / STEPS))
        recipe = with_steps(AdapterRecipe.from_dict(told | {"seed": training.seed}), steps)
        start = str(self.adapter(training.start, self.plan_of(training.start))) if training.start else ""
        # Looking at the adapter in between takes time and changes nothing.
        return replace(recipe, batch=self.batch or recipe.batch, start=start, look_every=steps, save_every=50)

    def plan_of(self, name: str) -> Training:
        """A training by its name, of whatever seed."""
        plain, _, seed = name.partition(".seed-")
        return replace(TRAININGS[plain], seed=int(seed or 0))

    def run(self, name: str, training: Training) -> Path:
        """The folder of a training: another recipe has another."""
        return self.home / "runs" / f"{name}-{self.recipe(name, training).fingerprint[:8]}"

    def adapter(self, name: str, training: Training) -> Path:
        """What a training comes to."""
        return self.run(name, training) / f"{training.system}.safetensors"

    def store(self, training: Training, name: str = "") -> FeatureStore:
        """Features of the data, looked at once."""
        console = Console()

        def told(done: int, total: int) -> None:
            if done % 2048 < 64 or done == total:
                console.print(f"{name}: {done} of {total} looked at")
            self.keep_on()

        return features_of(self.recipe(name, training), self.base, self.data, self.cache, on_look=told)

    def features(self, plan: Plan) -> list[str]:
        """What all trainings of a plan are shown, and measures of places."""
        found = {"five", "vector", "face"}
        for name, training in plan.trainings.items():
            kind = system_of(self.recipe(name, training), self.base)
            found |= {*kind.features, *kind.regions}
        # Where somebody is the world itself tells.
        return sorted(found - {*PIXEL_FEATURES, "person", "five"})


def groups_of(
    people: bench.BenchSet, count: int, each: int, asked: Sequence[str] = ()
) -> list[tuple[bench.BenchSet, dict[str, Prompt]]]:
    """Share people and prompts out: nobody and no prompt about one person is in two groups.

    Parameters
    ----------
    people
        Of the bench.
    count, each
        Groups, and people of each.
    asked
        Prompts about one person; by default all.
    """
    prompts, names = bench.prompts(), sorted(people.people)
    # In the order of the bench people take turns in who they are, as groups do.
    names = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    alone = asked or [name for name, prompt in prompts.items() if prompt.people == 1]
    pairs = [name for name, prompt in prompts.items() if prompt.people == 2]
    out = []
    for group in range(count):
        own = {name: people.people[name] for name in names[group::count][:each]}
        told = {name: prompts[name] for name in [*alone[group::count], pairs[group % len(pairs)]]}
        out.append((replace(people, people=own), told))
    return out


# -- jobs --------------------------------------------------------------------------------------------------------------


def jobs_of(setting: Setting, plan: Plan, *, pictures: bool) -> dict[str, tuple[str, ...]]:
    """By name, what must be finished before a job."""
    looks = [f"look {name}" for name in setting.features(plan)]
    jobs: dict[str, tuple[str, ...]] = {"look five": ()} | dict.fromkeys(looks, ("look five",))
    for name, training in plan.trainings.items():
        jobs[f"train {name}"] = (*looks, *([f"train {training.start}"] if training.start else []))
    if pictures:
        jobs["people"] = ()
        for name, told in plan.shown.items():
            jobs[f"show {name}"] = ("people", *([f"train {told.training}"] if told.training else []))
    return jobs


def is_done(setting: Setting, plan: Plan, job: str) -> bool:
    """Whether nothing is left to do for a job, as far as can be told without doing it."""
    kind, _, name = job.partition(" ")
    if kind == "train":
        return (setting.run(name, plan.trainings[name]) / "record.json").exists()
    if kind == "look":
        return looked_as(setting) == _read(setting.home / "looked" / f"{name}.json")
    if kind == "show":
        decided = shown_as(setting, plan, name)
        return decided is not None and decided == _read(setting.home / "shown" / f"{name}.json")
    return _read(setting.home / "people.json") == dict(setting.trial)


def work(setting: Setting, plan: Plan, job: str) -> bool:
    """Do a job, or go on with it; False if time was up before its end."""
    kind, _, name = job.partition(" ")
    # Of a script that was killed, a job may still be at work on the same.
    with _alone(setting.home / "locks" / f"{kind}-{name}"):
        try:
            if kind == "look":
                _look(setting, plan, name)
            elif kind == "people":
                setting.people  # noqa: B018 - rendered, unless they are
                _write(setting.home / "people.json", dict(setting.trial))
            elif kind == "train":
                return _train(setting, plan, name)
            else:
                _show(setting, plan, name)
        except TimeIsUp:
            return False
    return True


def _look(setting: Setting, plan: Plan, name: str) -> None:
    store = setting.store(next(iter(plan.trainings.values())), name)
    store[name]
    if name == "five":
        with torch.no_grad():
            latents_of(store.corpus, setting.base.pipeline.vae, setting.base.device)
    _write(setting.home / "looked" / f"{name}.json", looked_as(setting))


def looked_as(setting: Setting) -> list[Any]:
    """What features were computed of, and where they are kept."""
    return [str(setting.cache), [list(file) for file in setting.files]]


def _train(setting: Setting, plan: Plan, name: str) -> bool:
    training = plan.trainings[name]
    folder, console = setting.run(name, training), Console()
    if (folder / "record.json").exists():
        return True
    record = train_adapter(
        setting.recipe(name, training),
        setting.base,
        setting.data,
        folder,
        resume=(folder / "checkpoint.pt").exists(),
        minutes=setting.minutes,
        cache=setting.cache,
        on_step=lambda step: console.print(f"{name}: step {step.step} of {step.steps}, loss {step.loss:.4f}"),
    )
    return bool(record)


def shown_as(setting: Setting, plan: Plan, name: str) -> dict[str, Any] | None:
    """All that decides pictures; None where their adapter is not trained."""
    told = plan.shown[name]
    sha256 = ""
    if told.training:
        path = setting.adapter(told.training, plan.trainings[told.training])
        if not path.exists():
            return None
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    groups = [[list(people.people), list(prompts)] for people, prompts in setting.groups(told.each)]
    decided = {"adapter": sha256, "settings": told.settings, "strengths": told.strengths, "twice": told.twice}
    return json.loads(json.dumps(decided | {"people": told.people, "groups": groups, "steps": picture_steps(setting)}))


def picture_steps(setting: Setting) -> int:
    """From noise to a picture."""
    return 2 if setting.trial else PICTURE_STEPS


def opened(setting: Setting, plan: Plan, name: str) -> Any:
    """The method that makes pictures, called as they are."""
    told = plan.shown[name]
    which = told.method or plan.trainings[told.training].system
    adapter = setting.adapter(told.training, plan.trainings[told.training]) if told.training else None
    method = open_method(which, setting.base, adapter=adapter, steps=picture_steps(setting))
    for key, value in told.settings.items():
        value = replace(method.options, **value) if key == "options" else value
        setattr(method, key, np.array(value, np.float32) if key == "pose" else value)
    if setting.trial and hasattr(method, "tuning"):
        method.tuning = 1
    method.name = name
    return method


def pictures_of(setting: Setting, plan: Plan, name: str) -> list[Path]:
    """The folders of pictures, one for each group; another adapter or other settings have others."""
    told = shown_as(setting, plan, name)
    kept = {key: told[key] for key in ("adapter", "settings", "steps")} if told else {}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
    return [setting.home / "pictures" / f"{name}-{digest}" / str(group) for group in range(len(setting.groups()))]


def _show(setting: Setting, plan: Plan, name: str) -> None:
    told, decided = plan.shown[name], shown_as(setting, plan, name)
    method = opened(setting, plan, name)

    settings = {"adapter": decided["adapter"] if decided else ""}
    folders = pictures_of(setting, plan, name)
    for number, (out, (people, prompts)) in enumerate(zip(folders, setting.groups(told.each), strict=True)):
        asked = {key: prompt for key, prompt in prompts.items() if prompt.people in told.people}
        for strengths, n in ((told.strengths, 1), ((max(told.strengths),), 2 if told.twice else 1)):
            bench.make_pictures(
                method, people, out, prompts=asked, strengths=strengths, n=n, seed=number, settings=settings,
                on_progress=setting.keep_on,
            )  # fmt: skip
        Console().print(f"{name}: group {number + 1} of {len(folders)}")
    _write(setting.home / "shown" / f"{name}.json", decided)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _write(path: Path, told: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told))
    part.rename(path)


# -- the queue ---------------------------------------------------------------------------------------------------------

FINISHED, UP = 0, 75
"""What a process says: all done, or time was up."""
Poll = Callable[[], int | None]


def work_off(
    jobs: Mapping[str, Collection[str]],
    done: Callable[[str], bool],
    start: Callable[[str], Poll],
    workers: int,
    wait: float = 0.5,
) -> dict[str, str]:
    """Do jobs in their order as far as others that they need allow it, some at a time.

    Parameters
    ----------
    jobs
        By name, those that must be finished before it.
    done
        Whether one is finished already.
    start
        Begins one, and gives what says None while it lasts, then its exit status.
    workers
        At a time.
    wait
        Seconds between two looks.

    Returns
    -------
    dict
        Why jobs were not finished, by name.
    """
    waiting, finished, left = list(jobs), set(), {}
    running: dict[str, Poll] = {}
    while waiting or running:
        for job, poll in list(running.items()):
            if (status := poll()) is not None:
                del running[job]
                if status == FINISHED:
                    finished.add(job)
                else:
                    left[job] = "time was up" if status == UP else f"it failed with status {status}"
        for job in list(waiting):
            if "time was up" in left.values():
                waiting.remove(job)
                left[job] = "time was up"
            elif lost := [need for need in jobs[job] if need in left]:
                waiting.remove(job)
                left[job] = f"it waits for: {lost[0]}"
            elif all(need in finished or need not in jobs for need in jobs[job]) and len(running) < workers:
                waiting.remove(job)
                if done(job):
                    finished.add(job)
                else:
                    running[job] = start(job)
        if running:
            time.sleep(wait)
    return left


def in_process(setting: Setting, plan: Plan) -> Callable[[str], Poll]:
    """Does a job at once, in this process."""

    def start(job: str) -> Poll:
        status = FINISHED if work(setting, plan, job) else UP
        return lambda: status

    return start


@contextmanager
def processes(arguments: Sequence[str], logs: Path, end: float) -> Iterator[Callable[[str], Poll]]:
    """Begins each job in a process of one thread; all end with this one."""
    begun: list[subprocess.Popen[bytes]] = []
    console = Console()

    def start(job: str) -> Poll:
        logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, *arguments, "--job", job]
        if end < float("inf"):
            command += ["--minutes", str(max(0.0, end - time.monotonic()) / 60)]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with open(logs / f"{job.replace(' ', '-')}.log", "ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **threads}, stdout=log, stderr=log)
        begun.append(process)
        began = time.monotonic()
        console.print(f"{time.strftime('%H:%M')} {job}", highlight=False)

        def poll() -> int | None:
            status = process.poll()
            if status is not None:
                word = {FINISHED: "done", UP: "time is up"}.get(status, f"status {status}, see {logs}")
                minutes = (time.monotonic() - began) / 60
                console.print(f"{time.strftime('%H:%M')} {job}: {word} after {minutes:.1f} min", highlight=False)
            return status

        return poll

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield start
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in begun:
            process.terminate()
        for process in begun:
            process.wait()


# -- figures -----------------------------------------------------------------------------------------------------------


def scored(setting: Setting, plan: Plan) -> Scores:
    """What the pictures of a plan that are finished come to.

    Raises
    ------
    TimeIsUp
        If they were not all looked at in time; what was seen is kept.
    """
    made, problems = [], []
    for name in plan.shown:
        if is_done(setting, plan, f"show {name}"):
            for folder in pictures_of(setting, plan, name):
                if folder.exists():
                    more, said = read_pictures(folder)
                    made, problems = made + more, problems + said
    photographs = read_people(setting.people.folder)
    scores = score(made, photographs, bench.prompts(), setting.observer, problems, setting.keep_on)
    groups = setting.drawn(scores.people)
    curves = [
        replace(curve, figures={name: replace(figure, groups=groups) for name, figure in curve.figures.items()})
        for curve in scores.curves
    ]
    return replace(scores, curves=curves)


def best_of(setting: Setting, plan: Plan) -> list[str]:
    """The two systems that are recognized most often of those that cost few prompts; once chosen, they stay.

    None where not all systems were seen.
    """
    place = setting.home / "best.json"
    if (known := _read(place)) is not None:
        return known
    curves = {name: curve for name, curve in chosen(scored(setting, plan)).items() if name in SYSTEMS}

    def worth(name: str) -> tuple[bool, float]:
        figures = curves[name].figures
        cost = figures["prompt_cost"].value if "prompt_cost" in figures else 0.0
        return cost <= 0.05, figures["rank1"].value

    if {*SYSTEMS} - curves.keys():
        return []
    best = sorted((name for name in SYSTEMS if name != "face-adapter"), key=worth, reverse=True)[:BEST]
    _write(place, best)
    return best


def measure(setting: Setting, plan: Plan, evidence: Evidence, systems: Collection[str]) -> Scores:
    """Add all figures of some systems and their claims; a page of pictures goes to the work folder."""
    scores = scored(setting, plan)
    measured = Measured(setting, plan, scores)
    shown = add_systems(measured, evidence, systems)
    add_claims(measured, evidence, {name: CLAIMS[name] for name in CLAIMS if name in systems})
    report = setting.home / "report"
    report.mkdir(exist_ok=True)
    (report / "plot.png").write_bytes(plot(shown))
    (report / "scores.json").write_text(json.dumps(scores.to_json(), indent=1))
    write_page(shown, report / "index.html")
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="world", help="world, or the folder of a base that ipse trained")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets of recipes/world/faces.yaml")
    parser.add_argument("--judge", default="world", help="of what prompts ask for: world, a name, or a file of weights")
    parser.add_argument("--work", type=Path, default=Path("out/personalize-sweep"), help="where all is kept")
    parser.add_argument("--cache", type=Path, help="of decoded pictures and features; by default that of ipse")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, help="some systems; the figures of the others are kept")
    parser.add_argument("--steps", type=int, help=f"of every training, in place of {STEPS}")
    parser.add_argument("--batch", type=int, help="of every training, in place of the recipes'")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings of the face adapter and of the best")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread; 0 for this one alone")
    parser.add_argument("--minutes", type=float, help="stop by itself in time; the same command goes on")
    parser.add_argument("--train-only", action="store_true", help="make no pictures and measure nothing")
    parser.add_argument("--dry", action="store_true", help="a trial with other people and few pictures; writes nothing")
    parser.add_argument("--plan", action="store_true", help="print what is to be done, and do nothing")
    parser.add_argument("--job", help="do this one of the plan alone")
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser.parse_args(given)
    torch.set_num_threads(1)
    end = float("inf") if args.minutes is None else time.monotonic() + 60 * args.minutes
    base = load_base(args.base, device="cpu")
    trial = {"people": 4, "start": TRIED_FROM} if args.dry else {}
    setting = Setting(base, args.data, args.work, args.judge, args.steps, args.batch, trial, args.cache, end)
    systems = args.only or SYSTEMS
    if args.job:
        # Whatever the best are by now: the plan that a job belongs to has all of them.
        plan = Plan.of(systems, SYSTEMS, args.seeds)
        return FINISHED if work(setting, plan, args.job) else UP
    plan, console = Plan.of(systems, _read(setting.home / "best.json") or (), args.seeds), Console()
    if args.plan:
        for job in jobs_of(setting, plan, pictures=not args.train_only):
            console.print(f"{'done' if is_done(setting, plan, job) else '    '} {job}", highlight=False)
        return 0
    if not args.train_only:
        # A judge that cannot be opened is known now, rather than after hours of training.
        setting.observer  # noqa: B018

    def off(plan: Plan) -> dict[str, str]:
        jobs = jobs_of(setting, plan, pictures=not args.train_only)
        done = lambda job: is_done(setting, plan, job)  # noqa: E731
        if not args.workers:
            return work_off(jobs, done, in_process(setting, plan), 1, 0)
        with processes(_common(given), setting.home / "logs", end) as start:
            return work_off(jobs, done, start, args.workers)

    try:
        left = off(plan)
        if not left and not args.train_only and args.seeds > 1:
            plan = Plan.of(systems, best_of(setting, plan), args.seeds)
            left = off(plan)
        for job, why in left.items():
            console.print(f"[yellow]! {job}: {why}[/]", highlight=False)
        if args.train_only or any(why == "time was up" for why in left.values()):
            return UP if left else FINISHED
        evidence = Evidence("personalize", seeds=range(args.seeds))
        measure(setting, plan, evidence, systems)
    except TimeIsUp:
        console.print("[yellow]! pictures were not all judged: time was up[/]", highlight=False)
        return UP
    print(evidence.summary())
    if args.dry:
        console.print("a trial: nothing is written")
    else:
        console.print(f"written: {evidence.write(update=True)}")
    return 1 if left else FINISHED


def _common(given: Sequence[str]) -> list[str]:
    """The arguments that a job is given too."""
    out, skip = [], False
    for word in given:
        if word.startswith(("--minutes", "--workers")):
            skip = "=" not in word
        elif skip:
            skip = False
        else:
            out.append(word)
    return out


if __name__ == "__main__":
    sys.exit(main())
