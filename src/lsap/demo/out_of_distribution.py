"""Far portraits: what no generator of portraits can draw, and refinement methods exist for.

Each shows one of six strangers to the domain over a rich portrait: writing, a hand, a mug, face paint; or the whole is
another kind of picture: a pencil drawing, a poster of few colours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lsap.demo.accessories import Accessories
from lsap.demo.drawing import Canvas, hue, per_image
from lsap.demo.portraits import Head

KINDS = ("writing", "hand", "mug", "face paint", "pencil drawing", "poster")


def kinds(extras: Accessories) -> Tensor:
    """Which of `KINDS` each portrait shows, [N]: they follow one another evenly through the random numbers."""
    return (extras.numbers[:, 18] * len(KINDS)).long().clamp(max=len(KINDS) - 1)


def estrange(images: Tensor, factors: Tensor, extras: Accessories) -> Tensor:
    """Turn rendered portraits into far ones.

    Args:
        images: [N, 3, H, H] in [-1, 1], rendered from the factors.
        factors: [N, F] in [0, 1], which say where the head is.
        extras: their random numbers.

    Returns:
        [N, 3, H, H] in [-1, 1].
    """
    head = Head(factors)
    canvas = Canvas(len(images), images.shape[-1], images.device)
    canvas.pixels = (images + 1) / 2
    kind = kinds(extras)
    shown = [(kind == number).float() for number in range(len(KINDS))]
    _face_paint(canvas, head, extras.numbers, shown[3])
    canvas.pixels = torch.lerp(canvas.pixels, _pencil(canvas.pixels), shown[4][:, None, None, None])
    canvas.pixels = torch.lerp(canvas.pixels, _poster(canvas.pixels), shown[5][:, None, None, None])
    _mug(canvas, head, extras.numbers, shown[2])
    _hand(canvas, head, extras.numbers, shown[1])
    _writing(canvas, extras.numbers, shown[0])
    return canvas.pixels.clamp(0, 1) * 2 - 1


def _writing(canvas: Canvas, n: Tensor, shown: Tensor) -> None:
    """Two lines of letters across the picture: upright strokes joined by bars, no word."""
    colour = hue(n[:, 19], 0.85, 0.95)
    outline = torch.zeros_like(colour)
    one = torch.ones_like(shown)
    for edge, paint in ((0.035, outline), (0.0, colour)):
        for row in range(2):
            top = -0.62 + 1.05 * n[:, 20] * 0.55 + 0.34 * row
            for letter in range(6):
                x = (-0.68 + 0.26 * letter) * one
                code = (n[:, 21] * 97 + n[:, 22] * 31 + 7 * letter + 13 * row) % 4
                width = 0.028 + edge
                canvas.paint(canvas.fill(canvas.stroke(x, top, x, top + 0.22, width * one)), paint, shown)
                for choice, (ax, ay, bx, by) in enumerate(
                    ((0.0, 0.0, 0.14, 0.0), (0.0, 0.11, 0.14, 0.11), (0.0, 0.22, 0.14, 0.22), (0.0, 0.22, 0.14, 0.0))
                ):
                    chosen = shown * ((code >= choice) & (code < choice + 3)).float()
                    bar = canvas.stroke(x + ax, top + ay, x + bx, top + by, width * one)
                    canvas.paint(canvas.fill(bar), paint, chosen)


def _hand(canvas: Canvas, head: Head, n: Tensor, shown: Tensor) -> None:
    """A hand held before the face from one side, its fingers spread."""
    one = torch.ones_like(shown)
    side = (n[:, 19] > 0.5).float() * 2 - 1
    skin = hue(0.05 * one, 0.30 + 0.35 * n[:, 20], 0.45 + 0.5 * n[:, 21])
    palm_x, palm_y = head.cx + side * 0.36, head.cy + 0.20 + 0.25 * n[:, 22]
    canvas.paint(
        canvas.fill(canvas.stroke(palm_x, palm_y, palm_x + side * 0.5, palm_y + 0.6, 0.14 * one)), skin * 0.92, shown
    )
    for finger in range(4):
        angle = -0.55 + 0.30 * finger
        tip_x = palm_x - side * (0.40 * torch.cos(angle * one))
        tip_y = palm_y + 0.40 * torch.sin(angle * one) - 0.10
        root_y = palm_y - 0.10 + 0.075 * finger
        for grow, paint in ((0.018, skin * 0.55), (0.0, skin)):
            canvas.paint(canvas.fill(canvas.stroke(palm_x, root_y, tip_x, tip_y, (0.050 + grow) * one)), paint, shown)
    canvas.paint(canvas.fill(canvas.ellipse(palm_x, palm_y, 0.17 * one, 0.20 * one)), skin, shown)


def _mug(canvas: Canvas, head: Head, n: Tensor, shown: Tensor) -> None:
    """A mug at the mouth."""
    one = torch.ones_like(shown)
    colour = hue(n[:, 19], 0.7, 0.40 + 0.55 * n[:, 20])
    x, y, _, _ = head.place(0 * one, head.mouth_y)
    half, height = 0.20 + 0.05 * n[:, 21], 0.24
    side = (n[:, 22] > 0.5).float() * 2 - 1
    ring = 0.035 - canvas.ellipse(x + side * half, y + 0.14, 0.12 * one, 0.12 * one).abs()
    canvas.paint(canvas.fill(ring), colour * 0.8, shown)
    body = torch.minimum(
        per_image(half) - (canvas.x - per_image(x)).abs(), height - (canvas.y - per_image(y + 0.16)).abs()
    )
    shading = 1.05 - 0.45 * ((canvas.x - per_image(x)) / per_image(half)).square()
    canvas.paint(canvas.fill(body), colour[:, :, None, None] * shading[:, None], shown)
    canvas.paint(canvas.fill(canvas.ellipse(x, y - 0.07, half, 0.05 * one)), colour * 0.45, shown)


def _face_paint(canvas: Canvas, head: Head, n: Tensor, shown: Tensor) -> None:
    """Stripes of two colours over the face, or a mask around the eyes."""
    one = torch.ones_like(shown)
    inside = canvas.fill(head.outline(canvas))
    first, second = hue(n[:, 19], 0.9, 0.9), hue(n[:, 19] + 0.4, 0.9, 0.9)
    u = canvas.x - per_image(head.cx)
    v = canvas.y - per_image(head.cy)
    striped = (n[:, 20] < 0.5).float()
    stripes = (torch.sin((v + u.abs() * per_image(1.6 * n[:, 21] - 0.8)) * 26) * 3 + 0.5).clamp(0, 1)
    canvas.paint(inside * stripes, first, 0.85 * shown * striped)
    band = canvas.fill(0.15 - (v - 0.0).abs())
    canvas.paint(inside * band, first, 0.9 * shown * (1 - striped))
    for side in (-1, 1):
        x, y, _, _ = head.place(side * (head.eye_x + 0.05), head.nose_y + 0.06)
        canvas.paint(canvas.fill(canvas.ellipse(x, y, 0.08 * one, 0.08 * one)), second, 0.9 * shown * (1 - striped))


def _pencil(pixels: Tensor) -> Tensor:
    """Dark lines where grey changes, hatching where it is dark, on paper."""
    grey = (pixels * pixels.new_tensor([0.3, 0.59, 0.11])[:, None, None]).sum(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    line = (dx.square() + dy.square()).sqrt()
    axis = torch.arange(pixels.shape[-1], device=pixels.device) * (64 / pixels.shape[-1])
    hatch = (torch.sin((axis[None, :] + axis[:, None]) * 1.9) * 0.5 + 0.5) * (0.55 - grey).clamp(min=0)
    paper = pixels.new_tensor([0.97, 0.95, 0.90])[:, None, None]
    return paper * (1 - (3.2 * line + 0.9 * hatch).clamp(max=0.92))


def _poster(pixels: Tensor) -> Tensor:
    """Four flat colours by brightness."""
    grey = (pixels * pixels.new_tensor([0.3, 0.59, 0.11])[:, None, None]).sum(1, keepdim=True)
    inks = pixels.new_tensor([[0.10, 0.08, 0.25], [0.85, 0.12, 0.35], [0.98, 0.62, 0.15], [0.99, 0.96, 0.80]])
    level = (grey * 4.6 - 0.4).clamp(0, 3).round().long().squeeze(1)
    return inks[level].permute(0, 3, 1, 2)
