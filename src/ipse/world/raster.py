"""From triangles to pixels: the renderer's kernels, written once in Warp for CPU and CUDA.

Primary visibility and shadows are z-buffers: for meshes of this size (some 60,000 triangles, half of them hair) a
z-buffer costs a fifth of casting a ray per sample through a tree that has to be rebuilt for every pose. A fragment's
nearness and triangle are packed in one 64-bit key, so that an atomic maximum resolves visibility on any device.

Shading is per sample in linear light: a shadowed key light and a fill light, hemispherical ambient with vertex
occlusion, and one branch per material (skin with per-channel wrapped diffuse in the manner of pre-integrated
subsurface scattering [Penner 2011], Kajiya-Kay hair [1989], GGX highlights [Walter 2007], an analytic eye).
"""

from __future__ import annotations

import os
import sys

import warp as wp

# No greeting; older versions of Warp have no levels.
if hasattr(wp.config, "log_level"):
    wp.config.log_level = wp.LOG_WARNING
else:
    wp.config.quiet = True


def _start() -> None:
    """Start Warp with its native messages held back: without a GPU it complains at every start, from below Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            wp.init()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


_start()
wp.set_module_options({"enable_backward": False, "fast_math": True})

SKIN, BODY_SKIN, EYE, HAIR, CLOTH, HARD, TEETH, MOUTH, LASH, LENS = range(10)
"""Material kinds, the first column of the material table."""

MATERIAL_COLUMNS = 16
"""Columns of the material table: kind, gloss (0..1 strength), roughness (0..1), pattern (0 plain, 1 stripes, 2 checks,
3 dots, 4 print), pattern scale (repeats per meter), second color (3, linear RGB), sheen (0..1), fold amplitude (0..1),
seed, opacity (lens only); the rest is free."""

PLAIN, STRIPES, CHECKS, DOTS, PRINT = range(5)

NO_KEY = wp.constant(wp.int64(0))
"""A sample that no triangle covers: nearness zero."""

REUSED = wp.constant(-2)
"""Class of a sample that takes everything from its neighbor."""


@wp.kernel
def skin_vertices(
    rest: wp.array(dtype=wp.vec3),
    anchor: wp.array(dtype=wp.int32),
    offsets: wp.array(dtype=wp.vec3),
    bone: wp.array2d(dtype=wp.int32),
    weight: wp.array2d(dtype=wp.float32),
    transforms: wp.array2d(dtype=wp.vec4),
    out: wp.array(dtype=wp.vec3),
):
    """Expression offset and linear blend skinning, both read at the vertex's anchor on the body."""
    i = wp.tid()
    a = anchor[i]
    p = rest[i] + offsets[a]
    q = wp.vec3(0.0, 0.0, 0.0)
    h = wp.vec4(p[0], p[1], p[2], 1.0)
    for k in range(4):
        w = weight[a, k]
        if w > 0.0:
            j = bone[a, k]
            q += w * wp.vec3(wp.dot(transforms[j, 0], h), wp.dot(transforms[j, 1], h), wp.dot(transforms[j, 2], h))
    out[i] = q


@wp.kernel
def add_normals(
    vertices: wp.array(dtype=wp.vec3), triangles: wp.array(dtype=wp.vec3i), normals: wp.array(dtype=wp.vec3)
):
    """Area-weighted face normals, summed at the vertices."""
    t = wp.tid()
    a = triangles[t][0]
    b = triangles[t][1]
    c = triangles[t][2]
    n = wp.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    wp.atomic_add(normals, a, n)
    wp.atomic_add(normals, b, n)
    wp.atomic_add(normals, c, n)


@wp.kernel
def project(
    vertices: wp.array(dtype=wp.vec3),
    matrix: wp.array(dtype=wp.vec4),
    perspective: wp.int32,
    screen: wp.array(dtype=wp.vec3),
):
    """To sample coordinates and nearness, which is linear on the screen and grows toward the viewer.

    With perspective, nearness is the inverse depth; without, the third row of `matrix` gives it. It is not positive
    behind the viewer.
    """
    i = wp.tid()
    p = vertices[i]
    h = wp.vec4(p[0], p[1], p[2], 1.0)
    x = wp.dot(matrix[0], h)
    y = wp.dot(matrix[1], h)
    z = wp.dot(matrix[2], h)
    if perspective == 1:
        if z < 0.01:
            z = 0.0
        else:
            z = 1.0 / z
            x = x * z
            y = y * z
    screen[i] = wp.vec3(x, y, z)


