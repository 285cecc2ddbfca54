"""How a text model is to be run: `model/text.json` of a text-cpu package, read, checked, written.

The plan names the engines a package carries, in order of preference, and what each needs of the processor. The door, Triton's
stub and the optimiser read the same file with this module; it stands alone because it is copied into a model's version folder.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

SCHEMA = 1
TASKS = ("sequence", "token")
RUNTIMES = ("openvino", "ctranslate2", "onnxruntime")
PRECISIONS = ("int8", "bf16", "fp32")
FLAGS_VARIABLE = "RML_CPU_FLAGS"


class PlanError(ValueError):
    """`text.json` cannot be used; the message lists every finding."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Fitted time of one engine call on one core: `call_us + token_us * padded tokens`, in microseconds."""

    call_us: float
    token_us: float

    def us(self, tokens: int) -> float:
        return self.call_us + self.token_us * tokens


@dataclass(frozen=True, slots=True)
class EnginePlan:
    name: str
    runtime: str
    folder: str  # relative to the package's `model/` folder
    precision: str
    requires: tuple[str, ...] = ()  # /proc/cpuinfo flags without which it must not run; () = any processor
    options: Mapping[str, Any] = field(default_factory=dict)  # the runtime's own
    bound: float = 0.0  # largest difference of a probability between a row alone and in company
    cost: Cost = Cost(1000.0, 200.0)
    macro_f1_drop: float = 0.0


@dataclass(frozen=True, slots=True)
class TextPlan:
    task: str
    labels: tuple[str, ...]
    max_length: int  # tokens, special ones included
    pad_id: int
    buckets: tuple[int, ...]  # upper lengths in tokens, ascending; the last equals max_length
    batch_tokens: int  # most padded tokens in one engine call
    engines: tuple[EnginePlan, ...]  # in order of preference; the last runs everywhere
    chosen_on: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


def bucket_of(plan: TextPlan, length: int) -> int:
    """The bucket (its upper length in tokens) that a row of `length` tokens lies in; rows of one call share a bucket."""
    index = bisect_left(plan.buckets, length)
    if index == len(plan.buckets):
        raise ValueError(f"a row of {length} tokens is longer than the model's max_length of {plan.max_length}")
    return plan.buckets[index]


def cpu_flags(cpuinfo: str = "/proc/cpuinfo") -> frozenset[str]:
    """What this processor can do, in the kernel's words; `RML_CPU_FLAGS="a,b"` (also empty) says otherwise, for tests and trials."""
    told = os.environ.get(FLAGS_VARIABLE)
    if told is not None:
        return frozenset(told.replace(",", " ").split())
    try:
        with Path(cpuinfo).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):  # x86, ARM
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def allowed(plan: TextPlan, flags: Iterable[str]) -> list[EnginePlan]:
    """The engines a processor with these flags can run, in order of preference; never empty for a plan that was read."""
    present = frozenset(flags)
    return [engine for engine in plan.engines if present.issuperset(engine.requires)]


def read_plan(data: bytes) -> TextPlan:
    """`text.json` as a checked plan. Raises PlanError with all findings."""
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise PlanError(
            f"text.json is not JSON ({error}): write it with write_plan, or optimise the model again"
        ) from None
    if not isinstance(tree, dict):
        raise PlanError("text.json must be a JSON object with schema, task, labels, max_length, buckets, engines")
    if tree.get("schema") != SCHEMA:
        raise PlanError(
            f"text.json has schema {tree.get('schema')!r}, this version reads {SCHEMA}: "
            "optimise the model again, or serve it with the version that wrote it"
        )
    findings: list[str] = []
    plan = TextPlan(
        task=_one_of(tree, "task", TASKS, findings),
        labels=_labels(tree.get("labels"), findings),
        max_length=_whole(tree, "max_length", 1, findings),
        pad_id=_whole(tree, "pad_id", 0, findings, 0),
        buckets=_buckets(tree, findings),
        batch_tokens=_whole(tree, "batch_tokens", 1, findings, 512),
        engines=_engines(tree.get("engines"), findings),
        chosen_on=_mapping(tree, "chosen_on", "", findings),
    )
    if findings:
        raise PlanError("text.json cannot be used:\n" + "\n".join(f"  - {finding}" for finding in findings))
    return plan


def write_plan(plan: TextPlan) -> bytes:
    """The bytes of `text.json`; what `read_plan` refuses cannot be written."""
    data = json.dumps(asdict(plan), indent=1, sort_keys=True, ensure_ascii=False).encode()
    read_plan(data)
    return data


