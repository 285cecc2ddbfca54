"""Packages that no index could give another machine: wheels from files, folders, repositories and other people's indexes."""

from __future__ import annotations

import base64
import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import roblox_ml as rml
from roblox_ml import housekeeping
from roblox_ml._env import LockError, _carried, _locks, lock_for
from roblox_ml._env._installed import Distribution, Installed
from roblox_ml._runtime import environments
from roblox_ml._runtime.wheels import content_of, is_installed
from roblox_ml._store import open_store
from roblox_ml.errors import EnvironmentError_

Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Pretend that this interpreter has these distributions and no others."""

    def pretend(*distributions: Distribution) -> None:
        snapshot = Installed.of(distributions, key=str(distributions))
        monkeypatch.setattr(_locks, "installed", lambda: snapshot)
        _locks._answer.cache_clear()

    return pretend


def dist(name: str, version: str, *requires: str, origin: str = "index") -> Distribution:
    return Distribution(name, version, requires, (name.replace("-", "_"),), origin)


def stored(lock: _locks.Lock) -> None:
    for data in [*lock.blobs().values(), lock.text.encode()]:
        open_store().put(data)


def said_in(lock: _locks.Lock, program: str) -> str:
    python = environments.ensure(lock.text, lock.digest)
    return subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index answers: every address is a port that nobody listens on."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


def test_a_wheel_file_travels_through_the_store(wheels, here, tmp_path: Path, nowhere, monkeypatch) -> None:
    path = wheels("tiny-mine", "0.1")
    here()
    lock = lock_for(frozenset({"tiny_mine"}), [str(path)])
    assert dict(lock.pins) == {"tiny-mine": "0.1"} and not lock.in_place
    assert [wheel.filename for wheel in lock.wheels] == [path.name] and str(tmp_path) not in lock.text
    stored(lock)
    path.unlink()
    assert said_in(lock, "import tiny_mine; print(tiny_mine.version)") == "0.1"


def test_a_wheel_built_again_under_its_old_version_is_another_lock(wheels, here) -> None:
    path = wheels("tiny-mine", "0.1")
    here()
    first = lock_for(frozenset({"tiny_mine"}), [str(path)])
    wheels("tiny-mine", "0.1", "tiny-two")
    wheels("tiny-two", "2.0")
    second = lock_for(frozenset({"tiny_mine"}), [str(path)])
    assert first.digest != second.digest and "tiny-two" in second.pins


def test_a_folder_of_wheels_is_chosen_from_and_what_is_chosen_travels(
    wheels, here, tmp_path: Path, monkeypatch
) -> None:
    for version in ("1.0", "1.5", "2.0"):
        wheels("tiny-one", version, "tiny-two"), wheels("tiny-two", version)
    folder = tmp_path / "dist"
    (tmp_path / "wheels").rename(folder)
    (tmp_path / "wheels").mkdir()
    here()
    lock = lock_for(frozenset({"tiny_one"}), [str(folder), "tiny-one<2"])
    assert dict(lock.pins) == {"tiny-one": "1.5", "tiny-two": "2.0"}
    assert {wheel.name for wheel in lock.wheels} == {"tiny-one", "tiny-two"} and str(folder) not in lock.text
    stored(lock)
    folder.rename(tmp_path / "gone")
    assert said_in(lock, "import tiny_one, tiny_two; print(tiny_one.version)") == "1.5"


BACKEND = """
import base64, hashlib, pathlib, zipfile

