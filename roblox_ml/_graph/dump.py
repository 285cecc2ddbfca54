"""The pipeline spec as bytes: YAML that every reader reads the same way, byte for byte the same every time.

Strings are quoted unless they are plain words: PyYAML and Go's YAML disagree about what `1e5`, `0o7` or `n` are, and a
digest such as `12e45…` read as a number would be a different digest. No anchors: Go's reader limits them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

__all__ = ["dump_ir", "load_ir"]

_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]{2,}$")
_WORDS = {"true", "false", "yes", "off", "null", "nan", "inf", ".nan", ".inf"}


@cache
def _dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]  # one of two bases, chosen by what PyYAML was built with
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        plain = _PLAIN.match(value) and value.lower() not in _WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, text)
    return Dumper


def dump_ir(ir: dict[str, Any]) -> bytes:
    """What `to_ir` returned, as one YAML document, or two when there is a platform spec."""
    import yaml

    documents = [ir["pipeline"]] if ir.get("platform") is None else [ir["pipeline"], ir["platform"]]
    data: bytes = yaml.dump_all(
        documents,
        Dumper=_dumper(),
        sort_keys=True,
        default_flow_style=False,
        allow_unicode=True,
        width=1 << 20,
        encoding="utf-8",
    )
    return data


def load_ir(data: bytes) -> dict[str, Any]:
    """The inverse of `dump_ir`; also reads what KFP's own compiler wrote."""
    import yaml

    documents = list(yaml.load_all(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    if not 1 <= len(documents) <= 2:
        raise ValueError(f"a pipeline file holds one or two YAML documents, this one {len(documents)}")
    return {"pipeline": documents[0], "platform": documents[1] if len(documents) == 2 else None}
