"""The data card: what a data set holds, said beside it in words, numbers and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import ipse
from ipse._files import atomic_write
from ipse.images import contact_sheet, save_png
from ipse.world.dataset import columns
from ipse.world.parts import LABELS
from ipse.world.person import AGE_GROUPS, GENDER_GROUPS, SKIN_GROUPS
from ipse.world.recipe import Recipe
from ipse.world.version import VERSION

# Groups counted on the card. Those of the first three are listed even where nobody is in them: that is what a reader
# who looks for bias wants to see.
_COUNTED: dict[str, tuple[str, ...]] = {
    "age_group": tuple(AGE_GROUPS),
    "gender": tuple(GENDER_GROUPS),
    "skin_group": tuple(SKIN_GROUPS),
    "hair_style": (),
    "hair_color": (),
    "beard": (),
    "glasses": (),
    "hat": (),
    "mood": (),
    "background": (),
    "pose": (),
}
_EXAMPLES = 24


def write_card(folder: Path, recipe: Recipe, shards: Sequence[Path]) -> dict[str, dict[str, int]]:
    """Write ``README.md``, ``examples.png`` and ``recipe.yaml`` beside the shards.

    Returns:
        Pictures by group.
    """
    names = ["person", *_COUNTED]
    table = pa.concat_tables(pq.read_table(path, columns=names) for path in shards)
    counts = {name: _count(table, name) for name in _COUNTED}
    save_png(_examples(shards), folder / "examples.png")
    recipe_text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
    _write(folder / "recipe.yaml", recipe_text)
    _write(folder / "README.md", _card(recipe, counts, recipe_text))
    return {name: {value: pictures for value, (_, pictures) in found.items()} for name, found in counts.items()}


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _count(table: pa.Table, name: str) -> dict[str, tuple[int, int]]:
    """People and pictures by value of a column: known groups in their order, others from the most frequent down."""
    grouped = table.group_by(name).aggregate([("person", "count_distinct"), ("person", "count")]).to_pylist()
    found = {row[name]: (row["person_count_distinct"], row["person_count"]) for row in grouped}
    others = sorted(found.keys() - set(_COUNTED[name]), key=lambda value: (-found[value][1], value))
    return {value: found.get(value, (0, 0)) for value in (*_COUNTED[name], *others)}


def _examples(shards: Sequence[Path]) -> Any:
    """A contact sheet of people from all over the data set, one picture each."""
    some = [shards[i * len(shards) // min(_EXAMPLES, len(shards))] for i in range(min(_EXAMPLES, len(shards)))]
    each = -(-_EXAMPLES // len(some))
    pictures: list[bytes] = []
    labels: list[str] = []
    for path in some:
        with pq.ParquetFile(path) as file:
            wanted = ["image", "person", "age", "gender"]
            rows = (row for batch in file.iter_batches(16, columns=wanted) for row in batch.to_pylist())
            for taken, (number, of_person) in enumerate(groupby(rows, lambda row: row["person"])):
                if taken == each:
                    break
                row = next(of_person)
                pictures.append(row["image"]["bytes"])
                labels.append(f"person {number}: {row['gender']}, {row['age']:.0f}")
    return contact_sheet(pictures[:_EXAMPLES], columns=8, labels=labels[:_EXAMPLES])


def _card(recipe: Recipe, counts: dict[str, dict[str, tuple[int, int]]], recipe_text: str) -> str:
    pictures, width, height = recipe.pictures, *recipe.pixels
    front = {
        "pretty_name": recipe.name,
        "license": "other",
        "license_name": "generated-no-third-party-rights",
        "language": ["en"],
        "tags": ["synthetic", "people", "ipse"],
        "size_categories": [_size_category(pictures)],
        "configs": [{"config_name": "default", "data_files": "data/*.parquet"}],
    }
    shots = f"{recipe.looks.count} × {recipe.shots.count}"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {recipe.name}",
        "",
        f"{pictures:,} pictures of {recipe.people.count:,} people who do not exist, with the truth about each: "
        f"{shots} (Looks × Shots) of every person, {width}×{height} pixels, framing `{recipe.framing}`.",
        "",
        "![Examples](examples.png)",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'people = load_dataset("parquet", data_dir="path/to/this/folder", split="train")',
        'people[0]["image"], people[0]["captions"]',
        "```",
        "",
        "## Who and what is in it",
        "",
        "| group | value | people | pictures | share of pictures |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, found in counts.items():
        for value, (people, shown) in found.items():
            lines.append(f"| {name} | {value} | {people:,} | {shown:,} | {shown / pictures:.1%} |")
    lines += ["", "## Columns", "", "| column | type | meaning |", "| --- | --- | --- |"]
    for column in columns(recipe):
        kind = "Image" if pa.types.is_struct(column.type) else str(column.type).replace("element: ", "")
        lines.append(f"| `{column.name}` | {kind} | {column.meaning} |")
    lines += [
        "",
        "Points are x, y in pixels from the outer corner of the top-left pixel; boxes are left, top, right, bottom. "
        "Left and right are those of the image.",
        "",
    ]
    if "parts" in recipe.truth:
        lines += ["Classes of `parts`: " + ", ".join(f"{i} {name}" for i, name in enumerate(LABELS)) + ".", ""]
    lines += [
        "## How it was made",
        "",
        f"By `ipse` {ipse.__version__}, world version {VERSION}, from this recipe (also in `recipe.yaml`):",
        "",
        "```yaml",
        recipe_text.rstrip(),
        "```",
        "",
        "```console",
        "ipse world dataset recipe.yaml --out NEW_FOLDER",
        "```",
        "",
        "makes it again. Bodies, faces, hair, clothes and light are drawn from numbered chance and rendered; no "
        "photograph and no generative network is involved. `person(n)`, `look(n, person)` and `shot(n, framing)` of "
        "`ipse.world` give the values behind the numbers in the columns, with the recipe's `fix`, `ranges` and "
        "`balance`.",
        "",
        "## License",
        "",
        "Nobody depicted exists or was photographed. The body model's assets are in the public domain (CC0), so the "
        "pictures carry no rights of third parties: they belong to whoever renders them. State the license you give "
        "them in the header of this card. The software is under the Apache License 2.0.",
        "",
        "## Limits",
        "",
        "- Rendered pictures are not photographs: skin, hair and cloth are simpler than in life, and a model that "
        "learns from them alone has to be tested on photographs before it is trusted with them.",
        "- Shares of age, gender, skin tone, hair and clothes are those of the recipe and of the world's design, not "
        "those of any population.",
        "- Gender is how a body reads, in two values; skin tone is the Monk scale; neither says who somebody would be.",
        "- Attribute columns say what is worn, hidden or not; `facts` and `captions` say what can be seen.",
        "",
    ]
    return "\n".join(lines)


def _size_category(pictures: int) -> str:
    """The size class of a data set in the words of Hugging Face."""
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in steps if pictures < limit), "1M<n<10M")
