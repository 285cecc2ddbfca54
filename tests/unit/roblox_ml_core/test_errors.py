"""An error keeps its class, words and facts on the way through HTTP and through a process pool."""

from __future__ import annotations

import pickle

import pytest
from roblox_ml_core import errors
from roblox_ml_core.errors import RmlError, from_json

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "from_json"]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_its_json_and_pickling(cls: type[RmlError]) -> None:
    error = cls("it broke", hint="mend it", details={"by": "ann"})
    for copy in (from_json(error.status, error.to_json()), pickle.loads(pickle.dumps(error))):
        assert type(copy) is cls
        assert (copy.message, copy.hint, copy.details) == ("it broke", "mend it", {"by": "ann"})
    assert "mend it" in str(error)


def test_codes_are_different() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize(
    ("status", "name"), [(404, "NotFound"), (409, "Conflict"), (401, "Unauthorized"), (502, "RmlError")]
)
def test_an_answer_of_another_shape_is_still_an_error(status: int, name: str) -> None:
    error = from_json(status, "<html>bad gateway</html>")
    assert type(error).__name__ == name
    assert "bad gateway" in error.message