@wp.kernel
def rasterize(
    screen: wp.array(dtype=wp.vec3),
    triangles: wp.array(dtype=wp.vec3i),
    keep: wp.array(dtype=wp.float32),
    closed: wp.int32,
    keys: wp.array2d(dtype=wp.int64),
):
    """Nearest triangle per sample. Of the first `closed` triangles only those that face the viewer count, and a
    fragment whose interpolated `keep` is negative is cut away (hems, openings).

    Every row of samples is clipped against the three edges at once, so that the inner loop meets no fragment outside.
    """
    t = wp.tid()
    corners = triangles[t]
    a = screen[corners[0]]
    b = screen[corners[1]]
    c = screen[corners[2]]
    bottom = wp.ceil(wp.min(wp.min(a[1], b[1]), c[1]) - 0.5)
    top = wp.floor(wp.max(wp.max(a[1], b[1]), c[1]) - 0.5)
    left = wp.ceil(wp.min(wp.min(a[0], b[0]), c[0]) - 0.5)
    right = wp.floor(wp.max(wp.max(a[0], b[0]), c[0]) - 0.5)
    if bottom > top or left > right or wp.min(wp.min(a[2], b[2]), c[2]) <= 0.0:
        return
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    # On the screen y points down, so what faces the viewer runs clockwise there.
    if wp.abs(area) < 1.0e-9 or (t < closed and area > 0.0):
        return
    left = wp.max(left, 0.0)
    right = wp.min(right, float(keys.shape[1] - 1))
    y0 = wp.max(int(bottom), 0)
    y1 = wp.min(int(top), keys.shape[0] - 1)
    ka = keep[corners[0]]
    kb = keep[corners[1]]
    kc = keep[corners[2]]
    cut = wp.min(wp.min(ka, kb), kc) < 0.0
    inv = 1.0 / area
    ux = (b[1] - c[1]) * inv
    uy = (c[0] - b[0]) * inv
    u0 = (b[0] * c[1] - b[1] * c[0]) * inv + 0.5 * (ux + uy)
    vx = (c[1] - a[1]) * inv
    vy = (a[0] - c[0]) * inv
    v0 = (c[0] * a[1] - c[1] * a[0]) * inv + 0.5 * (vx + vy)
    sx = -ux - vx
    ui = -1.0 / ux
    vi = -1.0 / vx
    si = -1.0 / sx
    zx = ux * a[2] + vx * b[2] + sx * c[2]
    for y in range(y0, y1 + 1):
        u = u0 + uy * float(y)
        v = v0 + vy * float(y)
        s = 1.0 - u - v
        lo = left
        hi = right
        if ux > 0.0:
            lo = wp.max(lo, u * ui)
        elif ux < 0.0:
            hi = wp.min(hi, u * ui)
        elif u < 0.0:
            hi = -1.0
        if vx > 0.0:
            lo = wp.max(lo, v * vi)
        elif vx < 0.0:
            hi = wp.min(hi, v * vi)
        elif v < 0.0:
            hi = -1.0
        if sx > 0.0:
            lo = wp.max(lo, s * si)
        elif sx < 0.0:
            hi = wp.min(hi, s * si)
        elif s < 0.0:
            hi = -1.0
        z0 = u * a[2] + v * b[2] + s * c[2]
        for x in range(int(wp.ceil(lo)), int(wp.floor(hi)) + 1):
            px = float(x)
            if cut:
                if (u + ux * px) * ka + (v + vx * px) * kb + (s + sx * px) * kc < 0.0:
                    continue
            key = wp.lshift(wp.int64(wp.cast(z0 + zx * px, wp.int32)), wp.int64(32)) + wp.int64(t)
            wp.atomic_max(keys, y, x, key)


@wp.func
def key_nearness(key: wp.int64) -> float:
    """Nearness of a key's fragment."""
    return wp.cast(wp.int32(wp.rshift(key, wp.int64(32))), wp.float32)


@wp.func
def key_triangle(key: wp.int64) -> int:
    """Triangle of a key's fragment."""
    return int(wp.bit_and(key, wp.int64(0xFFFFFFFF)))


@wp.kernel
def occlude(
    vertices: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    matrix: wp.array(dtype=wp.vec4),
    direction: wp.vec3,
    bias: wp.float32,
    keys: wp.array2d(dtype=wp.int64),
    seen: wp.array(dtype=wp.float32),
    total: wp.array(dtype=wp.float32),
):
    """Add one sky direction to every vertex's ambient visibility, cosine-weighted."""
    i = wp.tid()
    n = wp.normalize(normals[i])
    c = wp.dot(n, direction)
    if c <= 0.0:
        return
    p = vertices[i] + 0.5 * bias * n
    h = wp.vec4(p[0], p[1], p[2], 1.0)
    x = int(wp.dot(matrix[0], h))
    y = int(wp.dot(matrix[1], h))
    z = wp.dot(matrix[2], h)
    total[i] = total[i] + c
    if x < 0 or y < 0 or x >= keys.shape[1] or y >= keys.shape[0]:
        seen[i] = seen[i] + c
        return
    # A soft comparison hides the steps of the coarse depth map.
    gap = key_nearness(keys[y, x]) - z
    seen[i] = seen[i] + c * (1.0 - wp.clamp((gap - bias) / bias, 0.0, 1.0))


