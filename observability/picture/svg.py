"""The parts of a picture: boxes, texts that fit, the frame of a panel, the page. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

SMALL, BODY, TITLE = 11, 12, 13  # sizes of text
TITLE_H = 16
STYLE: Final = (
    "text { font: 12px Helvetica, Arial, 'Liberation Sans', sans-serif; fill: #24292f } "
    ".small { font-size: 11px } .title { font-size: 13px; font-weight: 600 } "
    ".head { font-size: 18px; font-weight: 600 } "
    ".faint { fill: #6a737d } .bad { fill: #d9453d; font-weight: 600 } .page { fill: #f3f4f6 } "
    ".panel { fill: #fff; stroke: #dfe2e6 } .track { fill: #eceef1 } .arc { stroke: #eceef1 } "
    ".grid { stroke: #e6e8eb } .line { fill: none; stroke-width: 1.4; stroke-linejoin: round } .on { fill: #fff } "
    "@media (prefers-color-scheme: dark) { text { fill: #d5d9df } .faint { fill: #949ca8 } .bad { fill: #ff7066 } "
    ".page { fill: #111217 } .panel { fill: #1a1c21; stroke: #2c3036 } .track { fill: #2a2d33 } "
    ".arc { stroke: #2a2d33 } .grid { stroke: #2a2d33 } .on { fill: #fff } }"
)
WIDTHS: Final = {
    letter: width
    for letters, width in (
        ("ijl'|", 0.222), ("I,.:;/ !tf[]\\", 0.278), ("r()-`{}", 0.333), ('"', 0.355), ("ckszvxyJ", 0.5),
        ("FTZ", 0.611), ("ABEKPSVXY", 0.667), ("w", 0.722), ("CDHNRU", 0.722), ("GOQ", 0.778), ("mM", 0.833),
        ("%", 0.889), ("W", 0.944), ("@…—", 1.0), ("+=<>~", 0.584),
    )
    for letter in letters
}  # fmt: skip
CHINESE, SQUARE = 0x2E80, 1.0
BOLD = 1.08


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the picture, in pixels."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    def cut(self, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> "Box":
        """What is left without these margins."""
        width, height = max(0.0, self.w - left - right), max(0.0, self.h - top - bottom)
        return Box(self.x + left, self.y + top, width, height)

    def cells(self, columns: int, rows: int, gap: float) -> Iterator["Box"]:
        """Equal parts, row by row."""
        width, height = (self.w + gap) / columns - gap, (self.h + gap) / rows - gap
        for row in range(rows):
            for column in range(columns):
                yield Box(self.x + column * (width + gap), self.y + row * (height + gap), width, height)


def num(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def width_of(words: str, size: float = BODY) -> float:
    """Of a text, by Helvetica's widths."""
    return size * sum(WIDTHS.get(letter, SQUARE if ord(letter) >= CHINESE else 0.556) for letter in words)


def fitted(words: str, width: float, size: float = BODY) -> str:
    """As much of a text as has room, `…` for the rest."""
    if width_of(words, size) <= width:
        return words
    kept = next((at for at in range(len(words), 0, -1) if width_of(words[:at] + "…", size) <= width), 0)
    return words[:kept].rstrip() + "…" if kept else ""


def wrapped(words: str, width: float, size: float = BODY) -> list[str]:
    """A text in lines that fit."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fitted(line, width, size) for line in lines]


def text(
    x: float, y: float, words: str, css: str = "", anchor: str = "", fill: str = "", size: float = 0
) -> str:
    """`anchor`: `middle` or `end`; y is the base line."""
    style = ";".join(([f"fill:{fill}"] if fill else []) + ([f"font-size:{num(size)}px"] if size else []))
    extra = [(css, "class"), (anchor, "text-anchor"), (style, "style")]
    attributes = "".join(f' {name}="{value}"' for value, name in extra if value)
    return f'<text x="{num(x)}" y="{num(y)}"{attributes}>{escape(words)}</text>'


def middle(box: Box, words: str, css: str = "", fill: str = "", size: float = BODY) -> str:
    """A text in the middle of a box."""
    x, y = box.centre
    return text(x, y + size * 0.36, words, css, "middle", fill, size)


def rect(box: Box, css: str = "", fill: str = "", radius: float = 0, tip: str = "") -> str:
    style = f' class="{css}"' if css else f' fill="{fill}"'
    round_ = f' rx="{num(radius)}"' if radius else ""
    shape = (
        f'<rect x="{num(box.x)}" y="{num(box.y)}" width="{num(box.w)}" height="{num(box.h)}"{round_}{style}'
    )
    return f"{shape}><title>{escape(tip)}</title></rect>" if tip else f"{shape}/>"


def line(x1: float, y1: float, x2: float, y2: float, css: str = "grid", extra: str = "") -> str:
    ends = f'x1="{num(x1)}" y1="{num(y1)}" x2="{num(x2)}" y2="{num(y2)}"'
    return f'<line class="{css}" {ends}{extra}/>'


def path(points: Sequence[tuple[float, float]], *, is_closed: bool = False) -> str:
    """The `d` of a line through these points; those on a straight line are left out."""
    at = [(num(x), num(y)) for x, y in points]
    kept = [
        point
        for index, point in enumerate(at)
        if not (0 < index < len(at) - 1 and at[index - 1][1] == point[1] == at[index + 1][1])
    ]
    return "M" + "L".join(f"{x},{y}" for x, y in kept) + "Z" * is_closed


def title_lines(title: str, width: float) -> list[str]:
    """A panel's title in two lines at most."""
    first, *others = wrapped(title, width, TITLE * BOLD)
    return [first, fitted(" ".join(others), width, TITLE * BOLD)] if others else [first]


def frame(title: str, description: str, box: Box, body: Iterable[str]) -> Iterator[str]:
    """A panel: its title above, and its body, which nothing leaves."""
    place = f'x="{num(box.x)}" y="{num(box.y)}" width="{num(box.w)}" height="{num(box.h)}"'
    yield f"<svg {place} aria-label={quoteattr(title)}>"
    yield rect(Box(0.5, 0.5, box.w - 1, box.h - 1), "panel", radius=3)
    names = [
        text(10, 20 + at * TITLE_H, name, "title") for at, name in enumerate(title_lines(title, box.w - 20))
    ]
    yield f"<g><title>{escape(description or title)}</title>{''.join(names)}</g>"
    yield from body
    yield "</svg>"


def page(size: Box, title: str, parts: Iterable[str]) -> str:
    """The whole picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {num(size.w)} {num(size.h)}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    return "\n".join([head, rect(size, "page"), *parts, "</svg>", ""])
