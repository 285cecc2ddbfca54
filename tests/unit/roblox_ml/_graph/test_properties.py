"""Laws of the emitted spec over random pipelines: sound, ordered, the same in every process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from roblox_ml._graph.check import check_ir
from roblox_ml._graph.dump import dump_ir, load_ir
from roblox_ml._graph.links import link, order
from roblox_ml._graph.model import Scope
from roblox_ml._graph.show import svg, text

PROGRAMS = Path(__file__).with_name("random_pipelines.py")
module = importlib.util.spec_from_file_location("random_pipelines", PROGRAMS)
assert module is not None and module.loader is not None
programs: Any = importlib.util.module_from_spec(module)
# Annotations of the steps in it are read through its namespace.
sys.modules.setdefault("random_pipelines", programs)
module.loader.exec_module(programs)

functions = st.builds(
    lambda choices: programs.draw(_chooser(choices)),
    st.lists(st.integers(0, 999), min_size=60, max_size=60),
)


def _chooser(choices: list[int]) -> Any:
    stream = iter(choices)
    return lambda n: next(stream) % n


@settings(max_examples=25, deadline=None)
@given(functions)
def test_every_spec_is_sound_and_reads_back(function: Any) -> None:
    _, ir = programs.spec(function)
    assert check_ir(ir) == []
    assert load_ir(dump_ir(ir)) == ir


@settings(max_examples=25, deadline=None)
@given(functions)
def test_the_order_respects_every_edge(function: Any) -> None:
    graph, _ = programs.spec(function)
    links = link(graph)
    for scope in graph.scopes():
        done, cycle = order(scope, links)
        assert not cycle
        assert len(done) == len(scope.members) and set(done) == set(scope.members)
        position = {node: n for n, node in enumerate(done)}
        for member in scope.members:
            assert all(position[edge] < position[member] for edge in links.edges.get(member, ()))


@settings(max_examples=25, deadline=None)
@given(functions)
def test_tracing_again_gives_the_same_bytes(function: Any) -> None:
    assert dump_ir(programs.spec(function)[1]) == dump_ir(programs.spec(function)[1])


@settings(max_examples=15, deadline=None)
@given(functions)
def test_every_task_is_in_the_spec_once_and_in_the_pictures(function: Any) -> None:
    graph, ir = programs.spec(function)
    spec = ir["pipeline"]
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    names = [name for dag in dags for name in dag["tasks"]]
    groups = {s.name for s in graph.scopes() if isinstance(s, Scope) and s is not graph.root}
    assert sorted(names) == sorted([*(t.name for t in graph.tasks), *groups])
    drawn, told = svg(graph), text(graph)
    assert all(task.name in drawn and task.name in told for task in graph.tasks)


def test_other_hash_seeds_give_the_same_bytes() -> None:
    digests = {
        subprocess.run(
            [sys.executable, str(PROGRAMS), "20"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "4242")
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == 64