@wp.func
def hash3(x: int, y: int, z: int) -> float:
    """A pseudo-random number in 0..1 per lattice point."""
    h = wp.uint32(x) * wp.uint32(374761393) + wp.uint32(y) * wp.uint32(668265263) + wp.uint32(z) * wp.uint32(2147483647)
    h = wp.bit_xor(h, wp.rshift(h, wp.uint32(13))) * wp.uint32(1274126177)
    h = wp.bit_xor(h, wp.rshift(h, wp.uint32(16)))
    return float(wp.bit_and(h, wp.uint32(0xFFFFFF))) / 16777216.0


@wp.func
def value_noise(p: wp.vec3) -> float:
    """Smooth value noise, 0..1, one lattice cell per unit."""
    x = int(wp.floor(p[0]))
    y = int(wp.floor(p[1]))
    z = int(wp.floor(p[2]))
    fx = p[0] - float(x)
    fy = p[1] - float(y)
    fz = p[2] - float(z)
    fx = fx * fx * (3.0 - 2.0 * fx)
    fy = fy * fy * (3.0 - 2.0 * fy)
    fz = fz * fz * (3.0 - 2.0 * fz)
    a = wp.lerp(
        wp.lerp(hash3(x, y, z), hash3(x + 1, y, z), fx), wp.lerp(hash3(x, y + 1, z), hash3(x + 1, y + 1, z), fx), fy
    )
    b = wp.lerp(
        wp.lerp(hash3(x, y, z + 1), hash3(x + 1, y, z + 1), fx),
        wp.lerp(hash3(x, y + 1, z + 1), hash3(x + 1, y + 1, z + 1), fx),
        fy,
    )
    return wp.lerp(a, b, fz)


@wp.func
def fifth(x: float) -> float:
    """The fifth power of x, as Schlick's Fresnel term wants it."""
    square = x * x
    return square * square * x


@wp.func
def ggx(n: wp.vec3, v: wp.vec3, toward: wp.vec3, rough: float) -> float:
    """GGX highlight with the Kelemen visibility approximation; no Fresnel."""
    h = wp.normalize(v + toward)
    nh = wp.max(wp.dot(n, h), 0.0)
    lh = wp.max(wp.dot(toward, h), 0.05)
    a = rough * rough
    d = nh * nh * (a * a - 1.0) + 1.0
    return a * a / (3.14159 * d * d + 1.0e-7) * 0.25 / (lh * lh) * wp.max(wp.dot(n, toward), 0.0)


@wp.func
def strand_light(t: wp.vec3, v: wp.vec3, toward: wp.vec3, shift: float, power: float) -> float:
    """Kajiya-Kay highlight of a fiber with tangent `t`, moved along the fiber by `shift`."""
    h = wp.normalize(v + toward)
    c = wp.dot(t, h) + shift
    return wp.pow(wp.max(1.0 - c * c, 0.0), power)


@wp.func
def shadow(
    p: wp.vec3,
    n: wp.vec3,
    toward: wp.vec3,
    matrix: wp.array(dtype=wp.vec4),
    keys: wp.array2d(dtype=wp.int64),
    radius: float,
    jitter: float,
) -> float:
    """Fraction of the key light that reaches `p`: six spiral taps in the light's depth map.

    Every sample of a pixel turns the spiral differently, so a pixel sees four times as many.
    """
    q = p + n * 0.0025
    h = wp.vec4(q[0], q[1], q[2], 1.0)
    x = wp.dot(matrix[0], h)
    y = wp.dot(matrix[1], h)
    z = wp.dot(matrix[2], h)
    slope = 0.0015 + 0.003 * (1.0 - wp.abs(wp.dot(n, toward)))
    lit = float(0.0)
    dx = wp.cos(jitter * 6.2832) * radius
    dy = wp.sin(jitter * 6.2832) * radius
    for k in range(6):
        r = wp.sqrt((float(k) + 0.5) / 6.0)
        ix = int(x + r * dx)
        iy = int(y + r * dy)
        # The next tap is a golden angle further.
        turned = -0.737369 * dx - 0.675490 * dy
        dy = 0.675490 * dx - 0.737369 * dy
        dx = turned
        if ix < 0 or iy < 0 or ix >= keys.shape[1] or iy >= keys.shape[0]:
            lit += 1.0
        else:
            gap = key_nearness(keys[iy, ix]) - z - slope - 0.0006 * r * radius
            lit += 1.0 - wp.clamp(gap * 600.0, 0.0, 1.0)
    return lit / 6.0


