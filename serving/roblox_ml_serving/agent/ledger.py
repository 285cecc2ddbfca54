"""What the agent remembers between rounds: what was checked, what failed, what is being worked on. Thread-safe, no I/O.

Everything in it can be lost: after a restart the next round finds out again by looking at Triton and asking known answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from roblox_ml_core.registry import ModelState

from ..triton.processes import Stub
from .plan import Failure, Key, Observed, Refuse, Resident, Wanted, backoff

__all__ = ["Ledger"]


@dataclass(slots=True)
class _Proof:
    """A version that gave its known answer: which package, when, by which processes."""

    digest: str
    at: float
    stubs: frozenset[Stub]


class Ledger:
    """The agent's memory. `probe_s`: how long a proof is fresh."""

    def __init__(self, probe_s: float, changed: Callable[[], None]) -> None:
        self._lock = threading.RLock()
        self._probe_s = probe_s
        self._changed = changed
        self._proofs: dict[Key, _Proof] = {}
        self._broken: dict[Key, str] = {}
        self._failures: dict[Key, Failure] = {}
        self._refused: dict[Key, str] = {}
        self._phases: dict[Key, tuple[str, int]] = {}
        self._unwanted_since: dict[Key, float] = {}
        self._resident: dict[Key, str] = {}
        self._up = False

    # -- one action under way per version ---------------------------------------------------------------------------

    def begin(self, key: Key, phase: str, memory: int = 0) -> None:
        with self._lock:
            self._phases[key] = (phase, memory)
        self._changed()

    def phase(self, key: Key, phase: str) -> None:
        with self._lock:
            self._phases[key] = (phase, self._phases.get(key, ("", 0))[1])
        self._changed()

    def end(self, key: Key) -> None:
        with self._lock:
            self._phases.pop(key, None)
        self._changed()

    def busy(self) -> dict[Key, int]:
        """Versions with an action under way, and the memory it will take."""
        with self._lock:
            return {key: memory for key, (_, memory) in self._phases.items()}

    # -- how it went ------------------------------------------------------------------------------------------------

    def proved(self, key: Key, digest: str, now: float, stubs: frozenset[Stub]) -> None:
        """The version is loaded and answers as its package says."""
        with self._lock:
            self._proofs[key] = _Proof(digest, now, stubs)
            self._resident[key] = digest
            self._broken.pop(key, None)
            self._failures.pop(key, None)

    def broke(self, key: Key, reason: str) -> None:
        """The version is loaded but must be loaded again."""
        with self._lock:
            self._broken[key] = reason

    def failed(self, key: Key, digest: str, reason: str, now: float) -> Failure:
        """The version is not loaded; remember why and when to try again."""
        with self._lock:
            before = self._failures.get(key)
            attempts = 1 + (before.attempts if before and before.digest == digest else 0)
            failure = Failure(digest, attempts, now + backoff(attempts), reason)
            self._failures[key] = failure
            self._forget(key)
        return failure

    def unloaded(self, key: Key) -> None:
        with self._lock:
            self._forget(key)
            self._unwanted_since.pop(key, None)

    def refuse(self, refusals: Sequence[Refuse]) -> list[Refuse]:
        """Replace the refusals of the last round; returns those that are new."""
        with self._lock:
            fresh = [refusal for refusal in refusals if self._refused.get(refusal.key) != refusal.reason]
            changed = bool(fresh) or len(refusals) != len(self._refused)
            self._refused = {refusal.key: refusal.reason for refusal in refusals}
        if changed:
            self._changed()
        return fresh

    def proof(self, key: Key) -> str | None:
        """Digest of the package that answered correctly, if this version did since it was loaded."""
        with self._lock:
            proof = self._proofs.get(key)
            return proof.digest if proof else None

    # -- one look at Triton -----------------------------------------------------------------------------------------

    def down(self) -> bool:
        """Triton does not answer: nothing is proved any more. True when that is news."""
        with self._lock:
            news = self._up
            self._up = False
            self._proofs.clear()
            self._broken.clear()
            self._resident = {}
        if news:
            self._changed()
        return news

    def observe(
        self,
        now: float,
        resident: Mapping[Key, tuple[str, int]],
        moving: Collection[Key],
        alive: frozenset[Stub],
        wanted: Collection[Key],
        busy_before: Mapping[Key, int],
    ) -> Observed:
        """Merge what Triton and the process table show (`resident`: digest and memory) with what is remembered.

        `busy_before`: what was under way when the look began. It may have ended since, so the look says nothing about it.
        """
        with self._lock:
            before = (self._up, frozenset(self._resident), frozenset(self._broken))
            self._up = True
            # What an action has just proved is newer than this look.
            newer = {key: proof.digest for key, proof in self._proofs.items() if key in busy_before}
            self._resident = {key: digest for key, (digest, _) in resident.items()} | newer
            busy = {**busy_before, **{key: memory for key, (_, memory) in self._phases.items()}}
            for key in [key for key in self._proofs if key not in resident and key not in busy]:
                self._forget(key)
            for key, proof in self._proofs.items():
                gone = proof.stubs - alive
                if gone and key not in busy:
                    self._broken[key] = f"{len(gone)} of its {len(proof.stubs)} instance processes ended"
            self._unwanted_since = {key: self._unwanted_since.get(key, now) for key in resident if key not in wanted}
            busy.update({key: 0 for key in moving if key not in busy})
            residents = {
                key: Resident(digest, memory, self._fresh(key, digest, now), self._broken.get(key, ""))
                for key, (digest, memory) in resident.items()
            }
            observed = Observed(now, residents, dict(self._failures), dict(self._unwanted_since), busy)
            after = (self._up, frozenset(self._resident), frozenset(self._broken))
        if before != after:
            self._changed()
        return observed

    def forget_failures(self) -> None:
        """Give every failed version its attempts back: Triton is another process than the one they failed in."""
        with self._lock:
            self._failures.clear()

    def adopting(self, wanted: Collection[Key]) -> bool:
        """Whether wanted versions that Triton has loaded still wait for their first known answer."""
        with self._lock:
            known = {*self._proofs, *self._broken, *self._failures}
            return self._up and any(key in self._resident and key not in known for key in wanted)

    # -- what is reported -------------------------------------------------------------------------------------------

    def states(self, wanted: Sequence[Wanted]) -> list[ModelState]:
        """The state of every wanted version: `ready` only when it is loaded, whole, and gave its known answer."""
        with self._lock:
            return [self._state(wish) for wish in wanted]

    def _state(self, wish: Wanted) -> ModelState:
        def say(state: str, reason: str = "") -> ModelState:
            return ModelState(wish.key.model, wish.key.version, wish.digest, state, reason)

        key = wish.key
        proof = self._proofs.get(key)
        phase = self._phases.get(key, ("", 0))[0]
        proved = proof is not None and proof.digest == wish.digest and self._resident.get(key) == wish.digest
        if self._up and proved and key not in self._broken and phase in ("", "checking"):
            return say("ready")
        if phase and phase != "checking":
            return say("pulling" if phase == "pulling" else "loading", self._broken.get(key, ""))
        failure = self._failures.get(key)
        if failure is not None and failure.digest == wish.digest:
            return say("failed", failure.reason)
        if key in self._refused:
            return say("failed", self._refused[key])
        return say("loading", self._broken.get(key, "") if self._up else "Triton does not answer")

    def _fresh(self, key: Key, digest: str, now: float) -> bool:
        proof = self._proofs.get(key)
        return proof is not None and proof.digest == digest and now - proof.at < self._probe_s

    def _forget(self, key: Key) -> None:
        self._proofs.pop(key, None)
        self._broken.pop(key, None)
        self._resident.pop(key, None)
