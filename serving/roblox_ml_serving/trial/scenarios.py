"""The experiment of the article ("How we scaled BERT to serve 1+ billion daily requests on CPUs", 2020) as data.

Five steps, each on top of the one before: BERT padded to 128 tokens; DistilBERT instead; no padding; int8; a cache of answers
by token ids. Then ours. A scenario says what one single-threaded worker does with a stream of texts; `inprocess` does it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["ARTICLE", "BASELINE", "LESS_CPU", "Lengths", "Scenario", "lengths", "repeated", "workers_of_the_article"]

ARTICLE_CORES, ARTICLE_WORKERS, ARTICLE_REQUESTS = 36, 32, 1000
PADDED = 128

# How each runtime is told to use less than the machine has: oneDNN (PyTorch, OpenVINO) and CTranslate2 obey these;
# ONNX Runtime's kernels obey nothing, so its row stays what the machine can do.
LESS_CPU: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "avx512-vnni": {
            "RML_CPU_FLAGS": "avx2,avx512f,avx512bw,avx512vl,avx512dq,avx512_vnni",
            "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI",
            "DNNL_MAX_CPU_ISA": "AVX512_CORE_VNNI",
            "CT2_FORCE_CPU_ISA": "AVX512",
        },
        "avx2": {
            "RML_CPU_FLAGS": "avx2,fma",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "DNNL_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "CT2_FORCE_CPU_ISA": "AVX2",
        },
    }
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a worker computes with, and how it feeds it."""

    name: str
    says: str  # for people
    kind: str  # "torch" or "engine"
    layers: int = 0  # torch: a BERT of this depth, 768 wide
    pad: int = 0  # torch: every text padded to so many tokens; 0: as long as it is
    int8: bool = False  # torch: dynamic int8 of the linear layers
    cache_share: float = 0.0  # part of the texts that were asked before, answered from a dictionary of token ids
    batch: int = 1  # texts handed over together
    engine: str = ""  # engine: its name in the plan; empty: the first that opens
    device: str = "cpu"  # torch: "cuda" computes in half precision, padded to the longest of a batch


ARTICLE: tuple[Scenario, ...] = (
    Scenario("bert-padded", f"1 BERT-base fp32, padded to {PADDED}", "torch", layers=12, pad=PADDED),
    Scenario("distilbert-padded", f"2 DistilBERT fp32, padded to {PADDED}", "torch", layers=6, pad=PADDED),
    Scenario("distilbert-dynamic", "3 + dynamic shapes", "torch", layers=6),
    Scenario("distilbert-int8", "4 + dynamic int8 (PyTorch)", "torch", layers=6, int8=True),
    Scenario("distilbert-cache", "5 + cache, 40 % hits", "torch", layers=6, int8=True, cache_share=0.4),
)
BASELINE = ARTICLE[0].name


def workers_of_the_article(cores: int) -> int:
    """The article's 32 workers on 36 cores, on this many: at least one, never more than there are cores."""
    return max(1, round(cores * ARTICLE_WORKERS / ARTICLE_CORES))


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long texts are, in tokens."""

    count: int
    mean: float
    p10: int
    p50: int
    p90: int
    p99: int
    longest: int

    def __str__(self) -> str:
        return (
            f"{self.count} texts; tokens p10 {self.p10}, median {self.p50}, p90 {self.p90}, p99 {self.p99}, "
            f"longest {self.longest}, mean {self.mean:.1f}"
        )


def lengths(counts: Sequence[int]) -> Lengths:
    """The distribution of these token counts."""
    if not counts:
        raise ValueError("no texts")
    ordered = sorted(counts)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return Lengths(len(ordered), sum(ordered) / len(ordered), at(0.1), at(0.5), at(0.9), at(0.99), ordered[-1])


def repeated(texts: Sequence[str], share: float, popular: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """(popular texts, a stream in which `share` of the texts are popular and every other one is new).

    The stream is as long as the texts that are not popular allow; each of those appears once.
    """
    if not 0 <= share < 1 or not 0 < popular < len(texts):
        raise ValueError(f"share must be in [0, 1) and popular in (0, {len(texts)}), not {share} and {popular}")
    draw = random.Random(seed)  # noqa: S311 - load, no secret
    known, fresh = list(texts[:popular]), list(dict.fromkeys(texts[popular:]))
    hot = set(known)
    stream: list[str] = []
    for text in fresh:
        if text in hot:
            continue
        while draw.random() < share:
            stream.append(draw.choice(known))
        stream.append(text)
    return known, stream
