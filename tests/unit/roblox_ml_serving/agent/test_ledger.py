"""The ledger: what is reported, and how looks at Triton and results of actions merge."""

from __future__ import annotations

import pytest
from roblox_ml_serving.agent.ledger import Ledger
from roblox_ml_serving.agent.plan import Key, Refuse, Wanted
from roblox_ml_serving.triton.processes import Stub

A = Key("a", 1)
WISH = [Wanted(A, "da")]
STUBS = frozenset({Stub(1, 1.0, "a.1"), Stub(2, 1.0, "a.1")})


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(probe_s=10, changed=lambda: None)


def look(ledger: Ledger, now: float = 0.0, resident=None, alive=STUBS, wanted=(A,), busy=None, moving=()):
    return ledger.observe(now, {A: ("da", 7)} if resident is None else resident, moving, alive, wanted, busy or {})


def state(ledger: Ledger) -> tuple[str, str]:
    (only,) = ledger.states(WISH)
    return only.state, only.reason


def test_ready_needs_a_known_answer(ledger: Ledger) -> None:
    observed = look(ledger)
    assert not observed.residents[A].checked
    assert state(ledger)[0] == "loading"
    ledger.proved(A, "da", 0.0, STUBS)
    assert look(ledger).residents[A].checked
    assert state(ledger) == ("ready", "")


def test_what_is_loaded_and_was_not_asked_yet_is_being_adopted(ledger: Ledger) -> None:
    assert not ledger.adopting([A])  # Triton was not looked at
    look(ledger)
    assert ledger.adopting([A]) and not ledger.adopting([Key("b", 1)])
    ledger.proved(A, "da", 0.0, STUBS)
    assert not ledger.adopting([A])


@pytest.mark.parametrize("how", ["broken", "failed", "down", "gone"])
def test_what_cannot_be_adopted_is_not_waited_for(ledger: Ledger, how: str) -> None:
    look(ledger)
    if how == "broken":
        ledger.broke(A, "wrong answer")
    elif how == "failed":
        ledger.failed(A, "da", "no such file", 0.0)
    elif how == "down":
        ledger.down()
    else:
        look(ledger, resident={})
    assert not ledger.adopting([A])


def test_a_proof_ages_but_stays_reported_while_it_is_renewed(ledger: Ledger) -> None:
    ledger.proved(A, "da", 0.0, STUBS)
    assert not look(ledger, now=11.0).residents[A].checked
    ledger.begin(A, "checking")
    assert state(ledger) == ("ready", "")


def test_a_dead_instance_is_seen_and_not_ready(ledger: Ledger) -> None:
    ledger.proved(A, "da", 0.0, STUBS)
    observed = look(ledger, alive=frozenset(list(STUBS)[:1]))
    assert observed.residents[A].broken == "1 of its 2 instance processes ended"
    assert state(ledger)[0] == "loading"


def test_without_sight_of_processes_nothing_is_called_dead(ledger: Ledger) -> None:
    ledger.proved(A, "da", 0.0, frozenset())
    assert look(ledger, alive=frozenset()).residents[A].broken == ""


def test_a_triton_that_is_down_serves_nothing(ledger: Ledger) -> None:
    ledger.proved(A, "da", 0.0, STUBS)
    look(ledger)
    assert ledger.down()
    assert not ledger.down()
    assert state(ledger) == ("loading", "Triton does not answer")
    look(ledger, resident={})
    assert state(ledger)[0] == "loading"


def test_a_failure_counts_attempts_of_one_package_only(ledger: Ledger) -> None:
    look(ledger, resident={})
    assert ledger.failed(A, "da", "no", 0.0).attempts == 1
    assert ledger.failed(A, "da", "no", 1.0).attempts == 2
    assert state(ledger) == ("failed", "no")
    assert ledger.failed(A, "other", "no", 2.0).attempts == 1
    ledger.proved(A, "da", 3.0, STUBS)
    look(ledger)
    assert state(ledger) == ("ready", "")


def test_a_look_that_began_before_an_action_ended_does_not_undo_its_result(ledger: Ledger) -> None:
    ledger.begin(A, "pulling", 5)
    busy = ledger.busy()
    ledger.proved(A, "da", 0.0, STUBS)
    ledger.end(A)
    observed = look(ledger, resident={}, busy=busy)
    assert A in observed.busy
    assert state(ledger) == ("ready", "")
    look(ledger, resident={})  # the next look is newer than the proof
    assert ledger.proof(A) is None


def test_phases_are_reported_and_versions_in_transition_left_alone(ledger: Ledger) -> None:
    ledger.begin(A, "pulling")
    assert state(ledger)[0] == "pulling"
    ledger.phase(A, "loading")
    assert state(ledger)[0] == "loading"
    ledger.end(A)
    assert A in look(ledger, resident={}, moving=[A]).busy


def test_a_refusal_is_news_once(ledger: Ledger) -> None:
    look(ledger, resident={})
    refusal = Refuse(A, "too big")
    assert ledger.refuse([refusal]) == [refusal]
    assert ledger.refuse([refusal]) == []
    assert state(ledger) == ("failed", "too big")
    ledger.refuse([])
    assert state(ledger)[0] == "loading"


def test_the_clock_of_an_unwanted_version_starts_when_it_is_first_seen_unwanted(ledger: Ledger) -> None:
    assert look(ledger, now=3.0, wanted=()).unwanted_since == {A: 3.0}
    assert look(ledger, now=9.0, wanted=()).unwanted_since == {A: 3.0}
    assert look(ledger, now=10.0).unwanted_since == {}
