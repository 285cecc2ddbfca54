"""What a slice carries: the constructs data scientists write, and nothing beside them."""

from __future__ import annotations

import pytest

STEP = "def step(n: int = 1):\n    return {}\n"


def call(notebook, fresh, *arguments):
    """The step's result in the notebook and in a fresh process must agree; returns it with the slice."""
    slice_ = notebook.capture()
    there = fresh(slice_)["step"](*arguments)
    assert there == notebook.namespace["step"](*arguments)
    return there, slice_


def test_carries_transitively_and_nothing_else(notebook, fresh, text):
    notebook.run("A = 2", "B = A * 3\nUNUSED = [1]", "def helper(x):\n    return x + B", "def other(): return UNUSED")
    notebook.run(STEP.format("helper(n)"))
    result, slice_ = call(notebook, fresh, 5)
    assert result == 11
    assert "UNUSED" not in text(slice_) and "other" not in text(slice_)


def test_imports_are_split_by_name(notebook, fresh, text):
    notebook.run(
        "import os, json, math as m\nfrom collections import OrderedDict, Counter",
        STEP.format("Counter(m.floor(2.5) * [n])"),
    )
    _, slice_ = call(notebook, fresh)
    assert "import math as m" in text(slice_) and "from collections import Counter" in text(slice_)
    assert "json" not in text(slice_) and "OrderedDict" not in text(slice_)


def test_a_name_means_its_value_at_the_point_of_reading(notebook, fresh):
    notebook.run("T = 0.5", "LIMITS = [T, 1.0]", "T = 0.9", STEP.format("(LIMITS, T)"))
    assert call(notebook, fresh)[0] == ([0.5, 1.0], 0.9)


def test_a_default_value_keeps_the_old_value_and_the_body_sees_the_new(notebook, fresh):
    notebook.run("T = 1", "def helper(x=T): return x, T", "T = 2", STEP.format("helper()"))
    assert call(notebook, fresh)[0] == (1, 2)


def test_a_decorator_calls_functions_that_read_later_globals(notebook, fresh):
    notebook.run(
        "K = 2",
        "def inner(x): return x * K",
        "def times(f): return lambda x: inner(f(x))",
        "@times\ndef helper(x): return x + 1",
    )
    notebook.run(STEP.format("helper(n)"))
    assert call(notebook, fresh, 3)[0] == 8


def test_literal_mutation_is_carried_in_order(notebook, fresh):
    notebook.run(
        "D = {'a': 1}", "D['b'] = 2\nL = [3]\nL.append(4)", "L += [5]\nD.update(c=3)\ndel D['a']", STEP.format("(D, L)")
    )
    assert call(notebook, fresh)[0] == ({"b": 2, "c": 3}, [3, 4, 5])


def test_a_loop_that_fills_a_table_is_carried(notebook, fresh):
    notebook.run(
        "WORDS = ['a', 'b']", "VOCAB = {}\nfor i, w in enumerate(WORDS):\n    VOCAB[w] = i", STEP.format("VOCAB")
    )
    assert call(notebook, fresh)[0] == {"a": 0, "b": 1}


def test_registration_by_decorator_is_carried(notebook, fresh):
    notebook.run("HANDLERS = {}\ndef handles(f):\n    HANDLERS[f.__name__] = f\n    return f")
    notebook.run("@handles\ndef up(x): return x + 1", "@handles\ndef down(x): return x - 1")
    notebook.run(STEP.format("sorted((k, f(n)) for k, f in HANDLERS.items())"))
    assert call(notebook, fresh, 1)[0] == [("down", 0), ("up", 2)]


def test_singledispatch(notebook, fresh):
    notebook.run(
        "import functools\n@functools.singledispatch\ndef show(x): return 'any'",
        "@show.register\ndef _(x: int): return 'int'",
    )
    notebook.run(STEP.format("(show(n), show('x'))"))
    assert call(notebook, fresh)[0] == ("int", "any")


def test_classes_with_bases_defaults_and_nested_scopes(notebook, fresh):
    notebook.run("SIZE = 3\nclass Base:\n    size = SIZE\n    def area(self): return self.size * FACTOR")
    notebook.run(
        "FACTOR = 2",
        "class Child(Base):\n    SIZE = SIZE\n    table = [i * FACTOR2 for i in range(2)] if False else None\nFACTOR2 = 1",
    )
    notebook.run(STEP.format("(Child().area(), Child.SIZE)"))
    assert call(notebook, fresh)[0] == (6, 3)


