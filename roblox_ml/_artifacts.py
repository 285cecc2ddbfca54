"""The typed things that flow between steps: datasets, models, metrics, reports.

An artifact is a directory plus a small JSON dictionary. Inside a step the runtime decides where the directory lies and
carries it to the next step by reference; outside a step the same classes work on a temporary directory, so a step's
function can be tried in a notebook cell as it stands. Standard library only: everything heavier (pandas, transformers,
ONNX) is imported by the method that needs it.
"""

from __future__ import annotations

import html
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ARTIFACT_TYPES",
    "HTML",
    "Artifact",
    "Dataset",
    "Markdown",
    "Metrics",
    "Model",
    "artifact_type",
    "load_artifact",
]


class Artifact:
    """A directory with metadata. `path` is its directory (made on first use), `metadata` a JSON dictionary."""

    SCHEMA_TITLE: ClassVar[str] = "system.Artifact"
    SCHEMA_VERSION: ClassVar[str] = "0.0.1"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        name: str = "",
        uri: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = Path(path) if path is not None else None
        self.name = name
        self._uri = uri
        self.metadata: dict[str, Any] = dict(metadata or {})

    @property
    def path(self) -> Path:
        """The artifact's directory. A new artifact gets a temporary one; the runtime moves it where it belongs."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix=f"rml-{type(self).__name__.lower()}-"))
        return self._path

    @property
    def uri(self) -> str:
        """Where the artifact is stored. Outside a step: the directory as a file URL."""
        return self._uri or self.path.resolve().as_uri()

    @uri.setter
    def uri(self, value: str) -> None:
        self._uri = value

    def __repr__(self) -> str:
        place = self._uri or (str(self._path) if self._path else "new")
        return f"{type(self).__name__}({place!r}, metadata={self.metadata!r})"

    def _repr_html_(self) -> str:
        # Values first; where they came from (`rml.…`, long digests) only for who asks.
        lineage = {key: value for key, value in self.metadata.items() if str(key).startswith("rml.")}
        rows = _rows({key: value for key, value in self.metadata.items() if key not in lineage})
        origin = f"<details><summary>lineage</summary><table>{_rows(lineage)}</table></details>" if lineage else ""
        files = ""
        if self._path is not None and self._path.is_dir():
            listed = sorted(p for p in self._path.rglob("*") if p.is_file())
            items = "".join(
                f"<li><code>{html.escape(str(p.relative_to(self._path)))}</code> ({p.stat().st_size:,} B)</li>"
                for p in listed[:20]
            )
            more = f"<li>… {len(listed) - 20} more</li>" if len(listed) > 20 else ""
            files = f"<ul>{items}{more}</ul>"
        title = html.escape(f"{type(self).__name__} {self.name}".strip())
        return f"<div><b>{title}</b><table>{rows}</table>{files}{origin}</div>"


class Dataset(Artifact):
    """Data as files in a directory. `from_pandas`/`to_pandas` for the commonest case."""

    SCHEMA_TITLE = "system.Dataset"
    FRAME_FILE: ClassVar[str] = "data.parquet"

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame, file: str = FRAME_FILE, **metadata: Any) -> Dataset:
        """A dataset of one Parquet file; `metadata` is kept beside the number of rows and the columns."""
        dataset = cls(metadata={"rows": len(frame), "columns": [str(c) for c in frame.columns], **metadata})
        frame.to_parquet(dataset.path / file)
        return dataset

    def to_pandas(self, file: str | None = None) -> pd.DataFrame:
        """The Parquet, CSV or JSON-lines file as a data frame; without `file` there must be exactly one."""
        import pandas as pd

        readers = {
            ".parquet": pd.read_parquet,
            ".csv": pd.read_csv,
            ".jsonl": lambda path: pd.read_json(path, lines=True),
        }
        if file is None:
            found = sorted(p for p in self.path.rglob("*") if p.suffix in readers)
            if len(found) != 1:
                from .errors import DatasetError

                names = ", ".join(str(p.relative_to(self.path)) for p in found) or "none"
                raise DatasetError(
                    f"to_pandas() needs one table in the dataset, found {len(found)}: {names}",
                    why="only .parquet, .csv and .jsonl files are tables",
                    fix='say which: data.to_pandas("train.parquet"), or read data.path yourself',
                )
            path = found[0]
        else:
            path = self.path / file
        frame: pd.DataFrame = readers.get(path.suffix, pd.read_parquet)(path)
        return frame


class Model(Artifact):
    """A model package: `from_*` build one that the registry stores and Triton serves."""

    SCHEMA_TITLE = "system.Model"

    @classmethod
    def from_transformers(cls, model: Any, tokenizer: Any, **options: Any) -> Model:
        """Package a Hugging Face text classifier (`labels=`, `examples=`, `metrics=`, `max_length=`)."""
        from ._packaging.transformers import from_transformers

        return _model(from_transformers(model, tokenizer, **options))

    @classmethod
    def from_sklearn(cls, estimator: Any, **options: Any) -> Model:
        """Package a scikit-learn estimator or pipeline (`examples=`, `metrics=`, `labels=`)."""
        from ._packaging.sklearn import from_sklearn

        return _model(from_sklearn(estimator, **options))

    @classmethod
    def from_onnx(cls, model: Any, **options: Any) -> Model:
        """Package an ONNX model: a path, bytes or a ModelProto (`examples=`, `metrics=`)."""
        from ._packaging.onnx import from_onnx

        return _model(from_onnx(model, **options))

    @classmethod
    def from_python(cls, predict: Any, **options: Any) -> Model:
        """Package a plain function `predict(batch: dict[str, ndarray]) -> dict[str, ndarray]` with its own lock."""
        from ._packaging.python import from_python

        return _model(from_python(predict, **options))

    def ranking(self, **options: Any) -> Model:
        """This scoring model as a ranker: user and candidates in, the best of them out (`views=`, `context=`, `candidates=`, `k=`)."""
        from ._packaging.ranking import as_ranking

        return Model(as_ranking(self.path, **options))

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics packaged with the model, what a gate reads; empty when there are none."""
        file = self.path / "metrics.json"
        if file.is_file():
            values: dict[str, float] = json.loads(file.read_text("utf-8"))
            return values
        return {}

    @property
    def report(self) -> HTML | None:
        """The optimiser's report, where `rml.optimize` made this model: every candidate, what it lost, how fast it is."""
        file = self.path / "report.html"
        return HTML(file.read_text("utf-8"), name="report") if file.is_file() else None

    def _repr_html_(self) -> str:
        report = self.report
        return super()._repr_html_() + (report._repr_html_() if report is not None else "")


