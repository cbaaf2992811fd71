"""The kernels that grow, bend and draw strands, one thread per strand or vertex.

Everything is in head coordinates (`ipse.world.strands.Frame`) until `draw` puts the ribbons beside the body.
"""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False, "fast_math": True})

CENTER = wp.constant(wp.vec3(0.0, 0.745, 0.055))
"""`ipse.world.strands.HEAD_CENTER`."""
AXIS_Z = wp.constant(0.035)
"""`ipse.world.skin.AXIS_Z`."""


@wp.struct
class Surround:
    """What hair lies on: distance of the surface from a center per direction.

    Local coordinates are `(point - center) / scale`; `size` is the mean scale; `radius` has rows of elevation from -90
    to 90 degrees and columns of azimuth from -180 to 180, 0 in front.
    """

    center: wp.vec3
    scale: wp.vec3
    size: wp.float32
    radius: wp.array2d(dtype=wp.float32)


@wp.struct
class Comb:
    """How all strands of a head grow; see `ipse.world.hair` for the meaning of the numbers.

    `brow` is the height above which hair may lie on the forehead, `shoulder` that of the shoulders, `margin` the
    distance kept from neck and torso; `opening` holds rows of height and degrees: how close to the middle of the face
    hair may come. `sweep` turns the fringe aside.
    """

    steps: wp.int32
    falls: wp.int32
    rise: wp.float32
    lateral: wp.float32
    forward: wp.float32
    back: wp.float32
    sweep: wp.float32
    brow: wp.float32
    shoulder: wp.float32
    margin: wp.float32
    opening: wp.array(dtype=wp.vec2)
    head: Surround
    neck: Surround
    torso: Surround


@wp.func
def outward(p: wp.vec3) -> wp.vec3:
    """Away from the head, and below it away from the neck's axis."""
    # The factors are the inverse squares of half axes 78, 105 and 96 mm: an ellipsoid through the template's cranium.
    d = p - CENTER
    y = d[1] * 90.703
    if y < 0.0:
        y = wp.where(p[1] > 0.66, 0.25 * y, 0.0)
    return wp.normalize(wp.vec3(d[0] * 164.366, y, d[2] * 108.507))


@wp.func
def local(o: Surround, p: wp.vec3) -> wp.vec3:
    """`p` in local coordinates."""
    return wp.cw_div(p - o.center, o.scale)


@wp.func
def surface(o: Surround, q: wp.vec3) -> float:
    """Distance of the surface from the center in the direction of local point `q`."""
    rows = o.radius.shape[0]
    columns = o.radius.shape[1]
    x = (wp.atan2(q[0], q[2]) * 0.15915494 + 0.5) * float(columns) - 0.5
    y = (wp.asin(wp.clamp(q[1] / wp.max(wp.length(q), 1.0e-6), -1.0, 1.0)) * 0.31830989 + 0.5) * float(rows) - 0.5
    y = wp.clamp(y, 0.0, float(rows) - 1.001)
    x0 = int(wp.floor(x))
    y0 = int(y)
    fx = x - float(x0)
    fy = y - float(y0)
    left = (x0 + columns) % columns
    right = (x0 + 1) % columns
    low = wp.lerp(o.radius[y0, left], o.radius[y0, right], fx)
    high = wp.lerp(o.radius[y0 + 1, left], o.radius[y0 + 1, right], fx)
    return wp.lerp(low, high, fy)


@wp.func
def push(o: Surround, p: wp.vec3, margin: float) -> wp.vec3:
    """`p` moved outward to at least `margin` above the surface."""
    q = local(o, p)
    least = surface(o, q) + margin / o.size
    away = wp.max(wp.length(q), 1.0e-6)
    if away >= least:
        return p
    return o.center + wp.cw_mul(q * (least / away), o.scale)


@wp.func
def resist(o: Surround, p: wp.vec3, d: wp.vec3, margin: float) -> wp.vec3:
    """Direction `d` without the part that leads into the surface, within a centimeter of `margin` above it.

    The surface is taken to face forward or backward and upward rather than sideways, so that hair spreads little on it.
    """
    q = local(o, p)
    gap = (wp.length(q) - surface(o, q)) * o.size - margin
    n = wp.normalize(wp.vec3(0.35 * q[0], 0.8 * q[1], q[2]))
    into = wp.min(wp.dot(d, n), 0.0) * wp.clamp(1.0 - gap * 100.0, 0.0, 1.0)
    return wp.normalize(d - n * into)


@wp.func
def opening_at(rows: wp.array(dtype=wp.vec2), y: float) -> float:
    """Degrees at height `y`, interpolated between the rows."""
    last = rows.shape[0] - 1
    if y <= rows[0][0]:
        return rows[0][1]
    for k in range(last):
        if y < rows[k + 1][0]:
            t = (y - rows[k][0]) / (rows[k + 1][0] - rows[k][0])
            return wp.lerp(rows[k][1], rows[k + 1][1], t)
    return rows[last][1]


