"""Cards of a run, as `run.cards` gives them: read from where the steps wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from .page import framed

__all__ = ["Cards", "SavedCard"]


class SavedCard:
    """One step's page. Shown in a notebook in a frame that reaches nothing around it."""

    def __init__(self, step: str, path: Path) -> None:
        self.step = step
        self.path = path

    @property
    def html(self) -> str:
        """The whole page."""
        return self.path.read_text("utf-8")

    def open(self) -> Path:
        """Show it in the browser; the path."""
        import webbrowser

        webbrowser.open(self.path.resolve().as_uri())
        return self.path

    def __repr__(self) -> str:
        return f"<card of {self.step}: {self.path}>"

    def _repr_html_(self) -> str:
        return framed(self.html)


class Cards(Mapping[str, SavedCard]):
    """The cards of a run by step. `find` says where a step's page is, if it has one."""

    def __init__(self, steps: list[str], find: Callable[[str], Path | None]) -> None:
        self._found = {step: path for step in steps if (path := find(step)) is not None}

    def __getitem__(self, step: str) -> SavedCard:
        try:
            return SavedCard(step, self._found[step])
        except KeyError:
            there = ", ".join(self._found) or "no step"
            raise KeyError(
                f'no card of {step!r}; there are cards of: {there}. In the step: rml.card("title")'
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"Cards({', '.join(self) or 'none'})"

    def _repr_html_(self) -> str:
        return "".join(self[step]._repr_html_() for step in self)
