"""What the guide shows works: its code is run against the server, with the address in it exchanged."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "kubeflow.md"


def test_the_guide(server: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.S | re.M))
    for old, new in {
        '"https://kubeflow.example.com/pipeline"': repr(server.url),
        "/var/run/secrets/kubeflow/token": str(token),
    }.items():
        assert old in code
        code = code.replace(old, new)
    file = tmp_path / "kubeflow_guide.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("kubeflow_guide", file)
    assert spec is not None and spec.loader is not None
    guide = importlib.util.module_from_spec(spec)
    sys.modules["kubeflow_guide"] = guide
    spec.loader.exec_module(guide)

    class Engine:
        def start(self, run: Any) -> None:
            run.log("count", 'hello\n::rml outputs {"parameterValues": {"Output": 3}}\n')
            run.report("count", "SUCCEEDED")
            run.end("SUCCEEDED")

    server.state.engine = Engine()
    run = guide.counting.submit(n=3, run_name="by hand", run_labels={"ticket": "ML-7"})
    assert run.wait().outputs["count"] == 3 and run.logs("count", follow=True) == "hello\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", run.arguments["day"])  # by hand it is today
    assert [r.id for r in guide.kubeflow.runs("counting", labels={"ticket": "ML-7"})] == [run.id]
    guide.publish_nightly()
    assert server.state.recurring == {}
    assert set(server.state.tokens) == {"Bearer t"}
    # The step with everything in it is one that a pipeline can be made of.
    options, findings = guide.train.read()
    assert findings == [] and options.options.queue == "team-safety"