@wp.func
def sample_texture(texture: wp.array2d(dtype=wp.vec4), u: float, v: float) -> wp.vec4:
    """Bilinear lookup; u wraps around the head, v is clamped."""
    h = texture.shape[0]
    w = texture.shape[1]
    x = u * float(w) - 0.5
    y = wp.clamp(v * float(h) - 0.5, 0.0, float(h) - 1.001)
    x0 = int(wp.floor(x))
    y0 = int(y)
    fx = x - float(x0)
    fy = y - float(y0)
    x0 = (x0 + 4 * w) % w
    x1 = (x0 + 1) % w
    return wp.lerp(
        wp.lerp(texture[y0, x0], texture[y0, x1], fx), wp.lerp(texture[y0 + 1, x0], texture[y0 + 1, x1], fx), fy
    )


@wp.struct
class Lighting:
    """Key, fill and ambient light of a Shot, in linear RGB; directions point toward the light."""

    key_direction: wp.vec3
    key_color: wp.vec3
    fill_direction: wp.vec3
    fill_color: wp.vec3
    sky_color: wp.vec3
    ground_color: wp.vec3
    shadow_radius: wp.float32
    eye: wp.vec3


@wp.struct
class Eyes:
    """Both eyeballs in the world, and the look of the iris."""

    left_center: wp.vec3
    right_center: wp.vec3
    left_axis: wp.vec3
    right_axis: wp.vec3
    up: wp.vec3
    radius: wp.float32
    iris: wp.vec3
    ring: wp.float32
    pupil: wp.float32
    redness: wp.float32


@wp.struct
class Surface:
    """A scene's triangles with all that shading reads."""

    triangles: wp.array(dtype=wp.vec3i)
    material: wp.array(dtype=wp.int32)
    label: wp.array(dtype=wp.int32)
    color: wp.array(dtype=wp.vec3)
    coordinate: wp.array(dtype=wp.vec2)
    uv: wp.array2d(dtype=wp.vec2)
    toward: wp.array(dtype=wp.int32)
    visibility: wp.array(dtype=wp.float32)
    rest: wp.array(dtype=wp.vec3)
    materials: wp.array2d(dtype=wp.float32)
    texture: wp.array2d(dtype=wp.vec4)
    texture_label: wp.array2d(dtype=wp.int32)


@wp.func
def pattern(kind: int, c: wp.vec2, scale: float, seed: float, first: wp.vec3, second: wp.vec3) -> wp.vec3:
    """Cloth pattern at pattern coordinates `c` in meters."""
    x = c[0] * scale
    y = c[1] * scale
    fx = x - wp.floor(x)
    fy = y - wp.floor(y)
    m = float(0.0)
    if kind == 1:
        m = wp.where(fy < 0.45, 1.0, 0.0)
    elif kind == 2:
        m = 0.5 * wp.where(fx < 0.5, 1.0, 0.0) + 0.5 * wp.where(fy < 0.5, 1.0, 0.0)
    elif kind == 3:
        ox = fx - 0.5
        oy = fy - 0.5
        m = wp.where(ox * ox + oy * oy < 0.07, 1.0, 0.0)
    elif kind == 4:
        m = wp.where(
            value_noise(wp.vec3(x * 1.3, y * 1.3, seed)) + 0.5 * value_noise(wp.vec3(x * 3.1, y * 3.1, seed)) > 0.82,
            1.0,
            0.0,
        )
    return wp.lerp(first, second, m)


