"""`python -m benchmarks.router`: what a request through the door costs, beside other things that could stand there.

Each hop forwards the same v2 request (64 floats, some 500 bytes) of ever different users to the same stub and gives its
answer back. Rounds are interleaved: in each round every hop takes its turn, so that what else the machine does hits all.

    c=1          client, hop and stub on one core: nothing waits for another core to wake up. Latency, and CPU of the hop
    c=16         hop alone on a core, client and stub on another one. Requests a second, and CPU of the hop
    fixed rate   as before, evenly spaced; time counts from when a request was due

CPU time is the kernel's own count over the hop's threads and children. Only the door does all of: prove a token, decide 32
experiments in 8 layers, count, log the request and the exposures. The last line is JSON; docs/formats/benchmark.md explains it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .asking import Load
from .hops import HOPS, PARTS, Absent, Hop, Stub
from .processes import cpu_ns, pin
from .results import Row, Turn, figures, judged, last_line, row_of, table

RATE = 1000.0
WIDTH = 16


def take_turn(hop: Hop, stub: Stub, load: Load, cores: tuple[int, int], seconds: float) -> Turn:
    """One hop's three measurements."""
    pids = hop.process.pids if hop.process is not None else []
    others = [load.pid, *stub.process.pids]

    def measured(width: int, rate: float | None = None) -> tuple[dict[str, Any], float]:
        before = cpu_ns(pids)
        result = load.ask(hop, seconds, width, rate)
        # The opening of the connections is in it: `width` requests more than were timed.
        return result, (cpu_ns(pids) - before) / 1e3 / (result["requests"] + width)

    pin([*pids, *others], cores[0])
    load.ask(hop, seconds / 4, 1)
    alone, cpu_alone = measured(1)
    pin(others, cores[1])
    load.ask(hop, seconds / 4, WIDTH)
    full, cpu = measured(WIDTH)
    rps = full["requests"] / full["seconds"]
    rate = min(RATE, rps * 0.4)
    spaced, _ = measured(WIDTH, rate)
    return Turn(
        alone["p50_us"], cpu_alone, rps, cpu, cpu * rps / 1e6, spaced["p50_us"], spaced["p99_us"], rate
    )  # fmt: skip


@contextmanager
def started(names: Sequence[str]) -> Iterator[tuple[Stub, Load, dict[str, Hop], dict[str, str]]]:
    """Everything running, and why what is missing is."""
    scratch = Path(tempfile.mkdtemp(prefix="rml-router-"))
    hops: dict[str, Hop] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        stub = Stub(scratch)
        stack.callback(stub.process.stop)
        load = Load()
        stack.callback(load.stop)
        for name in names:
            try:
                hops[name] = {**HOPS, **PARTS}[name](stub, scratch)
            except (Absent, RuntimeError, OSError) as error:
                absent[name] = str(error)
            else:
                stack.callback(hops[name].stop)
        yield stub, load, hops, absent


def measure(names: Sequence[str], rounds: int, seconds: float, cores: tuple[int, int]) -> dict[str, Row]:
    """Rows in the order of `names`."""
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    with started(names) as (stub, load, hops, absent):
        for number in range(rounds):
            for name, hop in list(hops.items()):
                try:
                    turns[name].append(take_turn(hop, stub, load, cores, seconds))
                except (RuntimeError, ZeroDivisionError) as error:
                    absent[name] = str(error)
                    hops.pop(name).stop()
            print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return {name: row_of(name, turns[name]) if name not in absent else Row(name, None, absent[name]) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.router", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often every hop takes its turn (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="how long a measurement takes (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="*", choices=[*HOPS], help="these hops; direct and door always")
    parser.add_argument("--parts", action="store_true", help="also the door with less to do: what its parts cost")
    parser.add_argument("--no-chain", action="store_true", help="without the chain client, door, text model, Triton")
    given = parser.parse_args(arguments)
    names = [name for name in HOPS if not given.only or name in {"direct", "door", *given.only}]
    names += [*PARTS] if given.parts else []
    available = sorted(os.sched_getaffinity(0))
    cores = (available[0], available[-1])
    started_at = time.monotonic()
    rows = measure(names, given.rounds, given.seconds, cores)
    print(f"\nWhat stands between client and model server: {given.rounds} rounds, medians; {_machine()}")
    print(f"hop on core {cores[0]}; client and stub on core {cores[0]} for c=1, on core {cores[1]} otherwise\n")
    print("\n".join(table(rows)))
    chain: Mapping[str, Any] = {}
    if not given.no_chain:
        from .chain import chain_table, measure_chain

        chain = measure_chain(given.seconds, cores)
        print("\n".join(["", *chain_table(chain)]))
    found = figures(rows)
    for sentence in judged(found):
        print(f"missed: {sentence}")
    print(f"\n{time.monotonic() - started_at:.0f} s")
    print(json.dumps(last_line(found, rows, chain)))
    return 0


def _machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return f"{os.cpu_count()} cores, {model or platform.machine()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
