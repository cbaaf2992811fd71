"""The skin of the head, painted: what the geometry does not carry.

The texture lives on a cylinder around the template's head, so that one set of painted regions (lips, brows, beard,
cheeks,
hairline …) serves every person: the mesh's fixed topology carries them to each face. Colors are linear reflectances.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import warp as wp

from ipse.world import raster
from ipse.world.body import body
from ipse.world.look import Look, beard_color, hair_color
from ipse.world.parts import LABEL
from ipse.world.person import Mark, Person

WIDTH, HEIGHT = 512, 384
TOP, BOTTOM = 0.865, 0.575
"""Template heights (meters) of the texture's upper and lower edge."""
AXIS_Z = 0.035
"""The cylinder's axis stands at x = 0 and this z of the template."""

# Diffuse reflectance (sRGB, 0..255) at Monk tones 1..10: ordered as the Monk scale's swatches, as skin measures
# under neutral light
# rather than as the swatches print.
_TONES = np.array(
    [
        (240, 206, 188),
        (234, 196, 174),
        (226, 184, 159),
        (214, 168, 139),
        (196, 148, 117),
        (170, 122, 92),
        (142, 98, 72),
        (112, 76, 56),
        (84, 57, 44),
        (62, 43, 35),
    ],
    float,
)


def to_linear(rgb: np.ndarray | tuple[float, float, float]) -> np.ndarray:
    """Linear light of sRGB 0..1."""
    c = np.asarray(rgb, np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 to sRGB 0..1."""
    c = np.clip(linear, 0, 1)
    return np.where(c <= 0.0031308, 12.92 * c, 1.055 * np.maximum(c, 1e-8) ** (1 / 2.4) - 0.055)


def tone_color(tone: float, undertone: float = 0.0) -> np.ndarray:
    """Linear diffuse reflectance (3,) of a skin tone (1..10); `undertone` -1 cool to 1 warm."""
    srgb = np.array([np.interp(tone, range(1, 11), _TONES[:, c]) for c in range(3)]) / 255
    return to_linear(np.clip(srgb * (1 + undertone * np.array([0.0, 0.012, -0.05])), 0, 1))


def texture_coordinates(points: np.ndarray) -> np.ndarray:
    """(N, 2) texture coordinates in 0..1 of (N, 3) template points: azimuth, stretched toward the face, and height."""
    azimuth = np.arctan2(points[:, 0], points[:, 2] - AXIS_Z)
    u = 0.5 + 0.5 * (0.6 * np.sin(azimuth / 2) + 0.4 * azimuth / np.pi)
    v = (TOP - points[:, 1]) / (TOP - BOTTOM)
    return np.stack([u, v], 1).astype(np.float32)


def blurred(field: np.ndarray, sigma: float) -> np.ndarray:
    """A field (H, W) under a Gaussian of `sigma` cells that wraps around at all edges; float32.

    By Fourier transform: `scipy.ndimage` would take longer to import than everything here takes to blur.
    """
    rows, columns = np.fft.fftfreq(field.shape[0])[:, None], np.fft.rfftfreq(field.shape[1])[None]
    spectrum = np.fft.rfft2(field) * np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    return np.fft.irfft2(spectrum, field.shape).astype(np.float32)


@lru_cache(maxsize=1)
def canvas() -> dict[str, np.ndarray]:
    """Template geometry behind every texel: `point` (H, W, 3), masks `lips`, `eyelids`, `face` (H, W), and noise
    fields.

    Noise fields have zero mean, unit deviation and wrap around at all edges, so that rolling one gives another.
    """
    b = body()
    coordinates = texture_coordinates(b.template)
    triangles = b.triangles[b.triangles_of("body")]
    inside = (b.mask("inside_mouth") > 0.5) | (b.mask("ears") > 0.5)
    top = b.template[triangles, 1].min(1)
    u = coordinates[triangles, 0]
    triangles = triangles[(top > BOTTOM - 0.03) & ~inside[triangles].any(1) & (np.ptp(u, axis=1) < 0.5)]
    # Rasterized with the radius as nearness: of the surfaces behind one another the outer one wins.
    radius = np.hypot(b.template[:, 0], b.template[:, 2] - AXIS_Z)
    screen = np.stack([coordinates[:, 0] * WIDTH, coordinates[:, 1] * HEIGHT, radius], 1).astype(np.float32)
    keys = wp.zeros((HEIGHT, WIDTH), dtype=wp.int64, device="cpu")
    wp.launch(
        raster.rasterize,
        len(triangles),
        [
            wp.array(screen, dtype=wp.vec3, device="cpu"),
            wp.array(triangles, dtype=wp.vec3i, device="cpu"),
            wp.zeros(len(screen), dtype=wp.float32, device="cpu"),
            0,
        ],
        [keys],
        device="cpu",
    )
    rows, columns = np.nonzero(keys.numpy())
    corners = triangles[keys.numpy()[rows, columns] & 0xFFFFFFFF]
    at = np.stack([columns, rows], 1) + 0.5
    p, q, r = (screen[corners[:, i], :2] for i in range(3))

    def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    weights = np.stack([cross(q - at, r - at), cross(r - at, p - at), cross(p - at, q - at)], 1)
    weights /= weights.sum(1, keepdims=True)
    values = np.concatenate([b.template] + [b.mask(name)[:, None] for name in ("lips", "eyelids", "face")], 1)
    grid = np.full((HEIGHT, WIDTH, values.shape[1]), np.nan, np.float32)
    grid[rows, columns] = np.einsum("nk,nkc->nc", weights, values[corners])
    # Texels that no triangle covers (the crown, the seam) take their cylinder point.
    empty = np.isnan(grid[..., 0])
    u = (np.arange(WIDTH) + 0.5) / WIDTH
    fine = np.linspace(-np.pi, np.pi, 4001)
    azimuth = np.interp(u, 0.5 + 0.5 * (0.6 * np.sin(fine / 2) + 0.4 * fine / np.pi), fine)
    y = TOP - (np.arange(HEIGHT) + 0.5) / HEIGHT * (TOP - BOTTOM)
    cylinder = np.zeros_like(grid)
    cylinder[..., 0] = 0.08 * np.sin(azimuth)
    cylinder[..., 1] = y[:, None]
    cylinder[..., 2] = AXIS_Z + 0.08 * np.cos(azimuth)
    grid[empty] = cylinder[empty]

    rng = np.random.default_rng(20_000)

    def noise(sigma: float) -> np.ndarray:
        field = blurred(rng.standard_normal((HEIGHT, WIDTH)), sigma)
        return field / field.std()

    return {
        "point": grid[..., :3],
        "azimuth": np.broadcast_to(azimuth.astype(np.float32), (HEIGHT, WIDTH)),
        "lips": blurred(grid[..., 3], 1.2),
        "eyelids": blurred(grid[..., 4], 0.8),
        "face": blurred(grid[..., 5], 2.0),
        "coarse": noise(24),
        "medium": noise(7),
        "fine": noise(2),
        "pores": noise(0.8),
        "hairs": noise(0.7),
    }


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blob(point: np.ndarray, center: tuple[float, float, float], size: tuple[float, float, float]) -> np.ndarray:
    """A soft spot on both sides of the face: 1 at `center` (and its mirror image), falling off with `size` (meters)."""
    x = (np.abs(point[..., 0]) - center[0]) / size[0]
    y = (point[..., 1] - center[1]) / size[1]
    z = (point[..., 2] - center[2]) / size[2]
    return np.exp(-0.5 * (x * x + y * y + z * z))


_HAIRLINE = np.array(
    [
        # Azimuth in degrees, template height of the hairline, and how far full recession moves it up (in 35 mm).
        (0, 0.8045, 0.6),
        (25, 0.803, 0.9),
        (45, 0.790, 1.3),
        (60, 0.770, 0.8),
        (72, 0.738, 0.0),
        (84, 0.732, 0.0),
        (95, 0.752, 0.0),
        (118, 0.735, 0.0),
        (135, 0.680, 0.0),
        (155, 0.655, 0.0),
        (180, 0.650, 0.0),
    ]
)


def _hairline(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height of the hairline below or above template points (..., 3), and how far full recession raises it; meters."""
    azimuth = np.abs(np.degrees(np.arctan2(point[..., 0], point[..., 2] - AXIS_Z)))
    at, height, raised = _HAIRLINE.T
    return np.interp(azimuth, at, height), 0.035 * np.interp(azimuth, at, raised)


def scalp(point: np.ndarray, recession: float = 0.0) -> np.ndarray:
    """How far inside the hairy scalp template points (..., 3) lie, in meters: positive is hair, negative is skin."""
    height, raised = _hairline(point)
    return point[..., 1] - height - recession * raised


def beard_zone(point: np.ndarray, style: str) -> np.ndarray:
    """0..1: where the beard `style` (``stubble``, ``full``, ``moustache``, ``goatee``) grows, at template points."""
    x, y, z = np.abs(point[..., 0]), point[..., 1], point[..., 2]
    mouth_gap = smoothstep(0.0, 0.006, np.hypot((x - 0.0) / 1.9, (y - 0.6605)) - 0.0105)
    moustache = (
        smoothstep(0.668, 0.672, y) * smoothstep(0.687, 0.680, y + 0.10 * x) * smoothstep(0.034, 0.026, x) * (z > 0.1)
    )
    around = smoothstep(0.034, 0.024, x) * smoothstep(0.664, 0.650, y) * (z > 0.07) * smoothstep(0.6, 0.612, y)
    if style == "moustache":
        return moustache
    if style == "goatee":
        side = smoothstep(0.022, 0.026, x) * smoothstep(0.036, 0.031, x) * (y < 0.68) * (z > 0.1)
        return np.maximum(np.maximum(moustache, around), side) * mouth_gap
    # Upper edge: from the sideburn down over the cheek to the corner of the moustache.
    edge = np.interp(x, [0.0, 0.026, 0.04, 0.055, 0.066, 0.09], [0.684, 0.682, 0.676, 0.690, 0.725, 0.735])
    cheek = smoothstep(0.004, -0.004, y - edge) * (z > 0.035) * smoothstep(0.598, 0.612, y)
    return cheek * mouth_gap


@lru_cache(maxsize=1)
def zones() -> dict[str, np.ndarray]:
    """Painted regions that are the same for everybody, (H, W) float32 each: the mesh carries them to each face."""
    c = canvas()
    point = c["point"]
    x, y, z = np.abs(point[..., 0]), point[..., 1], point[..., 2]
    medium = c["medium"]

    blood = (
        0.9 * blob(point, (0.040, 0.690, 0.125), (0.018, 0.016, 0.05))
        + 0.9 * blob(point, (0.0, 0.688, 0.168), (0.012, 0.012, 0.03))
        + 0.35 * blob(point, (0.0, 0.625, 0.14), (0.016, 0.010, 0.04))
        + 0.3 * blob(point, (0.022, 0.676, 0.15), (0.008, 0.010, 0.03))
    )
    rows = np.cos((y + 0.0016 * c["coarse"] + 0.0007 * medium - 0.768) / 0.0088 * 2 * np.pi)
    forehead = smoothstep(0.55, 1.0, rows) * smoothstep(0.762, 0.768, y) * smoothstep(0.800, 0.790, y)
    forehead = forehead * smoothstep(0.045, 0.02, x) * (z > 0.08)
    dx, dy = x - 0.047, y - 0.727
    reach = np.hypot(dx, dy)
    crow = smoothstep(0.6, 1.0, np.cos(np.arctan2(dy, dx) * 11 + 0.7 * medium)) * (dx > 0)
    crow = crow * smoothstep(0.003, 0.007, reach) * smoothstep(0.024, 0.012, reach)
    under = np.exp(-(((y - 0.7125 - 3.0 * (x - 0.031) ** 2) / 0.0011) ** 2))
    under = under * blob(point, (0.031, 0.712, 0.13), (0.012, 0.02, 0.05))
    fold_x = np.interp(y, [0.640, 0.655, 0.668, 0.684], [0.0355, 0.0335, 0.028, 0.0195])
    nasolabial = np.exp(-(((x - fold_x) / 0.0016) ** 2)) * smoothstep(0.638, 0.648, y) * smoothstep(0.688, 0.682, y)
    folds = 0.7 * under + 0.8 * nasolabial * (z > 0.1)
    lines = 0.55 * forehead + 0.6 * crow + folds

    oil = blob(point, (0.0, 0.700, 0.165), (0.010, 0.022, 0.03)) + blob(point, (0.0, 0.783, 0.15), (0.03, 0.014, 0.04))
    made = {
        "blood": blood,
        "socket": blob(point, (0.030, 0.716, 0.135), (0.014, 0.007, 0.03)),
        "inner": 0.22 * blob(point, (0.020, 0.735, 0.13), (0.008, 0.010, 0.02)),
        "freckles": (blob(point, (0.028, 0.700, 0.14), (0.030, 0.022, 0.06)) + 0.35 * c["face"]).clip(0, 1),
        # A line is a dark valley beside a bright ridge.
        "lines": blurred(lines, 0.7) - 0.35 * blurred(lines, 2.5),
        "folds": blurred(folds, 1.2) - 0.3 * blurred(folds, 3.0),
        "lips": smoothstep(0.25, 0.75, c["lips"]),
        "shadow": blob(point, (0.031, 0.7385, 0.135), (0.0125, 0.0045, 0.03)) * smoothstep(0.727, 0.732, y),
        "blush": blob(point, (0.047, 0.697, 0.115), (0.014, 0.010, 0.05)),
        "rim": smoothstep(0.25, 0.8, c["eyelids"]),
        "oil": oil.clip(0, 1),
    }
    height, raised = _hairline(point)
    made |= {"inside": point[..., 1] - height, "recede": raised}
    made |= {f"beard_{style}": beard_zone(point, style) for style in ("stubble", "full", "moustache", "goatee")}
    return {k: v.astype(np.float32) for k, v in made.items()}


@lru_cache(maxsize=1)
def _windows() -> dict[str, tuple[slice, slice]]:
    """Per region the rows and columns outside which it is nothing: painting elsewhere would be wasted."""
    out = {}
    for name, weight in zones().items():
        rows, columns = np.nonzero(np.abs(weight) > 0.004)
        out[name] = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    return out


@lru_cache(maxsize=8)
def paint(person: Person, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """The head's texture for one person in one Look.

    Returns:
        (H, W, 4) float32: linear reflectance and gloss; and (H, W) int32: the segmentation class of every texel.
    """
    c, zone, windows, skin, makeup = canvas(), zones(), _windows(), person.skin, look.makeup
    rng = np.random.default_rng([person.number, 1])
    base = tone_color(skin.tone, skin.undertone)
    light = float(base.mean())

    def field(name: str) -> np.ndarray:
        return np.roll(c[name], (int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))), (0, 1))

    coarse, medium, fine, pores, hairs = (field(n) for n in ("coarse", "medium", "fine", "pores", "hairs"))
    # Skin is built up as optical density: what darkens it adds, channel by channel.
    density = np.empty((HEIGHT, WIDTH, 3), np.float32)
    blotches = skin.unevenness * (0.15 * coarse + 0.10 * medium)
    grain = (0.012 + 0.02 * skin.roughness) * fine + 0.035 * skin.roughness * pores
    density[:] = -(blotches + grain)[..., None]

    def darken(name: str, strength: np.ndarray | float, red: float, green: float, blue: float) -> None:
        at = windows[name]
        weight = zone[name][at] * (strength[at] if isinstance(strength, np.ndarray) else strength)
        for channel, amount in enumerate((red, green, blue)):
            density[(*at, channel)] += amount * weight

    # Blood shows where the skin is thin; on dark skin less.
    darken("blood", (1 + 0.25 * medium) * ((0.45 + 0.9 * skin.redness) * (0.35 + 1.3 * light)), 0.05, 0.30, 0.25)
    darken("socket", 0.95 * skin.circles, 0.7, 0.8, 0.6)
    darken("inner", 1.0, 0.7, 0.8, 0.6)
    if skin.freckles > 0.02:
        spots = smoothstep(
            1.5 - 0.4 * skin.freckles, 2.3 - 0.4 * skin.freckles, 0.75 * fine + 0.5 * hairs + 0.3 * medium
        )
        darken("freckles", (0.25 + 0.35 * skin.freckles) * spots, 0.30, 0.50, 0.65)
    if skin.wrinkles > 0.03:
        darken("lines", 0.75 * skin.wrinkles, 0.85, 1.1, 1.2)
    darken("folds", 0.55 * skin.folds, 0.85, 1.1, 1.2)
    rows, columns, fold = _lid_fold(person)
    density[rows, columns] += fold[..., None] * np.array([0.9, 1.1, 1.1], np.float32)
    for mark in skin.moles:
        rows, columns, spot = _mole(mark)
        density[rows, columns] += spot[..., None] * np.array([1.3, 1.9, 2.2], np.float32)
    darken("rim", 0.45 * person.lashes + 0.85 * makeup.liner, 1.3, 1.5, 1.5)
    if makeup.blush > 0:
        darken("blush", makeup.blush, 0.04, 0.48, 0.36)
    shaved = 0.26 * person.beard_density * (0.4 + light)
    if shaved > 0.01:
        darken("beard_stubble", shaved, 1.0, 0.85, 0.6)
    albedo = base * np.exp(-density)

    def cover(weight: np.ndarray, color: np.ndarray, name: str | None = None) -> None:
        at = windows[name] if name else (slice(None), slice(None))
        part = albedo[at]
        part += ((color[at] if color.ndim == 3 else color) - part) * weight[at][..., None]

    for mark in skin.scars:
        pale = np.minimum(base * 1.25 + 0.06, 0.9) * np.array([1.05, 0.92, 0.92], np.float32)
        cover(_scar(mark), pale)

    lip = base * np.array([0.80, 0.50, 0.50], np.float32) + np.array([0.035, 0.0, 0.004], np.float32)
    lip = lip * np.exp(-np.array([0.5, 0.75, 0.7], np.float32) * np.float32(skin.lips))
    painted = makeup.lipstick is not None
    if painted:
        lip = lip + (to_linear(makeup.lipstick.rgb) - lip) * np.float32(makeup.lipstick_strength)
    cover(zone["lips"] * (0.9 if painted else 0.72), lip * np.exp(0.05 * fine + 0.03 * hairs)[..., None], "lips")
    if makeup.shadow is not None:
        cover(0.5 * makeup.shadow_strength * zone["shadow"], to_linear(makeup.shadow.rgb), "shadow")

    # Brows, a tint under the beard, the shaved scalp and what lies under the hair.
    grown = to_linear(beard_color(person).rgb)
    brows = _brows(person, hairs, fine)
    cover(brows, grown * (0.65 - 0.45 * person.brows.darkness) + 0.004)
    inside = zone["inside"] - person.hair.recession * zone["recede"]
    amount = {"bald": 0.08, "buzz": 0.72}.get(look.hair.style, 0.9) * person.hair.density
    hairy = amount * smoothstep(-0.004, 0.006, inside + 0.0018 * fine) * (0.95 + 0.08 * hairs)
    cover(hairy.clip(0, 0.97), to_linear(hair_color(person, look).rgb) * 0.7)
    if look.beard.style != "none":
        depth = {"stubble": 0.42}.get(look.beard.style, 0.8) * (0.4 + 0.6 * person.beard_density)
        dots = 0.85 + 0.22 * hairs + 0.12 * pores
        name = f"beard_{look.beard.style}"
        cover((depth * zone[name] * dots).clip(0, 0.95), grown * 0.6, name)

    gloss = (0.35 + 0.55 * skin.oiliness) * (0.55 + 0.45 * zone["oil"]) * (1 + 0.25 * fine)
    gloss += ((1.4 if painted else 0.95) - gloss) * zone["lips"]
    gloss *= 1 - 0.8 * np.maximum(brows, hairy)
    texture = np.concatenate([albedo.clip(0.002, 0.95), gloss.clip(0.02, 1.6)[..., None]], 2, dtype=np.float32)

    label = np.where(c["face"] > 0.5, LABEL["face"], LABEL["skin"]).astype(np.int32)
    label[(inside > 0) & (look.hair.style != "bald")] = LABEL["hair"]
    label[brows > 0.25] = LABEL["brows"]
    label[c["lips"] > 0.5] = LABEL["lips"]
    return texture, label


