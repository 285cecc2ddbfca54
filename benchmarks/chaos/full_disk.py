"""A disk that is really full: the kernel's own ENOSPC for what doors write, and space again a moment later.

No disk of the machine is filled for that. In this order, whatever the machine allows:

1. a tmpfs in a user and mount namespace, which needs no rights; doors join it, everybody else looks in through /proc;
2. a tmpfs mounted for all to see, where root may mount and namespaces are switched off;
3. a small tmpfs that is there already (a container's /dev/shm, 64 MB), filled for as long as it takes;
4. none of these: a limit on the doors' file sizes. Writing then fails with EFBIG instead of ENOSPC, in the same place.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

__all__ = ["FullDisk", "Unavailable", "every_way", "limited", "mounted", "namespace", "open_disk", "shared"]

#: Room for everything a run records; when it is full, this is what it costs in memory.
SIZE = 64 << 20
_LEAST = 24 << 20
_FILLER = "filler"
_NO_FILE_LONGER = 512


class Unavailable(Exception):
    """This machine has no such disk; says why."""


@dataclass(slots=True)
class FullDisk:
    """A folder whose disk can be filled.

    Attributes:
        folder: where processes started with `command` write.
        seen: the same folder for everybody else.
        about: what it is, for people.
        real: its end of space is the kernel's ENOSPC.
    """

    folder: Path
    seen: Path
    about: str
    real: bool = True
    prefix: tuple[str, ...] = ()
    end: Callable[[], None] = lambda: None
    refused: list[str] = field(default_factory=list)  # what the machine did not allow, and why

    def command(self, command: Iterable[str]) -> list[str]:
        """The command, so that it writes there."""
        return [*self.prefix, *command]

    def fill(self, writers: Iterable[int]) -> None:
        """No byte more fits in; `writers` are the processes that write there."""
        if not self.real:
            _limit(writers, _NO_FILE_LONGER)
            return
        size = 1 << 20
        with (self.seen / _FILLER).open("ab", buffering=0) as filler:
            while size:
                try:
                    if filler.write(bytes(size)) < size:
                        raise OSError
                except OSError:
                    size //= 2

    def empty(self, writers: Iterable[int]) -> None:
        """There is space again."""
        if not self.real:
            _limit(writers, resource.RLIM_INFINITY)
            return
        (self.seen / _FILLER).unlink()

    def close(self) -> None:
        """It and what it holds are gone."""
        self.end()


def open_disk(folder: Path) -> FullDisk:
    """The first that this machine has; `folder` is a new one, where the disk shall be seen."""
    refused: list[str] = []
    for way in every_way():
        try:
            found = way(folder)
        except Unavailable as error:
            refused.append(str(error))
            continue
        found.refused = refused
        return found
    raise AssertionError("the last way takes any machine")


def every_way() -> list[Callable[[Path], FullDisk]]:
    """From the best to the fallback."""
    return [namespace, mounted, shared, limited]


def namespace(folder: Path) -> FullDisk:
    """Mounted where only the doors see it."""
    what = "a tmpfs in a user namespace"
    folder.mkdir(parents=True, exist_ok=True)
    # The holder ends with its standard input: also when this process is killed.
    script = f'mount -t tmpfs -o size={SIZE},mode=700 tmpfs "$1" && echo there && exec cat'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder)]
    pipe = subprocess.PIPE
    try:
        holder = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from None
    assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None

    def end() -> None:
        with contextlib.suppress(OSError):
            holder.communicate(timeout=10)

    if holder.stdout.readline() != b"there\n":
        raise Unavailable(f"{what}: {holder.communicate()[1].decode().strip() or 'refused'}")
    prefix = ("nsenter", "--target", str(holder.pid), "--user", "--mount", "--preserve-credentials", "--")
    found = FullDisk(folder, Path(f"/proc/{holder.pid}/root{folder}"), what, prefix=prefix, end=end)
    try:
        _check(found)
    except Unavailable:
        end()
        raise
    return found


def mounted(folder: Path) -> FullDisk:
    """Mounted for all to see."""
    what = "a mounted tmpfs"
    if os.geteuid():
        raise Unavailable(f"{what}: only root may mount")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode().strip()
        raise Unavailable(f"{what}: {said or error}") from None
    return FullDisk(folder, folder, what, end=lambda: _run("umount", "--lazy", str(folder)))


def shared(_: Path, places: Iterable[Path] = (Path(f"/run/user/{os.geteuid()}"), Path("/dev/shm"))) -> FullDisk:
    """A folder on the first of the places that is small enough to be filled, and large enough for a run."""
    reasons = []
    for place in places:
        try:
            state = os.statvfs(place)
        except OSError:
            reasons.append(f"no {place}")
            continue
        size, left = state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
        if size > SIZE or left < _LEAST or not os.access(place, os.W_OK):
            reasons.append(f"{place} has {size >> 20} MB, {left >> 20} free")
            continue
        folder = Path(tempfile.mkdtemp(prefix="rml-chaos-", dir=place))
        return FullDisk(folder, folder, f"the small {place}", end=partial(shutil.rmtree, folder))
    raise Unavailable(f"a small tmpfs that is there: {', '.join(reasons)}")


def limited(folder: Path) -> FullDisk:
    """No file of the doors may be longer than a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    return FullDisk(folder, folder, "a limit on file sizes (EFBIG instead of ENOSPC)", real=False)


def _limit(writers: Iterable[int], most: int) -> None:
    for process in writers:
        _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (hard if most == resource.RLIM_INFINITY else most, hard))


def _check(found: FullDisk) -> None:
    """What is written inside is seen outside."""
    try:
        _run(*found.command(["sh", "-c", 'echo inside > "$1"', "sh", str(found.folder / "probe")]))
        assert (found.seen / "probe").read_text() == "inside\n"
        (found.seen / "probe").unlink()
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{found.about}: it cannot be entered ({error})") from None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
