"""Pipelines without packages, for pods: data through the object store, loops, conditions, secrets, what a step may know."""

import json
import os
from pathlib import Path
from typing import NamedTuple

import roblox_ml as rml


class Halves(NamedTuple):
    first: rml.Dataset
    second: rml.Dataset
    count: int


@rml.step(cpu=1, memory="256Mi")
def halve(texts: rml.Dataset) -> Halves:
    lines = sorted(line for file in texts.path.glob("*.txt") for line in file.read_text().splitlines())
    parts = []
    for half in (lines[::2], lines[1::2]):
        part = rml.Dataset()
        (part.path / "deep").mkdir(parents=True)
        (part.path / "deep" / "lines.txt").write_text("\n".join(half))
        part.metadata["rows"] = len(half)
        parts.append(part)
    return Halves(*parts, len(lines))


@rml.step
def longest(extra: int, times: int, data: rml.Dataset) -> str:
    return max((data.path / "deep" / "lines.txt").read_text().splitlines(), key=len) * times + "+" * extra


@rml.step
def join(words: list[str], empty: rml.Dataset, note: str = "ünïcode 'quoted' $(HOME) {{braces}}") -> rml.Metrics:
    print("joining", words)
    return rml.Metrics(letters=sum(map(len, words)), rows=empty.metadata["rows"], note=note)


@rml.step
def never(count: int) -> int:
    return count


@rml.pipeline
def small(times: int = 2):
    halves = halve(rml.dataset("texts"))
    words = longest.map([1, 2, 3], times=times, data=halves.first)
    join(words, halves.second)
    with rml.when(halves.count > 100):
        never(halves.count)


@rml.step
def about() -> dict:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "uid": os.getuid(),
        "capabilities": status["CapEff"].strip(),
        "run": os.environ.get("RML_RUN_ID"),
        "pipeline": os.environ.get("RML_PIPELINE"),
        "task": os.environ.get("RML_TASK"),
        "launcher": sorted(name for name in os.environ if name.startswith("LAUNCHER_")),
        "arguments": Path("/proc/self/cmdline").read_text(),
    }


@rml.pipeline
def knows():
    about()


@rml.step(
    secrets=[rml.secret("hub", key="token", env="HUB_TOKEN"), rml.secret("tls-files", mount="/secrets/tls")],
    shm="64Mi",
    tolerations=[rml.toleration("gpu", effect="NoSchedule")],
    node_selector={"kubernetes.io/os": "linux"},
    timeout="10m",
)
def secretive() -> str:
    import hashlib

    mounted = sorted(path.name for path in Path("/secrets/tls").iterdir() if not path.name.startswith("."))
    shared = os.statvfs("/dev/shm")
    told = [os.environ["HUB_TOKEN"], Path("/secrets/tls/key.pem").read_text()]
    seen = {"digests": [hashlib.sha256(text.encode()).hexdigest() for text in told], "files": mounted}
    return json.dumps(seen | {"shm": shared.f_blocks * shared.f_frsize})


@rml.pipeline
def guarded():
    secretive()


@rml.step(retries=1)
def fails() -> int:
    raise ValueError("no good")


@rml.pipeline
def broken():
    fails()


@rml.step
def fails_once() -> int:
    raise ValueError("no good")


@rml.pipeline
def hopeless():
    fails_once()


@rml.step
def sleeps() -> int:
    import time

    time.sleep(600)
    return 1


@rml.pipeline
def slow():
    sleeps()
