"""What runs inside Triton: one model file per package format, and the modules copied beside it.

Nothing here but the `rml_text_*` modules is imported by the platform. The files are copied into a model's version folder, where
the stub's interpreter (numpy 1, ONNX Runtime, OpenVINO, CTranslate2, tokenizers, skops; no `roblox_ml`) loads `model.py`. `rml_*`
keep their names there, hence the prefix.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "MODEL_FILES", "SUPPORT_FILES"]

FOLDER = Path(__file__).resolve().parent

#: The file that becomes `model.py`, by package format.
MODEL_FILES = {
    "hf-text-classifier": "text_classifier.py",
    "onnx": "onnx_model.py",
    "sklearn-skops": "sklearn_skops.py",
    "python": "python_model.py",
    "text-cpu": "text_cpu.py",
}

#: The modules copied beside it.
SUPPORT_FILES = {
    "hf-text-classifier": ("rml_backend.py", "rml_onnx.py"),
    "onnx": ("rml_backend.py", "rml_onnx.py"),
    "sklearn-skops": ("rml_backend.py",),
    "python": ("rml_backend.py", "rml_frames.py", "rml_worker.py"),
    "text-cpu": (
        "rml_backend.py", "rml_text_engines.py", "rml_text_heads.py", "rml_text_plan.py", "rml_text_tokens.py",
    ),
}  # fmt: skip
