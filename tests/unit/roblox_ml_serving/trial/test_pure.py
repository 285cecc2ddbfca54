"""Scenarios, streams with hits, medians over rounds, costs, and how they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_serving.trial.costs import Machine, cost_per_million
from roblox_ml_serving.trial.load import LoadResult
from roblox_ml_serving.trial.page import page, tables, text
from roblox_ml_serving.trial.results import document, line, store, unit_costs
from roblox_ml_serving.trial.rounds import summarise
from roblox_ml_serving.trial.scenarios import ARTICLE, LESS_CPU, Scenario, lengths, repeated, workers_of_the_article
from roblox_ml_serving.trial.served import PLAIN, policies
from roblox_ml_serving.trial.served import summarise as summarise_served
from roblox_ml_serving.trial.textbench import ALONE, BATCHED, TextBench


def answer(inferences: int, seconds: float, cpu: float, ms: float) -> dict[str, object]:
    return {"inferences": inferences, "seconds": seconds, "cpu_s": cpu, "latencies_ms": [ms] * inferences}


def load(per_second: float, p50: float, cpu: dict[str, float]) -> LoadResult:
    requests = round(per_second)
    return LoadResult(requests, 1, 1.0, None, {"200": requests}, p50, p50, p50, 2 * p50, 3 * p50, 0.0, 0.1, cpu)


def bench() -> TextBench:
    """The baseline takes 300 ms; ours 6 ms alone and 4 ms in batches; served it is 5 ms of CPU."""
    chosen = [ARTICLE[0], Scenario(ALONE, "ours <alone>", "engine"), Scenario(BATCHED, "ours", "engine", batch=16)]
    rounds = {
        ARTICLE[0].name: [[answer(10, 6.0, 3.0, 600.0)]] * 3,  # somebody else had half of the core
        ALONE: [[answer(100, 0.6, 0.6, 6.0)]] * 3,
        BATCHED: [[answer(250, 1.0, 1.0, 64.0)]] * 3,
    }
    cpu = {"door": 0.1, "triton": 0.1, "instances": 0.8}
    loads = {"rest": [load(200, 50, cpu)], "grpc": [load(100, 60, cpu)]}
    loads |= {"rest at half": [load(100, 7, cpu)], "grpc at half": [load(50, 8, cpu)]}
    served = summarise_served(loads, 1.6, {"door": 80.0}, 2)
    measured = {name: summarise(name, turns, "openvino-int8") for name, turns in rounds.items()}
    machine = {"cpu": "x", "cores": 2, "flags": ["avx2"], "told": {}}
    return TextBench(
        "m", "d" * 64, machine, lengths([3, 24, 24, 60]), {s.name: s for s in chosen}, measured, served, 16
    )


def test_the_keys_are_the_ratios_they_are_named_after() -> None:
    keys = bench().keys()
    assert keys["speedup_latency_vs_bert_padded"] == pytest.approx(50)
    assert keys["speedup_throughput_vs_bert_padded"] == pytest.approx(75)
    assert keys["inferences_per_s_core"] == pytest.approx(250)
    assert keys["speedup_latency_vs_bert_padded_wall"] == pytest.approx(100)
    assert keys["served_throughput_vs_bert_padded"] == pytest.approx(300 / 5)
    assert keys["served_fraction_of_engine"] == pytest.approx(4 / 5)
    assert keys["served_fraction_of_engine_wall"] == pytest.approx(200 / 500)
    assert (keys["p50_ms_served"], keys["p99_ms_served"], keys["cache_hit_speedup"]) == (7, 14, 1.6)


def test_what_was_not_measured_is_no_key() -> None:
    import dataclasses

    found = dataclasses.replace(bench(), served=None, measured={ALONE: bench().measured[ALONE]})
    assert found.keys() == {} and unit_costs(found) == [] and "served" not in text(tables(found))


def test_results_are_shown_and_kept(tmp_path: Path) -> None:
    found = bench()
    shown = text(tables(found))
    assert "ours <alone>" in shown and "served_fraction_of_engine" in shown and "c5.9xlarge" in shown
    html = page(found)
    assert (
        html.count("<svg") == 3
        and "ours &lt;alone&gt;" in html
        and "<alone>" not in html
        and "http" not in html.replace("http://www.w3.org/2000/svg", "")
    )
    kept = json.loads(store(tmp_path, "text-a/b@c", document(found)).read_text())
    assert kept["schema"] == 1 and kept["keys"]["inferences_per_s_core"] == 250
    (unit,) = kept["unit_costs"]
    assert unit["cpu_ms"] == {"door": 0.5, "triton": 0.5, "instances": 4.0} and unit["per_second_per_core"] == 200
    assert json.loads(line({"a": 1.23456789, "b": 3})) == {"a": 1.235, "b": 3}


def test_a_million_costs_what_half_the_machine_does_in_the_time() -> None:
    found = cost_per_million(Machine("m", 10, 3.6, ""), 5.0, load=0.5)
    assert found.per_second == pytest.approx(1000) and found.usd_per_million == pytest.approx(1.0)
    with pytest.raises(ValueError, match="positive"):
        cost_per_million(Machine("m", 10, 3.6, ""), 0.0)


@given(st.integers(20, 400), st.sampled_from([0.0, 0.25, 0.4, 0.7]), st.integers(0, 3))
def test_a_stream_with_hits_has_every_new_text_once_and_about_the_share(count: int, share: float, seed: int) -> None:
    texts = [f"t{i}" for i in range(count)]
    known, stream = repeated(texts, share, 5, seed)
    fresh = [entry for entry in stream if entry not in set(known)]
    assert known == texts[:5] and fresh == texts[5:]
    hits = len(stream) - len(fresh)
    expected = share / (1 - share) * len(fresh)
    assert abs(hits - expected) <= 6 * (len(fresh) * share) ** 0.5 / (1 - share) + 3


def test_known_texts_are_never_new_even_where_the_texts_repeat() -> None:
    known, stream = repeated(["a", "b", "c", "a", "d", "d"], 0.0, 2)
    assert known == ["a", "b"] and stream == ["c", "d"]


def test_workers_follow_the_article_and_less_cpu_names_every_runtime() -> None:
    assert [workers_of_the_article(cores) for cores in (1, 2, 36, 64)] == [1, 2, 32, 57]
    for told in LESS_CPU.values():
        assert {"RML_CPU_FLAGS", "ONEDNN_MAX_CPU_ISA", "CT2_FORCE_CPU_ISA"} <= told.keys()
        assert "amx" not in told["RML_CPU_FLAGS"]
    assert policies()[PLAIN]["cache"] == {"entries": 0, "bytes": 0}