@wp.kernel
def shade(
    keys: wp.array2d(dtype=wp.int64),
    screen: wp.array(dtype=wp.vec3),
    vertices: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    s: Surface,
    light: Lighting,
    eyes: Eyes,
    light_matrix: wp.array(dtype=wp.vec4),
    light_keys: wp.array2d(dtype=wp.int64),
    reuse: wp.int32,
    out_color: wp.array2d(dtype=wp.vec3),
    out_label: wp.array2d(dtype=wp.int32),
    out_normal: wp.array2d(dtype=wp.vec3),
    out_uv: wp.array2d(dtype=wp.vec2),
):
    """Color, class, normal and texture coordinates of every covered sample."""
    y, x = wp.tid()
    key = keys[y, x]
    if key == NO_KEY:
        out_label[y, x] = -1
        return
    t = key_triangle(key)
    m = s.material[t]
    kind = int(s.materials[m, 0])
    if reuse == 1 and (x + y) % 2 == 1 and (kind <= 1 or kind == 4):
        # Skin and cloth are smooth: within one surface every second sample takes its neighbor's color.
        beside = keys[y, x + 1 - 2 * (x % 2)]
        if beside != NO_KEY:
            same = s.material[key_triangle(beside)] == m
            if same and wp.abs(key_nearness(beside) / key_nearness(key) - 1.0) < 0.01:
                out_label[y, x] = REUSED
                return
    i = s.triangles[t][0]
    j = s.triangles[t][1]
    k = s.triangles[t][2]
    a = screen[i]
    b = screen[j]
    c = screen[k]
    px = float(x) + 0.5
    py = float(y) + 0.5
    inv = 1.0 / ((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
    wa = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) * inv
    wb = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) * inv
    wc = wp.max(1.0 - wa - wb, 0.0) * c[2]
    wa = wa * a[2]
    wb = wb * b[2]
    total = 1.0 / (wa + wb + wc)
    wa = wa * total
    wb = wb * total
    wc = wc * total

    p = wa * vertices[i] + wb * vertices[j] + wc * vertices[k]
    n = wp.normalize(wa * normals[i] + wb * normals[j] + wc * normals[k])
    view = wp.normalize(light.eye - p)
    facing = wp.dot(n, view)
    if facing < 0.0:
        n = -n
        facing = -facing
    albedo = wa * s.color[i] + wb * s.color[j] + wc * s.color[k]
    coordinate = wa * s.coordinate[i] + wb * s.coordinate[j] + wc * s.coordinate[k]
    visible = wa * s.visibility[i] + wb * s.visibility[j] + wc * s.visibility[k]
    if kind == 6 or kind == 7:
        visible = 0.35 + 0.65 * visible
    gloss = s.materials[m, 1]
    rough = s.materials[m, 2]
    label = s.label[t]
    jitter = hash3(x, y, 7)
    key_light = light.key_direction

    if kind == 0:
        # The seam at the back of the head: corners on either side differ by almost a whole turn.
        ua = s.coordinate[i][0]
        ub = s.coordinate[j][0]
        uc = s.coordinate[k][0]
        top = wp.max(wp.max(ua, ub), uc)
        if top - wp.min(wp.min(ua, ub), uc) > 0.5:
            ua = wp.where(ua < 0.5, ua + 1.0, ua)
            ub = wp.where(ub < 0.5, ub + 1.0, ub)
            uc = wp.where(uc < 0.5, uc + 1.0, uc)
            coordinate = wp.vec2(wa * ua + wb * ub + wc * uc, coordinate[1])
        texel = sample_texture(s.texture, coordinate[0], coordinate[1])
        albedo = wp.vec3(texel[0], texel[1], texel[2])
        gloss = texel[3]
        tx = int(coordinate[0] * float(s.texture_label.shape[1])) % s.texture_label.shape[1]
        ty = wp.clamp(int(coordinate[1] * float(s.texture_label.shape[0])), 0, s.texture_label.shape[0] - 1)
        if label < 0:
            label = s.texture_label[ty, tx]
    elif kind == 4:
        second = wp.vec3(s.materials[m, 5], s.materials[m, 6], s.materials[m, 7])
        albedo = pattern(int(s.materials[m, 3]), coordinate, s.materials[m, 4], s.materials[m, 10], albedo, second)
        fold = s.materials[m, 9]
        if fold > 0.0:
            # Folds: tilt the normal by the gradient of smooth noise, stretched along the body.
            q = wa * s.rest[i] + wb * s.rest[j] + wc * s.rest[k]
            f = wp.vec3(q[0] * 22.0, q[1] * 9.0, q[2] * 22.0 + s.materials[m, 10])
            base = value_noise(f)
            gx = value_noise(f + wp.vec3(0.25, 0.0, 0.0)) - base
            gy = value_noise(f + wp.vec3(0.0, 0.25, 0.0)) - base
            gz = value_noise(f + wp.vec3(0.0, 0.0, 0.25)) - base
            n = wp.normalize(n - fold * 1.6 * wp.vec3(gx, gy * 0.5, gz))
            weave = 0.94 + 0.12 * hash3(int(q[0] * 900.0), int(q[1] * 900.0), int(q[2] * 900.0))
            albedo = albedo * weave

    lit = shadow(p, n, key_light, light_matrix, light_keys, light.shadow_radius, jitter)
    sky = wp.lerp(light.ground_color, light.sky_color, 0.5 + 0.5 * n[1])
    ambient = wp.cw_mul(albedo, sky) * visible
    nl = wp.dot(n, key_light)
    nf = wp.max(wp.dot(n, light.fill_direction) * 0.8 + 0.2, 0.0)
    color = wp.vec3(0.0, 0.0, 0.0)

    if kind <= 1:
        # Light that enters the skin leaves it a little further on, red the furthest: wrap each channel differently.
        dr = wp.max((nl + 0.30) / 1.30, 0.0)
        dg = wp.max((nl + 0.12) / 1.12, 0.0)
        db = wp.max((nl + 0.08) / 1.08, 0.0)
        sr = wp.pow(lit, 0.7)
        diffuse = wp.vec3(dr * sr, dg * lit, db * lit)
        color = wp.cw_mul(albedo, wp.cw_mul(light.key_color, diffuse) + light.fill_color * nf * visible) + ambient
        fresnel = 0.028 + 0.35 * fifth(1.0 - facing)
        shine = 0.75 * ggx(n, view, key_light, rough) + 0.25 * ggx(n, view, key_light, 0.5 * rough)
        color += light.key_color * (fresnel * gloss * 2.2 * shine * lit)
        color += light.fill_color * (fresnel * gloss * ggx(n, view, light.fill_direction, rough) * visible)
        color += sky * (0.35 * fresnel * gloss * visible)
    elif kind == 2:
        center = eyes.left_center
        axis = eyes.left_axis
        if wp.length_sq(p - eyes.right_center) < wp.length_sq(p - eyes.left_center):
            center = eyes.right_center
            axis = eyes.right_axis
        d = wp.normalize(p - center)
        side = wp.normalize(wp.cross(eyes.up, axis))
        crown = wp.cross(axis, side)
        ex = wp.dot(d, side)
        ey = wp.dot(d, crown)
        r = wp.sqrt(ex * ex + ey * ey)
        if wp.dot(d, axis) < 0.0:
            r = 1.0
        angle = wp.atan2(ey, ex)
        fiber = value_noise(wp.vec3(angle * 9.0, r * 12.0, 3.0)) - 0.5
        iris = eyes.iris * (0.8 + 0.9 * fiber) * (0.75 + 0.6 * wp.smoothstep(0.12, 0.40, r))
        iris = iris * (1.0 - eyes.ring * 0.75 * wp.smoothstep(0.36, 0.47, r))
        iris = iris * wp.smoothstep(eyes.pupil - 0.02, eyes.pupil + 0.03, r)
        vein = wp.abs(ex) * eyes.redness
        white = wp.vec3(0.72, 0.68 - 0.16 * vein, 0.64 - 0.18 * vein)
        albedo = wp.lerp(iris, white, wp.smoothstep(0.44, 0.50, r))
        # The lids shade the ball: darker toward the upper lid and the corners.
        lid = 1.0 - 0.55 * wp.smoothstep(0.05, 0.55, ey) - 0.25 * wp.smoothstep(0.45, 0.9, wp.abs(ex))
        wrap = wp.max((wp.dot(d, key_light) + 0.25) / 1.25, 0.0)
        color = wp.cw_mul(albedo, light.key_color * (wrap * lit) + light.fill_color * nf + sky * 0.9) * lid
        cornea = wp.normalize(d + 0.45 * axis * wp.smoothstep(0.52, 0.40, r) * 0.0 + d * 0.2)
        color += light.key_color * (0.06 * ggx(cornea, view, key_light, 0.16) * (0.3 + 0.7 * lit))
        color += light.fill_color * (0.03 * ggx(cornea, view, light.fill_direction, 0.2))
        color += sky * (0.03 + 0.25 * fifth(1.0 - wp.max(wp.dot(d, view), 0.0))) * lid
    elif kind == 3 or kind == 8:
        tangent = wa * (vertices[s.toward[i]] - vertices[i])
        tangent += wb * (vertices[s.toward[j]] - vertices[j]) + wc * (vertices[s.toward[k]] - vertices[k])
        if wp.length_sq(tangent) < 1.0e-12:
            tangent = vertices[i] - vertices[j]
        tangent = wp.normalize(tangent)
        # A ribbon is a lock: rounded across, and streaked by the single hairs in it.
        lock = wp.floor(coordinate[1])
        across = coordinate[1] - lock
        streak = value_noise(wp.vec3(across * 6.0, coordinate[0] * 2.0, lock * 7.31)) - 0.5
        albedo = albedo * (1.0 + 0.7 * streak)
        ambient = ambient * (1.0 + 0.7 * streak)
        n = wp.normalize(n + 0.9 * (across - 0.5) * wp.cross(tangent, n))
        nl = wp.dot(n, key_light)
        shift = 0.16 * streak + 0.05 * (hash3(int(lock), 3, 1) - 0.5)
        tl = wp.dot(tangent, key_light)
        body = wp.sqrt(wp.max(1.0 - tl * tl, 0.0)) * (0.35 + 0.65 * wp.clamp(nl + 0.25, 0.0, 1.0))
        color = wp.cw_mul(albedo, light.key_color * (body * lit) + light.fill_color * (0.6 * nf * visible)) + ambient
        shine1 = strand_light(tangent, view, key_light, shift - 0.08, 60.0)
        shine2 = strand_light(tangent, view, key_light, shift + 0.10, 14.0)
        front = wp.clamp(nl * 1.5 + 0.4, 0.0, 1.0) * lit
        color += light.key_color * (gloss * 0.06 * shine1 * front) + sky * (0.012 * gloss * visible)
        color += wp.cw_mul(albedo, light.key_color) * (gloss * 0.8 * shine2 * front)
    elif kind == 4:
        d4 = wp.max((nl + 0.1) / 1.1, 0.0)
        color = wp.cw_mul(albedo, light.key_color * (d4 * lit) + light.fill_color * (nf * visible)) + ambient
        edge = wp.pow(1.0 - facing, 4.0) * s.materials[m, 8]
        color += wp.cw_mul(wp.lerp(albedo, wp.vec3(1.0, 1.0, 1.0), 0.3), sky + light.key_color * (0.3 * lit)) * (
            edge * visible
        )
        color += light.key_color * (0.04 * gloss * ggx(n, view, key_light, rough) * lit)
    else:
        d5 = wp.max(nl, 0.0)
        if kind == 6:
            d5 = wp.max(d5, 0.45)
            lit = wp.max(lit, 0.5)
        color = wp.cw_mul(albedo, light.key_color * (d5 * lit) + light.fill_color * (nf * visible)) + ambient
        fresnel5 = 0.05 + 0.6 * fifth(1.0 - facing)
        color += light.key_color * (fresnel5 * gloss * 2.0 * ggx(n, view, key_light, rough) * lit)
        color += sky * (fresnel5 * gloss * visible)
        if kind == 6 or kind == 7:
            # Occlusion was measured with the mouth closed; an visible one lets light in, less so toward the throat.
            color = color * wp.where(kind == 6, 1.0, 0.6)

    out_color[y, x] = color
    out_label[y, x] = label
    out_normal[y, x] = n
    out_uv[y, x] = wa * s.uv[t, 0] + wb * s.uv[t, 1] + wc * s.uv[t, 2]


