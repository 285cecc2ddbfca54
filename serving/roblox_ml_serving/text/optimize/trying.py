"""One engine judged and timed: opened from its folder as a server opens it, asked the user's texts."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import rml_text_engines as engines
from ...backends import rml_text_heads as heads
from ...backends.rml_text_plan import Cost, EnginePlan, TextPlan, write_plan
from . import judge
from .candidates import Built
from .timing import Timing, measure

__all__ = ["Examination", "Texts", "Verdict", "cpu_model", "served"]

# A row's probabilities may differ this much between being asked alone and in company: a rounding of int8 that falls to the other
# side. More, and the scale itself depends on the company (ONNX Runtime's dynamic int8: 0.06).
COMPANY = 1e-2
_COMPANY_ROWS, _LONGEST = 48, 8
# The plan promises a bound for all texts, and some were measured: it says so much more than was seen. A rounding that flips is
# rare (none among some hundred rows, one of 1.4e-3 among ten thousand), so what rounds never promises less than this.
_ROOM, _LEAST_BOUND, _LEAST_ROUNDED = 4.0, 1e-6, 5e-3


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts that judge: their tokens, and the truth as counts can read it."""

    texts: Sequence[str]
    rows: Sequence[Any]  # int32 ids of each text
    offsets: Sequence[Any]
    truth: Sequence[Any]  # class numbers, or entities


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one engine."""

    built: Built
    f1: float
    drop: judge.Drop
    ece: float | None
    agreement: float
    bound: float
    timing: Timing | None
    bytes: int
    refused: str = ""
    seconds: float = 0.0  # to build, judge and time it

    def entry(self) -> EnginePlan:
        """Its entry in the plan."""
        cost = Cost(self.timing.call_us, self.timing.token_us) if self.timing else Cost(1000.0, 200.0)
        built = self.built
        least = _LEAST_BOUND if built.precision == "fp32" else _LEAST_ROUNDED
        return EnginePlan(
            built.name, built.runtime, f"engines/{built.name}", built.precision, built.requires, dict(built.options),
            max(_ROOM * self.bound, least), cost, round(self.drop.drop, 6),
        )  # fmt: skip


class Examination:
    """Judges engines against the reference's answers to the same texts."""

    def __init__(self, plan: TextPlan, root: Path, texts: Texts, budget: float, threads: int) -> None:
        self.plan, self.root, self.texts, self.budget, self.threads = plan, root, texts, budget, threads
        self.reference: list[Any] | None = None
        self._counts: Any = None

    def judge(self, built: Built, *, time: bool = True) -> Verdict:
        """Open, compare with itself in company, ask every text, time. The first engine judged is the reference."""
        entry = EnginePlan(built.name, built.runtime, f"engines/{built.name}", built.precision, (), dict(built.options))
        size = sum(file.stat().st_size for file in (self.root / entry.folder).rglob("*") if file.is_file())
        engine = engines.open_engine(entry, self.root, self.plan, threads=self.threads)
        bound = self._company(engine)
        if bound > COMPANY and self.reference is not None:
            why = f"a text's probabilities change by up to {bound:.4f} with the texts beside it (at most {COMPANY:g})"
            return Verdict(built, float("nan"), judge.Drop(0.0, 0.0, 0.0), None, float("nan"), bound, None, size, why)
        answers = engine.run(self.texts.rows)
        del engine
        counts = self._count(answers)
        if self.reference is None:
            self.reference, self._counts = answers, counts
        drop = judge.drop(self._counts, counts)
        why = ""
        if not np.isfinite(np.concatenate([row.ravel() for row in answers])).all():
            why = "answers what is no number"
        elif drop.drop > self.budget:
            why = f"loses {100 * drop.drop:.2f} points of F1, the budget is {100 * self.budget:.2f}"
        timing = None
        if time and not why:
            single = engines.open_engine(entry, self.root, self.plan, threads=1)
            timing = measure(single, self.texts.rows, self.plan.max_length, self.plan.batch_tokens)
        return Verdict(
            built, judge.f1(counts), drop, self._ece(answers), self._agreement(answers), bound, timing, size, why
        )

    def _count(self, answers: Sequence[Any]) -> Any:
        texts, labels = self.texts, self.plan.labels
        if self.plan.task == "token":
            return judge.counts_of_entities(texts.truth, judge.entities_of(answers, texts.offsets, texts.texts, labels))
        return judge.counts_of_labels(texts.truth, [int(row.argmax()) for row in answers], len(labels))

    def _ece(self, answers: Sequence[Any]) -> float | None:
        if self.plan.task == "token":  # entities are true; which tokens are is not known
            return None
        return judge.ece(heads.softmax(np.stack(answers)), self.texts.truth)

    def _agreement(self, answers: Sequence[Any]) -> float:
        assert self.reference is not None
        same = [np.mean(a.argmax(-1) == b.argmax(-1)) for a, b in zip(self.reference, answers, strict=True)]
        return float(np.mean(same))

    def _company(self, engine: Any) -> float:
        """The largest difference of a probability between a row alone and the same row among others."""
        step = max(1, len(self.texts.rows) // _COMPANY_ROWS)
        longest = sorted(self.texts.rows, key=len)[-_LONGEST:]  # beside these the others are padded most
        rows = [*self.texts.rows[::step][:_COMPANY_ROWS], *longest]
        together = engine.run(rows)
        alone = [engine.run([row])[0] for row in rows]
        pairs = zip(alone, together, strict=True)
        return max(float(np.abs(heads.softmax(a) - heads.softmax(b)).max()) for a, b in pairs)


def served(
    plan: TextPlan, root: Path, entry: EnginePlan, texts: Sequence[str], seconds: float = 3.0
) -> Mapping[str, float] | None:
    """Throughput end to end: a private Triton and door with this engine first. None where Triton is not installed."""
    try:
        from ...trial import TrialStack, closed_loop, rest_texts
    except ImportError:  # a step's environment carries the optimiser, not the servers
        return None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "model")
        shutil.copytree(root, folder, ignore=lambda _, names: [n for n in names if n == "engines"])
        (folder / "engines").mkdir(exist_ok=True)
        (folder / entry.folder).symlink_to((root / entry.folder).resolve(), target_is_directory=True)
        (folder / "text.json").write_bytes(_alone(plan, entry))
        try:
            with TrialStack({"trial": folder}, check=False) as stack:
                traffic = rest_texts(stack.rest, "trial", texts[:2000])
                result = closed_loop(traffic, workers=8, seconds=seconds, warmup=64, cpu=stack.cpu_seconds)
        except Exception as error:
            if type(error).__name__ == "Unavailable":
                return None
            raise
    if not result.answered:
        raise RuntimeError(f"the trial of {entry.name} answered nothing: {dict(result.statuses)}")
    cpu = 1e3 * sum(result.cpu.values()) / result.answered
    return {
        "per_second": round(result.per_second, 1), "p50_ms": round(result.p50_ms, 2),
        "p99_ms": round(result.p99_ms, 2), "cpu_ms": round(cpu, 3),
    }  # fmt: skip


def _alone(plan: TextPlan, entry: EnginePlan) -> bytes:
    """The plan of one engine. The last entry must need nothing; on this machine the engine runs."""
    return write_plan(replace(plan, engines=(replace(entry, requires=()),)))


def cpu_model() -> str:
    """The processor's name for people."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def json_bytes(tree: Mapping[str, Any]) -> bytes:
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
