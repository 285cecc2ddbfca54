"""`lock_for` over what this interpreter has; a stand-in answers for the index, and every question to it is counted."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from roblox_ml._env import LockError, _locks, lock_for
from roblox_ml._env._index import Resolved
from roblox_ml._env._installed import installed
from roblox_ml._runtime import environments
from roblox_ml.errors import EnvironmentError_, PipelineError

HAVE = installed().distributions


def fake_hash(name: str, version: str) -> tuple[str, ...]:
    return tuple(sorted(f"sha256:{hashlib.sha256(f'{name}{version}{n}'.encode()).hexdigest()}" for n in range(2)))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """No index is asked; the questions that would have gone there are recorded."""
    asked: list[object] = []
    _locks._answer.cache_clear()

    def hashes_of(pins, named):
        asked.append(dict(pins))
        return {name: fake_hash(name, version) for name, version in pins.items()}

    def resolve(lines, preferences, named, links):
        asked.append(sorted(lines))
        pins = {"numpy": HAVE["numpy"].version, "brand-new": "1.0", "scikit-learn": "0.0.1"}
        return {name: Resolved(version, fake_hash(name, version)) for name, version in pins.items()}

    monkeypatch.setattr(_locks, "hashes_of", hashes_of)
    monkeypatch.setattr(_locks, "resolve", resolve)
    return asked


def test_the_text_is_canonical_and_its_digest_is_the_lock_s(index) -> None:
    lock = lock_for(frozenset({"pandas", "json"}))
    assert lock.digest == hashlib.sha256(lock.text.encode()).hexdigest()
    names = re.findall(r"^([a-z0-9-]+)==", lock.text, re.MULTILINE)
    assert names == sorted(names) == list(lock.pins) and {"pandas", "numpy", "pyarrow"} <= set(names)
    for block in lock.text.split("\n\n"):
        hashes = re.findall(r"--hash=(\S+)", block)
        assert hashes
    assert "/" not in lock.text.replace("https://", "?/") and "http" not in lock.text, "no path, no index"
    parsed = environments.parse(lock.text)
    assert (parsed.python, parsed.platform, dict(parsed.pins)) == (lock.python, lock.platform, dict(lock.pins))


def test_what_is_installed_runs_in_place(index) -> None:
    lock = lock_for(frozenset({"numpy"}))
    assert lock.in_place and environments.in_place(lock.text) and lock.notes == ()


def test_a_step_without_packages_has_an_empty_lock(index) -> None:
    lock = lock_for(frozenset({"json", "roblox_ml"}))
    assert lock.pins == {} and lock.in_place and environments.in_place(lock.text)


def test_the_same_request_asks_once(index, rml_home: Path) -> None:
    first = lock_for(frozenset({"numpy"}))
    _locks._answer.cache_clear()
    assert lock_for(frozenset({"numpy"})) == first
    assert len(index) == 1
    for file in (rml_home / "locks").glob("*.txt"):
        file.write_text("damaged")
    _locks._answer.cache_clear()
    assert lock_for(frozenset({"numpy"})) == first, "a damaged cache is as good as none"


def test_a_requirement_that_is_met_needs_no_resolving(index) -> None:
    lock = lock_for(frozenset({"numpy"}), [f"numpy=={HAVE['numpy'].version}", "pandas>1"])
    assert lock.in_place and "pandas" in lock.pins
    assert all(isinstance(question, dict) for question in index), "hashes only"


def test_an_override_keeps_the_rest_and_says_what_changed(index) -> None:
    lock = lock_for(frozenset({"sklearn"}), ["scikit-learn==0.0.1", "brand-new"])
    lines = next(question for question in index if isinstance(question, list))
    assert "scikit-learn==0.0.1" in lines and "brand-new" in lines and "skops" in lines
    assert not lock.in_place and not environments.in_place(lock.text)
    assert any(note.startswith("scikit-learn") and "→ 0.0.1 (asked for)" in note for note in lock.notes)
    assert "brand-new 1.0 is added (asked for)" in lock.notes


def test_a_build_label_survives_an_override(index) -> None:
    torch = HAVE["torch"].version
    assert "+cpu" in torch
    lock_for(frozenset({"torch", "sklearn"}), ["scikit-learn==0.0.1"])
    assert any(f"torch=={torch}" in question for question in index if isinstance(question, list))
    lock_for(frozenset({"torch"}), ["torch==2.0.0"])
    assert any("torch==2.0.0+cpu" in question for question in index if isinstance(question, list))


def test_a_resolution_is_kept_until_one_of_its_packages_changes(index, monkeypatch) -> None:
    lock_for(frozenset({"sklearn"}), ["brand-new"])
    _locks._answer.cache_clear()
    for file in (_locks.folder("requests")).iterdir():
        file.unlink()
    lock_for(frozenset({"sklearn"}), ["brand-new"])
    assert sum(isinstance(question, list) for question in index) == 1
    assert _locks._still_true({"numpy": ["1", "1"]}, {"numpy": "1"}) == {"numpy": "1"}
    assert _locks._still_true({"numpy": ["1", "1"]}, {"numpy": "2"}) is None


def test_all_findings_come_at_once_and_no_index_is_asked(index) -> None:
    with pytest.raises(LockError) as error:
        lock_for(frozenset({"no_such_module", "cv2"}), ["numpy ==", "x @ https://host/x.whl", "roblox-ml"])
    assert [finding.code for finding in error.value.findings] == ["bad-requirement"] * 3 + ["missing-import"] * 2
    assert isinstance(error.value, PipelineError) and isinstance(error.value, EnvironmentError_)
    assert index == []


def test_two_processes_with_other_hash_seeds_agree(rml_home: Path) -> None:
    program = (
        "from roblox_ml._env import _locks;"
        "_locks.hashes_of = lambda pins, named: {n: ('sha256:' + 'b'*64, 'sha256:' + 'a'*64) for n in pins};"
        "print(_locks.lock_for(frozenset({'transformers', 'sklearn', 'pandas', 'torch'})).text)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "RML_HOME": str(rml_home / seed), "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1 and "torch==" in texts.pop()


def test_the_parser_refuses_what_is_no_lock() -> None:
    with pytest.raises(EnvironmentError_, match="schema"):
        environments.parse("numpy==1\n")


def test_another_python_or_platform_is_not_in_place_and_cannot_be_built(tmp_path: Path) -> None:
    header = "# roblox-ml environment lock, schema 1\n# python {}\n# platform {}\n"
    for text, says in (
        (header.format("3.9", environments.platform_tag()), "Python 3.9"),
        (header.format(environments.python_minor(), "win_arm64"), "win_arm64"),
    ):
        assert not environments.in_place(text)
        with pytest.raises(EnvironmentError_, match=says):
            environments.ensure(text, hashlib.sha256(text.encode()).hexdigest(), tmp_path)
    with pytest.raises(EnvironmentError_, match="digest"):
        environments.ensure(text, "0" * 64, tmp_path)