def _whole(tree: Mapping[str, Any], name: str, least: int, findings: list[str], default: int | None = None) -> int:
    value = tree.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        findings.append(f"{name} is {value!r}: it must be a whole number of at least {least}")
        return least
    return value


def _number(tree: Mapping[str, Any], name: str, where: str, findings: list[str], default: float | None = None) -> float:
    value = tree.get(name, default)
    # Not-a-number fails the comparison; what is lost or gained may be negative, time and bounds may not.
    least = float("-inf") if name == "macro_f1_drop" else 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        findings.append(
            f"{where}{name} is {value!r}: it must be a finite number" + (" of at least 0" if least == 0 else "")
        )
        return 0.0
    return float(value)


def _one_of(tree: Mapping[str, Any], name: str, known: tuple[str, ...], findings: list[str], where: str = "") -> str:
    value = tree.get(name)
    if value not in known:
        findings.append(f"{where}{name} is {value!r}: it must be one of {', '.join(known)}")
        return known[0]
    return str(value)


def _mapping(tree: Mapping[str, Any], name: str, where: str, findings: list[str]) -> Mapping[str, Any]:
    value = tree.get(name, {})
    if not isinstance(value, dict):
        findings.append(f"{where}{name} is {value!r}: it must be an object")
        return {}
    return value


def _labels(value: object, findings: list[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(label, str) for label in value):
        findings.append(f"labels is {value!r}: it must list the names of the classes, in the order of the logits")
        return ("",)
    if len(set(value)) != len(value):
        findings.append("labels names a class twice: an answer could not say which of them it means")
    return tuple(value)


def _buckets(tree: Mapping[str, Any], findings: list[str]) -> tuple[int, ...]:
    longest = tree.get("max_length")
    value = tree.get("buckets", [longest])
    if (
        not isinstance(value, list)
        or not value
        or any(isinstance(upper, bool) or not isinstance(upper, int) or upper < 1 for upper in value)
        or any(left >= right for left, right in pairwise(value))
        or value[-1] != longest
    ):
        findings.append(
            f"buckets is {value!r}: it must list whole numbers, ascending, the last equal to max_length ({longest!r})"
        )
        return (1,)
    return tuple(value)


def _engines(value: object, findings: list[str]) -> tuple[EnginePlan, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        findings.append("engines must list at least one engine (onnxruntime-fp32, which runs everywhere)")
        return ()
    engines = tuple(_engine(entry, index, findings) for index, entry in enumerate(value))
    names = [engine.name for engine in engines]
    findings.extend(
        f"two engines are named {name}" for name in sorted({name for name in names if names.count(name) > 1})
    )
    if engines[-1].requires:
        findings.append(
            f"the last engine ({engines[-1].name}) requires {', '.join(engines[-1].requires)}: "
            "the last must run on any processor (requires: []), or a machine could be left without one"
        )
    return engines


def _engine(entry: Mapping[str, Any], index: int, findings: list[str]) -> EnginePlan:
    name = entry.get("name")
    where = f"engines[{index}]" + (f" ({name})" if isinstance(name, str) else "") + ": "
    if not isinstance(name, str) or not name:
        findings.append(f"{where}name is {name!r}: it must be a text")
    requires = entry.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(flag, str) and flag for flag in requires):
        findings.append(f"{where}requires is {requires!r}: it must list flags of /proc/cpuinfo, like avx512_vnni")
        requires = []
    cost = _mapping(entry, "cost", where, findings)
    return EnginePlan(
        name=str(name),
        runtime=_one_of(entry, "runtime", RUNTIMES, findings, where),
        folder=_folder(entry.get("folder"), where, findings),
        precision=_one_of(entry, "precision", PRECISIONS, findings, where),
        requires=tuple(requires),
        options=_mapping(entry, "options", where, findings),
        bound=_number(entry, "bound", where, findings, 0.0),
        cost=Cost(
            _number(cost, "call_us", where + "cost.", findings, 1000.0),
            _number(cost, "token_us", where + "cost.", findings, 200.0),
        ),
        macro_f1_drop=_number(entry, "macro_f1_drop", where, findings, 0.0),
    )


def _folder(value: object, where: str, findings: list[str]) -> str:
    if (
        not isinstance(value, str)
        or not value
        or "\\" in value
        or PurePosixPath(value).is_absolute()
        or ".." in PurePosixPath(value).parts
    ):
        findings.append(
            f"{where}folder is {value!r}: it must be a path inside the package's model folder, like engines/openvino-int8"
        )
        return "."
    return value