def test_class_body_loop_variable_is_no_global(notebook, fresh):
    notebook.run(
        "class Table:\n    names = []\n    for item in ('a', 'b'):\n        names.append(item)",
        STEP.format("Table.names"),
    )
    assert call(notebook, fresh)[0] == ["a", "b"]


def test_namedtuple_return_type_and_artifact_annotations(notebook, text):
    notebook.run("import roblox_ml as rml\nfrom typing import NamedTuple")
    notebook.run("class Prepared(NamedTuple):\n    train: rml.Dataset\n    test: rml.Dataset")
    notebook.run(
        "@rml.step(cpu=2, packages=['x==1'])\ndef step(c: rml.Dataset) -> Prepared:\n    return Prepared(c, c)"
    )
    slice_ = notebook.capture()
    assert "class Prepared(NamedTuple)" in text(slice_) and "import roblox_ml as rml" in text(slice_)
    assert "@rml.step" not in text(slice_)
    assert slice_.imports == frozenset() and slice_.entry == "rml_step:step"


def test_resources_of_a_step_are_no_part_of_its_code(only_text):
    def body(decorator):
        return only_text(
            "import roblox_ml as rml\nimport os\nN = os.getpid()",
            f"{decorator}\ndef step(x: int) -> int:\n    return x\n",
        )

    assert body("@rml.step") == body("@rml.step(cpu=N, memory='4Gi')") == body("@rml.step(\n    cpu=1,\n)")


def test_other_decorators_stay(only_text):
    text = only_text(
        "import roblox_ml as rml, functools",
        "@rml.step\n@functools.lru_cache(\n    maxsize=3\n)\ndef step(n: int = 1) -> int:\n    return n",
    )
    assert "@functools.lru_cache(\n    maxsize=3\n)\ndef step" in text and "rml" not in text


def test_quoted_annotations_are_carried_when_they_can_be(notebook, text):
    notebook.run(
        "import roblox_ml as rml", "def step(c: 'rml.Dataset', d: 'NoSuch' = None) -> 'rml.Model':\n    return c"
    )
    assert "import roblox_ml as rml" in text(notebook.capture())


def test_future_annotations_need_not_resolve(notebook, text):
    notebook.run("from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nosuchmodule\n"
                 "def step(a: nosuchmodule.X, b: Missing = 1) -> int:\n    return 1")  # fmt: skip
    slice_ = notebook.capture()
    assert text(slice_).splitlines()[1] == "from __future__ import annotations"
    assert slice_.imports == frozenset()


def test_import_with_fallback(notebook, fresh):
    notebook.run(
        "try:\n    import nosuch_fast_json as json\nexcept ImportError:\n    import json",
        STEP.format("json.dumps([n])"),
    )
    result, slice_ = call(notebook, fresh)
    assert result == "[1]"
    assert slice_.imports == frozenset(), "an optional module that is not here must not be locked"


def test_branches_and_partial_binders(notebook, fresh):
    notebook.run("import sys", "MODE = 'a'", "if sys.maxsize < 0:\n    MODE = 'b'", STEP.format("MODE"))
    assert call(notebook, fresh)[0] == "a"


def test_submodule_imports_accumulate(notebook, fresh):
    notebook.run(
        "import xml.etree.ElementTree",
        "import xml.dom.minidom",
        "import xml",
        STEP.format("(xml.etree.ElementTree.__name__, xml.dom.minidom.__name__)"),
    )
    assert call(notebook, fresh)[0] == ("xml.etree.ElementTree", "xml.dom.minidom")


