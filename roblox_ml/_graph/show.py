"""A pipeline to look at: as text, and as a small SVG for notebooks. Tasks in columns by how far they are from the start."""

from __future__ import annotations

import html

from .links import Links, Node, container, link, order
from .model import Graph, Scope, Task

__all__ = ["svg", "text"]

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _PAD = 168, 40, 56, 18, 16
_FILL = {"root": "#eef4ff", "loop": "#fff4e0", "condition": "#eafbea"}


def text(graph: Graph) -> str:
    """The tasks in an order in which they can run, each with what it waits for."""
    links = link(graph)
    lines = [graph.name]
    _write(graph.root, links, lines, "  ")
    return "\n".join(lines)


def _write(scope: Scope, links: Links, lines: list[str], indent: str) -> None:
    done, cycle = order(scope, links)
    for node in [*done, *cycle]:
        waits = ", ".join(sorted(_label(e) for e in links.edges.get(node, ())))
        lines.append(f"{indent}{_label(node)}{f'  ← {waits}' if waits else ''}")
        if isinstance(node, Scope) and node.kind != "loop":
            _write(node, links, lines, indent + "  ")


def _label(node: Node) -> str:
    if isinstance(node, Task):
        return node.name
    if node.body is not None:
        return f"{node.body.name} ×n"
    return f"when {node.condition}"


def svg(graph: Graph) -> str:
    """The tasks as boxes, left to right; loops and conditions have a colour of their own."""
    tasks = graph.tasks
    edges = _task_edges(graph)
    level: dict[Task, int] = {}

    def depth(task: Task, seen: frozenset[Task]) -> int:
        if task not in level:
            before = [e for e in edges[task] if e not in seen]
            level[task] = 1 + max((depth(e, seen | {task}) for e in before), default=-1)
        return level[task]

    # In the order of the calls a task's inputs come first, so the recursion stays shallow however long the chain is.
    for task in tasks:
        depth(task, frozenset({task}))
    rows: dict[int, int] = {}
    place: dict[Task, tuple[int, int]] = {}
    for task in tasks:
        column = level[task]
        rows[column] = rows.get(column, 0) + 1
        place[task] = (
            _PAD + column * (_WIDTH + _GAP_X),
            _PAD + (rows[column] - 1) * (_HEIGHT + _GAP_Y),
        )
    width = 2 * _PAD + (max(rows, default=0) + 1) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _PAD + max(rows.values(), default=1) * (_HEIGHT + _GAP_Y) - _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width:100%;font:13px system-ui,sans-serif" role="img" aria-label="{html.escape(graph.name)}">'
    ]
    for task in tasks:
        x2, y2 = place[task]
        for other in edges[task]:
            x1, y1 = place[other]
            start, end = (x1 + _WIDTH, y1 + _HEIGHT // 2), (x2, y2 + _HEIGHT // 2)
            bend = (start[0] + end[0]) // 2
            parts.append(
                f'<path d="M{start[0]} {start[1]} C{bend} {start[1]} {bend} {end[1]} {end[0]} {end[1]}" '
                'fill="none" stroke="#8a94a6"/>'
            )
    for task in tasks:
        x, y = place[task]
        label = task.name + (" ×n" if task.scope.kind == "loop" else "")
        short = label if len(label) <= 22 else label[:21] + "…"
        condition = f"\nwhen {task.scope.condition}" if task.scope.condition else ""
        title = html.escape(f"{label} ({task.site}){condition}")
        parts.append(
            f'<g><title>{title}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
            f'fill="{_FILL[task.scope.kind]}" stroke="#8a94a6"/>'
            f'<text x="{x + _WIDTH // 2}" y="{y + _HEIGHT // 2 + 5}" text-anchor="middle" fill="#1c2333">'
            f"{html.escape(short)}</text></g>"
        )
    return "".join([*parts, "</svg>"])


def _task_edges(graph: Graph) -> dict[Task, list[Task]]:
    """Edges between tasks: an edge to a scope is one to each task in it, and a scope's edges are its tasks' too."""
    links = link(graph)
    found: dict[Task, list[Task]] = {}
    for task in graph.tasks:
        before: dict[Task, None] = {}
        node: Node | None = task
        while node is not None:
            for edge in links.edges.get(node, ()):
                before.update(dict.fromkeys(_tasks_in(edge)))
            node = container(node)
        before.pop(task, None)
        found[task] = list(before)
    return found


def _tasks_in(node: Node) -> list[Task]:
    if isinstance(node, Task):
        return [node]
    return [task for member in node.members for task in _tasks_in(member)]
