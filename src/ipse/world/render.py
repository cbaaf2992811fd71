"""`render`: Person, Look and Shot to a picture and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import warp as wp

from ipse.errors import WorldError
from ipse.world import raster
from ipse.world.background import background
from ipse.world.body import Rest, body, rotation
from ipse.world.camera_effects import degrade, occluder
from ipse.world.landmarks import dense_landmarks, dense_vertices, five_points
from ipse.world.look import Look
from ipse.world.parts import LABEL
from ipse.world.person import Person
from ipse.world.pose import body_rotations
from ipse.world.scene import Scene, depth_map, orthographic, scene, vertex_normals
from ipse.world.shot import Shot
from ipse.world.skin import to_linear, to_srgb

SIZES: dict[str, tuple[int, int]] = {
    "portrait": (128, 128),
    "bust": (256, 256),
    "person": (128, 256),
    "ear": (128, 128),
}
"""Default width and height of each framing."""

_REGION = {"portrait": "head", "bust": "bust", "person": "person", "ear": "head"}
_SHADOW = {"head": 320, "bust": 448, "person": 640}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Image x runs right, y down, camera z forward; pixel centers are at half-integers.

    Attributes:
        intrinsic: (3, 3) float64, pixels.
        extrinsic: (3, 4) float64, world meters to camera meters.
    """

    intrinsic: np.ndarray
    extrinsic: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3): pixel x, pixel y and depth in meters of world points (N, 3)."""
        p = points @ self.extrinsic[:, :3].T + self.extrinsic[:, 3]
        q = p @ self.intrinsic.T
        return np.concatenate([q[:, :2] / q[:, 2:], p[:, 2:]], 1)

    @property
    def center(self) -> np.ndarray:
        """(3,) the camera's place in the world, meters."""
        return -self.extrinsic[:, :3].T @ self.extrinsic[:, 3]


@dataclass(frozen=True)
class Truth:
    """What is known about a picture, exactly.

    Attributes:
        person, look, shot: the three values the picture was made from.
        framing: ``portrait``, ``bust``, ``person`` or ``ear``.
        camera: where and how the picture was taken.
        parts: (H, W) uint8, segmentation class per pixel (`ipse.world.LABELS`), occluders included; depth, normals
        and uv are those of
            the scene behind an occluder.
        depth: (H, W) float32, meters along the camera's axis; 0 where the background is.
        normals: (H, W, 3) float32, world coordinates; zero where the background is.
        uv: (H, W, 2) float32, MakeHuman texture coordinates of the body's own surface; -1 elsewhere.
        five: (5, 2) float32 pixels, `five_visible` (5,) bool; order `FIVE_NAMES`.
        dense: (70, 2) float32 pixels, `dense_visible` (70,) bool; see `ipse.world.landmarks`.
        keypoints: (17, 2) float32 pixels, COCO order, `keypoints_visible` (17,) bool: in the picture and not hidden.
        face_box: x0, y0, x1, y1 of the dense landmarks, pixels, uncut; `body_box` of all that belongs to the person,
        cut to the
            picture; None where nothing of the person shows.
    """

    person: Person
    look: Look
    shot: Shot
    framing: str
    camera: Camera
    parts: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    five: np.ndarray
    five_visible: np.ndarray
    dense: np.ndarray
    dense_visible: np.ndarray
    keypoints: np.ndarray
    keypoints_visible: np.ndarray
    face_box: tuple[float, float, float, float]
    body_box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Picture:
    """An image and the truth about it.

    Attributes:
        image: (H, W, 3) uint8, sRGB.
        truth: see `Truth`.
    """

    image: np.ndarray
    truth: Truth


