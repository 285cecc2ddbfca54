"""Search: the SQL finds what the words mean, and words that mean nothing are explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from roblox_ml_core.errors import Invalid
from roblox_ml_platform.search import Term, parse


@pytest.fixture
def found(client: TestClient, body: Callable[..., dict[str, Any]]) -> Callable[[str], list[str]]:
    rows = [
        ("scale", "a", {"team": "safety", "note": "two words"}, {"f1": 0.7}, {"lr": 0.1}),
        ("scale", "b", {"team": "search"}, {"f1": 0.9, "loss": float("nan")}, {"lr": 0.2}),
        ("chat-filter", "c", {"team": "safety"}, {}, {}),
    ]
    for name, mark, tags, metrics, params in rows:
        alias = "champion" if mark == "b" else None
        import json

        sent = body(mark, tags=tags, metrics=metrics, params=params, alias=alias)
        client.post(f"/v1/models/{name}/versions", content=json.dumps(sent)).raise_for_status()

    def ask(query: str) -> list[str]:
        answer = client.get("/v1/models", params={"q": query})
        assert answer.status_code == 200, answer.text
        return sorted(
            f"{row['name']}/{row['version']}" for model in answer.json()["models"] for row in model["matching"]
        )

    return ask


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["chat-filter/1", "scale/1", "scale/2"]),
        ("cal", ["scale/1", "scale/2"]),
        ("%", []),
        ("_", []),
        ("name=scale", ["scale/1", "scale/2"]),
        ("name!=scale", ["chat-filter/1"]),
        ("tag.team=safety", ["chat-filter/1", "scale/1"]),
        ("tag.team!=safety", ["scale/2"]),
        ('tag.note="two words"', ["scale/1"]),
        ("tag.note", ["scale/1"]),
        ("metric.f1>0.7", ["scale/2"]),
        ("metric.f1>=0.7", ["scale/1", "scale/2"]),
        ("metric.f1<0.8 tag.team=safety", ["scale/1"]),
        ("metric.f1!=0.7", ["scale/2"]),
        ("metric.loss", ["scale/2"]),
        ("metric.loss>0", []),
        ("metric.loss<=0", []),
        ("param.lr=0.1", ["scale/1"]),
        ("alias=champion", ["scale/2"]),
        ("alias!=champion", ["chat-filter/1", "scale/1"]),
        ("scale metric.f1>5", []),
    ],
)
def test_queries_find_what_they_say(found: Callable[[str], list[str]], query: str, expected: list[str]) -> None:
    assert found(query) == expected


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("metric.f1>high", "'high' is not a number"),
        ("metric.f1>", "compares with nothing"),
        ("metric.f1>nan", "not a number"),
        ("tag.team>safety", "only metrics are ordered"),
        ("owner=ann", "fields are"),
        ('tag.note="two', "not closed"),
        ("alias>champion", "only metrics are ordered"),
    ],
)
def test_a_wrong_query_says_which_term_and_how_to_write_it(query: str, part: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(f"tag.ok=1 {query}")
    assert part in caught.value.message
    assert "tag.team=safety" in caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_either_terms_or_an_explanation(query: str) -> None:
    try:
        terms = parse(query)
    except Invalid as error:
        assert error.hint
    else:
        assert all(isinstance(term, Term) for term in terms)


WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(st.sampled_from(["tag", "param"]), WORDS, st.sampled_from(["=", "!="]), WORDS), max_size=4))
def test_terms_are_read_as_written(parts: list[tuple[str, str, str, str]]) -> None:
    query = "  ".join(f'{kind}.{key}{op}"{value}"' for kind, key, op, value in parts)
    assert parse(query) == tuple(Term(*part) for part in parts)