@wp.kernel
def grow(
    comb: Comb,
    root: wp.array(dtype=wp.vec3),
    length: wp.array(dtype=wp.float32),
    height: wp.array(dtype=wp.float32),
    side: wp.array(dtype=wp.float32),
    turn: wp.array(dtype=wp.float32),
    face: wp.array(dtype=wp.float32),
    fringe: wp.array(dtype=wp.int32),
    front: wp.array(dtype=wp.int32),
    path: wp.array2d(dtype=wp.vec3),
):
    """Follow the combing direction from each root; path (K + 1, N)."""
    i = wp.tid()
    p = root[i]
    path[0, i] = p
    heading = outward(p)
    done = float(0)
    shaft = wp.max(height[i] / wp.max(comb.rise, 0.2), 0.004)
    turn_cos = wp.cos(turn[i])
    turn_sin = wp.sin(turn[i])
    for k in range(comb.steps):
        # Hair that hangs needs its short steps on the head.
        share = 1.0 / float(comb.steps)
        if comb.falls == 1:
            share = share * (0.6 + 0.8 * float(k) / float(comb.steps - 1))
        ds = length[i] * share
        n = outward(p)
        up = wp.smoothstep(0.45, 0.9, n[1])
        behind = 1.0 - wp.smoothstep(0.0, 0.05, p[2])
        sideways = wp.where(p[2] > 0.0, comb.back, 0.0)
        d = wp.vec3(
            side[i] * comb.lateral * up, up - 1.0, up * (comb.forward * (1.0 - behind) - behind) - (1.0 - up) * sideways
        )
        if fringe[i] == 1:
            d = wp.vec3(0.35 * side[i] * comb.sweep, -0.6, 0.9)
        d = wp.normalize(d - n * wp.dot(d, n))
        d = d * turn_cos + wp.cross(n, d) * turn_sin
        hang = float(0)
        if comb.falls == 1:
            hang = 1.0 - wp.smoothstep(0.665, 0.725, p[1])
        d = d * (1.0 - hang) + wp.vec3(0.0, -hang, 0.0)
        d = wp.normalize(d + n * (comb.rise * wp.exp(-done / shaft) * (1.0 - hang)))
        if k > 0:
            d = wp.normalize(0.7 * d + 0.3 * heading)
        if comb.falls == 1 and p[1] < comb.shoulder + 0.13:
            # Near the shoulders hair leans to the chest or to the back, and slides along what it lies on.
            near = 1.0 - wp.smoothstep(comb.shoulder + 0.04, comb.shoulder + 0.13, p[1])
            near = near * wp.smoothstep(0.03, 0.07, wp.abs(p[0]))
            near = near * wp.smoothstep(comb.shoulder - 0.10, comb.shoulder - 0.04, p[1])
            aim = wp.where(front[i] == 1, 0.11, -0.08) - p[2]
            d = d + near * wp.vec3(-0.3 * wp.sign(p[0]), 0.0, wp.clamp(aim / 0.03, -1.2, 1.2))
            d = resist(comb.torso, p, wp.normalize(d), comb.margin + 0.5 * height[i])
        done += ds
        new = p + ds * d

        # On the head hair lies at its layer's height; where it hangs, only the surface stops it.
        q = local(comb.head, new)
        away = wp.max(wp.length(q), 1.0e-6)
        skin = surface(comb.head, q)
        level = skin + height[i] * (1.0 - wp.exp(-done / shaft)) / comb.head.size
        if comb.falls == 1:
            free = 1.0 - wp.smoothstep(0.66, 0.72, new[1])
            if free > 0.0:
                level = wp.max(wp.lerp(level, away, free), skin + 0.003)
        new = comb.head.center + wp.cw_mul(q * (level / away), comb.head.scale)

        # Keep the face open.
        if fringe[i] == 0 and new[1] < comb.brow and new[2] > AXIS_Z - 0.02:
            azimuth = wp.degrees(wp.atan2(new[0], new[2] - AXIS_Z))
            least = opening_at(comb.opening, new[1]) + face[i] * (1.0 - wp.smoothstep(0.76, 0.80, new[1]))
            if wp.abs(azimuth) < least:
                r = wp.length(wp.vec2(new[0], new[2] - AXIS_Z))
                a = wp.radians(wp.where(azimuth < 0.0, -least, least))
                new = wp.vec3(r * wp.sin(a), new[1], AXIS_Z + r * wp.cos(a))
        if comb.falls == 1 and new[1] < comb.shoulder + 0.11:
            wide = 0.088 + height[i] + 0.0006 * face[i]
            new = wp.vec3(wp.clamp(new[0], -wide, wide), new[1], new[2])
            new = push(comb.neck, new, comb.margin)
            new = push(comb.torso, new, comb.margin + 0.5 * height[i])
        heading = wp.normalize(new - p)
        p = p + heading * ds
        path[k + 1, i] = p


@wp.func
def tangent_at(path: wp.array2d(dtype=wp.vec3), k: int, i: int) -> wp.vec3:
    """Direction of strand `i` at its place `k`, smooth over both neighbors."""
    return wp.normalize(path[wp.min(k + 1, path.shape[0] - 1), i] - path[wp.max(k - 1, 0), i])