def render(
    person: Person,
    look: Look,
    shot: Shot,
    framing: str = "portrait",
    size: int | tuple[int, int] | None = None,
    *,
    supersample: int = 2,
    device: str = "cpu",
) -> Picture:
    """Take a picture of a person.

    Args:
        person: who.
        look: in what.
        shot: how the picture is taken.
        framing: ``portrait`` (the aligned face), ``bust``, ``person`` (the whole body) or ``ear``.
        size: pixels, one number for squares or (width, height); default `SIZES[framing]`.
        supersample: samples per pixel along each axis (anti-aliasing).
        device: a Warp device, such as ``cpu`` or ``cuda:0``.

    Raises:
        WorldError: for an unknown framing or an impossible size.
    """
    if framing not in SIZES:
        raise WorldError(f"unknown framing {framing!r}; choose one of {', '.join(SIZES)}")
    width, height = SIZES[framing] if size is None else (size, size) if isinstance(size, int) else size
    if not (16 <= width <= 4096 and 16 <= height <= 4096):
        raise WorldError(f"picture size {width}x{height} is out of range; each side must be 16..4096 pixels")

    region = _REGION[framing]
    made = scene(person, look, region, device)
    posed = _pose(person, look, shot, made.rest, framing)
    camera = _camera(shot, framing, width, height, posed)
    buffers = _draw(made, posed, shot, camera, width, height, supersample, _SHADOW[region])
    return _picture(buffers, posed, made, shot, framing, camera)


@dataclass(frozen=True)
class _Posed:
    """The body of a Shot: skinning transforms and the points that cameras and truth are made from, in world meters."""

    offsets: np.ndarray
    transforms: np.ndarray
    eye_centers: np.ndarray
    eye_axes: np.ndarray
    eye_up: np.ndarray
    eye_forward: np.ndarray
    eye_radius: float
    dense: np.ndarray
    five: np.ndarray
    neutral: np.ndarray
    keypoints: np.ndarray
    ears: np.ndarray
    top: np.ndarray
    chest: np.ndarray
    extent: np.ndarray


def _pose(person: Person, look: Look, shot: Shot, rest: Rest, framing: str) -> _Posed:
    b = body()
    actions = dict(shot.expression)
    # The lids follow the eyes up and down.
    lift = shot.gaze.pitch / 30
    for side in ("Left", "Right"):
        for name, amount in ((f"eyeLookUp{side}", lift), (f"eyeLookDown{side}", -lift)):
            if amount > 0:
                actions[name] = min(1.0, actions.get(name, 0.0) + amount)
    offsets = b.action_offsets(actions)

    turns = dict(body_rotations(shot.pose, person))
    # The neck's joints share the head's turn.
    for bone, share in (("neck01", 0.15), ("neck02", 0.2), ("neck03", 0.2), ("head", 0.45)):
        turn = _turn(shot.head.yaw * share, shot.head.pitch * share, shot.head.roll * share)
        turns[bone] = turns[bone] @ turn if bone in turns else turn
    for bone in ("eye.L", "eye.R"):
        turns[bone] = _turn(shot.gaze.yaw, shot.gaze.pitch, 0.0)
    transforms = b.transforms(rest, turns)

    moved = rest.vertices + offsets
    lids = dense_vertices()
    skin = b.skin(moved[lids], lids, transforms)
    neutral = b.skin(rest.vertices[lids], lids, transforms)
    centers, axes, radius = [], [], 0.0
    for name, group in (("eye.L", "helper-l-eye"), ("eye.R", "helper-r-eye")):
        ball = _eyeball(group)
        center = rest.vertices[ball].mean(0)
        radius = float(np.linalg.norm(rest.vertices[ball] - center, axis=1).mean())
        t = transforms[b.bone(name)]
        centers.append(t[:, :3] @ center + t[:, 3])
        axes.append(t[:, :3] @ np.array([0.0, 0.0, 1.0]))
    # Image order: the person's right eye is at the image's left.
    pupils = np.array([centers[1] + radius * axes[1], centers[0] + radius * axes[0]])
    dense = dense_landmarks(skin, pupils)
    # What only the other framings are aimed by is left out of a portrait.
    ears = b.skin(moved[_ear_vertices()], _ear_vertices(), transforms) if framing == "ear" else np.zeros((2, 3))
    outline = _outline_vertices() if framing in ("person", "bust") else lids
    cloud = b.skin(moved[outline], outline, transforms)
    # Room for what stands out from the body.
    above = np.array([0.0, 0.03 + 0.08 * (look.hat is not None), 0.0])
    aside = np.array([1.0, 0.0, 1.0]) * (0.14 if look.bag is not None else 0.03)
    head = transforms[b.bone("head")]
    chest = transforms[b.bone("spine01")]
    spine = rest.heads[b.bone("spine01")]
    return _Posed(
        offsets=offsets,
        transforms=transforms,
        eye_centers=np.array(centers),
        eye_axes=np.array(axes),
        eye_up=head[:, :3] @ np.array([0.0, 1.0, 0.0]),
        eye_forward=head[:, :3] @ np.array([0.0, 0.0, 1.0]),
        eye_radius=radius,
        dense=dense,
        five=five_points(dense),
        neutral=five_points(dense_landmarks(neutral, pupils)),
        keypoints=b.keypoints(rest, transforms),
        ears=ears,
        top=cloud[np.argmax(cloud[:, 1])],
        chest=chest[:, :3] @ spine + chest[:, 3],
        extent=np.stack([cloud.min(0) - aside, cloud.max(0) + aside + above]),
    )


