"""Drift: what the kernel has imported against what the step gets; and one lock against another."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roblox_ml._env import _drift
from roblox_ml._env._drift import changes, drift
from roblox_ml._env._installed import Distribution, Installed

HEADER = "# roblox-ml environment lock, schema 1\n# python 3.11\n# platform linux_x86_64\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site folder with one distribution, which this process imports while the test says so."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def install(version: str, age: float = 0.0) -> Installed:
        info = folder / f"driftling-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: driftling\nVersion: {version}\n")
        (folder / "driftling.py").write_text(f"__version__ = {version!r}\n")
        os.utime(info, (time.time() - age, time.time() - age))
        return Installed.of([Distribution("driftling", version, (), ("driftling",))], key=f"{tmp_path}{version}{age}")

    monkeypatch.delitem(sys.modules, "driftling", raising=False)
    yield install
    sys.modules.pop("driftling", None)


def test_a_package_upgraded_under_the_kernel_is_told(site, tmp_path) -> None:
    now = site("1.0")
    assert __import__("driftling").__version__ == "1.0"
    assert drift(["driftling"], {"driftling": "1.0"}, now) == ()
    (tmp_path / "site-packages" / "driftling-1.0.dist-info").rename(tmp_path / "gone")
    now = site("2.0")
    (note,) = drift(["driftling"], {"driftling": "2.0"}, now)
    assert note == "this kernel has imported driftling 1.0, the step gets 2.0: restart the kernel"
    del sys.modules["driftling"]
    assert drift(["driftling"], {"driftling": "2.0"}, now) == (), "not imported: nothing to restart for"


def test_a_version_spelled_otherwise_is_no_drift(site) -> None:
    now = site("4.10.0.84")
    __import__("driftling").__version__ = "4.10.0"
    assert drift(["driftling"], {}, now) == ()
    old = site("5.0", age=10 * 365 * 86400)
    assert drift(["driftling"], {}, Installed.of(old.distributions.values(), key="old")) == (), (
        "installed before the kernel"
    )


def test_a_module_from_elsewhere_is_told(site, tmp_path, monkeypatch) -> None:
    now = site("1.0")
    other = ModuleType("driftling")
    other.__file__ = str(tmp_path / "elsewhere" / "driftling.py")
    monkeypatch.setitem(sys.modules, "driftling", other)
    (note,) = drift(["driftling"], {"driftling": "1.0"}, now)
    assert "elsewhere" in note and "not from the package driftling 1.0" in note


def test_a_system_package_that_is_missing_here_is_told() -> None:
    _drift._lacking.cache_clear()
    (note,) = drift([], {}, Installed.of([]), ("libc6", "libno-such-thing9"))
    assert "libno-such-thing9" in note


versions = st.from_regex(r"[0-9]\.[0-9]", fullmatch=True)
pins = st.dictionaries(st.sampled_from(["numpy", "six", "polars", "torch"]), versions)


@given(pins, pins)
def test_changes_name_every_difference_and_nothing_else(old: dict[str, str], new: dict[str, str]) -> None:
    def lock(pins: dict[str, str]) -> str:
        return HEADER + "".join(f"{name}=={version}\n" for name, version in pins.items())

    told = changes(lock(old), lock(new))
    assert {note.split()[0] for note in told} == {n for n in old.keys() | new.keys() if old.get(n) != new.get(n)}
    assert changes(lock(old), lock(old)) == ()
    assert len(changes(lock(new), lock(old))) == len(told)
