"""System packages: found by Debian's records or the loader's, refused with what the image needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from roblox_ml._env import lock_for
from roblox_ml._runtime import bootstrap, environments, system_packages
from roblox_ml._store import open_store
from roblox_ml.errors import EnvironmentError_

STATUS = """Package: libgomp1
Status: install ok installed
Version: 12

Package: removed-thing
Status: deinstall ok config-files
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(system_packages, "_DPKG", tmp_path)
    monkeypatch.setattr(system_packages, "_libraries", lambda: frozenset({"libz.so.1", "libssl.so.3"}))
    return tmp_path


def test_debian_s_record_is_read(machine: Path) -> None:
    (machine / "status").write_text(STATUS)
    assert system_packages.missing(["libgomp1"]) == []
    assert system_packages.missing(["removed-thing", "libgomp1", "ffmpeg"]) == ["removed-thing", "ffmpeg"]


def test_distroless_images_keep_a_folder(machine: Path) -> None:
    (machine / "status.d").mkdir()
    (machine / "status.d" / "libgomp1").write_text("Package: libgomp1\nVersion: 12\n")
    assert system_packages.missing(["libgomp1"]) == []


def test_without_a_record_the_loader_is_asked(machine: Path) -> None:
    assert system_packages.missing(["libz1", "libz.so.1", "libssl3t64", "libgomp1"]) == ["libgomp1"]


def test_what_is_missing_is_named_with_what_the_image_needs(machine: Path) -> None:
    with pytest.raises(EnvironmentError_) as error:
        system_packages.check(["libgomp1", "ffmpeg"])
    text = str(error.value)
    assert "libgomp1, ffmpeg" in text and "apt-get install --no-install-recommends libgomp1 ffmpeg" in text
    assert "RML_STEP_IMAGE" in text
    (machine / "status").write_text(STATUS + "\nPackage: ffmpeg\nStatus: install ok installed\n")
    system_packages.check(["libgomp1", "ffmpeg"])


def test_a_step_looks_before_it_starts_and_each_time(machine: Path, monkeypatch) -> None:
    """Through lock and bootstrap: in this interpreter, whose packages would do."""
    (machine / "status").write_text(STATUS)
    lock = lock_for(frozenset(), (), ["libgomp1"])
    assert environments.parse(lock.text).system == ("libgomp1",) and "# system libgomp1" in lock.text
    assert lock.digest != lock_for(frozenset()).digest, "the lock, and so the IR, says it"
    open_store().put(lock.text.encode())
    assert bootstrap._environment(lock.digest) is None
    (machine / "status").write_text("")
    with pytest.raises(EnvironmentError_, match="libgomp1"):
        bootstrap._environment(lock.digest)