def _turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation of a head: positive yaw to the image's right, pitch up, roll tilts the crown to the image's right."""
    return rotation((0, 1, 0), yaw) @ rotation((1, 0, 0), -pitch) @ rotation((0, 0, 1), -roll)


@lru_cache(maxsize=2)
def _eyeball(group: str) -> np.ndarray:
    b = body()
    return np.unique(b.triangles[b.triangles_of(group)])


@lru_cache(maxsize=1)
def _ear_vertices() -> np.ndarray:
    """Vertices of the person's left ear, then of the right one, in equal number."""
    b = body()
    ears = np.flatnonzero(b.mask("ears") > 0.5)
    left, right = ears[b.template[ears, 0] > 0], ears[b.template[ears, 0] < 0]
    count = min(len(left), len(right))
    return np.concatenate([left[:count], right[:count]])


@lru_cache(maxsize=1)
def _outline_vertices() -> np.ndarray:
    """Every ninth vertex of the body: enough for its extent."""
    b = body()
    return np.unique(b.triangles[b.triangles_of("body")])[::9]


def _camera(shot: Shot, framing: str, width: int, height: int, posed: _Posed) -> Camera:
    """The camera of a framing: direction and distance from the Shot, crop from what the framing shows."""
    eyes, mouth = posed.five[:2], posed.five[3:]
    face = 0.5 * eyes.mean(0) + 0.5 * mouth.mean(0)
    spec = shot.camera
    azimuth, elevation = np.radians(spec.azimuth_deg), np.radians(spec.elevation_deg)
    target = {"portrait": face, "ear": face, "bust": 0.6 * face + 0.4 * posed.chest}.get(framing, posed.extent.mean(0))
    away = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    if framing == "ear":
        # From the side, a little toward the face; the person's left ear unless the Shot turns the other way.
        side = 1.0 if shot.head.yaw <= 0 else -1.0
        half = len(posed.ears) // 2
        target = posed.ears[:half].mean(0) if side > 0 else posed.ears[half:].mean(0)
        right = posed.five[1] - posed.five[0]
        out = side * right / np.linalg.norm(right)
        forward = np.cross(right, posed.eye_up)
        away = out + np.tan(azimuth * 0.3) * forward / np.linalg.norm(forward)
        away = away + np.array([0.0, np.sin(elevation), 0.0])
        away /= np.linalg.norm(away)
    distance = spec.distance_m
    rotate = _look_along(-away)
    position = target + away * distance
    extrinsic = np.concatenate([rotate, -(rotate @ position)[:, None]], 1)

    focal = spec.focal_mm / 24.0 * height
    intrinsic = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    roll = spec.roll_deg
    camera = Camera(intrinsic, extrinsic)
    if framing == "portrait":
        # After the crop rule of FFHQ (Karras 2019, appendix C): from eye and mouth points, turned upright, half a
        # side of
        # max(2 x eye distance, 1.8 x eye-to-mouth distance), which holds for profiles too; an eighth wider for the
        # hair. The points
        # are those of the neutral face: an open mouth must not shrink the head.
        p = camera.project(posed.neutral)[:, :2]
        across = p[1] - p[0]
        down = (p[3] + p[4]) / 2 - (p[0] + p[1]) / 2
        x = across - np.array([-down[1], down[0]])
        x /= np.linalg.norm(x)
        half = max(np.linalg.norm(across) * 2.0, np.linalg.norm(down) * 1.8) * 1.12
        # The middle of the head, not of the face: a turned head stays in the picture with its hair.
        middle = posed.eye_centers.mean(0) - 0.03 * posed.eye_forward
        center = camera.project(middle[None])[0, :2] + 0.12 * down
        zoom = width / (2 * half)
        camera = _crop(camera, center, zoom, x, width, height)
        roll = 0.0
    elif framing == "bust":
        p = camera.project(np.stack([posed.top, posed.chest]))[:, :2]
        length = np.linalg.norm(p[1] - p[0])
        center = 0.5 * (p[0] + p[1]) + np.array([0.0, 0.06 * length])
        camera = _crop(camera, center, height / (1.42 * length), np.array([1.0, 0.0]), width, height)
    elif framing == "person":
        low, high = posed.extent
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        p = camera.project(corners)[:, :2]
        box = p.max(0) - p.min(0)
        zoom = min(height / (1.10 * box[1]), width / (1.04 * box[0]))
        camera = _crop(camera, (p.max(0) + p.min(0)) / 2, zoom, np.array([1.0, 0.0]), width, height)
    else:
        half = len(posed.ears) // 2
        chosen = posed.ears[:half] if shot.head.yaw <= 0 else posed.ears[half:]
        p = camera.project(chosen)[:, :2]
        box = (p.max(0) - p.min(0)).max()
        camera = _crop(camera, (p.max(0) + p.min(0)) / 2, height / (1.5 * box), np.array([1.0, 0.0]), width, height)
    if roll:
        a = np.radians(roll)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        shift = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1.0]])
        camera = Camera(shift @ turn @ np.linalg.inv(shift) @ camera.intrinsic, camera.extrinsic)
    return camera


