"""An episode so far as a picture: value, weights over time, and weights now.

Drawn with Pillow at twice the size and reduced, which smooths edges, so no window or display is
needed. Pillow and the font, both parts of matplotlib, load with the first frame.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from market import Market

Colour = tuple[int, int, int]

WIDTH, HEIGHT, SCALE = 960, 540, 2
LEAST_SPAN = 40  # periods on the time axis, so that the first days do not fill it
MOST_BARS = 14
PAPER, INK, FAINT, GRID = (255, 255, 255), (38, 43, 51), (128, 136, 148), (231, 234, 239)
LINE, LOSS, CASH = (31, 92, 168), (184, 62, 54), (186, 193, 203)
PALETTE: tuple[Colour, ...] = (
    (53, 112, 180),
    (238, 145, 56),
    (78, 155, 110),
    (201, 83, 89),
    (138, 112, 184),
    (150, 110, 88),
    (218, 130, 184),
    (106, 176, 197),
    (186, 178, 62),
    (92, 104, 126),
)


class Plot(NamedTuple):
    """A chart's rectangle, and the range of time it spans."""

    left: float
    top: float
    right: float
    bottom: float
    span: int

    def x(self, step: Any) -> Any:
        """Where a step of the episode lies."""
        return self.left + (self.right - self.left) * np.asarray(step) / self.span

    def y(self, share: Any) -> Any:
        """Where a height in [0, 1] lies."""
        return self.bottom - (self.bottom - self.top) * np.asarray(share)


class Film:
    """What happened in an episode, and its pictures."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._rows: list[int] = []
        self._values: list[float] = []
        self._weights: list[np.ndarray] = []
        self._peak = 1.0
        risky = [_colour(i) for i in range(market.n_assets)]
        self._colours = [*risky[:-1], CASH] if market.has_cash else risky

    def start(self, row: int, value: float, weights: np.ndarray, peak: float = 1.0) -> None:
        """Forget the last episode; `peak` is the highest value so far, of what is not shown."""
        self._peak = float(peak)
        self._rows, self._values, self._weights = [], [], []
        self.add(row, value, weights)

    def add(self, row: int, value: float, weights: np.ndarray) -> None:
        """Keep one period's end."""
        self._rows.append(int(row))
        self._values.append(float(value))
        self._weights.append(weights)

    def frame(self) -> np.ndarray:
        """The picture, (540, 960, 3) uint8."""
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
        pen = _Pen(ImageDraw.Draw(image), self._fonts)
        span = max(LEAST_SPAN, len(self._rows) - 1)
        steps = _sampled(len(self._rows))
        values = np.array(self._values)
        self._draw_head(pen, values)
        self._draw_value(pen, Plot(64, 102, 684, 300, span), steps, values[steps])
        weights = np.array([self._weights[step] for step in steps])
        self._draw_weights(pen, Plot(64, 342, 684, 492, span), steps, weights)
        self._draw_bars(pen, self._weights[-1])
        return np.asarray(image.reduce(SCALE)).copy()

    def _draw_head(self, pen: _Pen, values: np.ndarray) -> None:
        date = self.market.dates[self._rows[-1]]
        drawdown = 1.0 - values[-1] / max(self._peak, values.max()) if values[-1] > 0.0 else 1.0
        change = values[-1] - 1.0
        pen.text(28, 36, f"{date:%d %B %Y}".lstrip("0"), "large")
        pen.text(28, 62, self.market.name.replace("_", " "), "small", FAINT)
        columns = (
            (420, "value", f"{values[-1]:.4f}", INK),
            (560, "return", f"{100 * change:+.2f} %", LOSS if change < 0 else INK),
            (684, "drawdown", f"{100 * drawdown:.2f} %", INK),
        )
        for x, label, number, colour in columns:
            pen.text(x, 36, number, "large", colour, right=True)
            pen.text(x, 62, label, "small", FAINT, right=True)

    def _draw_value(self, pen: _Pen, plot: Plot, steps: np.ndarray, values: np.ndarray) -> None:
        pen.text(plot.left, plot.top - 2, "value", "small", FAINT)
        low, high = min(values.min(), 0.995), max(values.max(), 1.005)
        margin = 0.06 * (high - low)
        low, high = low - margin, high + margin
        for tick in _ticks(low, high):
            y = plot.y((tick - low) / (high - low))
            pen.line([(plot.left, y), (plot.right, y)], FAINT if tick == 1.0 else GRID, 1)
            pen.text(plot.left - 8, y, f"{tick:g}", "small", FAINT, right=True)
        points = list(zip(plot.x(steps), plot.y((values - low) / (high - low)), strict=True))
        if len(points) > 1:
            pen.line(points, LINE, 2)
        pen.dot(*points[-1], 4, LINE)

    def _draw_weights(self, pen: _Pen, plot: Plot, steps: np.ndarray, weights: np.ndarray) -> None:
        tops = np.minimum(np.cumsum(weights, axis=1), 1.0)  # cash, the last asset, lies on top
        x = plot.x(steps)
        for i in reversed(range(tops.shape[1])):
            edge = list(zip(x, plot.y(tops[:, i]), strict=True))
            if len(edge) > 1:
                pen.area([*edge, (x[-1], plot.bottom), (x[0], plot.bottom)], self._colours[i])
        for share in (0.0, 0.5, 1.0):
            pen.text(plot.left - 8, plot.y(share), f"{100 * share:.0f} %", "small", FAINT, True)
        pen.line([(plot.left, plot.bottom), (plot.right, plot.bottom)], FAINT, 1)
        pen.text(plot.left, plot.top - 14, "weights over time", "small", FAINT)
        first, last = (self.market.dates[self._rows[k]] for k in (0, -1))
        pen.text(plot.left, plot.bottom + 18, f"{first:%Y-%m-%d}", "small", FAINT)
        if x[-1] - plot.left > 200:
            pen.text(x[-1], plot.bottom + 18, f"{last:%Y-%m-%d}", "small", FAINT, right=True)

    def _draw_bars(self, pen: _Pen, weights: np.ndarray) -> None:
        left, right, top, bottom = 728, 924, 92, 492
        shown = np.sort(np.argsort(-weights, kind="stable")[:MOST_BARS])
        pitch = min(40.0, (bottom - top) / len(shown))
        pen.text(left, 62, "weights", "small", FAINT)
        for k, i in enumerate(shown):
            y = top + pitch * k + 6
            pen.text(left, y, _short(self.market.assets[i]), "small")
            pen.text(right, y, f"{100 * weights[i]:.1f} %", "small", INK, right=True)
            pen.box(left, y + 9, right, y + 14, GRID)
            if weights[i] > 0.002:
                pen.box(left, y + 9, left + (right - left) * weights[i], y + 14, self._colours[i])
        if len(shown) < len(weights):
            rest = 1.0 - weights[shown].sum()
            text = f"{len(weights) - len(shown)} others {100 * max(rest, 0.0):.1f} %"
            pen.text(right, bottom + 18, text, "small", FAINT, right=True)

    @cached_property
    def _fonts(self) -> dict[str, Any]:
        import matplotlib as mpl
        from PIL import ImageFont

        path = f"{mpl.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
        sizes = {"small": 12, "large": 20}
        return {name: ImageFont.truetype(path, SCALE * size) for name, size in sizes.items()}


