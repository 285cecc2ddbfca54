"""`optimize`: from a fine-tuned model and labelled texts to engine folders, a plan, and the proof that nothing was lost.

Every engine is judged on the user's held-out texts and timed on their lengths; what loses more than the budget, or answers differently
in company, is refused. The two quickest of the rest are then served for some seconds, by a private Triton behind a private door, and the
quicker one is chosen.
"""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.rml_text_plan import Cost, EnginePlan, TextPlan, cpu_flags, write_plan
from ...backends.rml_text_tokens import Tokens
from . import judge
from .candidates import CALIBRATION, FALLBACK, Built, Workshop, as_rows
from .graph import Generic, NotLean, lean
from .source import Loaded, OptimizeError, Source
from .trying import Examination, Texts, Verdict, cpu_model, json_bytes, served

__all__ = ["Result", "optimize"]

Progress = Callable[[str], None]
_LEAST_TEXTS = 20
_CLEARLY = 0.95
_SAME_LOGITS = 1e-3
# One call should end within this: what waits behind it waits as long. But a call of too few tokens wastes the core.
_CALL_US, _TOKENS_LEAST, _TOKENS_MOST = 25_000.0, 256, 512


@dataclass(frozen=True, slots=True)
class Result:
    """`folder` holds `model/` (text.json, tokenizer.json, engines/…), `report.json` and `report.html`."""

    plan: TextPlan
    folder: Path
    report: dict[str, Any]


def optimize(
    source: Source,
    texts: Sequence[str],
    labels: Sequence[Any],
    *,
    budget: float = 0.005,
    engines: Sequence[str] | None = None,
    flags: Iterable[str] | None = None,
    folder: Path | None = None,
    most_texts: int | None = None,
    serve: bool = True,
    progress: Progress = print,
    seed: int = 0,
) -> Result:
    """Choose the quickest engine that loses at most `budget` of F1 on `texts`.

    `texts`, `labels`: held out from training, as users write them; a label is a class's name or number, for a token classifier the list
    of a text's entities as (start, end, kind). `most_texts` bounds how many are judged; a part calibrates int8 instead.
    `engines`: try only these (the float32 fallback always is there). `flags`: the processor's, where they are not to be read.
    """
    begun = time.monotonic()
    if not 0 <= budget <= 1:
        raise OptimizeError(f"budget={budget!r}: the part of F1 that may be lost, 0.005 is half a point")
    loaded = source.load()
    present = frozenset(flags) if flags is not None else cpu_flags()
    place = Path(folder) if folder is not None else _temporary()
    root = place / "model"
    (root / "engines").mkdir(parents=True, exist_ok=True)
    (root / "tokenizer.json").write_text(loaded.tokenizer_json, "utf-8")
    plan = _draft(loaded)
    asked, calibration = _texts(loaded, plan, texts, labels, most_texts, seed)
    lengths = np.array([len(row) for row in asked.rows])
    plan = replace(plan, buckets=_buckets(lengths, loaded.max_length))
    graph, note = _graph(loaded, asked.rows)
    progress(f"{note}; {len(asked.rows)} texts judge, {len(calibration)} calibrate")
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    shop = Workshop(loaded, graph, root, calibration, present)
    wanted = [n for n in shop.names() if engines is None or n == FALLBACK or n in engines]
    exam = Examination(plan, root, asked, budget, threads)
    verdicts, failed = _try_all(shop, exam, wanted, progress)
    good = sorted((v for v in verdicts if not v.refused), key=lambda v: -(v.timing.best if v.timing else 0.0))
    plan = replace(plan, batch_tokens=_batch_tokens(good[0]))
    trials, where = _trials(plan, root, good[:2], asked.texts, progress) if serve else ({}, "in process")
    if len(trials) == 2 and _cheaper(trials[good[1].built.name], trials[good[0].built.name]):
        good[:2] = good[1::-1]
    plan = replace(plan, batch_tokens=_batch_tokens(good[0]), engines=_engines(good), chosen_on=_machine(present))
    (root / "text.json").write_bytes(write_plan(plan))
    _drop_unused(root, plan)
    report = _report(loaded, plan, verdicts, failed, trials, lengths, budget, note)
    report["where"] = where
    report["seconds"] = round(time.monotonic() - begun, 1)
    (place / "report.json").write_bytes(json_bytes(report))
    (place / "report.html").write_text(_page(report), "utf-8")
    progress(
        f"{plan.engines[0].name} chosen: {report['speedup_vs_fp32']:.1f} x float32, F1 drop {report['f1_drop']:+.4f}"
    )
    return Result(plan, place, report)


def _temporary() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="rml-optimized-"))


def _draft(loaded: Loaded) -> TextPlan:
    fallback = EnginePlan(FALLBACK, "onnxruntime", f"engines/{FALLBACK}", "fp32", cost=Cost(1000.0, 200.0))
    limit = loaded.max_length
    return TextPlan(loaded.task, loaded.labels, limit, loaded.pad_id, (limit,), _TOKENS_LEAST, (fallback,))


