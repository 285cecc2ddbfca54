"""Bundles and stage 0: refused when damaged or hostile, unpacked once by many processes, whatever was killed before."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from roblox_ml._runtime import bundles
from roblox_ml._runtime.bundles import BundleRefused, unpacked
from roblox_ml._runtime.stage0 import STAGE0, command
from roblox_ml._store import BlobCorrupt, open_store


def archive(*members: tuple[str | zipfile.ZipInfo, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, text in members:
            target.writestr(name, text)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def test_unpacked_once_and_kept() -> None:
    digest = open_store().put(archive(("a.py", "x = 1"), ("deep/b.py", "y = 2")))
    folder = unpacked(digest)
    assert (folder / "deep" / "b.py").read_text() == "y = 2"
    before = (folder / "a.py").stat().st_ino
    assert unpacked(digest) == folder and (folder / "a.py").stat().st_ino == before


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py", "a\\..\\evil.py", "C:/evil.py"])
def test_a_path_that_leaves_the_folder_is_refused(name: str) -> None:
    digest = open_store().put(archive(("good.py", ""), (name, "evil")))
    with pytest.raises(BundleRefused, match="outside its folder"):
        unpacked(digest)
    assert not (bundles.cache_folder() / "code" / digest).exists()


def test_a_link_is_refused() -> None:
    digest = open_store().put(archive((link("a"), "/etc"), ("a/passwd", "evil")))
    with pytest.raises(BundleRefused):
        unpacked(digest)


def test_a_bundle_of_a_later_schema_is_refused() -> None:
    digest = open_store().put(archive(("MANIFEST.json", '{"schema": 2}'), ("rml_step.py", "")))
    with pytest.raises(BundleRefused, match="schema 2"):
        unpacked(digest)


def test_a_damaged_bundle_is_refused() -> None:
    store = open_store()
    digest = store.put(archive(("a.py", "")))
    path = store.path_of(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(BlobCorrupt, match="damaged"):
        unpacked(digest)


def test_what_a_killed_unpacking_left_is_replaced() -> None:
    digest = open_store().put(archive(("a.py", "whole")))
    half = bundles.cache_folder() / "code" / digest
    half.mkdir(parents=True)
    (half / "a.py").write_text("ha")
    assert (unpacked(digest) / "a.py").read_text() == "whole"


def test_many_processes_unpack_once(tmp_path: Path) -> None:
    digest = open_store().put(archive(*((f"m{n}.py", f"x = {n}") for n in range(50))))
    program = (
        "import sys; from roblox_ml._runtime import bundles\n"
        "original = bundles._unpack\n"
        "def counted(*a): print('unpacking'); original(*a)\n"
        "bundles._unpack = counted\n"
        "assert (bundles.unpacked(sys.argv[1]) / 'm49.py').read_text() == 'x = 49'\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, digest], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 6
    assert "".join(said).count("unpacking") == 1


def run_stage0(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *command()[1:], *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


SDK = archive(
    ("roblox_ml/__init__.py", ""),
    ("roblox_ml/_runtime/__init__.py", ""),
    ("roblox_ml/_runtime/bootstrap.py", "def main(argv): print('in', __file__, *argv)"),
)


def test_stage0_brings_in_the_sdk_and_hands_over(rml_home: Path) -> None:
    digest = open_store().put(SDK)
    for _ in range(2):
        done = run_stage0("--sdk", digest, "--x", "1")
        assert done.stdout.split() == [
            "in",
            f"{rml_home}/cache/sdk/{digest}/roblox_ml/_runtime/bootstrap.py",
            "--sdk",
            digest,
            "--x",
            "1",
        ]
    assert [p.name for p in (rml_home / "cache" / "sdk").iterdir()] == [digest]


def test_stage0_refuses_a_damaged_sdk(rml_home: Path) -> None:
    digest = hashlib.sha256(SDK).hexdigest()
    path = open_store().path_of(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(SDK + b" ")
    done = run_stage0("--sdk", digest)
    assert done.returncode != 0 and "damaged" in done.stderr
    assert not (rml_home / "cache" / "sdk").exists()


def test_stage0_falls_back_to_a_temporary_home(rml_home: Path, tmp_path: Path) -> None:
    digest = open_store().put(SDK)
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run_stage0("--sdk", digest, RML_HOME=str(blocked), RML_STORE=(rml_home / "store").as_uri())
    assert done.stdout.startswith("in ") and str(rml_home) not in done.stdout


def test_stage0_fits_a_command_line_and_kfp_local_takes_it() -> None:
    assert len(STAGE0) < 1600
    assert "kfp.dsl.executor_main" in STAGE0
    # kfp.local replaces this word by a path wherever it stands.
    assert "python3" not in STAGE0