class Metrics(Artifact):
    """Named numbers: `rml.Metrics(f1=0.81)`. They live in the metadata, so they travel without a file."""

    SCHEMA_TITLE = "system.Metrics"

    def __init__(self, _path: str | Path | None = None, /, **values: Any) -> None:
        # Keywords are metrics, all of them: one may be called `name` or `path`. The runtime uses `load_artifact`.
        super().__init__(_path, metadata=values)

    def __getitem__(self, name: str) -> Any:
        return self.metadata[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.metadata[name] = value


class _Text(Artifact):
    """One text file to look at; subclasses say which kind."""

    FILE: ClassVar[str] = "content.txt"

    def __init__(
        self,
        text: str | None = None,
        *,
        path: str | Path | None = None,
        name: str = "",
        uri: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, name=name, uri=uri, metadata=metadata)
        if text is not None:
            (self.path / self.FILE).write_text(text, encoding="utf-8")

    @property
    def text(self) -> str:
        """The content; empty when nothing was written."""
        file = self.path / self.FILE
        return file.read_text("utf-8") if file.is_file() else ""


class HTML(_Text):
    """A report: `rml.HTML("<h1>…</h1>")`, or write `path / "index.html"`."""

    SCHEMA_TITLE = "system.HTML"
    FILE = "index.html"

    def _repr_html_(self) -> str:
        # srcdoc keeps a report's styles and scripts out of the notebook that shows it.
        return f'<iframe sandbox srcdoc="{html.escape(self.text)}" style="width:100%;height:24em;border:0"></iframe>'


class Markdown(_Text):
    """A report in Markdown: `rml.Markdown("# Title")`, or write `path / "README.md"`."""

    SCHEMA_TITLE = "system.Markdown"
    FILE = "README.md"

    def _repr_markdown_(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


ARTIFACT_TYPES: Mapping[str, type[Artifact]] = {
    kind.SCHEMA_TITLE: kind for kind in (Artifact, Dataset, Model, Metrics, HTML, Markdown)
}


def artifact_type(schema_title: str) -> type[Artifact]:
    """The class for a KFP schema title; titles of others (`system.ClassificationMetrics`, …) are plain artifacts."""
    return ARTIFACT_TYPES.get(schema_title, Artifact)


def load_artifact(
    schema_title: str, path: str | Path | None, *, name: str, uri: str, metadata: Mapping[str, Any]
) -> Artifact:
    """The object a step receives for an input artifact, or fills for an output one."""
    kind = artifact_type(schema_title)
    loaded = kind.__new__(kind)
    Artifact.__init__(loaded, path, name=name, uri=uri, metadata=metadata)
    return loaded


def _model(package: Any) -> Model:
    """What a builder returned, as a Model: a Model already, or the package's directory."""
    return package if isinstance(package, Model) else Model(package)


def _rows(values: Mapping[str, Any]) -> str:
    return "".join(
        f"<tr><td><code>{html.escape(str(key))}</code></td><td>{html.escape(_short(value))}</td></tr>"
        for key, value in sorted(values.items())
    )


def _short(value: Any, limit: int = 200) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
