"""Cards: what a step has to show (text, tables, plots), as one self-contained HTML page kept with the run.

`rml.card("Training").metric("f1", 0.8).plot(figure)` inside a step; `run.cards["train"]` afterwards. Standard library
only: a card is collected in environments with nothing installed. See docs/formats/card.md.
"""

from .collect import Card, card

__all__ = ["Card", "card"]
