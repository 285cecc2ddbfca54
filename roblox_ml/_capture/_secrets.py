"""Pre-flight check: no key or password leaves this machine inside a bundle.

Prefixes are those the issuers document; names are checked only in assignments of long literals. A hit shows where it is
and never what it is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_PATTERNS = (
    ("an API key", re.compile(r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{16,}")),
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")),
    ("a Slack token", re.compile(r"\bxox[abeprs]-[A-Za-z0-9-]{10,}")),
    ("a Slack webhook", re.compile(r"hooks\.slack\.com/services/T\w+/B\w+/\w+")),
    ("a Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    ("a URL with a password", re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s:/@'\"{}]+:[^\s:/@'\"{}]{3,}@[^\s'\"]+")),
)
_NAMES = re.compile(
    r"(?i)(?:^|_)(?:password|passwd|secret|secret_?key|api_?key|access_?key|access_token|auth_token|api_token)$"
)
_PLACEHOLDER = re.compile(r"(?i)^(?:[x*.<>_-]+|.*(?:example|changeme|your[-_ ]|placeholder|dummy|env:|\$\{).*)$")


def secrets_in(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """String literals that look like credentials: (what it looks like, the literal)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and len(node.value) >= 8:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            for words, pattern in _PATTERNS:
                if pattern.search(text):
                    yield words, node
                    break
        for name, value in _named(node):
            if _NAMES.search(name) and _suspicious(value):
                yield f"the value of `{name}`", value


def _named(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                yield str(target.slice.value), node.value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield node.target.id, node.value
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value


def _suspicious(node: ast.expr) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    value = node.value
    identifier = re.fullmatch(r"[A-Z_]+|[a-z_]+", value)  # the name of a variable or column, not a secret
    return len(value) >= 8 and not identifier and not re.search(r"\s", value) and not _PLACEHOLDER.match(value)


def secrets_in_text(text: str) -> Iterator[tuple[str, int]]:
    """Credential-like text of a file that is not Python: (what it looks like, line number)."""
    for number, line in enumerate(text.splitlines(), start=1):
        for words, pattern in _PATTERNS:
            if pattern.search(line):
                yield words, number
                break
