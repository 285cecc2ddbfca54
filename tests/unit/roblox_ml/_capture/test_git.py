"""What a run records of git: real repositories in a temporary folder."""

from __future__ import annotations

import subprocess

import pytest

from roblox_ml._capture import GitState, git_state
from roblox_ml._capture._git import PATCH_LIMIT, without_credentials


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "remote", "add", "origin", "https://me:token@example.org/team/repo.git?x=1")
    return tmp_path


def test_clean(repository):
    state = git_state(repository / "a.py")
    assert (state.branch, state.dirty, state.patch, state.untracked) == ("main", False, "", ())
    assert state.commit and len(state.commit) == 40
    assert state.remote == "https://example.org/team/repo.git"


def test_dirty_and_untracked(repository):
    (repository / "a.py").write_text("x = 2\n")
    (repository / "new.py").write_text("")
    state = git_state(repository)
    assert state.dirty and "+x = 2" in state.patch and state.untracked == ("new.py",)


def test_a_huge_patch_is_left_out(repository):
    (repository / "a.py").write_text("x = 1\n" * PATCH_LIMIT)
    state = git_state(repository)
    assert state.dirty and state.patch is None


def test_before_the_first_commit_and_detached(repository, tmp_path_factory):
    git(repository, "checkout", "-q", "--detach")
    assert git_state(repository).branch is None
    empty = tmp_path_factory.mktemp("empty")
    git(empty, "init", "-q", "-b", "main")
    assert git_state(empty).commit is None


def test_outside_a_repository_and_without_git(tmp_path, repository, monkeypatch, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(outside.parent))
    assert git_state(outside) == GitState()
    monkeypatch.setenv("PATH", str(outside))
    assert git_state(repository) == GitState()


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("git@host:team/repo.git", "git@host:team/repo.git"),
        ("ssh://git:secret@host:22/repo", "ssh://host:22/repo"),
        ("https://host/repo", "https://host/repo"),
        ("/srv/repo", "/srv/repo"),
    ],
)
def test_without_credentials(remote, shown):
    assert without_credentials(remote) == shown
