"""An ONNX Runtime session on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from rml_backend import one_thread


def open_session(path: Path) -> Any:
    """A CPU session of the file. Several instances side by side scale better than one with many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = one_thread()
    options.inter_op_num_threads = 1
    # Idle threads that spin take the cores from the instances that work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