class _Pen:
    """Draws in units of the reduced picture."""

    def __init__(self, draw: Any, fonts: dict[str, Any]) -> None:
        self._draw, self._fonts = draw, fonts

    def text(
        self, x: float, y: float, text: str, font: str, colour: Colour = INK, right: bool = False
    ) -> None:
        """Words, centred on y, that start at x or, if `right`, end there."""
        at = (SCALE * float(x), SCALE * float(y))
        self._draw.text(at, text, colour, self._fonts[font], anchor="rm" if right else "lm")

    def line(self, points: list[tuple[Any, Any]], colour: Colour, width: int) -> None:
        """A line through the points."""
        self._draw.line(_scaled(points), colour, SCALE * width, joint="curve")

    def area(self, points: list[tuple[Any, Any]], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(_scaled(points), colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A filled rectangle."""
        self._draw.rectangle([SCALE * float(edge) for edge in (left, top, right, bottom)], colour)

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle."""
        edges = (x - radius, y - radius, x + radius, y + radius)
        self._draw.ellipse([SCALE * float(edge) for edge in edges], colour)


def _scaled(points: list[tuple[Any, Any]]) -> list[tuple[float, float]]:
    return [(SCALE * float(x), SCALE * float(y)) for x, y in points]


def _sampled(count: int, most: int = 620) -> np.ndarray:
    """Steps 0 .. count - 1, at most one a pixel, the last one always."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)


def _ticks(low: float, high: float) -> np.ndarray:
    """Three to seven round numbers within the range."""
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough))
    unit = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return np.round(np.arange(np.ceil(low / unit), np.floor(high / unit) + 1) * unit, 10)


def _colour(i: int) -> Colour:
    """The palette, and after its end lighter tones of it."""
    red, green, blue = PALETTE[i % len(PALETTE)]
    lighter = min(0.55, 0.45 * (i // len(PALETTE)))
    red, green, blue = (round(c + lighter * (255 - c)) for c in (red, green, blue))
    return red, green, blue


def _short(name: str) -> str:
    text = name.replace("_", " ")
    return text if len(text) <= 18 else f"{text[:17]}…"
