"""What metadata does not say: which name to install for an import, and what a library loads without importing it.

Both tables are short on purpose. The first only words an error's advice; the second names libraries that are found by
name at run time (`DataFrame.to_parquet` needs pyarrow, which nothing imports), and counts only what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COMPANIONS", "PIP_NAMES"]

# import name → distribution names that go with it when this interpreter has them
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "accelerate": ("torch",),
    "datasets": ("pyarrow",),
    "pandas": ("pyarrow",),
    "polars": ("pyarrow",),
    "sklearn": ("skops",),
    # torch.onnx.export finds these by name
    "torch": ("numpy", "onnx", "onnxruntime", "onnxscript"),
    # a text classifier is registered as ONNX beside its own weights
    "transformers": ("accelerate", "onnx", "onnxruntime", "onnxscript", "torch"),
}

# import name → what to type after `pip install`, where the two differ
PIP_NAMES: Mapping[str, str] = {
    "Crypto": "pycryptodome",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "git": "gitpython",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "usb": "pyusb",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