def _look_along(forward: np.ndarray) -> np.ndarray:
    """(3, 3) world-to-camera rotation: z along `forward`, y down."""
    z = forward / np.linalg.norm(forward)
    x = np.cross(z, [0.0, 1.0, 0.0])
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def _crop(camera: Camera, center: np.ndarray, zoom: float, x: np.ndarray, width: int, height: int) -> Camera:
    """Move pixel `center` to the middle, scale by `zoom` and turn the direction `x` to the horizontal."""
    turn = np.array([[x[0], x[1], 0], [-x[1], x[0], 0], [0, 0, 1]])
    back = np.array([[1, 0, -center[0]], [0, 1, -center[1]], [0, 0, 1.0]])
    place = np.array([[zoom, 0, width / 2], [0, zoom, height / 2], [0, 0, 1.0]])
    return Camera(place @ turn @ back @ camera.intrinsic, camera.extrinsic)


def kelvin_color(temperature: float) -> np.ndarray:
    """Linear RGB of a black body's light, brightest channel 1, relative to daylight at 6500 K.

    A fit to the Planckian locus (T. Helland's approximation), taken to linear light.
    """
    t = temperature / 100
    red = 255.0 if t <= 66 else 329.698727 * (t - 60) ** -0.1332047592
    green = 99.4708 * np.log(t) - 161.11957 if t <= 66 else 288.1221695 * (t - 60) ** -0.0755148492
    blue = 255.0 if t >= 66 else 0.0 if t <= 19 else 138.5177312 * np.log(t - 10) - 305.0447927
    return to_linear(np.clip([red, green, blue], 0, 255) / 255)


def _lighting(shot: Shot, camera: Camera) -> tuple[raster.Lighting, np.ndarray]:
    spec = shot.light
    right, _, forward = camera.extrinsic[:, :3]
    level = np.array([forward[0], 0.0, forward[2]])
    level /= max(np.linalg.norm(level), 1e-6)
    a, e = np.radians(spec.key_azimuth_deg), np.radians(spec.key_elevation_deg)
    key = np.cos(e) * (np.sin(a) * right - np.cos(a) * level) + np.sin(e) * np.array([0.0, 1.0, 0.0])
    key /= np.linalg.norm(key)
    fill = -0.85 * level - 0.35 * np.sin(a) * right + np.array([0.0, 0.25, 0.0])
    fill /= np.linalg.norm(fill)
    ambient = to_linear(spec.ambient_rgb) * spec.ambient
    light = raster.Lighting()
    light.key_direction = wp.vec3(*key)
    light.key_color = wp.vec3(*(kelvin_color(spec.temperature_k) * spec.key))
    light.fill_direction = wp.vec3(*fill)
    light.fill_color = wp.vec3(*(np.array([0.95, 0.98, 1.0]) * spec.fill))
    light.sky_color = wp.vec3(*ambient)
    light.ground_color = wp.vec3(*(0.55 * ambient * np.array([1.05, 1.0, 0.92])))
    light.shadow_radius = 1.0 + 9.0 * spec.softness
    light.eye = wp.vec3(*camera.center)
    return light, key