def test_constant_constructors(notebook, fresh):
    notebook.run("import re, logging, datetime, os\nfrom pathlib import Path", "from collections import namedtuple")
    notebook.run("from functools import partial\nfrom typing import TypeVar\nlog = logging.getLogger(__name__)")
    notebook.run(
        "PAT = re.compile(r'\\d+')\nOUT = Path('x') / 'y'\nSTOP = frozenset({'a'})\nDAY = datetime.timedelta(days=1)"
    )
    notebook.run(
        "P = namedtuple('P', 'a b')\nORIGIN = P(0, 0)\nJ = os.path.join('a', 'b')\nT = TypeVar('T')\nWORDS = 'a b'.split()"
    )
    notebook.run(
        "def add(a, b): return a + b\ninc = partial(add, 1)\nSQUARES = {i: i * i for i in range(3)}\nkey = lambda x: -x"
    )
    values = "PAT.findall('a1'), str(OUT), sorted(STOP), DAY, J, WORDS, inc(n), SQUARES, key(n), ORIGIN == (0, 0)"
    notebook.run(STEP.format(f"({values}, T is not None, log is not None)"))
    assert call(notebook, fresh, 4)[0][6] == 5


def test_dataclass_instance_of_constants(notebook, fresh):
    notebook.run(
        "from dataclasses import dataclass, field",
        "@dataclass\nclass Config:\n    lr: float = 0.1\n    tags: list = field(default_factory=list)",
    )
    notebook.run("cfg = Config(lr=0.5)", "cfg.lr = 0.7", STEP.format("(cfg.lr, cfg.tags)"))
    assert call(notebook, fresh)[0] == (0.7, [])


def test_recursion_globals_and_walrus(notebook, fresh):
    notebook.run(
        "if (SIZE := 3) > 2:\n    pass",
        "COUNT = 0",
        "def step(n=3):\n    global COUNT\n    COUNT += 1\n    return SIZE if n == 0 else step(n - 1)",
    )
    assert fresh(notebook.capture())["step"](2) == 3


def test_a_global_set_by_a_carried_function(notebook, fresh):
    notebook.run("def load():\n    global model\n    model = 3", "def step():\n    load()\n    return model")
    assert fresh(notebook.capture())["step"]() == 3


def test_another_step_called_as_a_function(notebook, fresh):
    notebook.run(
        "import roblox_ml as rml",
        "@rml.step\ndef helper(n: int) -> int:\n    return n + 1",
        "def step(n=1):\n    return helper(n)",
    )
    assert fresh(notebook.capture())["step"](2) == 3


def test_semicolons_unicode_and_comments(notebook, fresh, text):
    notebook.run("é = 'ü'; B = 'x'  # note\nC = 1", STEP.format("é + B"))
    result, slice_ = call(notebook, fresh)
    assert result == "üx" and "note" not in text(slice_)


def test_multiline_strings_keep_their_bytes(notebook, fresh):
    notebook.run("TEXT = '''a  \n\n\tb\n'''", STEP.format("TEXT"))
    assert call(notebook, fresh)[0] == "a  \n\n\tb\n"


def test_lines_point_back(notebook):
    notebook.run("X = 1", "\n# c\ndef helper():\n    return X", "def step():\n    return helper()")
    slice_ = notebook.capture()
    text = slice_.files["rml_step.py"].decode().splitlines()
    where = {text[number - 1]: origin.where for number, origin in slice_.lines.items()}
    assert where["    return X"] == "cell 2, line 4"
    assert where["    return helper()"] == "cell 3, line 2"
    assert all(origin.why for origin in slice_.lines.values())


@pytest.mark.parametrize(
    ("setup", "expression", "carried"),
    [
        ("import random", "random.random()", "random.seed(0)"),
        ("import numpy as np", "np.zeros(1)", "np.random.seed(0)"),
        ("import warnings", "warnings", "warnings.filterwarnings('ignore')"),
        ("import os", "os.environ.get('Q')", "os.environ['Q'] = '1'"),
    ],
)
def test_known_effects_are_carried_when_their_module_is_used(only_text, setup, expression, carried):
    uses = STEP.format(expression)
    text = only_text(setup, carried, uses)
    assert carried in text
    assert carried not in only_text(setup, carried, STEP.format("n"))


def test_effects_stay_before_what_followed_them(only_text):
    text = only_text(
        "import os",
        "os.environ['TOKENIZERS_PARALLELISM'] = 'false'",
        "import numpy as np",
        STEP.format("np.ones(os.getpid())"),
    )
    assert text.index("os.environ[") < text.index("import numpy")


def test_options_of_a_module(only_text):
    text = only_text("import numpy as np", "np.foo = 3\nnp.foo = 3", STEP.format("np.foo"))
    assert text.count("np.foo = 3") == 1