def _texts(
    loaded: Loaded, plan: TextPlan, texts: Sequence[str], labels: Sequence[Any], most: int | None, seed: int
) -> tuple[Texts, list[Any]]:
    """The texts that judge, and rows of others (where there are enough) that calibrate."""
    if len(texts) != len(labels) or len(texts) < _LEAST_TEXTS:
        raise OptimizeError(
            f"{len(texts)} texts and {len(labels)} labels: give at least {_LEAST_TEXTS} held-out texts, each with its label"
        )
    order = np.random.default_rng(seed).permutation(len(texts))
    tenth = min(CALIBRATION, len(texts) // 10)
    apart = len(texts) >= 20 * _LEAST_TEXTS  # with few texts, all judge, and calibrate as well
    # Drawn before they are put in order: the first texts of a file may all be of one kind.
    judging = sorted((order[tenth:] if apart else order)[: most or len(order)])
    encoder = Tokens(loaded.tokenizer_json, plan)
    encoded = encoder.encode([texts[i] for i in judging])
    calibrating = as_rows(encoder.encode([texts[i] for i in order[: tenth if apart else CALIBRATION]]))
    truth = [labels[i] for i in judging]
    if loaded.task == "token":
        ends = [max((end for _, end in row.offsets or ((0, 0),)), default=0) for row in encoded]
        # What truncation cuts off cannot be found by any engine.
        wanted: list[Any] = [[e for e in judge.spans(t) if e[1] <= end] for t, end in zip(truth, ends, strict=True)]
    else:
        wanted = [_class_of(value, loaded.labels) for value in truth]
    offsets = [row.offsets for row in encoded]
    return Texts([texts[i] for i in judging], as_rows(encoded), offsets, wanted), calibrating


def _class_of(value: Any, labels: Sequence[str]) -> int:
    if isinstance(value, str) and value in labels:
        return list(labels).index(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if 0 <= number < len(labels) and not isinstance(value, bool):
        return number
    raise OptimizeError(f"the label {value!r:.40} is none of {', '.join(labels)}")


def _buckets(lengths: Any, longest: int) -> tuple[int, ...]:
    """Quarters of the user's lengths, rounded up to multiples of 8."""
    uppers = {int(-(-np.quantile(lengths, q) // 8) * 8) for q in (0.25, 0.5, 0.75, 0.9, 0.99)}
    return (*sorted(upper for upper in uppers if upper < longest), longest)


def _graph(loaded: Loaded, rows: Sequence[Any]) -> tuple[Any, str]:
    """The lean graph, if it answers the model's own answers; else the model as it is."""
    import torch

    whole = Generic(loaded.model).eval()
    try:
        small = lean(loaded.model, loaded.task)
    except NotLean as why:
        return whole, f"generic export ({why})"
    with torch.inference_mode():
        for row in sorted(rows[:: max(1, len(rows) // 12)], key=len):
            ids = torch.from_numpy(row.astype(np.int64))[None]
            ids = torch.cat([ids, torch.full((1, 3), loaded.pad_id)], dim=1)[:, : loaded.max_length]
            mask = torch.zeros_like(ids)
            mask[:, : len(row)] = 1
            mine, theirs = (g(ids, mask) for g in (small, whole))
            if loaded.task == "token":  # what a token of padding answers, nobody reads
                mine, theirs = mine[:, : len(row)], theirs[:, : len(row)]
            gap = float((mine - theirs).abs().max())
            if not gap <= _SAME_LOGITS * max(1.0, float(theirs.abs().max())):
                return whole, f"generic export (the lean graph's logits differ by {gap:.2g})"
    return small, "lean graph, same answers as the model"


def _try_all(
    shop: Workshop, exam: Examination, names: Sequence[str], progress: Progress
) -> tuple[list[Verdict], dict[str, str]]:
    """Build and judge each; an engine that cannot be built is a line of the report, not the end."""
    verdicts: list[Verdict] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            verdict = _best_attempt(shop, exam, name, progress)
        except Exception as error:
            if name == FALLBACK:
                raise
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            progress(f"{name}: {failed[name]}")
            continue
        verdicts.append(verdict)
    return verdicts, failed


def _best_attempt(shop: Workshop, exam: Examination, name: str, progress: Progress) -> Verdict:
    best: Verdict | None = None
    attempt = 0
    while True:
        begun = time.monotonic()
        built: Built | None = shop.build(name, attempt)
        if built is None:
            assert best is not None
            return best
        verdict = exam.judge(built)
        verdict = replace(verdict, seconds=round(time.monotonic() - begun, 1))
        speed = f", {verdict.timing.best:.0f}/s a core" if verdict.timing else ""
        told = verdict.refused or f"F1 {verdict.f1:.4f} (drop {verdict.drop.drop:+.4f}){speed}"
        progress(f"{name}: {told}; {verdict.seconds:.0f} s")
        best = verdict if best is None or verdict.drop.drop < best.drop.drop else best
        if not verdict.refused:
            return verdict
        attempt += 1


def _trials(
    plan: TextPlan, root: Path, rivals: Sequence[Verdict], texts: Sequence[str], progress: Progress
) -> tuple[dict[str, Mapping[str, float]], str]:
    """What each of them costs when it is served, and where that was measured. A trial that fails decides nothing."""
    found: dict[str, Mapping[str, float]] = {}
    for verdict in rivals:
        name = verdict.built.name
        try:
            result = served(plan, root, verdict.entry(), texts)
        except Exception as error:
            told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            progress(f"{name} could not be tried behind the door ({told}); the engines' own speed decides")
            return found, f"in process (the trial of {name} failed: {told})"
        if result is None:
            progress("Triton is not installed here: the engines' own speed decides")
            return {}, "in process"
        progress(
            f"{name}, served: {result['per_second']:.0f}/s, p50 {result['p50_ms']:.1f} ms, {result['cpu_ms']:.2f} ms CPU"
        )
        found[name] = result
    return found, "behind the door"


def _cheaper(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether `one` takes clearly less CPU time a text. Requests a second would also count what else the machine does."""
    return one["cpu_ms"] < _CLEARLY * other["cpu_ms"]


def _batch_tokens(verdict: Verdict) -> int:
    timing = verdict.timing
    tokens = _CALL_US / timing.token_us if timing else _TOKENS_LEAST
    return int(min(max(tokens, _TOKENS_LEAST), _TOKENS_MOST)) // 32 * 32


def _engines(good: Sequence[Verdict]) -> tuple[EnginePlan, ...]:
    """The chosen one, one that needs less of the processor, and the fallback: more would only make the package larger."""
    entries = [verdict.entry() for verdict in good]
    fallback = next(entry for entry in entries if entry.name == FALLBACK)
    chosen = entries[0]
    if chosen is fallback:
        return (fallback,)
    spare = [
        e for e in entries[1:] if e is not fallback and set(e.requires) <= {"avx2"} < set(chosen.requires) | {"avx2"}
    ][:1]
    return (chosen, *spare, replace(fallback, requires=()))


def _drop_unused(root: Path, plan: TextPlan) -> None:
    import shutil

    kept = {engine.name for engine in plan.engines}
    for place in (root / "engines").iterdir():
        if place.name not in kept:
            shutil.rmtree(place)


def _machine(flags: frozenset[str]) -> dict[str, Any]:
    told = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return {"cpu": cpu_model(), "flags": [flag for flag in told if flag in flags], "cores": os.cpu_count() or 1}


def _report(
    loaded: Loaded,
    plan: TextPlan,
    verdicts: Sequence[Verdict],
    failed: Mapping[str, str],
    trials: Mapping[str, Mapping[str, float]],
    lengths: Any,
    budget: float,
    note: str,
) -> dict[str, Any]:
    chosen = next(v for v in verdicts if v.built.name == plan.engines[0].name)
    reference = next(v for v in verdicts if v.built.name == FALLBACK)
    assert chosen.timing is not None
    assert reference.timing is not None
    rows = [_row(v, v is chosen, trials.get(v.built.name)) for v in verdicts]
    rows += [{"name": name, "allowed": False, "chosen": False, "refused": why} for name, why in failed.items()]
    quantiles = {f"p{q}": int(np.quantile(lengths, q / 100)) for q in (10, 90, 99)}
    return {
        "task": loaded.task,
        "model": type(loaded.model).__name__,
        "labels": list(loaded.labels),
        "graph": note,
        "machine": dict(plan.chosen_on),
        "budget": budget,
        "texts": len(lengths),
        "lengths": {"median": float(np.median(lengths)), "mean": round(float(lengths.mean()), 2), **quantiles},
        "reference": {"f1": reference.f1, "ece": reference.ece},
        "candidates": rows,
        "chosen": chosen.built.name,
        "speedup_vs_fp32": round(chosen.timing.best / reference.timing.best, 2),
        "f1": chosen.f1,
        "f1_drop": chosen.drop.drop,
        "f1_drop_low": chosen.drop.low,
        "f1_drop_high": chosen.drop.high,
    }


def _row(verdict: Verdict, chosen: bool, trial: Mapping[str, float] | None) -> dict[str, Any]:
    timing, known = verdict.timing, np.isfinite(verdict.f1)
    return {
        "name": verdict.built.name,
        "runtime": verdict.built.runtime,
        "precision": verdict.built.precision,
        "requires": list(verdict.built.requires),
        "allowed": not verdict.refused,
        "chosen": chosen,
        "refused": verdict.refused,
        "f1": verdict.f1 if known else None,
        "f1_drop": verdict.drop.drop if known else None,
        "f1_drop_low": verdict.drop.low if known else None,
        "f1_drop_high": verdict.drop.high if known else None,
        "ece": verdict.ece,
        "agreement": verdict.agreement if known else None,
        "bound": verdict.bound,
        "call_us": timing.call_us if timing else None,
        "token_us": timing.token_us if timing else None,
        "latency_ms": timing.latency_ms if timing else {},
        "throughput": timing.throughput if timing else {},
        "served": dict(trial) if trial else None,
        "bytes": verdict.bytes,
        "seconds": verdict.seconds,
    }


def _page(report: Mapping[str, Any]) -> str:
    from .report_page import render

    return render(report)
