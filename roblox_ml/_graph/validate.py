"""Checks of a whole graph that no single call can see: cycles, values that leave their branch, an empty pipeline."""

from __future__ import annotations

from ..errors import Finding
from .links import Links, Node, link, order
from .model import Channel, Graph, Scope, Task

__all__ = ["validate"]


def validate(graph: Graph, links: Links | None = None) -> list[Finding]:
    """Every finding about the graph as a whole."""
    findings: list[Finding] = []
    if not graph.tasks:
        findings.append(
            Finding(
                "empty-pipeline",
                f"the pipeline {graph.name!r} has no task",
                str(graph.site),
                "calling a step inside the pipeline function is what makes a task",
                "call at least one step in it",
                graph.site.source(),
            )
        )
        return findings
    links = links or link(graph)
    findings.extend(_escaped(user, channel) for user, channel in links.escaped)
    for scope in graph.scopes():
        _, cycle = order(scope, links)
        if cycle:
            findings.append(_cyclic(cycle))
    return findings


def _escaped(user: Node, channel: Channel) -> Finding:
    site = user.site
    return Finding(
        "output-leaves-branch",
        f"{_name(user)} uses {channel} outside the rml.when or rml.otherwise that makes it",
        str(site),
        "when the branch is not taken there is no value",
        "move the use into the same branch, or make the value before the branch",
        site.source(),
    )


def _cyclic(cycle: list[Node]) -> Finding:
    # Each waits for the next; told in the order in which they would have to run.
    names = [_name(node) for node in (cycle[0], *reversed(cycle[1:]))]
    site = cycle[0].site
    return Finding(
        "cycle",
        f"these wait for one another: {' → '.join([*names, names[0]])}",
        str(site),
        "none of them could ever start",
        "remove one of the .after() calls between them",
        site.source(),
    )


def _name(node: Node) -> str:
    if isinstance(node, Task):
        return node.name
    if node.body is not None:
        return f"{node.body.name}.map"
    return _branch(node)


def _branch(scope: Scope) -> str:
    return f"the branch {scope.condition}" if scope.condition else scope.name
