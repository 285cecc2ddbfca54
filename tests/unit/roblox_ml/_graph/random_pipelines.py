"""Random pipelines for properties: a program drawn from a stream of choices, and what it does, known beforehand.

`draw(choose)` makes a pipeline function; `choose(n)` picks a number below n, so hypothesis and `random` both can drive.
As a script it prints the digest of some specs, to compare processes.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import roblox_ml as rml
from roblox_ml._graph.dump import dump_ir
from roblox_ml._graph.ir import CodeRef, to_ir
from roblox_ml._graph.model import Graph


class Both(NamedTuple):
    data: rml.Dataset
    rows: int


@rml.step
def source(n: int = 1) -> rml.Dataset:
    return rml.Dataset()


@rml.step
def both(data: rml.Dataset, n: int) -> Both:
    return Both(data, n)


@rml.step
def count(data: rml.Dataset) -> int:
    return 1


@rml.step
def scale(n: int, factor: float = 2.0) -> float:
    return n * factor


@rml.step
def total(xs: list[float]) -> int:
    return len(xs)


@rml.step
def gather(parts: list[rml.Dataset]) -> rml.Dataset:
    return parts[0]


Choose = Callable[[int], int]


def draw(choose: Choose) -> Callable[..., None]:
    """A pipeline function whose body is decided by `choose`."""
    # Choices are drawn first and replayed, so that tracing twice gives the same program.
    choices = [choose(1000) for _ in range(60)]

    def program(start: int = 1) -> None:
        stream = iter(choices)

        def pick(n: int) -> int:
            return next(stream, 0) % n

        def block(data: list[Any], numbers: list[Any], depth: int) -> None:
            data, numbers = list(data), list(numbers)
            tasks: list[Any] = []
            for _ in range(1 + pick(4)):
                made = _one(pick, data, numbers)
                if tasks and pick(4) == 0:
                    made.after(tasks[pick(len(tasks))])
                tasks.append(made)
            if depth < 2 and pick(2):
                with rml.when(numbers[pick(len(numbers))] > pick(10)):
                    block(data, numbers, depth + 1)
                if pick(2):
                    with rml.otherwise():
                        block(data, numbers, depth + 1)

        block([source()], [start], 0)

    return program


def _one(pick: Choose, data: list[Any], numbers: list[Any]) -> Any:
    kind = pick(6)
    if kind == 0:
        made = source(numbers[pick(len(numbers))])
        data.append(made)
    elif kind == 1:
        made = both(data[pick(len(data))], numbers[pick(len(numbers))])
        data.append(made.data)
        numbers.append(made.rows)
    elif kind == 2:
        made = count(data[pick(len(data))])
        numbers.append(made)
    elif kind == 3:
        made = total(scale.map([1, 2, 3], factor=numbers[pick(len(numbers))]))
        numbers.append(made)
    elif kind == 4:
        made = gather(source.map([1, 2]))
        data.append(made)
    else:
        made = scale(numbers[pick(len(numbers))])
    return made


def spec(function: Callable[..., None]) -> tuple[Graph, dict[str, Any]]:
    """The graph and the spec of a program; it is expected to be right."""
    graph, findings = rml.pipeline(name="random")(function).trace()
    assert findings == [], findings
    code = {name: CodeRef("5" * 64, name, "1" * 64, f"m:{name}") for name in graph.components}
    return graph, to_ir(graph, code, image="img", bootstrap="boot")


if __name__ == "__main__":
    digest = hashlib.sha256()
    for seed in range(int(sys.argv[1])):
        rng = random.Random(seed)
        digest.update(dump_ir(spec(draw(rng.randrange))[1]))
    print(digest.hexdigest())