@wp.kernel
def bend(
    path: wp.array2d(dtype=wp.vec3),
    length: wp.array(dtype=wp.float32),
    wave: wp.array(dtype=wp.vec3),
    coil: wp.array(dtype=wp.vec3),
    head: Surround,
    hat: wp.float32,
    bent: wp.array2d(dtype=wp.vec3),
):
    """Waves and coils, outward but never inward; then a hat's pressure.

    `wave` and `coil` hold amplitude, turns per meter and phase of each strand; `hat` is the height of the hat's edge at
    the forehead, 0 without one.
    """
    k, i = wp.tid()
    p = path[k, i]
    along = length[i] * float(k) / float(path.shape[0] - 1)
    out = outward(p)
    level = wp.normalize(wp.cross(tangent_at(path, k, i), out))
    grown = wp.smoothstep(0.0, 0.035, along)
    w = wave[i]
    a = 6.2831853 * (along * w[1] + w[2])
    new = p + (grown * w[0]) * (wp.sin(a) * level + (0.5 + 0.5 * wp.cos(a)) * out)
    c = coil[i]
    a = 6.2831853 * (along * c[1] + c[2])
    new += (grown * c[0]) * (wp.sin(a) * level + (0.6 + wp.cos(a)) * out)
    if hat > 0.0 and new[1] > 0.70:
        # Flat above the hat's edge, which is lower at the back; free again below.
        edge = hat - 0.035 * wp.clamp((0.12 - new[2]) / 0.15, 0.0, 1.0)
        q = local(head, new)
        most = surface(head, q) + (0.003 + 1.2 * wp.max(edge - new[1], 0.0)) / head.size
        away = wp.max(wp.length(q), 1.0e-6)
        if away > most:
            new = head.center + wp.cw_mul(q * (most / away), head.scale)
    bent[k, i] = new


@wp.kernel
def draw(
    path: wp.array2d(dtype=wp.vec3),
    width: wp.array(dtype=wp.float32),
    profile: wp.array(dtype=wp.float32),
    twist: wp.array(dtype=wp.float32),
    out: wp.array(dtype=wp.vec3),
    vertices: wp.array2d(dtype=wp.vec3),
):
    """Ribbons along the paths: `vertices` (N, 2 K + 1), pairs of left and right edge and then the tip.

    The ribbons face `out` (N), or away from the head where that is empty, each turned by its `twist` in radians;
    `width` (N) in meters times `profile` (K).
    """
    i, k = wp.tid()
    last = path.shape[0] - 1
    p = path[k, i]
    if k == last:
        vertices[i, 2 * k] = p
        return
    tangent = wp.normalize(path[k + 1, i] - p)
    if k > 0:
        tangent = tangent_at(path, k, i)
    facing = wp.vec3(0.0, 0.0, 0.0)
    if out.shape[0] > 0:
        facing = out[i]
    else:
        facing = outward(p)
    level = wp.normalize(wp.cross(tangent, facing))
    across = level * wp.cos(twist[i]) + wp.cross(level, tangent) * wp.sin(twist[i])
    half = across * (0.5 * width[i] * profile[k])
    vertices[i, 2 * k] = p - half
    vertices[i, 2 * k + 1] = p + half


@wp.kernel
def gather(
    head: Surround,
    root: wp.array(dtype=wp.vec3),
    rise: wp.array(dtype=wp.float32),
    tie: wp.vec3,
    path: wp.array2d(dtype=wp.vec3),
):
    """Strands combed over the head to where they are tied: great circles, `rise` meters above the skin halfway."""
    i = wp.tid()
    steps = path.shape[0] - 1
    a = wp.normalize(local(head, root[i]))
    b = wp.normalize(local(head, tie))
    angle = wp.acos(wp.clamp(wp.dot(a, b), -1.0, 1.0))
    path[0, i] = root[i]
    for k in range(1, steps + 1):
        t = float(k) / float(steps)
        way = wp.normalize((wp.sin((1.0 - t) * angle) * a + wp.sin(t * angle) * b) / wp.max(wp.sin(angle), 0.05))
        level = wp.pow(wp.sin(3.14159265 * wp.min(t, 0.85)), 0.6) * rise[i] + 0.01 * t * t * t * t
        path[k, i] = head.center + wp.cw_mul(way * (surface(head, way) + level / head.size), head.scale)


@wp.kernel
def hang(
    head: Surround,
    neck: Surround,
    torso: Surround,
    root: wp.array(dtype=wp.vec3),
    heading: wp.array(dtype=wp.vec3),
    length: wp.array(dtype=wp.float32),
    margin: wp.array(dtype=wp.float32),
    path: wp.array2d(dtype=wp.vec3),
):
    """A tail: strands that leave along `heading` and that gravity bends within some five centimeters."""
    i = wp.tid()
    p = root[i]
    d = heading[i]
    path[0, i] = p
    steps = path.shape[0] - 1
    ds = length[i] / float(steps)
    for k in range(steps):
        d = wp.normalize(d + wp.vec3(0.0, -ds / 0.035, 0.0))
        p = push(torso, push(neck, push(head, p + d * ds, 0.006), margin[i]), margin[i])
        path[k + 1, i] = p
