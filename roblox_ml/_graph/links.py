"""What follows from the channels: which values cross which scope's border, and what must run before what.

KFP's DAGs see only their own tasks and inputs. A value from outside has to be handed down through every border between
its home and its use, and an edge between two scopes is an edge between the members that contain them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from .model import Channel, Graph, Scope, Task

__all__ = ["Links", "Node", "container", "home", "link", "order"]

Node = Task | Scope


@dataclass(slots=True)
class Links:
    """`needs`: values each scope takes in. `edges`: member → members of the same scope it waits for.

    `escaped`: uses of a value outside the scope that makes it, which KFP cannot express.
    """

    needs: dict[Scope, dict[Channel, None]] = field(default_factory=dict)
    edges: dict[Node, dict[Node, None]] = field(default_factory=dict)
    escaped: list[tuple[Node, Channel]] = field(default_factory=list)


def home(channel: Channel, root: Scope) -> Scope:
    """The scope in which a value exists."""
    producer = channel.producer
    if producer is None:
        return root
    if isinstance(producer, Task):
        return producer.scope
    if channel.kind == "item":
        return producer
    assert producer.parent is not None
    return producer.parent


def container(node: Node) -> Scope | None:
    """The scope a task or scope is a member of."""
    return node.scope if isinstance(node, Task) else node.parent


def link(graph: Graph) -> Links:
    """Everything that follows from arguments, conditions, loop items and `.after()`."""
    links = Links()
    for scope in graph.scopes():
        if isinstance(scope.items, Channel):
            _use(links, graph.root, scope.items, scope, scope)
        for channel in scope.condition.channels() if scope.condition else ():
            _use(links, graph.root, channel, scope, scope)
        for other in scope.after:
            _wait(links, scope, other)
    for task in graph.tasks:
        for argument in task.arguments.values():
            if isinstance(argument, Channel):
                _use(links, graph.root, argument, task.scope, task)
        for other in task.after:
            _wait(links, task, other)
    return links


def _use(links: Links, root: Scope, channel: Channel, scope: Scope, user: Node) -> None:
    target = home(channel, root)
    if target not in scope.lineage():
        links.escaped.append((user, channel))
        return
    node = user
    while scope is not target:
        links.needs.setdefault(scope, {})[channel] = None
        node = scope
        assert scope.parent is not None
        scope = scope.parent
    if channel.producer is not None and channel.kind != "item":
        links.edges.setdefault(node, {})[channel.producer] = None


def _wait(links: Links, node: Node, other: Node) -> None:
    """Order across scopes: between the two members of the innermost scope that contains both."""
    above: dict[Scope, Node] = {}
    step: Node | None = other
    while step is not None:
        parent = container(step)
        if parent is None:
            break
        above[parent] = step
        step = parent
    step = node
    while step is not None:
        parent = container(step)
        if parent is None:
            return
        if parent in above:
            links.edges.setdefault(step, {})[above[parent]] = None
            return
        step = parent


def order(scope: Scope, links: Links) -> tuple[list[Node], list[Node]]:
    """(members in an order that respects the edges, one cycle if there is any)."""
    waiting = {m: set(links.edges.get(m, ())) for m in scope.members}
    followers: dict[Node, list[Node]] = {}
    for member, edges in waiting.items():
        for edge in edges:
            followers.setdefault(edge, []).append(member)
    ready = deque(m for m in scope.members if not waiting[m])
    done: list[Node] = []
    while ready:
        node = ready.popleft()
        done.append(node)
        for follower in followers.get(node, ()):
            waiting[follower].discard(node)
            if not waiting[follower]:
                ready.append(follower)
    if len(done) == len(scope.members):
        return done, []
    # Every member left waits for another that is left: following edges must come back to a member seen before.
    left = {m for m, edges in waiting.items() if edges}
    path: list[Node] = []
    node = next(m for m in scope.members if m in left)
    while node not in path:
        path.append(node)
        node = next(e for e in links.edges[node] if e in left)
    return done, path[path.index(node) :]
