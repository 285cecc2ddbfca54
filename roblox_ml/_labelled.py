"""Texts and, where there are any, their labels, from whatever a data scientist has at hand.

`rml.optimize` and `rml.distill` take a data set, a data frame, a list of texts or a list of pairs; this is the one place that
tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import DatasetError

__all__ = ["Labelled", "labelled"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts, and a label for each of them (a name, a number, or a list of them per token), or None."""

    texts: list[str]
    labels: list[Any] | None


def labelled(data: Any, text: str = "text", label: str = "label") -> Labelled:
    """The texts and labels of `data`.

    An `rml.Dataset` of one table, a pandas frame or a mapping of columns: columns `text` and, if it is there, `label`. A list:
    of texts, or of (text, label) pairs.
    """
    if hasattr(data, "to_pandas"):
        data = data.to_pandas()
    if hasattr(data, "columns") or isinstance(data, Mapping):
        names = [str(name) for name in (data.columns if hasattr(data, "columns") else data)]
        if text not in names:
            raise DatasetError(
                f"the data has no column {text!r}",
                why=f"its columns are {', '.join(names) or 'none'}",
                fix='say which column holds the texts: text="…" (and label="…" for the labels)',
            )
        texts, labels = list(data[text]), list(data[label]) if label in names else None
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        pairs = bool(data) and all(isinstance(row, tuple | list) and len(row) == 2 for row in data)
        texts = [row[0] for row in data] if pairs else list(data)
        labels = [row[1] for row in data] if pairs else None
    else:
        raise DatasetError(
            f"{type(data).__name__} is no set of texts",
            why="texts come as an rml.Dataset, a pandas frame, a list of texts or a list of (text, label) pairs",
            fix='pass rml.dataset("comments"), or [("gg, well played!", "positive"), …]',
        )
    odd = next((i for i, value in enumerate(texts) if not isinstance(value, str)), None)
    if odd is not None or not texts:
        what = "there is no text" if odd is None else f"row {odd} is {texts[odd]!r:.60}"
        raise DatasetError(
            f"the texts are no texts: {what}", why="every row is one text", fix="drop the rows without a text"
        )
    if labels is not None and len(labels) != len(texts):
        raise DatasetError(f"{len(texts)} texts and {len(labels)} labels", why="the n-th label is of the n-th text")
    return Labelled(texts, labels)
