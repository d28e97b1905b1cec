"""matplotlib figures as inline SVG for a page that decides itself about light and dark.

Colours are drawn as placeholders and become CSS variables (`--ink`, `--muted`, `--grid`,
`--panel`, `--line-0`, `--area-0` and on); text has no font of its own; ids are prefixed with the
picture's name so that many can share a page; what was given the gid `agent-3` gets that class. The
same figure always gives the same text: no date, no random id.
"""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

INK, MUTED, GRID, PANEL = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PANEL: "--panel"}
_COLOUR = re.compile(r"#(?:01020[3-6]|0[ab]00[0-9a-f]{2})")
_NUMBER = re.compile(r"-?\d+\.\d+")
_CURVED = re.compile(r"[CQ]")
_FONT = re.compile(r"font-family:[^;]*;?")


def line_colour(index: int) -> str:
    """Placeholder of `--line-<index>`."""
    return f"#0a00{index:02x}"


def area_colour(index: int) -> str:
    """Placeholder of `--area-<index>`."""
    return f"#0b00{index:02x}"


def to_svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an `<svg>` element without size, metadata, fonts or foreign ids.

    Args:
        figure: What is drawn, in the placeholder colours.
        name: Unique in the page; letters, digits and `-`.
        label: What the picture shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - written two lines above
    _tidy(root, name)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    return Markup(text)  # noqa: S704 - serialised by ElementTree, which escapes text and attributes


def _tidy(element: ElementTree.Element, name: str) -> None:
    """Rewrite attributes in place, drop what a page does not need, and recurse."""
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = dict(_attribute(key, value, name) for key, value in element.attrib.items())
    identity = element.get("id", "")
    if element.tag == "g" and identity:
        del element.attrib["id"]
        if (gid := identity.removeprefix(f"{name}-")).startswith("agent-"):
            element.set("class", gid)
    if element.tag != "text":
        element.text = None
    element.tail = None
    for child in list(element):
        invisible = child.tag.endswith("}path") and child.get("style") == "fill: none"
        if child.tag.endswith("}style") or invisible:
            element.remove(child)
        else:
            _tidy(child, name)


def _attribute(key: str, value: str, name: str) -> tuple[str, str]:
    key = key.rpartition("}")[2]
    if key == "id":
        value = f"{name}-{value}"
    elif key == "href":
        value = f"#{name}-{value[1:]}"
    elif key == "clip-path":
        value = value.replace("url(#", f"url(#{name}-")
    elif key == "style":
        value = _COLOUR.sub(_variable, _FONT.sub("", value))
    elif key in ("d", "x", "y", "width", "height", "transform", "points"):
        value = _NUMBER.sub(_short, " ".join(value.split()))
        if key == "d" and not _CURVED.search(value):
            value = value.replace(" L ", " ")  # after a move, points are lines anyway
    return key, value


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _variable(colour: re.Match[str]) -> str:
    text = colour[0]
    if text in _VARIABLES:
        return f"var({_VARIABLES[text]})"
    return f"var(--{'line' if text[2] == 'a' else 'area'}-{int(text[5:], 16)})"
