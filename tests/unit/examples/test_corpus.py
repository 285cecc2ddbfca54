"""Downloads by name and hash through pip's own settings, with an index that is a folder here."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "comment_sentiment"


@pytest.fixture(scope="module")
def corpus() -> Any:
    spec = importlib.util.spec_from_file_location("example_corpus", EXAMPLE / "corpus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder with one wheel, set up in pip's environment as a user's only index; (the wheel, its sha256)."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_data/texts.txt", "hello")
        archive.writestr("tiny_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        archive.writestr(
            "tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_file_comes_from_where_pip_is_set_up_to_look(corpus: Any, index: tuple[Path, str]) -> None:
    wheel, digest = index
    got = corpus.fetch_pypi("tiny-data", "1.0", digest)
    assert got.read_bytes() == wheel.read_bytes()
    wheel.unlink()
    assert corpus.fetch_pypi("tiny-data", "1.0", digest) == got, "kept: the index is not asked again"


def test_a_kept_file_that_was_cut_off_is_fetched_again(corpus: Any, index: tuple[Path, str], tmp_path: Path) -> None:
    wheel, digest = index
    got = corpus.fetch_pypi("tiny-data", "1.0", digest, folder=tmp_path / "kept")
    got.write_bytes(got.read_bytes()[:20])
    assert corpus.fetch_pypi("tiny-data", "1.0", digest, folder=tmp_path / "kept").read_bytes() == wheel.read_bytes()


def test_another_file_of_that_name_is_refused(corpus: Any, index: tuple[Path, str]) -> None:
    with pytest.raises(RuntimeError, match="could not be downloaded") as caught:
        corpus.fetch_pypi("tiny-data", "1.0", "0" * 64)
    assert "pip config list" in str(caught.value)


def test_the_shared_copy_of_the_texts_reads_as_the_download_does(
    corpus: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shared / "data" / "vaderSentiment-3.3.2.tar.gz"
    monkeypatch.setattr(corpus, "fetch_pypi", lambda name, version, sha256: archive)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == corpus.VADER[2]
    lines = {name: len(text.decode("utf-8-sig").splitlines()) for name, text in corpus.comments().items()}
    assert lines == {"movie.tsv": 10605, "product.tsv": 3708, "editorial.tsv": 5190, "tweet.tsv": 4200}
