"""What a scene is made of: pieces of geometry bound to the body, their materials and their names."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ipse.faces.parts import LABELS

LABEL: dict[str, int] = {name: i for i, name in enumerate(LABELS)}


def shares(parts: np.ndarray) -> dict[str, float]:
    """The classes in a segmentation (H, W), each with its share of the pixels."""
    counts = np.bincount(parts.ravel(), minlength=len(LABELS))
    return {name: float(count / parts.size) for name, count in zip(LABELS, counts, strict=True) if count}


@dataclass(frozen=True)
class Material:
    """How a surface answers light; see `ipse.world.raster.MATERIAL_COLUMNS`.

    Attributes:
        kind: one of the material kinds of `ipse.world.raster`.
        gloss: strength of the highlight, 0..1.
        roughness: GGX roughness, 0.05 (mirror-like) to 1.
        pattern: 0 plain, 1 stripes, 2 checks, 3 dots, 4 print; drawn in `Part.coordinate` times `scale`.
        scale: pattern repeats per meter.
        second: second pattern color, linear RGB.
        sheen: bright edge of fuzzy cloth, 0..1.
        fold: amplitude of cloth folds in the shading normal, 0..1.
        seed: shifts the noise of print and folds.
        opacity: of a lens.
    """

    kind: int
    gloss: float = 0.0
    roughness: float = 0.5
    pattern: int = 0
    scale: float = 1.0
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sheen: float = 0.0
    fold: float = 0.0
    seed: float = 0.0
    opacity: float = 0.0

    def row(self) -> list[float]:
        """The material as a row of the renderer's table."""
        return [
            self.kind,
            self.gloss,
            self.roughness,
            self.pattern,
            self.scale,
            *self.second,
            self.sheen,
            self.fold,
            self.seed,
            self.opacity,
            0,
            0,
            0,
            0,
        ]


@dataclass
class Part:
    """A piece of geometry in the rest pose, bound to the body.

    Attributes:
        vertices: (N, 3) float32, meters, beside the person's `Rest` body.
        triangles: (M, 3) int32 into `vertices`.
        anchor: (N,) int32, the body vertex whose skinning weights and expression offset each vertex takes. What sits
        rigidly
            on the head is anchored to `ipse.world.scene.head_anchor()`.
        material: the surface.
        label: segmentation class, a name of `LABELS`.
        color: (3,) or (N, 3) linear reflectance.
        coordinate: (N, 2) pattern coordinates in meters (cloth), or along-strand 0..1 and the strand's
            number plus the place across it 0..1 (hair).
        toward: (N,) int32, hair only: the next vertex toward the tip, which gives the fiber's direction.
        keep: (N,) float32: fragments with a negative interpolated value are cut away; zero everywhere by default.
        uv: (M, 3, 2) float32 texture coordinates of MakeHuman's layout for the dense-UV truth; -1 where there is none.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    anchor: np.ndarray
    material: Material
    label: str
    color: np.ndarray
    coordinate: np.ndarray | None = None
    toward: np.ndarray | None = None
    keep: np.ndarray | None = None
    uv: np.ndarray | None = field(default=None, repr=False)
