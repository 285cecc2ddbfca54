"""Writers of model packages: what `rml.Model.from_transformers`, `from_sklearn`, `from_onnx` and `from_python` call.

Each writer turns a trained model into the one directory format that the registry stores and Triton serves: the model's
files, a signature, recorded examples with the answers the model gave for them, and a manifest of sha256 digests. They run
inside steps, so nothing here imports more than the standard library and the model's own framework.
"""