def _camera_response(color: np.ndarray, label: np.ndarray, light: raster.Lighting) -> np.ndarray:
    """Gain (3,) per channel that a camera would choose: exposure metered on the face, and most of the light's tint
    removed.

    Metering on faces is what phones do; without it dark skin, and faces under a hat, would be systematically
    underexposed.
    """
    here = label == LABEL["face"]
    if here.sum() < 0.01 * here.size:
        here = label >= 0
    if not here.any():
        return np.ones(3)
    luminance = float((color[here] @ np.array([0.2126, 0.7152, 0.0722], np.float32)).mean())
    exposure = np.clip((0.23 / max(luminance, 1e-3)) ** 0.85, 0.6, 4.5)
    tint = np.array(light.key_color) * 0.6 + np.array(light.fill_color) * 0.8 + np.array(light.sky_color)
    balance = (tint.mean() / tint) ** 0.75
    return exposure * balance


def _draw(
    made: Scene, posed: _Posed, shot: Shot, camera: Camera, width: int, height: int, factor: int, shadow_size: int
) -> dict[str, np.ndarray]:
    """Run the kernels; arrays of `height` x `width` pixels."""
    device = made.device
    count = made.rest_vertices.shape
    offsets = wp.array(posed.offsets, dtype=wp.vec3, device=device)
    transforms = wp.array(posed.transforms, dtype=wp.vec4, device=device)
    vertices = wp.empty(count, dtype=wp.vec3, device=device)
    wp.launch(
        raster.skin_vertices,
        count,
        [made.rest_vertices, made.anchor, offsets, made.bone, made.weight, transforms],
        [vertices],
        device=device,
    )
    normals = vertex_normals(made, vertices)

    matrix = camera.intrinsic @ camera.extrinsic
    matrix[:2] *= factor
    screen = wp.empty(count, dtype=wp.vec3, device=device)
    wp.launch(
        raster.project,
        count,
        [vertices, wp.array(matrix.astype(np.float32), dtype=wp.vec4, device=device), 1],
        [screen],
        device=device,
    )
    shape = (height * factor, width * factor)
    keys = wp.full(shape, raster.NO_KEY, dtype=wp.int64, device=device)
    wp.launch(
        raster.rasterize,
        made.opaque,
        [screen, made.surface.triangles, made.keep, made.closed],
        [keys],
        device=device,
    )

    light, key_direction = _lighting(shot, camera)
    points = vertices.numpy()[::7]
    rows = orthographic(key_direction, points.min(0) - 0.02, points.max(0) + 0.02, shadow_size)
    light_keys, light_matrix = depth_map(made, vertices, rows, shadow_size)

    eyes = raster.Eyes()
    eyes.left_center, eyes.right_center = (wp.vec3(*c) for c in posed.eye_centers)
    eyes.left_axis, eyes.right_axis = (wp.vec3(*a) for a in posed.eye_axes)
    eyes.up = wp.vec3(*posed.eye_up)
    eyes.radius = posed.eye_radius
    iris = made.person.iris
    eyes.iris = wp.vec3(*to_linear(iris.color.rgb))
    eyes.ring = iris.ring
    eyes.pupil = 0.15 + 0.05 * (1 - min(shot.light.key, 1.0))
    eyes.redness = 0.5

    color = wp.empty(shape, dtype=wp.vec3, device=device)
    label = wp.empty(shape, dtype=wp.int32, device=device)
    normal = wp.empty(shape, dtype=wp.vec3, device=device)
    uv = wp.empty(shape, dtype=wp.vec2, device=device)
    wp.launch(
        raster.shade,
        shape,
        [keys, screen, vertices, normals, made.surface, light, eyes, light_matrix, light_keys, int(factor % 2 == 0)],
        [color, label, normal, uv],
        device=device,
    )
    wp.launch(raster.fill_reused, shape, [], [color, label, normal, uv], device=device)
    backdrop = wp.array(background(shot.background, width, height), dtype=wp.vec3, device=device)
    if made.lenses:
        wp.launch(
            raster.blend_lens,
            made.lenses,
            [
                screen,
                vertices,
                normals,
                made.surface,
                light,
                made.opaque,
                keys,
                color,
                label,
                LABEL["glasses"],
                backdrop,
                factor,
            ],
            device=device,
        )
    gain = _camera_response(color.numpy()[::2, ::2], label.numpy()[::2, ::2], light)
    image = wp.empty((height, width), dtype=wp.vec3, device=device)
    out_label = wp.empty((height, width), dtype=wp.int32, device=device)
    depth = wp.empty((height, width), dtype=wp.float32, device=device)
    out_normal = wp.empty((height, width), dtype=wp.vec3, device=device)
    out_uv = wp.empty((height, width), dtype=wp.vec2, device=device)
    wp.launch(
        raster.resolve,
        (height, width),
        [keys, color, label, normal, uv, backdrop, factor, wp.vec3(*gain)],
        [image, out_label, depth, out_normal, out_uv],
        device=device,
    )
    return {
        "image": image.numpy(),
        "label": out_label.numpy(),
        "depth": depth.numpy(),
        "normal": out_normal.numpy(),
        "uv": out_uv.numpy(),
    }