@wp.kernel
def fill_reused(
    color: wp.array2d(dtype=wp.vec3),
    label: wp.array2d(dtype=wp.int32),
    normal: wp.array2d(dtype=wp.vec3),
    uv: wp.array2d(dtype=wp.vec2),
):
    """Copy the neighbor's color and truth to the samples that `shade` left out."""
    y, x = wp.tid()
    if label[y, x] == REUSED:
        other = x + 1 - 2 * (x % 2)
        color[y, x] = color[y, other]
        label[y, x] = label[y, other]
        normal[y, x] = normal[y, other]
        uv[y, x] = uv[y, other]


@wp.kernel
def blend_lens(
    screen: wp.array(dtype=wp.vec3),
    vertices: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    s: Surface,
    light: Lighting,
    first: wp.int32,
    keys: wp.array2d(dtype=wp.int64),
    out_color: wp.array2d(dtype=wp.vec3),
    out_label: wp.array2d(dtype=wp.int32),
    lens_label: wp.int32,
    backdrop: wp.array2d(dtype=wp.vec3),
    factor: wp.int32,
):
    """Draw one transparent triangle over what lies behind it: tint, reflection of the sky, highlight."""
    t = wp.tid() + first
    i = s.triangles[t][0]
    j = s.triangles[t][1]
    k = s.triangles[t][2]
    a = screen[i]
    b = screen[j]
    c = screen[k]
    if wp.min(wp.min(a[2], b[2]), c[2]) <= 0.0:
        return
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if wp.abs(area) < 1.0e-9:
        return
    inv = 1.0 / area
    h = keys.shape[0]
    w = keys.shape[1]
    x0 = wp.max(int(wp.ceil(wp.min(wp.min(a[0], b[0]), c[0]) - 0.5)), 0)
    x1 = wp.min(int(wp.floor(wp.max(wp.max(a[0], b[0]), c[0]) - 0.5)), w - 1)
    y0 = wp.max(int(wp.ceil(wp.min(wp.min(a[1], b[1]), c[1]) - 0.5)), 0)
    y1 = wp.min(int(wp.floor(wp.max(wp.max(a[1], b[1]), c[1]) - 0.5)), h - 1)
    m = s.material[t]
    opacity = s.materials[m, 11]
    tint = s.color[i]
    for y in range(y0, y1 + 1):
        py = float(y) + 0.5
        for x in range(x0, x1 + 1):
            px = float(x) + 0.5
            u = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) * inv
            v = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) * inv
            q = 1.0 - u - v
            if u >= 0.0 and v >= 0.0 and q > 0.0:
                nearer = u * a[2] + v * b[2] + q * c[2] > key_nearness(keys[y, x])
                if nearer:
                    p = u * vertices[i] + v * vertices[j] + q * vertices[k]
                    n = wp.normalize(u * normals[i] + v * normals[j] + q * normals[k])
                    view = wp.normalize(light.eye - p)
                    if wp.dot(n, view) < 0.0:
                        n = -n
                    behind = out_color[y, x]
                    if out_label[y, x] < 0:
                        behind = backdrop[y // factor, x // factor]
                        out_label[y, x] = lens_label
                    fresnel = 0.04 + 0.5 * fifth(1.0 - wp.abs(wp.dot(n, view)))
                    streak = wp.smoothstep(0.1, 0.9, 0.5 + 0.5 * n[1]) * 0.5
                    color = wp.lerp(behind, wp.cw_mul(behind, tint) * 0.15 + tint * 0.12, opacity)
                    color += light.sky_color * (fresnel * (0.15 + streak))
                    color += light.key_color * wp.min(0.02 * ggx(n, view, light.key_direction, 0.1), 0.35)
                    out_color[y, x] = color
                    if opacity > 0.5:
                        out_label[y, x] = lens_label


@wp.kernel
def resolve(
    keys: wp.array2d(dtype=wp.int64),
    color: wp.array2d(dtype=wp.vec3),
    label: wp.array2d(dtype=wp.int32),
    normal: wp.array2d(dtype=wp.vec3),
    uv: wp.array2d(dtype=wp.vec2),
    backdrop: wp.array2d(dtype=wp.vec3),
    factor: wp.int32,
    gain: wp.vec3,
    image: wp.array2d(dtype=wp.vec3),
    out_label: wp.array2d(dtype=wp.int32),
    out_depth: wp.array2d(dtype=wp.float32),
    out_normal: wp.array2d(dtype=wp.vec3),
    out_uv: wp.array2d(dtype=wp.vec2),
):
    """Samples to pixels: average color after tone mapping; the truth of a pixel is that of its most common label."""
    y, x = wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    first = label[y * factor, x * factor]
    mixed = bool(False)
    for k in range(factor * factor):
        sy = y * factor + k // factor
        sx = x * factor + k % factor
        sample = color[sy, sx]
        if label[sy, sx] < 0:
            sample = backdrop[y, x]
        if label[sy, sx] != first:
            mixed = True
        sample = wp.cw_mul(sample, gain)
        # Filmic shoulder per sample, so that one bright highlight does not bleach its pixel's edge.
        for ch in range(3):
            v = sample[ch]
            v = (v * (2.51 * v + 0.03)) / (v * (2.43 * v + 0.59) + 0.14) * 1.02
            sample[ch] = wp.clamp(v, 0.0, 1.0)
        total += sample
    best = int(0)
    if mixed:
        best_count = int(0)
        for k in range(factor * factor):
            count = int(0)
            for q in range(factor * factor):
                if (
                    label[y * factor + q // factor, x * factor + q % factor]
                    == label[y * factor + k // factor, x * factor + k % factor]
                ):
                    count += 1
            if count > best_count:
                best_count = count
                best = k
    total = total / float(factor * factor)
    for ch in range(3):
        v = total[ch]
        total[ch] = wp.where(v <= 0.0031308, 12.92 * v, 1.055 * wp.pow(v, 1.0 / 2.4) - 0.055)
    image[y, x] = total
    by = y * factor + best // factor
    bx = x * factor + best % factor
    out_label[y, x] = label[by, bx]
    if label[by, bx] < 0 or keys[by, bx] == NO_KEY:
        out_depth[y, x] = 0.0
        out_normal[y, x] = wp.vec3(0.0, 0.0, 0.0)
        out_uv[y, x] = wp.vec2(-1.0, -1.0)
    else:
        out_depth[y, x] = 1.0 / key_nearness(keys[by, bx])
        out_normal[y, x] = normal[by, bx]
        out_uv[y, x] = uv[by, bx]
