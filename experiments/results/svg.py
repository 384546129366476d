"""SVG for pages: text stays text, what is not data takes the page's colour, and no id is met elsewhere on it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from traffic.schemes import INK

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DIGITS = re.compile(r"(\.[0-9]{2})[0-9]+")


def for_pages(svg: str, name: str, title: str) -> str:
    """Leave out what a page has or does not want: prolog, metadata, fonts, a style for all of it, ids met elsewhere."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"#(\w+)", svg))
    for unwanted in ("metadata", "defs[svg:style]"):
        for element in root.findall(f"svg:{unwanted}", {"svg": _SVG}):
            root.remove(element)
    root.set("role", "img")
    root.set("aria-label", title)
    root.set("stroke-linejoin", "round")
    for element in root.iter():
        attributes = element.attrib
        if (own := attributes.pop("id", None)) in used:
            attributes["id"] = f"{name}-{own}"
        href = attributes.get(f"{{{_XLINK}}}href", "")
        if href.startswith("#"):
            attributes[f"{{{_XLINK}}}href"] = f"#{name}-{href[1:]}"
        if "clip-path" in attributes:
            attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{name}-")
        if "style" in attributes:
            attributes["style"] = css(re.sub(r" *font-family:[^;]*;?", "", attributes["style"]))
        for key in {"d", "x", "y"} & attributes.keys():
            attributes[key] = _DIGITS.sub(r"\1", " ".join(attributes[key].split()))
        if attributes.get("transform", "").startswith("rotate(-0 "):
            del attributes["transform"]
        element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))
    return ElementTree.tostring(root, encoding="unicode")


def as_file(svg: str) -> str:
    """Return what a page has, as a file of its own: it brings the colours that a page would have given it."""
    style = (
        "<style>svg{color:#1d2129;background:#fff;font-family:system-ui,sans-serif}"
        "@media(prefers-color-scheme:dark){svg{color:#e4e6eb;background:#15181d}}</style>"
    )
    start, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{start}>{style}{rest}\n'


def css(text: str) -> str:
    """Give what is drawn in INK the colour of the text around it."""
    return re.sub(INK, "currentColor", text, flags=re.IGNORECASE)
