"""Procedural portraits: factors in, pictures out.

A *plain* portrait shows factors only; it is what the demo generator learns. A *rich* portrait also wears and stands
before things that the generator never saw (`extras.py`); it is what a photograph is to a real generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lsap.demo.accessories import Accessories
from lsap.demo.drawing import Canvas, hue, mix, per_image, smoothstep
from lsap.demo.factors import NAMES

SIZE = 64
UNSEEN = 4e-4  # mean change of pixels in [-1, 1] below which a factor is taken for hidden
CHUNK = 32  # pictures drawn at once: their masks stay in the processor's cache


def render(factors: Tensor, extras: Accessories | None = None, size: int = SIZE) -> Tensor:
    """Draw portraits.

    Args:
        factors: [N, F] in [0, 1], columns as in `factors.FACTORS`.
        extras: hats, ear-rings, scarves and backgrounds that are not factors; None draws plain portraits.
        size: pixels per side.

    Returns:
        [N, 3, size, size] in [-1, 1].
    """
    parts = [
        _render_chunk(factors[i : i + CHUNK], None if extras is None else extras[i : i + CHUNK], size)
        for i in range(0, len(factors), CHUNK)
    ]
    return torch.cat(parts) if parts else torch.empty(0, 3, size, size)


def where_it_shows(factors: Tensor, portraits: Tensor, column: Tensor) -> Tensor:
    """Weights of pixels by which one factor of each portrait counts like any other, however small it is.

    A pixel weighs what it changes when the factor goes half its range away; the mean over a portrait is one, so that a
    nose weighs as much as a wall. A factor that nobody sees, as the colour of eyes behind heavy glasses, weighs less.

    Args:
        factors: [N, F] in [0, 1].
        portraits: what `render` draws of them, [N, 3, H, H].
        column: which factor, [N], one for each portrait.

    Returns:
        [N, 1, H, H], not negative.
    """
    moved = factors.clone()
    row = torch.arange(len(factors))
    moved[row, column] = (factors[row, column] + 0.5) % 1
    change = (render(moved, size=portraits.shape[-1]) - portraits).abs().mean(1, keepdim=True)
    return change / change.mean((1, 2, 3), keepdim=True).clamp(min=UNSEEN)


@dataclass
class Colours:
    """Colours of a portrait, [N, 3] in [0, 1]."""

    skin: Tensor
    hair: Tensor
    lips: Tensor
    clothes: Tensor


class Head:
    """Geometry of a batch of heads: an ellipsoid that turns, and the places of features upon it.

    Turning is what makes a pose more than a shift: features near the front of the ellipsoid travel further than those
    at its side, and those turning away grow narrow.
    """

    depth = 0.46

    def __init__(self, factors: Tensor) -> None:
        f = dict(zip(NAMES, factors.unbind(1), strict=True))
        self.f = f
        self.yaw = (f["yaw"] - 0.5) * 1.3
        self.pitch = (f["pitch"] - 0.5) * 0.6
        self.width = 0.33 + 0.13 * f["face_width"]
        self.height = 0.50 + 0.03 * (1 - f["face_width"])
        self.cx = 0.10 * torch.sin(self.yaw)
        self.cy = -0.10 + 0.03 * torch.sin(self.pitch)
        self.eye_x = 0.115 + 0.085 * f["eye_spacing"]
        self.eye_y = torch.full_like(self.cx, -0.045)
        self.nose_y = torch.full_like(self.cx, 0.12)
        self.mouth_y = torch.full_like(self.cx, 0.275)

    def place(self, x: Tensor, y: Tensor, lift: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where a feature at (x, y) of the frontal face is seen after turning.

        Returns:
            x, y on the picture, the foreshortening of widths there in (0, 1.2], and visibility in [0, 1]; all [N].
        """
        rest = 1 - (x / self.width).square() - (y / self.height).square() * 0.6
        z = self.depth * rest.clamp(min=0.02).sqrt() + lift
        sin, cos = torch.sin(self.yaw), torch.cos(self.yaw)
        facing = (z * cos - x * sin) / z
        seen_x = self.cx + x * cos + z * sin * 0.62
        seen_y = self.cy + y + z * torch.sin(self.pitch) * 0.7
        return seen_x, seen_y, facing.clamp(0.3, 1.2), smoothstep(0.05, 0.35, facing)

    def ear(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Centre and foreshortening of an ear; the one on the side turned away slips behind the head."""
        turn = side * torch.sin(self.yaw)
        x = self.cx + side * self.width * (1.0 - 0.10 * turn.clamp(min=0)) - 0.13 * torch.sin(self.yaw)
        return x, self.cy + 0.05 - 0.10 * torch.sin(self.pitch), (1 - 0.55 * turn).clamp(0.3, 1.4)

    def outline(self, canvas: Canvas, grow: float = 0.0) -> Tensor:
        """Signed distance of the head, positive inside: round above, jaw below, the chin turned with the pose."""
        t = (canvas.y - per_image(self.cy)) / per_image(self.height + grow)
        lower = t.clamp(min=0)
        jaw = per_image(self.f["jaw"])
        chin_shift = per_image(0.10 * torch.sin(self.yaw)) * lower
        taper = 1 - (0.42 - 0.42 * jaw) * lower * lower + 0.10 * jaw * lower
        u = (canvas.x - per_image(self.cx) - chin_shift) / (per_image(self.width + grow) * taper)
        radius = (u * u + t * t).add_(1e-6).sqrt_()
        return (1 - radius) * per_image((self.width + self.height) * 0.5)


def _colours(f: dict[str, Tensor]) -> Colours:
    def constant(r: float, g: float, b: float) -> Tensor:
        return f["skin"].new_tensor([r, g, b]).expand(len(f["skin"]), 3)

    tone = f["skin"]
    skin = mix(constant(0.30, 0.18, 0.12), constant(0.78, 0.56, 0.40), (tone * 2).clamp(max=1))
    skin = mix(skin, constant(0.99, 0.86, 0.77), (tone * 2 - 1).clamp(min=0))
    skin = (skin * mix(constant(0.96, 0.99, 1.10), constant(1.03, 0.98, 0.84), f["skin_warmth"])).clamp(0, 1)
    light, red = f["hair_lightness"], f["hair_redness"]
    dark = mix(constant(0.09, 0.08, 0.09), constant(0.26, 0.09, 0.05), red)
    middle = mix(constant(0.40, 0.30, 0.20), constant(0.68, 0.27, 0.09), red)
    blond = mix(constant(0.86, 0.78, 0.56), constant(0.96, 0.66, 0.26), red)
    hair = mix(mix(dark, middle, (light * 2).clamp(max=1)), blond, (light * 2 - 1).clamp(min=0))
    hair = mix(hair, constant(0.84, 0.84, 0.87), 0.92 * smoothstep(0.45, 0.95, f["age"]))
    lips = mix(skin * 0.80, constant(0.78, 0.16, 0.20), 0.15 + 0.75 * f["lip_fullness"])
    return Colours(skin, hair, lips, hue(f["clothes"] * 0.83, 0.55, 0.72))


def _render_chunk(factors: Tensor, extras: Accessories | None, size: int) -> Tensor:
    head = Head(factors)
    f = head.f
    colours = _colours(f)
    canvas = Canvas(len(factors), size, factors.device)
    _background(canvas, f)
    if extras is not None:
        extras.behind(canvas)
    strands = _strands(canvas, head)
    _hair_behind(canvas, head, colours, strands)
    _body(canvas, head, colours)
    if extras is not None:
        extras.around_neck(canvas, head)
    _ears(canvas, head, colours)
    if extras is not None:
        extras.on_ears(canvas, head)
    _face(canvas, head, colours)
    _lines_of_age(canvas, head)
    _beard(canvas, head, colours, strands)
    _nose(canvas, head, colours)
    _mouth(canvas, head, colours)
    _eyes(canvas, head, colours)
    _hair_in_front(canvas, head, colours, strands)
    _glasses(canvas, head)
    if extras is not None:
        extras.on_head(canvas, head)
    _lighting(canvas, head)
    return canvas.pixels.clamp_(0, 1).mul_(2).sub_(1)


def _background(canvas: Canvas, f: dict[str, Tensor]) -> None:
    colour = hue(0.06 + f["background_hue"] * 0.62, 0.38, 0.26 + 0.62 * f["background_value"])
    falloff = 1.06 - 0.16 * (canvas.y * 0.5 + 0.5)
    canvas.pixels += colour[:, :, None, None] * falloff[:, None]


def _strands(canvas: Canvas, head: Head) -> Tensor:
    """Light and dark locks [N, H, W] around 1, fixed to the head so that they turn with it."""
    u = (canvas.x - per_image(head.cx + 0.2 * torch.sin(head.yaw))) / per_image(head.width)
    v = canvas.y - per_image(head.cy)
    return 1 + 0.09 * torch.sin(u * (12 - 5 * v) + 0.6)


def _hair_behind(canvas: Canvas, head: Head, colours: Colours, strands: Tensor) -> None:
    f = head.f
    length, volume = f["hair_length"], f["hair_volume"]
    width = head.width + 0.05 + 0.13 * volume
    x = head.cx - 0.08 * torch.sin(head.yaw)
    crown = canvas.fill(canvas.ellipse(x, head.cy - 0.06, width, head.height + 0.03 + 0.09 * volume))
    bottom = head.cy + 0.02 + 0.95 * length
    taper = 1 + 0.10 * (canvas.y - per_image(head.cy))
    sides = torch.minimum(
        per_image(width) * taper - (canvas.x - per_image(x)).abs(),
        torch.minimum(per_image(bottom) - canvas.y, canvas.y - per_image(head.cy - 0.06)),
    )
    grown = smoothstep(0.12, 0.22, length)
    cropped = (canvas.y < per_image(head.cy + 0.05)).float()
    mask = torch.maximum(crown * torch.maximum(cropped, canvas.fill(per_image(bottom) - canvas.y)), canvas.fill(sides))
    cap = (
        canvas.fill(canvas.ellipse(x, head.cy - 0.05, head.width + 0.03 + 0.04 * volume, head.height + 0.05)) * cropped
    )
    mask = cap + per_image(grown) * (torch.maximum(mask, cap) - cap)
    canvas.paint(mask, colours.hair[:, :, None, None] * strands[:, None] * 0.74)


def _body(canvas: Canvas, head: Head, colours: Colours) -> None:
    one = torch.ones_like(head.cx)
    shoulders = canvas.fill(canvas.ellipse(0 * one, 1.12 * one, 0.80 * one, 0.52 * one))
    canvas.paint(shoulders, colours.clothes)
    canvas.paint(canvas.fill(canvas.ellipse(0.3 * head.cx, 0.60 * one, 0.24 * one, 0.17 * one)), colours.skin * 0.88)
    neck_x = 0.5 * head.cx
    neck = canvas.stroke(neck_x, 0.15 * one, 0.3 * head.cx, 0.58 * one, 0.145 + 0.035 * head.f["jaw"])
    canvas.paint(canvas.fill(neck), colours.skin * 0.84)


def _ears(canvas: Canvas, head: Head, colours: Colours) -> None:
    for side in (-1, 1):
        x, y, scale = head.ear(side)
        canvas.paint(canvas.fill(canvas.ellipse(x, y, 0.065 * scale, 0.105 * torch.ones_like(x))), colours.skin * 0.86)


def _face(canvas: Canvas, head: Head, colours: Colours) -> None:
    distance = head.outline(canvas)
    rim = smoothstep(0.0, 0.16, distance)  # a rounder look: the rim a little darker
    shaded = colours.skin[:, :, None, None] * (0.88 + 0.12 * rim)[:, None]
    canvas.paint(canvas.fill(distance), shaded)
    blush = mix(
        colours.skin,
        colours.skin.new_tensor([0.86, 0.34, 0.30]).expand_as(colours.skin),
        torch.full_like(head.cx, 0.45),
    )
    for side in (-1, 1):
        x, y, scale, seen = head.place(side * (head.eye_x + 0.06), head.nose_y + 0.03)
        cheek = smoothstep(-0.06, 0.10, canvas.ellipse(x, y, 0.10 * scale, torch.full_like(x, 0.08)))
        canvas.paint(cheek, blush, (0.25 + 0.35 * head.f["smile"]) * seen)


def _lines_of_age(canvas: Canvas, head: Head) -> None:
    age = smoothstep(0.35, 0.95, head.f["age"])
    one = torch.ones_like(age)
    for row, half in ((-0.255, 0.17), (-0.32, 0.14)):
        x, y, scale, _ = head.place(0 * one, row * one)
        line = canvas.fill(canvas.arc(x, y, half * scale, -0.02 * one, 0.013 * one))
        canvas.shade(line, 0.36 * age)
    for side in (-1, 1):
        top_x, top_y, _, seen = head.place(side * 0.085 * one, head.nose_y + 0.03)
        end_x, end_y, _, _ = head.place(side * (0.155 + 0.03 * head.f["smile"]), head.mouth_y - 0.01)
        fold = canvas.fill(canvas.stroke(top_x, top_y, end_x, end_y, 0.013 * one))
        canvas.shade(fold, 0.38 * age * seen)
        x, y, scale, seen = head.place(side * head.eye_x, head.eye_y + 0.085)
        bag = canvas.fill(canvas.arc(x, y, 0.075 * scale, 0.03 * one, 0.013 * one))
        canvas.shade(bag, 0.30 * age * seen)


def _beard(canvas: Canvas, head: Head, colours: Colours, strands: Tensor) -> None:
    amount = smoothstep(0.45, 0.85, head.f["beard"])
    one = torch.ones_like(amount)
    x, y, _, _ = head.place(0 * one, head.mouth_y)
    inside = canvas.fill(head.outline(canvas, grow=0.012))
    below = smoothstep(-0.05, 0.05, canvas.y - per_image(head.cy + 0.10))
    mouth_hole = smoothstep(
        -0.03, 0.03, canvas.ellipse(x, y - 0.015, 0.145 + 0.05 * head.f["mouth_width"], 0.085 * one)
    )
    cheeks = smoothstep(-0.04, 0.05, canvas.ellipse(x, y - 0.20, 0.24 * one, 0.17 * one))
    moustache = canvas.fill(canvas.arc(x, y - 0.085, 0.15 * one, -0.05 * one, 0.030 * one))
    mask = torch.maximum(inside * below * (1 - mouth_hole) * (1 - cheeks), moustache)
    canvas.paint(mask, colours.hair[:, :, None, None] * (0.86 * strands)[:, None], 0.94 * amount)


def _nose(canvas: Canvas, head: Head, colours: Colours) -> None:
    f = head.f
    one = torch.ones_like(head.cx)
    big = 0.45 + 1.25 * f["nose_size"]
    tip_x, tip_y, _, _ = head.place(0 * one, head.nose_y + 0.02 * big, lift=0.10)
    top_x, top_y, _, _ = head.place(0 * one, head.eye_y + 0.03)
    shadow = canvas.stroke(top_x + 0.030 * big, top_y, tip_x + 0.034 * big, tip_y, 0.020 * big)
    canvas.paint(canvas.fill(shadow, 1.4), colours.skin * 0.80, 0.55)
    bridge = canvas.fill(canvas.stroke(top_x, top_y, tip_x, tip_y - 0.02, 0.020 * big), 1.6)
    canvas.paint(bridge, (colours.skin * 1.10).clamp(max=1), 0.75)
    wings = canvas.ellipse(tip_x, tip_y + 0.010, 0.078 * big, 0.044 * big)
    canvas.paint(canvas.fill(wings, 1.2), colours.skin * 0.72)
    ball = canvas.ellipse(tip_x, tip_y - 0.012, 0.056 * big, 0.044 * big)
    canvas.paint(canvas.fill(ball, 1.2), (colours.skin * 1.08).clamp(max=1))
    for side in (-1, 1):
        nostril = canvas.ellipse(tip_x + side * 0.040 * big, tip_y + 0.026 * big, 0.018 * big, 0.013 * big)
        canvas.paint(canvas.fill(nostril), colours.skin * 0.30, 0.9)


def _mouth(canvas: Canvas, head: Head, colours: Colours) -> None:
    f = head.f
    smile = f["smile"]
    one = torch.ones_like(smile)
    x, y, scale, _ = head.place(0 * one, head.mouth_y)
    half = (0.080 + 0.085 * f["mouth_width"] + 0.045 * smile) * scale
    bend = 0.16 * (smile - 0.42)
    thick = 0.015 + 0.032 * f["lip_fullness"]
    opening = 0.085 * smoothstep(0.55, 1.0, smile)
    y = y - 0.25 * bend + 0.4 * opening
    canvas.paint(canvas.fill(canvas.arc(x, y, half, bend, thick + opening)), colours.lips)
    dark = colours.lips.new_tensor([0.30, 0.06, 0.08]).expand_as(colours.lips)
    canvas.paint(
        canvas.fill(canvas.arc(x, y, half * 0.86, bend * 0.74, opening + 0.004)), dark, smoothstep(0.0, 0.03, opening)
    )
    teeth = canvas.fill(canvas.arc(x, y - 0.34 * opening, half * 0.80, bend * 0.64, opening * 0.62))
    canvas.paint(teeth, torch.full_like(dark, 0.97), smoothstep(0.01, 0.035, opening))
    line = canvas.fill(canvas.arc(x, y, half * 0.95, bend * 0.9, 0.010 * one))
    canvas.paint(line, dark, 0.85 * (1 - smoothstep(0.0, 0.03, opening)))


def _eyes(canvas: Canvas, head: Head, colours: Colours) -> None:
    f = head.f
    one = torch.ones_like(head.cx)
    size = 0.060 + 0.052 * f["eye_size"]
    open_ = size * (0.74 - 0.18 * f["smile"] + 0.10 * (1 - f["age"]))
    white = colours.skin.new_tensor([0.96, 0.96, 0.95]).expand_as(colours.skin)
    brown, blue = white.new_tensor([0.40, 0.19, 0.05]), white.new_tensor([0.15, 0.62, 0.98])
    iris_colour = mix(brown.expand_as(white), blue.expand_as(white), f["eye_color"])
    brow_colour = mix(colours.hair * 0.60, colours.skin * 0.35, 0.25 * one)
    for side in (-1, 1):
        x, y, scale, seen = head.place(side * head.eye_x, head.eye_y)
        lid = canvas.fill(canvas.ellipse(x, y - 0.012, size * scale * 1.10, open_ * 1.25))
        canvas.paint(lid, colours.skin * 0.62, seen)
        ball = canvas.fill(canvas.ellipse(x, y, size * scale, open_))
        canvas.paint(ball, white, seen)
        gaze = x + 0.012 * torch.sin(head.yaw)
        radius = torch.minimum(0.70 * size, 1.05 * open_)
        iris = canvas.fill(canvas.ellipse(gaze, y, radius * scale, radius)) * ball
        canvas.paint(iris, iris_colour, seen)
        canvas.paint(
            canvas.fill(canvas.ellipse(gaze, y, 0.38 * radius * scale, 0.38 * radius)) * ball, white * 0.04, seen
        )
        tilt = 0.07 * (f["brow_tilt"] - 0.5) * side * 2
        weight = 0.014 + 0.030 * f["brow_weight"]
        brow_y = y - open_ - 0.075 - 0.02 * f["smile"]
        run = (size + 0.02) * scale
        brow = canvas.fill(canvas.stroke(x - run, brow_y + tilt, x + run, brow_y - tilt, weight))
        canvas.paint(brow, brow_colour, seen)


def _hair_in_front(canvas: Canvas, head: Head, colours: Colours, strands: Tensor) -> None:
    f = head.f
    volume = f["hair_volume"]
    one = torch.ones_like(volume)
    scalp = canvas.fill(head.outline(canvas, grow=0.035))
    top = canvas.fill(
        canvas.ellipse(head.cx, head.cy - 0.05, head.width + 0.04 + 0.05 * volume, head.height + 0.05 + 0.09 * volume)
    )
    front_x, front_y, _, _ = head.place(0 * one, -0.40 + 0.20 * f["fringe"])
    parting = (canvas.x - per_image(front_x)) / per_image(head.width)
    line = per_image(front_y) + 0.20 * parting.square() - 0.05 * parting
    above = canvas.fill(line - canvas.y)
    lower = (canvas.y < per_image(head.cy)).float()
    mask = torch.maximum(scalp, top * lower) * above
    shine = 1 + 0.16 * smoothstep(-0.10, 0.10, canvas.ellipse(head.cx - 0.06, head.cy - 0.42, 0.20 * one, 0.06 * one))
    canvas.paint(mask, colours.hair[:, :, None, None] * (strands * shine)[:, None])


def _glasses(canvas: Canvas, head: Head) -> None:
    amount = smoothstep(0.42, 0.62, head.f["glasses"])
    heavy = 0.009 + 0.013 * head.f["glasses"]
    frame = canvas.pixels.new_tensor([0.07, 0.07, 0.09]).expand(len(amount), 3)
    inner: list[tuple[Tensor, Tensor]] = []
    for side in (-1, 1):
        x, y, scale, _ = head.place(side * head.eye_x, head.eye_y + 0.005)
        rx, ry = 0.110 * scale, torch.full_like(x, 0.100)
        distance = canvas.ellipse(x, y, rx, ry)
        canvas.paint(canvas.fill(distance), torch.full_like(frame, 0.92), 0.14 * amount)
        canvas.paint(canvas.fill(per_image(heavy) - distance.abs()), frame, amount)
        inner.append((x - side * rx, y))
        ear_x, ear_y, _ = head.ear(side)
        temple = canvas.stroke(x + side * rx, y - 0.02, ear_x, ear_y - 0.06, 0.7 * heavy)
        canvas.paint(canvas.fill(temple), frame, amount * smoothstep(0.5, 0.9, scale))
    (left_x, left_y), (right_x, right_y) = inner
    canvas.paint(canvas.fill(canvas.stroke(left_x, left_y, right_x, right_y, heavy)), frame, amount)


def _lighting(canvas: Canvas, head: Head) -> None:
    side = (head.f["light"] - 0.5) * 2
    u = torch.tanh((canvas.x - per_image(head.cx)) / 0.40)
    canvas.pixels *= (1 + 0.32 * per_image(side) * u - 0.05 * per_image(side.abs()))[:, None]
