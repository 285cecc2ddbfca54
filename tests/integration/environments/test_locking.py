"""`lock_for` with real uv over an index of our own: hashes, overrides, conflicts, and the way into an environment."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from roblox_ml._env import LockError, _index, _locks, lock_for
from roblox_ml._env._installed import Distribution, Installed
from roblox_ml._runtime import environments, indexes


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch):
    """Pretend that this interpreter has these distributions and no others."""

    def pretend(*distributions: Distribution) -> None:
        snapshot = Installed.of(distributions, key=str(distributions))
        monkeypatch.setattr(_locks, "installed", lambda: snapshot)
        _locks._answer.cache_clear()

    return pretend


def dist(name: str, version: str, *requires: str, origin: str = "index") -> Distribution:
    return Distribution(name, version, requires, (name.replace("-", "_"),), origin)


def test_pins_are_hashed_kept_and_enough_for_an_environment(wheels, here, monkeypatch) -> None:
    wheels("tiny-one", "1.0", "tiny-two"), wheels("tiny-one", "1.1"), wheels("tiny-two", "2.0")
    here(dist("tiny-one", "1.0", "tiny-two"), dist("tiny-two", "2.0"))
    lock = lock_for(frozenset({"tiny_one"}))
    assert dict(lock.pins) == {"tiny-one": "1.0", "tiny-two": "2.0"} and lock.in_place
    assert "wheels" not in lock.text, "where packages come from is no business of a lock"
    python = environments.ensure(lock.text, lock.digest)
    assert subprocess.run([python, "-c", "import tiny_one, tiny_two"], check=False).returncode == 0
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    here(dist("tiny-two", "2.0"), dist("tiny-one", "1.0", "tiny-two"))
    assert lock_for(frozenset({"tiny_one"})).text == lock.text, "known hashes need no index"


def test_an_override_moves_what_it_must_and_nothing_else(wheels, here) -> None:
    for version in ("1.0", "2.0"):
        wheels("tiny-one", version, f"tiny-two=={version}", "tiny-three")
        wheels("tiny-two", version)
    wheels("tiny-three", "1.0"), wheels("tiny-three", "9.0")
    here(dist("tiny-one", "2.0", "tiny-two==2.0", "tiny-three"), dist("tiny-two", "2.0"), dist("tiny-three", "1.0"))
    lock = lock_for(frozenset({"tiny_one"}), ["tiny-one<2"])
    assert dict(lock.pins) == {"tiny-one": "1.0", "tiny-three": "1.0", "tiny-two": "1.0"} and not lock.in_place
    assert lock.notes == ("tiny-one 2.0 → 1.0 (asked for)", "tiny-two 2.0 → 1.0 (so that the set fits)")


def test_a_package_that_is_not_installed_comes_with_what_it_needs(wheels, here) -> None:
    wheels("tiny-new", "3.0", "tiny-two>=1"), wheels("tiny-two", "1.0"), wheels("tiny-two", "1.5")
    here(dist("tiny-two", "1.0"))
    lock = lock_for(frozenset({"tiny_new"}), ["tiny-new"])
    assert dict(lock.pins) == {"tiny-new": "3.0", "tiny-two": "1.0"}
    assert lock.notes == ("tiny-new 3.0 is added (asked for)",)


def test_a_build_label_is_kept_by_an_override(wheels, here) -> None:
    wheels("tiny-torch", "1.0+cpu"), wheels("tiny-torch", "1.0"), wheels("tiny-torch", "2.0"), wheels("tiny-two", "1.0")
    here(dist("tiny-torch", "1.0+cpu"), dist("tiny-two", "2.0"))
    lock = lock_for(frozenset({"tiny_torch", "tiny_two"}), ["tiny-two==1.0"])
    assert dict(lock.pins) == {"tiny-torch": "1.0+cpu", "tiny-two": "1.0"}


def test_source_installs_stay_out_but_their_needs_are_met(wheels, here) -> None:
    wheels("tiny-two", "1.0"), wheels("tiny-one", "1.0")
    here(dist("mine", "0.1", "tiny-two", origin="local"), dist("tiny-two", "2.0"), dist("tiny-one", "2.0"))
    lock = lock_for(frozenset({"mine", "tiny_one"}), ["tiny-one==1.0", "tiny-two==1.0"])
    assert dict(lock.pins) == {"tiny-one": "1.0", "tiny-two": "1.0"} and lock.local == ("mine",)


def test_all_that_no_index_has_is_told_at_once(wheels, here) -> None:
    wheels("tiny-one", "1.0")
    here(dist("tiny-one", "1.0"), dist("tiny-two", "2.0"), dist("tiny-three", "3.0"))
    with pytest.raises(LockError) as error:
        lock_for(frozenset({"tiny_one", "tiny_two", "tiny_three"}))
    assert len(error.value.findings) == 2
    assert "tiny-two" in str(error.value) and "tiny-three" in str(error.value)


def test_a_set_that_cannot_be_is_explained(wheels, here) -> None:
    wheels("tiny-one", "1.0", "tiny-two<2"), wheels("tiny-two", "1.0"), wheels("tiny-two", "2.0")
    here(dist("tiny-one", "1.0", "tiny-two<2"), dist("tiny-two", "1.0"))
    with pytest.raises(LockError, match="tiny-one") as error:
        lock_for(frozenset({"tiny_one"}), ["tiny-one==1.0", "tiny-two==2.0"])
    assert [finding.code for finding in error.value.findings] == ["packages-conflict"]


def test_this_interpreter_s_own_packages_can_be_locked_and_built(tmp_path: Path) -> None:
    """The whole way with the index this machine is set to."""
    _locks._answer.cache_clear()
    try:
        lock = lock_for(frozenset({"packaging", "iniconfig"}))
        older = lock_for(frozenset({"iniconfig"}), ["iniconfig<2"])
    except LockError as error:
        if any(finding.code == "index-unreachable" for finding in error.findings):
            pytest.skip(f"no package index answers: {error}")
        raise
    assert lock.in_place and not older.in_place
    python = environments.ensure(older.text, older.digest)
    program = "import importlib.metadata as m; print(m.version('iniconfig'))"
    assert (
        subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()
        == older.pins["iniconfig"]
    )


def test_a_cpu_build_comes_from_its_own_index_when_no_folder_has_it(wheels, here, tmp_path: Path, monkeypatch) -> None:
    """PyTorch's CPU index is played by a folder; the machine's own index does not have the build."""
    build = wheels("tiny-torch", "1.0+cpu")
    simple = tmp_path / "cpu-index"
    for index in (simple / "tiny-torch", tmp_path / "own-index" / "tiny-torch"):
        index.mkdir(parents=True)
        (index / "index.html").write_text("")
    build.rename(simple / "tiny-torch" / build.name)
    digest = hashlib.sha256((simple / "tiny-torch" / build.name).read_bytes()).hexdigest()
    link = f'<a href="{build.name.replace("+", "%2B")}#sha256={digest}">{build.name}</a>'
    (simple / "tiny-torch" / "index.html").write_text(link)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "own-index").as_uri())
    here(dist("tiny-torch", "1.0+cpu"))
    monkeypatch.setattr(_index, "TORCH_CPU_INDEX", (tmp_path / "own-index").as_uri())
    with pytest.raises(LockError, match=r"1\.0\+cpu"):
        lock_for(frozenset({"tiny_torch"}))
    for module in (_index, indexes):
        monkeypatch.setattr(module, "TORCH_CPU_INDEX", simple.as_uri())
    lock = lock_for(frozenset({"tiny_torch"}))
    python = environments.ensure(lock.text, lock.digest)
    program = "import tiny_torch; print(tiny_torch.version)"
    assert subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip() == "1.0+cpu"
