"""Text that goes into a page: cleaned, escaped, shortened. Everything a user supplies passes here before it is HTML."""

from __future__ import annotations

import html
import math
import re
from typing import Any

__all__ = ["clean", "escaped", "number", "shortened", "slug"]

# What no HTML document may hold (control characters) or no file can (half of a surrogate pair), and the characters that
# turn the direction of the text around them, with which one text can be dressed up as another.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def clean(value: Any) -> str:
    """The value as text that can stand in a document."""
    try:
        text = value if type(value) is str else str(value)
    except Exception as error:  # somebody's __str__: what a card shows must not end the step that shows it
        text = f"<{type(value).__name__}: its text raised {type(error).__name__}>"
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def shortened(value: Any, limit: int) -> str:
    """At most `limit` characters, the last of them an ellipsis when something was left out."""
    text = clean(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escaped(value: Any, limit: int | None = None) -> str:
    """Text for an element's content or a quoted attribute."""
    return html.escape(clean(value) if limit is None else shortened(value, limit), quote=True)


def number(value: Any) -> str:
    """A number as people read it: `0.8132`, `12,345`, `1.2e-05`; anything else as its text."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        return shortened(plain, 200)
    if isinstance(plain, int):
        return f"{plain:,}" if abs(plain) < 10**15 else shortened(plain, 40)
    if not math.isfinite(plain):
        return str(plain)
    if plain.is_integer() and abs(plain) < 10**9:
        return f"{plain:,.0f}" if abs(plain) >= 1000 else f"{plain:.1f}"
    return f"{plain:.4g}" if abs(plain) < 10**6 else f"{plain:.3e}"


def slug(value: str) -> str:
    """A word for an element's id."""
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:60] or "part"
