"""The programs that are timed: each runs in a process of its own and prints one JSON object as its last line.

They are source texts because capture reads source: what is measured is what a user's file or notebook would cost.
"""

from __future__ import annotations

__all__ = [
    "CHAIN_KFP",
    "CHAIN_OURS",
    "ENTER",
    "FIRST_LINE",
    "IMPORT",
    "LOCK",
    "NOTEBOOK",
    "SIX_KFP",
    "SIX_OURS",
    "SUBMIT",
]

# argv: the statement that a program begins with
IMPORT = """
import json, sys, time
started = time.perf_counter()
exec(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - started}))
"""

# Six runs of one step; the first warms unpacked bundles and the lock, the others are counted.
FIRST_LINE = """
import json, statistics, time
import roblox_ml as rml

@rml.step(cache=False)
def first(n: int) -> float:
    import time
    return time.time()

@rml.pipeline
def one(n: int = 1):
    first(n)

if __name__ == "__main__":
    taken = []
    for n in range(6):
        started = time.time()
        run = one.run(n=n)
        output = run.outputs["first"]
        taken.append(float(output["Output"] if isinstance(output, dict) else output) - started)
    print(json.dumps({"seconds": statistics.median(taken[1:]), "cold": taken[0]}))
"""

# A notebook's kernel: 40 cells, 20 steps that share helpers and imports. Another pipeline is compiled first, so that
# the SDK's modules are loaded; nothing of the 20 steps is.
NOTEBOOK = '''
import json, os, sys, time
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
os.chdir(sys.argv[1])

def cell(source):
    result = shell.run_cell(source, store_history=True)
    if result.error_before_exec or result.error_in_exec:
        sys.exit(f"a cell failed:\\n{source}")

cell("import roblox_ml as rml\\nimport numpy as np\\nimport pandas as pd")
cell("SCALE = 3\\nLABELS = ['negative', 'neutral', 'positive']")
for n in range(20):
    cell(f"def helper_{n}(x):\\n    return x * SCALE + len(LABELS) + {n}")
    cell(f"""@rml.step(cpu=1)
def step_{n}(x: int) -> int:
    frame = pd.DataFrame({{"x": np.arange(x)}})
    return int(frame.x.sum()) + helper_{n}(x)""")
cell("@rml.step\\ndef other(x: int) -> int:\\n    return x\\n\\n@rml.pipeline\\ndef warm_up():\\n    other(1)")
body = "\\n".join(f"    x = step_{n}(x)" for n in range(1, 20))
cell(f"@rml.pipeline\\ndef twenty():\\n    x = step_0(1)\\n{body}")

started = time.perf_counter()
shell.user_ns["warm_up"].compile("warm_up.yaml")
warm_up = time.perf_counter() - started
started = time.perf_counter()
shell.user_ns["twenty"].compile("twenty.yaml")
print(json.dumps({"seconds": time.perf_counter() - started, "first": warm_up}))
'''

# argv: tasks, target file
CHAIN_OURS = """
import json, os, sys, time
import roblox_ml as rml

@rml.step
def add(x: int, y: int = 1) -> int:
    return x + y

@rml.pipeline
def chain(x: int = 0):
    for _ in range(int(sys.argv[1])):
        x = add(x)

if __name__ == "__main__":
    started = time.perf_counter()
    chain.compile(sys.argv[2])
    seconds = time.perf_counter() - started
    tasks = open(sys.argv[2]).read().count("componentRef:")
    print(json.dumps({"seconds": seconds, "bytes": os.path.getsize(sys.argv[2]), "tasks": tasks}))
"""

CHAIN_KFP = """
import json, os, sys, time
from kfp import compiler, dsl

@dsl.component(base_image="python:3.11-slim")
def add(x: int, y: int = 1) -> int:
    return x + y

if __name__ == "__main__":
    started = time.perf_counter()

    @dsl.pipeline
    def chain(x: int = 0):
        for _ in range(int(sys.argv[1])):
            x = add(x=x).output

    compiler.Compiler().compile(chain, sys.argv[2])
    seconds = time.perf_counter() - started
    tasks = open(sys.argv[2]).read().count("componentRef:")
    print(json.dumps({"seconds": seconds, "bytes": os.path.getsize(sys.argv[2]), "tasks": tasks}))
"""

SIX_OURS = """
import json, time
import roblox_ml as rml

@rml.step(cache=False)
def wait(n: int) -> int:
    import time
    time.sleep(2)
    return n

@rml.pipeline
def six():
    for n in range(6):
        wait(n)

if __name__ == "__main__":
    started = time.perf_counter()
    six.run()
    print(json.dumps({"seconds": time.perf_counter() - started}))
"""

SIX_KFP = """
import json, time
from kfp import dsl, local

@dsl.component(base_image="python:3.11-slim")
def wait(n: int) -> int:
    import time
    time.sleep(2)
    return n

@dsl.pipeline
def six():
    for n in range(6):
        wait(n=n)

if __name__ == "__main__":
    local.init(local.SubprocessRunner(use_venv=False))
    started = time.perf_counter()
    six()
    print(json.dumps({"seconds": time.perf_counter() - started}))
"""

# argv: comma-separated imports
LOCK = """
import json, sys, time
from roblox_ml._env import lock_for

started = time.perf_counter()
lock = lock_for(frozenset(sys.argv[1].split(",")))
print(json.dumps({"seconds": time.perf_counter() - started, "packages": len(lock.pins)}))
"""

# argv: lock file; what a step does between its start and the first line under the python of its environment
ENTER = """
import hashlib, os, sys
from roblox_ml._runtime import environments

text = open(sys.argv[1]).read()
assert not environments.in_place(text)
python = environments.ensure(text, hashlib.sha256(text.encode()).hexdigest())
os.execv(python, [str(python), "-c", "pass"])
"""

# argv: how many steps, the server's address. Capture, compile, store and send; with one step edited (an upload), then unchanged. One
# round before warms the lock, the modules and the connection: what the second run of a cell costs.
SUBMIT = """
import importlib, json, pathlib, statistics, sys, time
import roblox_ml as rml

@rml.step
def same(n: int) -> int:
    return n + 1

def hundred(size, edit):
    file = pathlib.Path(f"edited_{edit}.py")
    file.write_text(f"import roblox_ml as rml\\n\\n@rml.step\\ndef edited(n: int) -> int:\\n    return n + {edit}\\n")
    importlib.invalidate_caches()
    module = importlib.import_module(file.stem)

    def hundred(n: int = 0):
        value = module.edited(n)
        for _ in range(size - 1):
            value = same(value)

    return rml.pipeline(hundred)

def timed(pipeline):
    started = time.perf_counter()
    pipeline.submit()
    return time.perf_counter() - started

if __name__ == "__main__":
    size, host = int(sys.argv[1]), sys.argv[2]
    rml.connect(host)
    timed(hundred(size, 0))
    uploaded, unchanged = [], []
    for edit in range(1, 4):
        pipeline = hundred(size, f"{edit}{time.time_ns()}")
        uploaded.append(timed(pipeline))
        unchanged.append(timed(pipeline))
    print(json.dumps({"seconds": statistics.median(unchanged), "upload": statistics.median(uploaded)}))
"""
