"""A scikit-learn estimator or pipeline as a package: a skops file, which is data, never a pickle, which is a program.

The file is written without the traces of this process (object addresses, times), so that the same estimator gives the same
package, and only holds types that a server accepts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackageError
from ._package import model_folder, write_package
from ._skops import canonical
from ._tensors import TEXT_INPUT, Tensor, from_array, text_array

__all__ = ["from_sklearn"]

# What a server accepts: classes of scikit-learn, plain arrays and matrices. Functions could run code.
_SAFE = re.compile(
    r"(sklearn(\.\w+)*\.[A-Z]\w*|numpy\.(dtype|ndarray|random\.\w+)|scipy\.sparse(\.\w+)*\.[a-z]+_(matrix|array))\Z"
)


def from_sklearn(
    estimator: Any,
    *,
    examples: Any = None,
    labels: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
    trusted: Sequence[str] = (),
    path: str | Path | None = None,
) -> Path:
    """Package a fitted classifier or regressor, alone or at the end of a `Pipeline`.

    `examples`: some rows as `predict` takes them: a list of texts (input `TEXT`) or a table of numbers (input `X`).
    A classifier answers `label` and `scores` (its `predict_proba`), anything else `y`.
    `labels`: names in the order of `estimator.classes_`; left out, the classes themselves.
    `trusted`: types outside scikit-learn that you know; the server's operator has to allow them as well.
    Returns the package's directory.
    """
    import sklearn
    import skops.io

    _fitted(estimator)
    tensor, rows = _rows(examples)
    outputs, names = _answers(estimator, rows, labels)
    root, folder = model_folder(path)
    file = folder / "model.skops"
    try:
        skops.io.dump(estimator, file)
    except Exception as error:
        raise PackageError(
            f"{type(estimator).__name__} cannot be written by skops: {type(error).__name__}: {error}",
            where="estimator",
            why="it holds something that is no data: a lambda, an open file, a function of the notebook",
            fix="move that into Model.from_python, which ships code, or replace it by an estimator",
        ) from error
    canonical(file)
    unknown = sorted(skops.io.get_untrusted_types(file=file))
    if refused := [name for name in unknown if name not in set(trusted) and not _SAFE.match(name)]:
        raise PackageError(
            f"the estimator holds {len(refused)} types that no server loads by itself: {', '.join(refused)}",
            where="estimator",
            why="loading a type runs its code, so only scikit-learn's classes and plain arrays are accepted unasked",
            fix=f"if you know them: trusted={refused!r}; otherwise take them out, or use Model.from_python",
        )
    return write_package(
        root,
        format="sklearn-skops",
        inputs={tensor: rows},
        outputs=outputs,
        labels=names,
        options={"trusted": unknown, "sklearn": str(sklearn.__version__)},
        metrics=metrics,
    )


def _fitted(estimator: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not hasattr(estimator, "predict"):
        raise PackageError(
            f"{type(estimator).__name__} has no predict",
            where="estimator",
            why="a served model answers; a transformer alone does not",
            fix="make_pipeline(your_transformer, an_estimator).fit(...)",
        )
    try:
        check_is_fitted(estimator[-1] if hasattr(estimator, "steps") else estimator)
    except NotFittedError as error:
        raise PackageError(
            f"{type(estimator).__name__} is not fitted", where="estimator", fix="call .fit(X, y) before packaging it"
        ) from error


def _rows(examples: Any) -> tuple[Tensor, Any]:
    """The input tensor and the example rows in it: texts, or numbers as float32, which is what callers send."""
    import numpy as np

    if examples is None or len(examples) == 0:
        raise PackageError(
            "a model needs a few example rows",
            where="examples=",
            why="they are the known answers that every server checks after loading; the signature is read from them",
            fix="from_sklearn(..., examples=X[:5])",
        )
    values = examples.to_numpy() if hasattr(examples, "to_numpy") else examples
    if all(isinstance(value, str) for value in values):
        return TEXT_INPUT, text_array(list(values))
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise PackageError(
            f"the examples are neither texts nor a table of numbers: {error}",
            where="examples=",
            why="a request carries one text per row, or one row of numbers",
            fix="encode categories in the pipeline from numbers, or use Model.from_python with named inputs",
        ) from error
    if array.ndim != 2:
        raise PackageError(
            f"the examples have shape {list(array.shape)}, a table has two dimensions",
            where="examples=",
            fix="examples=X[:5] keeps the rows; one row alone is X[:1]",
        )
    return Tensor("X", "FP32", (-1, int(array.shape[1]))), array


def _answers(estimator: Any, rows: Any, labels: Sequence[str] | None) -> tuple[dict[Tensor, Any], list[str] | None]:
    """The outputs for the examples, and the classes' names where it is a classifier."""
    import numpy as np
    from sklearn.base import is_classifier

    try:
        predicted = np.asarray(estimator.predict(rows))
    except Exception as error:
        raise PackageError(
            f"predict fails on the examples: {type(error).__name__}: {error}",
            where="examples=",
            why="a request carries plain rows (texts, or float32 numbers without column names)",
            fix="fit on arrays instead of data frames, or give examples of the shape you fitted on",
        ) from error
    if not is_classifier(estimator):
        array = predicted.astype(np.float32) if predicted.dtype.kind in "fiub" else predicted
        return {from_array("y", array): array}, None
    if not hasattr(estimator, "predict_proba"):
        raise PackageError(
            f"{type(estimator).__name__} gives no probabilities",
            where="estimator",
            why="a served classifier answers label and scores, and the scores are its probabilities",
            fix="CalibratedClassifierCV(estimator).fit(X, y), or a model with predict_proba",
        )
    names = [str(name) for name in (estimator.classes_ if labels is None else labels)]
    if len(names) != len(estimator.classes_):
        raise PackageError(
            f"{len(names)} labels for {len(estimator.classes_)} classes",
            where="labels=",
            fix=f"name them in the order of estimator.classes_: {[str(c) for c in estimator.classes_]}",
        )
    scores = np.asarray(estimator.predict_proba(rows), dtype=np.float32)
    label = text_array([names[i] for i in scores.argmax(axis=1)])
    return {Tensor("label", "BYTES", (-1,)): label, Tensor("scores", "FP32", (-1, len(names))): scores}, names
