"""Pipelines for these tests: real tracing and IR, digests of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import roblox_ml as rml
from roblox_ml._build import Built
from roblox_ml._graph.dump import dump_ir
from roblox_ml._graph.ir import CodeRef, to_ir
from roblox_ml._store import digest_of

CODE = b"the code of a step"


def built(function: Callable[..., Any], *, schedule: Any = None, **arguments: Any) -> Built:
    """What `pipeline.build()` gives, without capture and locks."""
    pipeline = rml.pipeline(schedule=schedule)(function) if schedule else rml.pipeline(function)
    graph, findings = pipeline.trace()
    assert findings == []
    digest = digest_of(CODE)
    code = {name: CodeRef(digest, digest, digest, f"m:{name}") for name in graph.components}
    ir = dump_ir(to_ir(graph, code, bootstrap="boot"))
    return Built(pipeline.name, ir, {digest: CODE}, graph, schedule=pipeline.schedule, arguments=arguments)
