"""The whole chain, client → door → text model → Triton → instance, with a real Triton and a tiny text model: what each hop costs.

The model is so small that its own share vanishes beside the hops'. CPU time is counted per part (door, Triton, instances);
latency once through everything and once with Triton asked directly, whose instance then splits the text into tokens itself.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roblox_ml_core.errors import RmlError
from roblox_ml_serving.trial.stack import TrialStack

from .asking import Load
from .hops import ROOT, Hop
from .processes import pin

__all__ = ["chain_table", "measure_chain"]

NAME = "chain"
WORDS = (
    "good",
    "bad",
    "game",
    "the",
    "very",
    "love",
    "hate",
    "not",
    "play",
    "players",
    "fun",
    "slow",
    "fast",
    "map",
    "lag",
)
TEXTS = [" ".join(WORDS[(at + step * (at % 5 + 1)) % len(WORDS)] for step in range(6 + at % 9)) for at in range(256)]
BODIES = [
    json.dumps({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [text]}]}) for text in TEXTS
]
PARTS = ("door", "triton", "instances")


def measure_chain(seconds: float, cores: tuple[int, int]) -> dict[str, Any]:
    """Figures of both ways, or why there are none."""
    with tempfile.TemporaryDirectory(prefix="rml-chain-") as scratch:
        try:
            package = _tiny(Path(scratch) / "package")
            with TrialStack({NAME: package}, instances=1, pin=False) as stack:
                load = Load()
                try:
                    return _measured(stack, load, seconds, cores)
                finally:
                    load.stop()
        except (ImportError, RmlError, RuntimeError, OSError) as error:
            return {"absent": f"{type(error).__name__}: {error}"}


def _measured(stack: TrialStack, load: Load, seconds: float, cores: tuple[int, int]) -> dict[str, Any]:
    pin([load.pid], cores[1])
    ways = {
        "through the door": Hop("door", stack.rest.removeprefix("http://"), None, f"/v2/models/{NAME}/infer"),
        "Triton alone": Hop("triton", stack.triton_http, None, f"/v2/models/{NAME}.1/infer"),
    }
    found: dict[str, Any] = {}
    for way, hop in ways.items():
        parts = PARTS if way == "through the door" else PARTS[1:]
        load.ask(hop, seconds / 4, 1, bodies=BODIES)
        time.sleep(
            0.5
        )  # what the last load left behind (logs) is written now, and not while something else is measured
        before = stack.cpu_seconds()
        alone = load.ask(hop, seconds, 1, bodies=BODIES)
        cpu = {part: stack.cpu_seconds()[part] - before[part] for part in parts}
        before = stack.cpu_seconds()
        full = load.ask(hop, seconds, 16, bodies=BODIES)
        cpu_full = {part: stack.cpu_seconds()[part] - before[part] for part in parts}
        found[way] = {
            "p50_us": alone["p50_us"], "p99_us": alone["p99_us"], "rps_c16": full["requests"] / full["seconds"],
            "cpu_us": {part: spent / alone["requests"] * 1e6 for part, spent in cpu.items()},
            "cpu_us_c16": {part: spent / full["requests"] * 1e6 for part, spent in cpu_full.items()},
        }  # fmt: skip
    return found


def _tiny(folder: Path) -> Path:
    """A text-cpu package with random weights, as the integration tests make one."""
    spec = importlib.util.spec_from_file_location("text_packages", ROOT / "tests/integration/text/packages.py")
    if spec is None or spec.loader is None:
        raise ImportError("the builder of tiny text packages is not in this clone")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.text_cpu(folder, engines=("onnxruntime",)).root)


def chain_table(chain: Mapping[str, Any]) -> list[str]:
    """For people."""
    if "absent" in chain:
        return [f"The whole chain: absent: {chain['absent']}"]
    head = f"{'chain, one text a request':<28}{'p50 µs':>9}{'p99 µs':>9}{'rps c=16':>10}" + "".join(
        f"{part + ' µs':>15}" for part in PARTS
    )
    lines = [head + "   (CPU per request, c=1 / c=16)", "-" * len(head)]
    for way, figures in chain.items():
        cpu = "".join(
            f"{figures['cpu_us'][p]:>8,.0f}/{figures['cpu_us_c16'][p]:>6,.0f}" if p in figures["cpu_us"] else " " * 15
            for p in PARTS
        )
        lines.append(f"{way:<28}{figures['p50_us']:>9,.0f}{figures['p99_us']:>9,.0f}{figures['rps_c16']:>10,.0f}{cpu}")
    through, alone = chain["through the door"], chain["Triton alone"]
    lines.append(f"{'the door adds':<28}{through['p50_us'] - alone['p50_us']:>+9,.0f}")
    return lines