def build_wheel(target, config_settings=None, metadata_directory=None):
    info = "tiny_git-VERSION.dist-info"
    files = {
        "tiny_git.py": pathlib.Path("tiny_git.py").read_text(),
        f"{info}/METADATA": "Metadata-Version: 2.1\\nName: tiny-git\\nVersion: VERSION\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    files[f"{info}/RECORD"] = "\\n".join([*rows, f"{info}/RECORD,,", ""])
    name = "tiny_git-VERSION-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(target) / name, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""


def repository(folder: Path, version: str) -> str:
    """A git repository whose build needs nothing but Python; the commit."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "tiny-git"\nversion = "{version}"\n'
    )
    (folder / "tiny_git.py").write_text(f"version = {version!r}\n")
    (folder / "backend.py").write_text(BACKEND.replace("VERSION", version))

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", version)
    return git("rev-parse", "HEAD")


def test_a_repository_is_taken_at_its_commit_and_built_once(here, tmp_path: Path, nowhere, monkeypatch) -> None:
    commit = repository(tmp_path / "repo", "1.0")
    repository(tmp_path / "repo", "2.0")
    here()
    asked = [f"tiny-git @ git+file://{tmp_path}/repo@{commit}"]
    lock = lock_for(frozenset({"tiny_git"}), asked)
    assert dict(lock.pins) == {"tiny-git": "1.0"} and "repo" not in lock.text
    stored(lock)
    (tmp_path / "repo").rename(tmp_path / "gone")
    assert said_in(lock, "import tiny_git; print(tiny_git.version)") == "1.0"
    here(dist("unrelated", "1"))
    assert lock_for(frozenset({"tiny_git"}), asked).digest == lock.digest, "kept: no repository is asked again"


def test_a_branch_and_a_password_are_refused_with_what_to_write(here, tmp_path: Path) -> None:
    here()
    with pytest.raises(LockError, match="name the commit"):
        lock_for(frozenset(), ["tiny-git @ git+https://example.org/r@main"])
    with pytest.raises(LockError, match="password") as error:
        lock_for(frozenset(), ["tiny-git @ git+https://me:s3cr3t@example.org/r@" + "0" * 40])
    assert "s3cr3t" not in str(error.value)


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from roblox_ml._env import lock_for
from roblox_ml._store import open_store
lock = lock_for(frozenset({{"tiny_disk", "tiny_git"}}))
for data in lock.blobs().values():
    open_store().put(data)
print(lock.in_place, *[w.filename for w in lock.wheels])
print(lock.text, end="")
"""


def test_what_was_installed_from_a_file_or_a_repository_is_packed_again(
    wheels, tmp_path: Path, rml_home: Path, nowhere
) -> None:
    """In a real environment: a wheel installed from disk, a package from git; both sources then vanish."""
    from roblox_ml._runtime.indexes import find_uv

    uv = str(find_uv())
    venv = tmp_path / "kernel"
    disk = wheels("tiny-disk", "3.0")
    commit = repository(tmp_path / "repo", "1.0")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [uv, "pip", "install", "-q", "--python", python]
    subprocess.run([*install, str(disk), f"tiny-git @ git+file://{tmp_path}/repo@{commit}"], check=True)
    packaging = Path(__import__("packaging").__file__).parent
    (venv / "lib" / f"python{environments.python_minor()}" / "site-packages" / "packaging").symlink_to(packaging)
    disk.unlink()
    (tmp_path / "repo").rename(tmp_path / "gone")
    program = PROGRAM.format(root=str(Path(rml.__file__).parents[1]))

    def ask() -> tuple[str, str]:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        first, _, text = done.stdout.partition("\n")
        return first, text

    first, text = ask()
    assert first == "True tiny_disk-3.0-py3-none-any.whl tiny_git-1.0-py3-none-any.whl"
    assert not environments.in_place(text), "this interpreter has neither"
    made = environments.ensure(text, hashlib.sha256(text.encode()).hexdigest())
    check = "import tiny_disk, tiny_git; print(tiny_disk.version, tiny_git.version)"
    assert subprocess.run([made, "-c", check], capture_output=True, text=True).stdout.split() == ["3.0", "1.0"]
    for file in rml_home.glob("locks/**/*.json"):
        file.unlink()
    assert ask()[1] == text, "packed again, the same bytes"


def test_the_content_of_a_wheel_is_told_from_its_record(wheels, tmp_path: Path) -> None:
    one = _carried.from_file(wheels("tiny-one", "1.0"))
    other = _carried.from_file(wheels("tiny-one", "1.0", "extra"))
    assert one.content != other.content
    site = tmp_path / "site-packages"
    info = site / "tiny_one-1.0.dist-info"
    info.mkdir(parents=True)
    import zipfile

    with zipfile.ZipFile(_carried.link_folder(one) / one.filename) as archive:
        record = archive.read("tiny_one-1.0.dist-info/RECORD").decode()
    own = "tiny_one-1.0.dist-info/INSTALLER,sha256=x,2\n../../bin/tiny,sha256=y,3\ntiny_one/__pycache__/a.pyc,,\n"
    (info / "RECORD").write_text(own + record)
    assert is_installed("tiny-one", one.content, [str(site)]) and not is_installed(
        "tiny-one", other.content, [str(site)]
    )
    assert content_of(record) == content_of("\n".join(reversed(record.splitlines())))


@pytest.fixture
def team(wheels, tmp_path: Path) -> Iterator[str]:
    """A private index with a password; it has a `tiny-secret` of its own, and the public folder has a newer one."""
    path = wheels("tiny-secret", "1.0", "tiny-two")
    data = path.read_bytes()
    path.unlink()
    wheels("tiny-secret", "9.0"), wheels("tiny-two", "2.0")
    wanted = "Basic " + base64.b64encode(b"me:s3cr3t").decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="team"')
                self.end_headers()
                return
            body = data if self.path.endswith(".whl") else b""
            if self.path.startswith("/simple/tiny-secret") and not body:
                digest = hashlib.sha256(data).hexdigest()
                body = f'<a href="/files/{path.name}#sha256={digest}">{path.name}</a>'.encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html" if not self.path.endswith(".whl") else "application/zip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:s3cr3t@127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def test_a_private_index_is_named_and_nothing_else_is_asked_for_its_packages(
    wheels, team: str, here, monkeypatch, rml_home: Path, capfd, tmp_path: Path
) -> None:
    public = tmp_path / "wheels"
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("TEAM_INDEX", team)
    simple = tmp_path / "simple"
    for wheel in public.glob("*.whl"):  # the public index, with the same name on it
        name = wheel.name.split("-")[0].replace("_", "-")
        (simple / name).mkdir(parents=True, exist_ok=True)
        wheel.rename(simple / name / wheel.name)
        digest = hashlib.sha256((simple / name / wheel.name).read_bytes()).hexdigest()
        (simple / name / "index.html").write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>')
    monkeypatch.setenv("UV_DEFAULT_INDEX", simple.as_uri())
    here()
    own = rml.index("team", url_env="TEAM_INDEX")
    lock = lock_for(frozenset({"tiny_secret"}), [own("tiny-secret")])
    assert dict(lock.pins) == {"tiny-secret": "1.0", "tiny-two": "2.0"}, (
        "not 9.0, which somebody else put on the public one"
    )
    assert "# index team TEAM_INDEX" in lock.text and not lock.wheels
    assert said_in(lock, "import tiny_secret; print(tiny_secret.version)") == "1.0"
    left = [file for file in rml_home.rglob("*") if file.is_file() and b"s3cr3t" in file.read_bytes()]
    output = "".join(capfd.readouterr())
    assert not left and "s3cr3t" not in output and "127.0.0.1" not in lock.text
    monkeypatch.delenv("TEAM_INDEX")
    with pytest.raises(EnvironmentError_, match="TEAM_INDEX"):
        environments.ensure(lock.text, lock.digest, tmp_path / "other_home")
    with pytest.raises(LockError, match="RML_INDEX_TEAM_URL"):
        lock_for(frozenset({"tiny_other"}), ["team::tiny-other"])


def test_an_address_in_place_of_a_variable_s_name_is_refused() -> None:
    with pytest.raises(rml.errors.RmlSdkError, match="name of an environment variable"):
        rml.index("team", url_env="https://me:s3cr3t@host/simple")


def test_with_the_index_gone_what_was_seen_once_still_works(
    wheels, here, monkeypatch, tmp_path: Path, rml_home
) -> None:
    """Lock and environment are made once with an index; then every address is a closed port, and caches must do."""
    public = tmp_path / "simple" / "tiny-one"
    public.mkdir(parents=True)
    wheel = wheels("tiny-one", "1.0")
    wheel.rename(public / wheel.name)
    digest = hashlib.sha256((public / wheel.name).read_bytes()).hexdigest()
    (public / "index.html").write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>')

    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple")
    here(dist("tiny-one", "1.0"))
    try:
        first = lock_for(frozenset({"tiny_one"}))
        said_in(first, "import tiny_one")
    finally:
        server.shutdown()
        server.server_close()
    here(dist("tiny-one", "1.0"), dist("unrelated", "2.0"))
    again = lock_for(frozenset({"tiny_one"}))
    assert again.digest == first.digest
    assert said_in(again, "import tiny_one; print(tiny_one.version)") == "1.0", "the environment is there"
    elsewhere = environments.ensure(again.text, again.digest, tmp_path / "fresh_home")
    assert subprocess.run([elsewhere, "-c", "import tiny_one"], check=False).returncode == 0, (
        "uv's own cache has the wheel"
    )
    here()
    with pytest.raises(LockError) as error:
        lock_for(frozenset({"tiny_never_seen"}), ["tiny-never-seen"])
    assert {finding.code for finding in error.value.findings} <= {"index-unreachable", "unknown-package"}


def test_a_pipeline_runs_with_a_wheel_of_one_s_own(wheels, tmp_path: Path, monkeypatch, capfd) -> None:
    """The whole way: decorator, lock, store, local executor, an environment of the step's own."""
    import importlib

    path = wheels("tiny-mine", "0.7")
    name = f"carried_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(
        "import roblox_ml as rml\n"
        f"@rml.step(packages=[{str(path)!r}])\n"
        "def ask() -> str:\n    import tiny_mine\n    return tiny_mine.version\n"
        "@rml.pipeline\ndef asking():\n    ask()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name)
    told = rml.explain(module.ask)
    assert told.ships and [file.path for file in told.files] == [path.name] and not told.in_place
    assert "tiny-mine==0.7" in str(told)
    run = module.asking.run(progress=False)
    assert run.outputs["ask"] == "0.7" and "tiny-mine 0.7 is added" in capfd.readouterr().err
    lock = lock_for(frozenset({"tiny_mine"}), [str(path)])
    blob = open_store().path_of(lock.digest)
    assert lock.wheels[0].digest in housekeeping._json_text(blob, blob.stat().st_size), (
        "what a lock names is not garbage"
    )
