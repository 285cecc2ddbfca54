"""Index settings are pip's, and uv's words become findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from roblox_ml._env._index import _failure, _hopeless, _read
from roblox_ml._env._wheels import hashes_in
from roblox_ml._runtime import indexes
from roblox_ml._runtime.indexes import PipSettings, index_flags, pip_settings, redact, uv_environment


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write pip's files; nothing of this machine's own configuration is seen."""
    import os

    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(indexes, "_config_files", lambda: sorted(tmp_path.glob("pip-*.conf")))

    def write(number: int, text: str) -> None:
        (tmp_path / f"pip-{number}.conf").write_text(text)

    return write


def test_later_files_win_and_install_beats_global(pip) -> None:
    pip(1, "[global]\nindex-url = https://one/simple\nfind-links = /wheels\n    /more\n")
    pip(2, "[global]\nindex-url = https://two/simple\n[install]\nno_index = true\ntrusted-host = two\n")
    settings = pip_settings()
    assert settings.index_url == "https://two/simple" and settings.no_index and settings.trusted_hosts == ("two",)
    assert settings.find_links == ("/wheels", "/more")


def test_the_environment_replaces_what_the_files_say(pip, monkeypatch) -> None:
    pip(1, "[global]\nextra-index-url = https://file/simple\ncert = /ca.pem\ntimeout = 7\n")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a/simple https://b/simple")
    settings = pip_settings()
    assert settings.extra_index_urls == ("https://a/simple", "https://b/simple")
    assert uv_environment(settings)["UV_HTTP_TIMEOUT"] == "7"


def test_a_broken_file_sets_nothing(pip) -> None:
    pip(1, "index-url = no section")
    assert pip_settings() == PipSettings()


def test_what_is_set_for_uv_wins(pip, monkeypatch) -> None:
    pip(1, "[global]\nindex-url = https://one/simple\n")
    monkeypatch.setenv("UV_INDEX_URL", "https://uv/simple")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "3")
    assert "--index-url" not in index_flags() and uv_environment()["UV_HTTP_TIMEOUT"] == "3"


def test_config_files_can_be_switched_off(monkeypatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert indexes._config_files() == []
    monkeypatch.setenv("PIP_CONFIG_FILE", "/my/pip.conf")
    files = indexes._config_files()
    assert files[-1] == Path("/my/pip.conf") and Path("/etc/pip.conf") in files


def test_flags_and_variables_together_say_what_pip_says(monkeypatch) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = PipSettings("https://i/simple", ("https://e/simple",), ("/w",), trusted_hosts=("h",))
    assert index_flags(settings) == ["--find-links", "/w", "--allow-insecure-host", "h"]
    said = uv_environment(settings)
    assert (said["UV_DEFAULT_INDEX"], said["UV_EXTRA_INDEX_URL"]) == ("https://i/simple", "https://e/simple")
    closed = PipSettings("https://i/simple", find_links=("/w",), no_index=True)
    assert index_flags(closed) == ["--find-links", "/w", "--no-index"] and "UV_DEFAULT_INDEX" not in uv_environment(
        closed
    )


def test_no_address_is_put_on_a_command_line() -> None:
    """Every user of a machine can read the arguments of every process, and an address may hold a password."""
    settings = PipSettings("https://me:secret@i/simple", ("https://me:secret@e/simple",))
    assert not any("secret" in flag or "://" in flag for flag in index_flags(settings))


def test_a_named_index_is_looked_up_and_its_password_kept_apart(rml_home, monkeypatch) -> None:
    assert indexes.named_url("team") is None
    (rml_home / "indexes.json").write_text('{"team": "https://file/simple"}')
    assert indexes.named_url("team") == "https://file/simple"
    monkeypatch.setenv("RML_INDEX_TEAM_URL", "https://env/simple")
    assert indexes.named_url("team") == "https://env/simple" == indexes.named_url("team", "NOT_SET")
    monkeypatch.setenv("OWN", "https://me:p%40ss@own:8080/simple")
    url = indexes.named_url("team", "OWN")
    assert indexes.bare(url) == "https://own:8080/simple"
    assert indexes.named_credentials({"my-team": url}) == {
        "UV_INDEX_MY_TEAM_USERNAME": "me", "UV_INDEX_MY_TEAM_PASSWORD": "p@ss",
    }  # fmt: skip


def test_passwords_do_not_reach_a_message() -> None:
    assert redact("error at https://me:secret@host/simple") == "error at https://***@host/simple"


def test_a_lock_is_read_back() -> None:
    a, b = "a" * 64, "b" * 64
    text = f"Foo.Bar[x]==1.0 \\\n    --hash=sha256:{b} \\\n    --hash=sha256:{a}\ntorch==2.0+cpu\n"
    found = _read(text)
    assert found["foo-bar"].version == "1.0" and found["foo-bar"].hashes == (f"sha256:{a}", f"sha256:{b}")
    assert found["torch"].version == "2.0+cpu" and found["torch"].hashes == ()


def test_uv_s_words_name_the_hopeless_requirements() -> None:
    said = "Because nothere was not found in the package registry and you require nothere==1, we can conclude …"
    assert [(line, finding.code) for line, finding in _hopeless(said, ["numpy", "nothere==1"])] == [
        ("nothere==1", "unknown-package")
    ]
    said = "Because there is no version of numpy==99.1 and you require numpy==99.1, we can conclude that …"
    assert [(line, finding.code) for line, finding in _hopeless(said, ["numpy==99.1"])] == [
        ("numpy==99.1", "unknown-version")
    ]
    said = "Because a==1 depends on b>2 and there are no versions of b>2, we can conclude that …"
    assert _hopeless(said, ["a==1", "b"]) == [], "b itself is fine; a conflict is told as one"


def test_other_failures_are_told_apart() -> None:
    assert _failure("error: No solution found … unsatisfiable").code == "packages-conflict"
    assert _failure("error: Request failed: Connection refused").code == "index-unreachable"


def test_wheels_in_find_links_folders_are_hashed(tmp_path: Path) -> None:
    import hashlib

    names = [
        "torch-2.0+cpu-cp311-cp311-linux_x86_64.whl",
        "torch-2.1-py3-none-any.whl",
        "other-2.0-py3-none-any.whl",
        "torch-x.whl",
    ]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    wanted = (f"sha256:{hashlib.sha256(names[0].encode()).hexdigest()}",)
    assert hashes_in([str(tmp_path)], "torch", "2.0+cpu") == wanted
    assert (
        hashes_in([tmp_path.as_uri(), str(tmp_path), "https://host/wheels", "/not/there"], "torch", "2.0+cpu") == wanted
    )
    assert hashes_in([str(tmp_path)], "torch", "2.2") == ()
