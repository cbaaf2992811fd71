"""Measure the world base: whether its pictures show what their captions say, and look like renderings.

The judge is the classifier of recipes/base/judge.yaml that comes with ipse, trained on people that the base never saw
(see `ipse.diffusion.training.data.for_judge`). Captions are those of 1,000 portraits of people from number 900,000 on,
whom neither has seen, with every fact; each makes one picture by 20 steps. An attribute counts where the caption's
facts have it; its accuracy is the mean over its classes, so that what is common does not hide what is rare. What is not
said is not there: a full caption that names no hat is one of a bare head. Beside each figure is what the judge makes of
the renderings themselves, or of what the autoencoder alone leaves of them. Classes that differ in degree only are taken
together: shades of a color, how far a head is turned, children and teens, young and middle-aged.

Fréchet: in the features of the judge, the distance from the pictures to 1,000 renderings of other people, over the
distance from the captions' own renderings to those. Detection: the HOG detector, on pictures whose captions face the
camera. Diversity: the distance by dlib's face network of two seeds of one caption, beside that of two people who are
rendered with the same age group, gender and skin tone.

Identity: a quarter as many people by two pictures each, of which one is encoded and decoded: what is lost there no
method brings back.

Reading: facts told from the states of captions, which are all that the U-Net sees of a text.

Inversion: renderings of a quarter of the people, each by its full caption, inverted and made again. Samplers: the
same captions and seeds with fewer steps. Overheads: seconds of the processor for a picture with handles over those of
the plain pipeline, in turns; they depend on the shape of the base and not on its weights.

Bodies: how often the joint encoder of a base of whole bodies, which makes none of its pictures, finds the caption of a
picture among 100 captions of other people, beside how often it does for their renderings.

    python benchmarks/base.py                                                       # an hour on one thread
    python benchmarks/base.py --only inversion adapter attention                    # some parts; other figures stay
    python benchmarks/base.py --base FOLDER --people 100 --dry                      # a look; writes no figures
    python benchmarks/base.py --only inversion --start 0 --people 40                # other people; writes no figures
    python benchmarks/base.py --only bodies --base FOLDER                       # of bodies, with its joint encoder
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from ipse._files import atomic_write
from ipse.attributes.judge import WORLD_JUDGE, PictureJudge
from ipse.diffusion import Base, load_base
from ipse.diffusion.base import SAMPLERS
from ipse.encoders import DlibFaceEncoder
from ipse.faces import HogDetector, align
from ipse.images import contact_sheet, read_image, save_png
from ipse.measure import Evidence, bootstrap_ci
from ipse.measure.frechet import frechet
from ipse.world.caption import captions, facts
from ipse.world.dataset import read_dataset, write_dataset
from ipse.world.recipe import Recipe

ROOT = Path(__file__).parents[1]
JUDGED = 900_000
FACES = ROOT / "recipes" / "world" / "faces.yaml"
BODIES = ROOT / "recipes" / "base" / "bodies.yaml"
AMONG = 100
"""Captions that one is found among."""
STEPS = 20
READ = 3000
"""Captions that a reader of facts learns from."""
FEWER = (("ddim", 10), ("dpm", 10), ("dpm", 6))
"""Samplers and their steps, beside DDIM with `STEPS`."""
CAPTION = "A portrait of a smiling woman with red hair."
"""What is made where only the time counts: every caption is as many tokens, with its padding."""


@dataclass(frozen=True)
class Rendered:
    """Pictures of the world: (N, H, W, 3), full captions, and what they show."""

    images: npt.NDArray[np.uint8]
    captions: list[str]
    facts: list[dict[str, str]]


def rendered(folder: Path, start: int, people: int, workers: int, recipe: Recipe) -> Rendered:
    """One picture of each of some people, made once."""
    # People of one balanced set: the same groups in each.
    write_dataset(recipe, folder, people=people, looks=1, shots=1, start=start, workers=workers)
    table = read_dataset(folder).table(["image", "captions", "facts"])
    return Rendered(
        np.stack([read_image(image["bytes"]) for image in table["image"].to_pylist()]),
        [captions[0] for captions in table["captions"].to_pylist()],
        [json.loads(text) for text in table["facts"].to_pylist()],
    )


@dataclass(frozen=True)
class Setting:
    """What the parts measure, and with what; see the options of `main`."""

    which: str
    judge: Path
    start: int
    people: int
    work: Path
    workers: int
    before: Path | None = None

    @cached_property
    def base(self) -> Base:
        """Of the name or the folder."""
        return load_base(self.which, device="cpu")

    @cached_property
    def real(self) -> Rendered:
        """The captions' own renderings."""
        return rendered(self.work / f"captions-{self.start}", self.start, self.people, self.workers, Recipe.load(FACES))

    def twice(self, people: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Two pictures (people, H, W, 3) of each of some people, in two looks."""
        folder = self.work / f"twice-{self.start}-{people}"
        start, workers = self.start, self.workers
        write_dataset(Recipe.load(FACES), folder, people=people, looks=2, shots=1, start=start, workers=workers)
        table = (
            read_dataset(folder)
            .table(["image", "person", "look"])
            .sort_by([("person", "ascending"), ("look", "ascending")])
        )
        images = np.stack([read_image(image["bytes"]) for image in table["image"].to_pylist()])
        return images[::2], images[1::2]

    @cached_property
    def bodies(self) -> Rendered:
        """Whole bodies, with their captions."""
        folder = self.work / f"bodies-{self.start}"
        return rendered(folder, self.start, self.people, self.workers, Recipe.load(BODIES))

    @cached_property
    def others(self) -> Rendered:
        """As many other people, so far from the first that sets of any size have nobody in common."""
        start = self.start + 50_000
        return rendered(self.work / f"others-{start}", start, self.people, self.workers, Recipe.load(FACES))

    @cached_property
    def back(self) -> npt.NDArray[np.uint8]:
        """The renderings, encoded and decoded: what no picture of this base can be ahead of."""
        images = track(self.real.images, description="autoencoder")
        return np.stack([self.base.decode(self.base.encode(image)) for image in images])

    @cached_property
    def made(self) -> npt.NDArray[np.uint8]:
        """A picture for each caption."""
        return generated(self.base, self.real.captions, self.work / self._pictures / str(STEPS), 0)

    @cached_property
    def again(self) -> npt.NDArray[np.uint8]:
        """Of other seeds, for the first quarter of the captions."""
        captions = self.real.captions[: self.people // 4]
        return generated(self.base, captions, self.work / self._pictures / str(STEPS), 1)

    def by(self, sampler: str, steps: int) -> npt.NDArray[np.uint8]:
        """A picture for each caption of the same seeds as those of `made`, by another sampler."""
        base = load_base(self.which, device="cpu", sampler=sampler)
        return generated(base, self.real.captions, self.work / self._pictures / f"{sampler}{steps}", 0, steps)

    @property
    def _pictures(self) -> str:
        return self.base.fingerprint[:16]


def generated(base: Base, captions: list[str], folder: Path, seed: int, steps: int = STEPS) -> npt.NDArray[np.uint8]:
    """One picture for each caption (N, H, W, 3), made once; a run that was stopped goes on."""
    pictures = []
    for number, caption in enumerate(track(captions, description=f"pictures, {folder.name} steps, seed {seed}")):
        path = folder / str(seed) / f"{number:05d}.npy"
        if not path.exists():
            (picture,) = base.generate(caption, seed=seed * 1_000_000 + number, steps=steps)
            with atomic_write(path) as file:
                np.save(file, picture.image)
        pictures.append(np.load(path))
    return np.stack(pictures)


def balanced(hits: npt.NDArray[np.bool_], true: npt.NDArray[np.str_]) -> float:
    """Share of hits, in the mean over classes."""
    return float(np.mean([hits[true == c].mean() for c in np.unique(true)]))


def accuracy(judge: PictureJudge, told: Mapping[str, npt.NDArray[np.str_]], facts: list[dict[str, str]]) -> float:
    """Share of pictures that show what they should in %: the mean over attributes of the mean over their classes."""
    means = []
    for name in judge.classes:
        true = judge.truth(name, facts)
        said = true != ""
        means.append(100 * balanced((told[name] == true)[said], true[said]))
    return float(np.mean(means))


def prompts(evidence: Evidence, setting: Setting) -> None:
    """Add the figures that the judge gives, of pictures and of what the autoencoder alone leaves of the renderings."""
    judge, made, real = PictureJudge(setting.judge), setting.made, setting.real
    told, features = judge.tell(made)
    told_real, features_real = judge.tell(real.images)
    told_back, features_back = judge.tell(setting.back)
    _, features_others = judge.tell(setting.others.images)
    means = {}
    for name in judge.classes:
        true = judge.truth(name, real.facts)
        said = true != ""
        hits, hits_real = ((x[name] == true)[said] for x in (told, told_real))
        pairs = np.stack([hits, np.unique(true[said], return_inverse=True)[1]], 1)
        interval = bootstrap_ci(
            pairs, statistic=lambda rows: balanced(rows[:, 0].astype(bool), rows[:, 1].astype(str)), n=500
        )
        means[name] = 100 * balanced(hits, true[said])
        evidence.add(
            f"base.prompt_accuracy.{name}",
            means[name],
            "%",
            n=int(said.sum()),
            ci95=(100 * interval[0], 100 * interval[1]),
            against=("renderings", 100 * balanced(hits_real, true[said])),
            note=f"mean over {len(np.unique(true[said]))} classes",
        )
    evidence.add(
        "base.prompt_accuracy_mean",
        accuracy(judge, told, real.facts),
        "%",
        n=len(made),
        against=("autoencoder alone", accuracy(judge, told_back, real.facts)),
    )
    worst = min(means, key=means.__getitem__)
    evidence.add("base.prompt_accuracy_min", means[worst], "%", n=len(made), note=worst)
    least = frechet(features_real, features_others)
    evidence.add(
        "base.frechet_ratio",
        frechet(features, features_others) / least,
        n=len(made),
        against=("autoencoder alone", frechet(features_back, features_others) / least),
        note=f"over the distance {least:.3g} of two disjoint sets of renderings",
    )


def reading(evidence: Evidence, setting: Setting, steps: int = 600) -> None:
    """Add how well facts are read from the states of captions, the only thing that the U-Net sees of them."""
    import torch

    from ipse.diffusion.training.text import FactsReader, missed, numbered

    recipe, learned, tokenizer = Recipe.load(FACES), [], setting.base.pipeline.tokenizer
    for number in track(range(READ), description="captions to learn from"):
        who = recipe.person(number)
        seen = who, recipe.look(who, 0), recipe.shot(who, 0, 0), recipe.framing
        learned.append((captions(*seen, n=1)[0], facts(*seen)))
    names, true, classes = numbered([said for _, said in learned] + setting.real.facts)
    texts = [text for text, _ in learned] + setting.real.captions
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    wanted = torch.from_numpy(true)

    def shares(encoder: torch.nn.Module) -> npt.NDArray[np.float64]:
        """(people,) share of the facts of each that are read right, by a reader that learned from the others."""
        with torch.no_grad():
            states = torch.cat([encoder(input_ids=part).last_hidden_state for part in tokens.split(100)])
        torch.manual_seed(0)
        reader = FactsReader(states.shape[-1], classes)
        optimizer = torch.optim.AdamW(reader.parameters(), 3e-3)
        for _ in range(steps):
            rows = torch.randint(0, READ, (64,))
            optimizer.zero_grad()
            missed(reader(states[rows]), wanted[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            told = torch.stack([one.argmax(1) for one in reader(states[READ:])], 1)
        known = wanted[READ:] >= 0
        return (100 * ((told == wanted[READ:]) & known).sum(1) / known.sum(1)).double().numpy()

    ours, joint = shares(setting.base.pipeline.text_encoder), shares(setting.base.joint().text_model)
    evidence.add(
        "base.facts_read",
        float(ours.mean()),
        "%",
        n=len(ours),
        ci95=bootstrap_ci(ours),
        against=("the joint encoder's states", float(joint.mean())),
        note=f"{len(names)} facts, by one query of attention each, learned from {READ:,} captions of other people",
    )


def samplers(evidence: Evidence, setting: Setting) -> None:
    """Add what is left with fewer steps."""
    judge = PictureJudge(setting.judge)
    _, features_others = judge.tell(setting.others.images)
    told, features = judge.tell(setting.made)
    whole = accuracy(judge, told, setting.real.facts), frechet(features, features_others)
    for sampler, steps in FEWER:
        told, features = judge.tell(setting.by(sampler, steps))
        name, note = f"base.sampler.{sampler}{steps}", f"{SAMPLERS[sampler]}, {steps} steps, same captions and seeds"
        against = f"DDIM, {STEPS} steps"
        evidence.add(
            f"{name}.prompt_accuracy_mean",
            accuracy(judge, told, setting.real.facts),
            "%",
            n=len(features),
            against=(against, whole[0]),
            note=note,
        )
        evidence.add(
            f"{name}.frechet_over_ddim",
            frechet(features, features_others) / whole[1],
            n=len(features),
            note=f"{note}; distance to renderings of other people, over that of {against}",
        )


def face_vectors(images: npt.NDArray[np.uint8], what: str) -> npt.NDArray[np.float32]:
    """(N, 128) vectors by dlib's face network, NaN where there is no face."""
    detector, encoder = HogDetector(), DlibFaceEncoder(threads=1)
    out = np.full((len(images), encoder.dim), np.nan, np.float32)
    for i, image in enumerate(track(images, description=what)):
        if found := detector.detect(image):
            out[i] = encoder.encode(align(image, [found[0]], encoder.chip.template))[0]
    return out


def identity(evidence: Evidence, setting: Setting) -> None:
    """Add how many people are known again in what the autoencoder leaves of them; no face is nobody."""
    from diffusers import AutoencoderKL

    count = max(2, setting.people // 4)
    one, two = setting.twice(count)
    gallery = face_vectors(one, "gallery")

    def known(images: npt.NDArray[np.uint8], what: str) -> npt.NDArray[np.float64]:
        """(count,) whether the nearest picture of another day is the person's own, in %."""
        apart = np.linalg.norm(face_vectors(images, what)[:, None] - gallery, axis=2)
        apart = np.where(np.isfinite(apart), apart, np.inf)
        own = np.diagonal(apart)
        return 100.0 * (np.isfinite(own) & (own <= apart.min(1)))

    def back(base: Base) -> npt.NDArray[np.uint8]:
        return np.stack([base.decode(base.encode(image)) for image in track(two, description="autoencoder")])

    ours, theirs = known(back(setting.base), "decoded"), known(two, "rendered")
    note = f"autoencoder alone; rank-1 among {count} people by one picture of another look, dlib's face network"
    evidence.add(
        "base.known_again", float(ours.mean()), "%", n=count, ci95=bootstrap_ci(ours),
        against=("renderings", float(theirs.mean())), note=note,
    )  # fmt: skip
    if setting.before:
        base = load_base(setting.which, device="cpu")
        base.pipeline.vae = AutoencoderKL.from_pretrained(setting.before)
        earlier = known(back(base), "decoded before")
        evidence.add(
            "base.known_again_gain", float((ours - earlier).mean()), "points", n=count,
            ci95=bootstrap_ci(ours - earlier),
            against=(f"{base.pipeline.vae.config.latent_channels} channels, of vae-start", float(earlier.mean())),
            note=f"{note}; paired",
        )  # fmt: skip


def faces(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of detection and of diversity."""
    first, second, real = setting.made, setting.again, setting.real
    one, two = face_vectors(first, "faces"), face_vectors(second, "faces of another seed")
    true = face_vectors(real.images, "rendered faces")
    frontal = np.array([fact.get("head") == "facing the camera" for fact in real.facts])
    found, found_real = (100 * np.isfinite(x[frontal, 0]) for x in (one, true))
    evidence.add(
        "base.detect_frontal",
        float(found.mean()),
        "%",
        n=int(frontal.sum()),
        ci95=bootstrap_ci(found),
        against=("renderings", float(found_real.mean())),
    )
    apart = np.linalg.norm(one[: len(two)] - two, axis=1)
    apart = apart[np.isfinite(apart)]
    groups = [tuple(fact.get(name, "") for name in ("age_group", "gender", "skin_tone")) for fact in real.facts]
    draw, rows = np.random.default_rng(0), []
    for group in sorted(set(groups)):
        members = draw.permutation([i for i, g in enumerate(groups) if g == group and np.isfinite(true[i, 0])])
        rows += [np.linalg.norm(true[a] - true[b]) for a, b in zip(members[::2], members[1::2], strict=False)]
    evidence.add(
        "base.seed_distance",
        float(apart.mean()),
        n=len(apart),
        ci95=bootstrap_ci(apart),
        against=("two rendered people of one group", float(np.mean(rows))),
        note="by dlib's face network, where 0.6 is its threshold for another person",
    )


def cost(evidence: Evidence, setting: Setting, trials: int = 10) -> None:
    """Add seconds per picture on one thread, and the size of the weights."""
    import torch

    base = setting.base
    torch.set_num_threads(1)
    list(base.generate(CAPTION, steps=STEPS))
    seconds = []
    for number in range(trials):
        start = time.perf_counter()
        list(base.generate(CAPTION, seed=number, steps=STEPS))
        seconds.append(time.perf_counter() - start)
    evidence.add(
        "base.seconds_per_picture",
        float(np.median(seconds)),
        "s",
        n=trials,
        note=f"{STEPS} steps with guidance, one thread, median",
    )
    evidence.add("base.weights_mb", base.record["bytes"] / 1e6, "MB", n=1)


def inversion(evidence: Evidence, setting: Setting) -> None:
    """Add how near a rendering is that was inverted by its caption and made again."""
    from ipse.diffusion.inversion import invert_picture, psnr

    base, real = setting.base, setting.real
    count = max(2, setting.people // 4)
    back, alone = [], []
    for image, caption in track(list(zip(real.images, real.captions, strict=True))[:count], description="inversion"):
        fitted = base.fit(image)
        back.append(psnr(invert_picture(base, image, caption, steps=STEPS).generate(base).image, fitted))
        alone.append(psnr(base.decode(base.encode(fitted)), fitted))
    evidence.add(
        "base.inversion_psnr_db",
        float(np.mean(back)),
        "dB",
        n=len(back),
        ci95=bootstrap_ci(back),
        against=("autoencoder alone", float(np.mean(alone))),
        note=f"DDIM run backward, {STEPS} steps, full captions, no guidance; mean over people",
    )


def adapter(evidence: Evidence, setting: Setting, trials: int = 40) -> None:
    """Add what an identity adapter on every cross-attention layer costs."""
    import torch

    from ipse.diffusion.adapters import Adapter, LinearProjection
    from ipse.diffusion.attention import attached

    unet = setting.base.pipeline.unet
    torch.manual_seed(0)
    made = Adapter.new(unet, LinearProjection(128, unet.config.cross_attention_dim)).requires_grad_(False)
    nobody, somebody = made.tokens(torch.randn(2, 128)).split(1)
    note = f"decoupled cross-attention to {somebody.shape[1]} identity tokens in {len(made.layers)} layers"
    overhead(
        evidence,
        "base.adapter_overhead",
        setting.base,
        lambda: attached(unet, made.on(unet, somebody, negative=nobody)),
        trials,
        note,
    )


def attention(evidence: Evidence, setting: Setting, trials: int = 40) -> None:
    """Add what keeping every map of cross-attention costs."""
    from ipse.diffusion.attention import Capture, attached, layers_of

    unet = setting.base.pipeline.unet
    layers = sum(layer.cross for layer in layers_of(unet))
    note = f"maps of {layers} layers and {STEPS} steps, of the prompt and of no prompt, mean over heads"
    overhead(evidence, "base.attention_overhead", setting.base, lambda: attached(unet, Capture()), trials, note)


def overhead(
    evidence: Evidence,
    name: str,
    base: Base,
    attach: Callable[[], AbstractContextManager[None]],
    trials: int,
    note: str,
) -> None:
    """Add the seconds of a picture within a context over those of a plain one, in turns."""
    import torch

    def seconds(seed: int, context: Callable[[], AbstractContextManager[None]]) -> float:
        # Of the processor: what else the machine does counts less.
        start = time.process_time()
        with context():
            list(base.generate(CAPTION, seed=seed, steps=STEPS))
        return time.process_time() - start

    torch.set_num_threads(1)
    for context in (nullcontext, attach):
        seconds(0, context)
    ratios = []
    for seed in track(range(trials), description=name):
        # Each goes first as often as the other.
        if seed % 2:
            plain, handled = seconds(seed, nullcontext), seconds(seed, attach)
        else:
            handled, plain = seconds(seed, attach), seconds(seed, nullcontext)
        ratios.append(handled / plain)
    evidence.add(
        name,
        float(np.median(ratios)),
        "x",
        n=trials,
        ci95=bootstrap_ci(ratios, statistic=np.median),
        note=f"{note}; over the plain pipeline, {STEPS} steps with guidance, one thread, median of pairs in turns",
    )


def bodies(evidence: Evidence, setting: Setting) -> None:
    """Add how well pictures of whole bodies follow their captions."""
    import torch

    from ipse.diffusion.training.joint import embed_images, embed_texts
    from ipse.diffusion.training.loop import pictures_of

    base, real = setting.base, setting.bodies
    joint, tokenizer = base.joint(), base.pipeline.tokenizer
    count = len(real.captions) // AMONG * AMONG
    if not count:
        raise SystemExit(f"A caption is found among {AMONG}: give --people {AMONG} or more.")
    made = generated(base, real.captions[:count], setting.work / base.fingerprint[:16] / "bodies", 0)
    fitted = np.stack([base.fit(image) for image in real.images[:count]])
    back = np.stack([base.decode(base.encode(image)) for image in track(fitted, description="autoencoder")])
    tokens = tokenizer(real.captions[:count], padding="max_length", truncation=True, return_tensors="pt")["input_ids"]

    @torch.no_grad()
    def found(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(count,) whether the own caption is the nearest, in %."""
        hits = []
        for pictures, texts in zip(torch.from_numpy(images).split(AMONG), tokens.split(AMONG), strict=True):
            seen = embed_images(joint, pictures_of(pictures))
            hits.append((seen @ embed_texts(joint, texts, tokenizer.eos_token_id).T).argmax(1) == torch.arange(AMONG))
        return 100 * torch.cat(hits).double().numpy()

    ours, theirs, alone = found(made), found(fitted), found(back)
    told = f"its caption is the first of {AMONG} of other people by the joint encoder, which makes no picture"
    evidence.add(
        "base.bodies.caption_found", float(ours.mean()), "%", n=count, ci95=bootstrap_ci(ours),
        against=("renderings", float(theirs.mean())), note=told,
    )  # fmt: skip
    evidence.add("base.bodies.caption_found_autoencoder", float(alone.mean()), "%", n=count, ci95=bootstrap_ci(alone))


PARTS: dict[str, Callable[[Evidence, Setting], None]] = {
    "prompts": prompts,
    "reading": reading,
    "samplers": samplers,
    "faces": faces,
    "identity": identity,
    "cost": cost,
    "inversion": inversion,
    "adapter": adapter,
    "attention": attention,
}
OF_BODIES = {"bodies": bodies}
"""Of another base."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(*PARTS, *OF_BODIES), nargs="+", help="these parts; other figures stay")
    parser.add_argument("--judge", type=Path, default=WORLD_JUDGE, help="weights of another judge")
    parser.add_argument("--base", default="world")
    parser.add_argument("--start", type=int, default=JUDGED, help="number of the first person; others are a trial")
    parser.add_argument("--people", type=int, default=1000, help="captions, and renderings of each set")
    parser.add_argument("--work", type=Path, default=Path("out/base-benchmark"), help="folder of pictures made once")
    parser.add_argument("--before", type=Path, help="weights of vae-start.yaml, to tell what eight channels gain")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--sheet", type=Path, help="a PNG with 64 of the pictures")
    parser.add_argument("--dry", action="store_true", help="print the figures and write none")
    options = parser.parse_args(arguments)
    parts = PARTS | OF_BODIES
    chosen = [name for name in parts if name in (options.only or PARTS)]

    setting = Setting(
        options.base, options.judge, options.start, options.people, options.work, options.workers, options.before
    )
    evidence, console = Evidence("base", seeds=[0, 1]), Console()
    for name in chosen:
        parts[name](evidence, setting)
        # After each part, so that a run cut short keeps what it has.
        if options.start == JUDGED and not options.dry:
            console.print(f"{name} written: {evidence.write(update=True)}")
    if options.sheet:
        sheet = contact_sheet(list(setting.made[:64]), 8, gap=2)
        save_png(sheet, options.sheet, {"Description": "Made by the world base."})
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    main()
