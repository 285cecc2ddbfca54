"""Notebooks made from a grammar: constructs with cells, woven together, run in disorder, run again, deleted, edited.

Everything follows from the seed. Nothing here knows how capture works: a construct says what a user writes and what the contract
owes for it (carried, or may be refused); what a cell does, only Python says.
"""

from __future__ import annotations

import ast
import builtins
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

LIBRARIES = "libraries"
_FOLDER = Path(__file__).parent
_EDITED, _REPEATED, _DELETED = 0.15, 0.35, 0.15


@dataclass(frozen=True)
class Template:
    """One construct as written in the text files."""

    name: str
    carried: bool
    heavy: bool
    cells: tuple[tuple[str, bool], ...]  # text, may be left out
    files: tuple[tuple[str, str], ...]
    probes: tuple[str, ...]


@dataclass
class Cell:
    """A cell of a notebook: the construct it belongs to, and its text."""

    construct: int
    text: str


@dataclass
class Notebook:
    """What a user typed and ran. `runs` are (cell, text) in the order of execution."""

    seed: int
    templates: list[Template]
    runs: list[tuple[Cell, str]] = field(default_factory=list)
    probes: list[tuple[int, str, list[str]]] = field(default_factory=list)  # construct, expression, names it needs
    files: dict[str, str] = field(default_factory=dict)

    @property
    def heavy(self) -> bool:
        return any(template.heavy for template in self.templates)


@cache
def templates() -> tuple[Template, ...]:
    """Every construct of the text files."""
    found: list[Template] = []
    for path in sorted(_FOLDER.glob("*.txt")):
        blocks = path.read_text().split("\n=== ")[1:]
        found += [_template(block, heavy=path.stem == LIBRARIES) for block in blocks]
    return tuple(found)


def _template(block: str, *, heavy: bool) -> Template:
    head, _, body = block.partition("\n")
    name, owed = head.split()
    cells: list[list[str]] = [[]]
    optional = [False]
    files: dict[str, list[str]] = {}
    probes: list[str] = []
    target = cells[0]
    for line in body.rstrip("\n").split("\n"):
        if line in ("---", "--?"):
            target = []
            cells.append(target)
            optional.append(line == "--?")
        elif line.startswith(">>> "):
            probes.append(line[4:])
        elif line.startswith("+++ "):
            target = files[line[4:]] = []
        else:
            target.append(line)
    made = (("\n".join(lines).strip("\n"), maybe) for lines, maybe in zip(cells, optional, strict=True))
    kept = tuple((text, maybe) for text, maybe in made if text)
    contents = tuple((path, "\n".join(lines).rstrip("\n") + "\n") for path, lines in files.items())
    return Template(name, owed == "carried", heavy, kept, contents, tuple(probes))


def notebook(seed: int, *, heavy: bool = False) -> Notebook:
    """The notebook of `seed`; `heavy` takes one construct from the libraries."""
    rng = random.Random(seed)
    light = [template for template in templates() if not template.heavy]
    turn = light[seed % len(light)]  # so that a few hundred seeds draw every construct
    # Many notebooks hold only what must be carried: on those, refusals are counted.
    pool = [t for t in light if t.carried] if turn.carried and rng.random() < 0.8 else light
    chosen = [*rng.sample([t for t in pool if t is not turn], rng.randint(1, 5)), turn]
    if heavy:
        libraries = [template for template in templates() if template.heavy]
        chosen[0] = libraries[seed // 20 % len(libraries)]
    made = Notebook(seed, chosen)
    sequences = [list(_cells(made, number, template, rng)) for number, template in enumerate(chosen)]
    _weave(made, sequences, rng)
    return made


def _cells(made: Notebook, number: int, template: Template, rng: random.Random) -> Iterator[Cell]:
    def fill(text: str) -> str:
        text = text.replace("_K", f"_{number}")
        while "_N" in text:
            text = text.replace("_N", str(rng.randint(1, 9)), 1)
        return text

    for text, optional in template.cells:
        if not optional or rng.random() < 0.5:
            yield Cell(number, fill(text))
    made.files.update({fill(path): fill(text) for path, text in template.files})
    if rng.random() < 0.8 or number == 0:
        for probe in template.probes:
            expression = fill(probe)
            made.probes.append((number, expression, _needs(expression)))


def _needs(expression: str) -> list[str]:
    names = {n.id for n in ast.walk(ast.parse(expression)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    bound = {n.id for n in ast.walk(ast.parse(expression)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return sorted(names - bound - set(dir(builtins)) - {"__file__"})


def _weave(made: Notebook, sequences: list[list[Cell]], rng: random.Random) -> None:
    """Put the cells into an order of execution: usually each construct's own, sometimes none, with repeats and edits."""
    order: list[Cell] = []
    waiting = [list(sequence) for sequence in sequences if sequence]
    while waiting:
        sequence = rng.choice(waiting)
        order.append(sequence.pop(0))
        waiting = [rest for rest in waiting if rest]
    if rng.random() < 0.25:  # a working day: any order, and everything once more until it works
        again = list(order)
        rng.shuffle(order)
        order += again
    alive: list[Cell] = []
    for cell in order:
        made.runs.append((cell, cell.text))
        alive.append(cell)
        if rng.random() < _DELETED:
            alive.remove(rng.choice(alive))
        if alive and rng.random() < _REPEATED:
            repeated = rng.choice(alive)
            if rng.random() < _EDITED:
                repeated.text = _edited(repeated.text, rng)
            made.runs.append((repeated, repeated.text))


def _edited(text: str, rng: random.Random) -> str:
    """The cell with one number changed, if it has one that stands alone."""
    places = [
        i
        for i in range(1, len(text))
        if text[i].isdigit() and text[i - 1] in " [(={" and not text[i + 1 : i + 2].isalnum()
    ]
    if not places:
        return text
    place = rng.choice(places)
    return text[:place] + str(rng.randint(1, 9)) + text[place + 1 :]


def step_text(probes: list[str]) -> str:
    """The step: every expression's value as text, or the name of its exception."""
    lines = ["def step():", "    found = []"]
    for probe in probes:
        lines += ["    try:", f"        found.append(repr({probe}))"]
        lines += ["    except Exception as problem:", "        found.append(type(problem).__name__)"]
    return "\n".join([*lines, "    return found"])
