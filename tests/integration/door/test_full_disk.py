"""Every way to a full disk that this machine allows: it is really full, it has space again, and nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # benchmarks are no package that is installed

from benchmarks.chaos import full_disk
from benchmarks.chaos.full_disk import FullDisk, Unavailable

#: For each line that comes in, write a file as long as it says; tell what became of it.
WRITER = """
import sys
for number, line in enumerate(sys.stdin):
    try:
        with open(f"{sys.argv[1]}/file{number}", "wb", buffering=0) as file:
            size = int(line)
            while size:
                size -= file.write(bytes(size))
        print("written", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def shared_in_a_namespace(folder: Path) -> FullDisk:
    """A small file system that is there already: here it is one that was made for it."""
    place = full_disk.namespace(folder)
    found = full_disk.shared(folder, [Path("/nowhere"), place.seen])
    remove = found.end

    def end() -> None:
        remove()
        assert not list(place.seen.iterdir()), "others use that file system too"
        place.close()

    found.end = end
    return found


WAYS: dict[str, tuple[Callable[[Path], FullDisk], str]] = {
    "namespace": (full_disk.namespace, "28"), "mounted": (full_disk.mounted, "28"), "shared": (shared_in_a_namespace, "28"),
    "limited": (full_disk.limited, "27"),
}  # fmt: skip


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[FullDisk, str]]:
    make, code = WAYS[request.param]
    try:
        found = make(tmp_path / "disk")
    except Unavailable as error:
        pytest.skip(f"not on this machine: {error}")
    try:
        yield found, code
    finally:
        found.close()


def test_it_is_full_and_has_space_again(way: tuple[FullDisk, str]) -> None:
    disk, code = way
    pipe = subprocess.PIPE
    command = disk.command([sys.executable, "-c", WRITER, str(disk.folder)])
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writer:

        def write(size: int) -> str:
            assert writer.stdin is not None and writer.stdout is not None
            print(size, file=writer.stdin, flush=True)
            return writer.stdout.readline().strip()

        assert write(100_000) == "written"
        for _ in range(2):
            disk.fill([writer.pid])
            assert write(100_000) == code
            disk.empty([writer.pid])
            assert write(100_000) == "written"
    assert (disk.seen / "file4").stat().st_size == 100_000


def test_what_the_machine_does_not_allow_is_told_and_the_last_way_takes_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # neither unshare nor mount
    monkeypatch.setattr(full_disk, "SIZE", 0)  # no tmpfs is that small
    disk = full_disk.open_disk(tmp_path / "disk")
    assert not disk.real and disk.folder.is_dir()
    assert len(disk.refused) == len(full_disk.every_way()) - 1
    assert all(": " in reason for reason in disk.refused), disk.refused