def _picture(
    buffers: dict[str, np.ndarray], posed: _Posed, made: Scene, shot: Shot, framing: str, camera: Camera
) -> Picture:
    depth = buffers["depth"]
    height, width = depth.shape
    image = np.clip(buffers["image"] * 255 + 0.5, 0, 255).astype(np.uint8)
    parts = np.maximum(buffers["label"], 0).astype(np.uint8)
    body_rows, body_columns = np.nonzero(parts)
    hidden = np.zeros(depth.shape, bool)
    if shot.occluder is not None:
        color, alpha = occluder(shot.occluder, width, height)
        alpha = alpha[..., None]
        image = np.clip(image * (1 - alpha) + to_srgb(color) * (255 * alpha) + 0.5, 0, 255).astype(np.uint8)
        hidden = alpha[..., 0] > 0.5
        parts[hidden] = LABEL["occluder"]
    image = degrade(image, shot.degrade, seed=made.person.number)

    def seen(points: np.ndarray, slack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = camera.project(points)
        x, y = np.floor(p[:, 0]).astype(int), np.floor(p[:, 1]).astype(int)
        inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        # The farthest depth of the neighborhood: a landmark on an outline stands beside the background.
        near = np.zeros(len(p))
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                near = np.maximum(near, depth[np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)])
        covered = hidden[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        return p[:, :2].astype(np.float32), inside & ~covered & ((near == 0) | (p[:, 2] <= near + slack))

    # Body keypoints lie inside the limbs, those of the head just under the skin.
    counts = (len(posed.dense), len(posed.five), 5, len(posed.keypoints) - 5)
    points, visible = seen(
        np.concatenate([posed.dense, posed.five, posed.keypoints]), np.repeat([0.008, 0.012, 0.035, 0.16], counts)
    )
    ends = np.cumsum(counts)[:2]
    (dense, five, keypoints), (dense_visible, five_visible, keypoints_visible) = (
        np.split(points, ends),
        np.split(visible, ends),
    )
    box = None
    if len(body_rows):
        x, y = body_columns, body_rows
        box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
    low, high = dense.min(0), dense.max(0)
    truth = Truth(
        person=made.person,
        look=made.look,
        shot=shot,
        framing=framing,
        camera=camera,
        parts=parts,
        depth=depth,
        normals=buffers["normal"],
        uv=buffers["uv"],
        five=five,
        five_visible=five_visible,
        dense=dense,
        dense_visible=dense_visible,
        keypoints=keypoints,
        keypoints_visible=keypoints_visible,
        face_box=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
        body_box=box,
    )
    return Picture(image=image, truth=truth)