def _place(mark: Mark) -> tuple[float, float]:
    """Template x and y of a mark's face coordinates."""
    return 0.060 * mark.u, 0.705 + 0.088 * mark.v


def _mole(mark: Mark) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns of the texture around a mole, and its strength there."""
    x, y = _place(mark)
    half = mark.size_mm / 2000
    point = canvas()["point"]
    distance = np.hypot(point[::4, ::4, 0] - x, point[::4, ::4, 1] - y) + (point[::4, ::4, 2] < 0.03)
    row, column = (4 * int(i) for i in np.unravel_index(np.argmin(distance), distance.shape))
    rows, columns = (slice(max(i - 12, 0), i + 13) for i in (row, column))
    near = point[rows, columns]
    distance = np.hypot(near[..., 0] - x, near[..., 1] - y) + (near[..., 2] < 0.03)
    return rows, columns, mark.strength * smoothstep(1.25, 0.75, distance / half)


def _scar(mark: Mark) -> np.ndarray:
    point = canvas()["point"]
    x, y = _place(mark)
    a = np.radians(mark.angle)
    dx, dy = point[..., 0] - x, point[..., 1] - y
    along, across = dx * np.cos(a) + dy * np.sin(a), dy * np.cos(a) - dx * np.sin(a)
    line = smoothstep(0.0011, 0.0003, np.abs(across)) * smoothstep(1.0, 0.8, np.abs(along) / (mark.size_mm / 2000))
    return 0.75 * mark.strength * line * (point[..., 2] > 0)


def _lid_fold(person: Person) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns of the texture around the upper eyelids, and how much the fold in them darkens there."""
    rows = slice(int((TOP - 0.752) / (TOP - BOTTOM) * HEIGHT), int((TOP - 0.722) / (TOP - BOTTOM) * HEIGHT))
    columns = slice(int(0.28 * WIDTH), int(0.72 * WIDTH))
    point = canvas()["point"][rows, columns]
    x, y = np.abs(point[..., 0]), point[..., 1]
    across = (x - 0.031) / 0.0165
    center = 0.7345 + 0.0065 * person.skin.lid_fold_height - 0.0045 * across**2
    line = np.exp(-(((y - center) / 0.0011) ** 2)) * smoothstep(1.15, 0.75, np.abs(across))
    return rows, columns, 0.8 * person.skin.lid_fold * line * (point[..., 2] > 0.05)


