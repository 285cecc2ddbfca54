"""Places in the user's code: files, cells of a real IPython shell, carets."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from roblox_ml._graph.where import Site, cell_number, here, of_function


def outer() -> Site:
    return here()


def test_here_is_the_users_line() -> None:
    site = outer()
    assert str(site).endswith(f"test_where.py:{outer.__code__.co_firstlineno + 1}")
    assert site.source() == "return here()\n       ^^^^^^"


def test_a_caret_counts_characters_not_bytes() -> None:
    _, site = ("ä€", here())
    source, caret = (site.source() or "").splitlines()
    assert source[caret.index("^") :].startswith("here()")


def test_a_call_over_several_lines_is_marked_on_its_first() -> None:
    site = (
        here(
        )
    )  # fmt: skip
    assert site.source() == "here(\n^^^^^"


def test_the_def_line_is_found_below_decorators() -> None:
    def decorate(**options: int):  # type: ignore[no-untyped-def]
        return lambda function: function

    @decorate(
        a=1,
    )
    def decorated(x: int) -> None: ...

    site = of_function(decorated)
    assert (site.source() or "").startswith("def decorated(x: int)")


def test_sources_that_are_gone() -> None:
    assert Site("<string>", 3).source() is None
    assert str(Site("<string>", 3)) == "<string>:3"
    assert of_function(3) == Site("<unknown>", 0)


def test_ipython_file_names() -> None:
    assert cell_number("<ipython-input-7-abcdef>") == 7
    assert cell_number("train.py") is None


def test_cells_of_a_kernel_are_named_by_number_and_line() -> None:
    """A real InteractiveShell: findings say 'cell 3, line 2'."""
    program = textwrap.dedent(
        """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        def run(cell):
            result = shell.run_cell(cell, store_history=True)
            assert result.success, result
        run("import roblox_ml as rml")
        run("@rml.step(memory='4GB')\\ndef count(n: int, m) -> int:\\n    return n\\n")
        run("@rml.pipeline\\ndef p():\\n    n = count(1, 2)\\n    if n > 3:\\n        count(n, n)")
        for finding in shell.user_ns["p"].trace()[1]:
            print(finding.where, "|", finding.code, "|", (finding.source or "").splitlines()[0])
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "cell 2, line 2 | missing-annotation | def count(n: int, m) -> int:",
        "cell 2, line 1 | bad-memory | @rml.step(memory='4GB')",
        "cell 3, line 4 | condition-in-python | if n > 3:",
    ]
