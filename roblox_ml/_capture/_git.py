"""What git knows about the code of a run: recorded with the run, never in a bundle.

A commit elsewhere in the repository must not change a step's digest; who wants to know which commit a run came from reads the
run's record. Works without git and outside a repository: then the state is empty.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from roblox_ml._capture._types import GitState

PATCH_LIMIT = 2**20
_UNTRACKED_LIMIT = 1000


def git_state(path: str | os.PathLike[str] = ".") -> GitState:
    """Commit, branch, remote without credentials, and uncommitted changes of the repository that holds `path`."""
    folder = Path(path).resolve()
    if not folder.is_dir():
        folder = folder.parent
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return GitState()
    top = Path(root.strip())
    commit = (_git(top, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None
    branch = (_git(top, "symbolic-ref", "--quiet", "--short", "HEAD") or "").strip() or None
    remote = (_git(top, "config", "--get", "remote.origin.url") or "").strip()
    patch: str | None = ""
    if commit is not None:
        patch = _git(top, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD", "--") or ""
    others = _git(top, "ls-files", "--others", "--exclude-standard", "-z") or ""
    untracked = tuple(sorted(name for name in others.split("\0") if name))[:_UNTRACKED_LIMIT]
    dirty = bool(patch or untracked)
    if patch and len(patch.encode()) > PATCH_LIMIT:
        patch = None
    return GitState(commit, branch, without_credentials(remote) or None, dirty, patch, untracked)


def without_credentials(remote: str) -> str:
    """A remote URL without user and password; `git@host:path` has no password and stays."""
    if "://" not in remote:
        return remote
    parts = urlsplit(remote)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command, or None when it fails, takes too long, or there is no git."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=20, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