def _brows(person: Person, hairs: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Opacity of the eyebrows: two arcs over the eyes, thick inside, thinning to the temple."""
    out = np.zeros((HEIGHT, WIDTH), np.float32)
    # All brows lie in this window of the texture.
    rows = slice(int((TOP - 0.775) / (TOP - BOTTOM) * HEIGHT), int((TOP - 0.735) / (TOP - BOTTOM) * HEIGHT))
    columns = slice(int(0.28 * WIDTH), int(0.72 * WIDTH))
    point = canvas()["point"][rows, columns]
    x, y = np.abs(point[..., 0]), point[..., 1]
    b = person.brows
    inner = 0.0085 + 0.006 * b.spacing
    t = (x - inner) / (0.0545 - inner)
    arch = 0.0006 + 0.0056 * b.arch
    center = 0.7502 + 0.0042 * (b.height - 0.25)
    center += arch * np.sin(t.clip(0, 1.1) * np.pi * 0.80) - 0.0085 * (t - 0.60).clip(0, 1)
    half = (0.0018 + 0.0050 * b.thickness) * (1 - 0.72 * t.clip(0, 1) ** 1.6) * (0.75 + 0.25 * smoothstep(0, 0.15, t))
    shape = smoothstep(1.25, 0.55, np.abs(y - center) / half) * smoothstep(-0.05, 0.08, t) * smoothstep(1.02, 0.85, t)
    strokes = 0.88 + 0.13 * hairs[rows, columns] + 0.08 * fine[rows, columns]
    opacity = (0.45 + 0.55 * b.density) * (0.8 + 0.2 * b.thickness)
    out[rows, columns] = (shape * strokes * opacity * 1.3).clip(0, 0.96) * (point[..., 2] > 0.05)
    return out
