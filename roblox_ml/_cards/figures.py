"""Figures and images as what a page can hold by itself: data URIs, and Plotly's JSON.

A figure is recognised by what it can do, never by importing a library: matplotlib, seaborn and Plotly are whatever the
step brought along. SVG goes into an `<img>`, where a browser runs no script in it and loads nothing for it.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from .text import clean

__all__ = ["NotAFigure", "data_uri", "image_uri", "plot_uri", "plotly_json"]

# Beyond this a drawing of many points is smaller, and faster to show, as pixels.
_LARGEST_SVG = 1_500_000
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


class NotAFigure(TypeError):
    """What was passed is nothing that can be drawn."""


def data_uri(data: bytes, kind: str) -> str:
    """`data:image/png;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def plotly_json(figure: Any) -> str | None:
    """A Plotly figure's JSON; None when it is something else."""
    if not type(figure).__module__.startswith("plotly."):
        return None
    text = str(figure.to_json())
    json.loads(text)  # what is not JSON would end the page's script
    # Inside a script element only `<` can end it, and JSON may write it otherwise.
    return clean(text).replace("<", "\\u003c")


def plot_uri(figure: Any) -> str:
    """A matplotlib figure (or axes, or pyplot itself), a seaborn grid, or SVG text, as a data URI."""
    if isinstance(figure, str | bytes):
        return _svg_uri(figure)
    owner = figure
    if not hasattr(owner, "savefig"):
        # Axes know their figure; several axes are an array whose first will do.
        first = next(iter(getattr(figure, "flat", ())), figure)
        found = getattr(first, "figure", None)
        owner = found if found is not None else figure
    if not hasattr(owner, "savefig"):
        if hasattr(figure, "_repr_svg_"):
            return _svg_uri(figure._repr_svg_())
        raise NotAFigure(
            f"plot() got {type(figure).__name__}: pass a matplotlib figure or axes, a Plotly figure, or SVG text"
        )
    buffer = io.BytesIO()
    owner.savefig(buffer, format="svg", bbox_inches="tight")
    if buffer.tell() <= _LARGEST_SVG:
        return data_uri(buffer.getvalue(), "image/svg+xml")
    buffer = io.BytesIO()
    owner.savefig(buffer, format="png", bbox_inches="tight", dpi=144)
    return data_uri(buffer.getvalue(), "image/png")


def image_uri(image: Any) -> str:
    """A file, bytes, or a picture of Pillow, as a data URI."""
    if isinstance(image, str | Path):
        path = Path(image)
        if not path.is_file():
            raise NotAFigure(f"image() got {str(image)!r}, and there is no such file")
        data = path.read_bytes()
    elif isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
    elif hasattr(image, "save") and hasattr(image, "mode"):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        data = buffer.getvalue()
    else:
        raise NotAFigure(
            f"image() got {type(image).__name__}: pass a path, the bytes of a PNG, JPEG, GIF, WebP or SVG, or a Pillow image"
        )
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return data_uri(data, kind)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return data_uri(data, "image/webp")
    return _svg_uri(data)


def _svg_uri(given: str | bytes) -> str:
    data = given.encode("utf-8", "replace") if isinstance(given, str) else given
    if b"<svg" not in data[:4096]:
        raise NotAFigure("the picture is none of PNG, JPEG, GIF, WebP and SVG")
    return data_uri(data, "image/svg+xml")
