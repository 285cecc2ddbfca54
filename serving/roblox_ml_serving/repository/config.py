"""`config.pbtxt` from a model package. Pure and deterministic: the same package and options give the same bytes.

A version becomes two Triton models. The public one, `comment-sentiment.3`, has the package's signature to the letter (`TEXT`
of shape `[-1]`), which Triton's batching mode cannot express: there a client would have to send `[n, 1]`. It is an ensemble of
one step, and its step `comment-sentiment.3.batch` gets each request as one ragged row of a batch. So requests of any number of
rows are batched together, at the price of some tens of microseconds in Triton's C++ code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roblox_ml_core.names import triton_name
from roblox_ml_core.package import ModelPackage, TensorSpec

from .pbtxt import Enum, Value, render
from .warmup import TEXT_CPU, warmup_messages

__all__ = ["BATCH_SUFFIX", "Options", "batch_config", "config_pbtxt", "public_config"]

BATCH_SUFFIX = ".batch"
#: What a model file that pins its instances looks for.
PIN_PARAMETER = "rml.pin"

# Open Inference Protocol datatypes whose Triton name is not simply TYPE_<datatype>.
_TYPES = {"BYTES": "TYPE_STRING"}
# What a text model's computing half takes beside texts: all rows' token ids one after the other, and tokens per row.
_TOKENS = (TensorSpec("IDS", "INT32", (-1,)), TensorSpec("LENGTHS", "INT32", (-1,)))


@dataclass(frozen=True, slots=True)
class Options:
    """What the place decides, not the package: how many instances, how large a batch, how long to wait for one."""

    instances: int = 1
    max_batch_requests: int = 32
    # 0: a batch is what has queued while the instances worked; nobody waits for company.
    max_queue_delay_us: int = 0
    # Each instance on a core of its own. Only where there is one instance per core, else some cores get two.
    pin: bool = False
    # Free text that reaches the model file, e.g. the interpreter of a plain-Python model.
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.instances < 1 or self.max_batch_requests < 1 or self.max_queue_delay_us < 0:
            raise ValueError(f"instances and max_batch_requests start at 1, the delay at 0: {self}")


def config_pbtxt(package: ModelPackage, name: str, version: int, options: Options | None = None) -> dict[str, str]:
    """Both configurations of a version, by Triton model name (the public one first)."""
    public = triton_name(name, version)
    return {
        public: public_config(package, name, version),
        public + BATCH_SUFFIX: batch_config(package, name, version, options or Options()),
    }


def public_config(package: ModelPackage, name: str, version: int) -> str:
    """The model clients see: the signature's shapes, one step."""
    signature = package.signature
    inputs, outputs = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]
    step: dict[str, Value] = {"model_name": triton_name(name, version) + BATCH_SUFFIX, "model_version": version}
    step["input_map"] = [{"key": tensor, "value": tensor} for tensor in inputs]
    step["output_map"] = [{"key": tensor, "value": tensor} for tensor in outputs]
    message: dict[str, Value] = {
        "name": triton_name(name, version),
        "platform": "ensemble",
        "max_batch_size": 0,
        "input": _tensors(signature.inputs),
        "output": _tensors(signature.outputs),
        "version_policy": {"specific": {"versions": [version]}},
        "ensemble_scheduling": {"step": [step]},
        "parameters": _parameters({"rml.digest": package.digest, "rml.format": package.format}),
    }
    return render(message)


def batch_config(package: ModelPackage, name: str, version: int, options: Options) -> str:
    """The model that computes: Python backend, dynamic batching over ragged requests, warm-up from the package's example."""
    inputs = _tensors(package.signature.inputs, ragged=True)
    outputs = _tensors(package.signature.outputs)
    if package.format == TEXT_CPU:
        # A door has tokenised already and asks with ids; the public model above goes on sending texts.
        inputs += _tensors(_TOKENS, ragged=True)
        inputs = [{**tensor, "optional": True} for tensor in inputs if isinstance(tensor, Mapping)]
        outputs += _tensors([TensorSpec("LOGITS", "FP32", (-1, len(package.labels or ())))])
    message: dict[str, Value] = {
        "name": triton_name(name, version) + BATCH_SUFFIX,
        "backend": "python",
        "max_batch_size": options.max_batch_requests,
        "input": inputs,
        "output": outputs,
        "instance_group": [{"kind": Enum("KIND_CPU"), "count": options.instances}],
        "dynamic_batching": {"max_queue_delay_microseconds": options.max_queue_delay_us},
        "version_policy": {"specific": {"versions": [version]}},
        "parameters": _parameters(
            {
                **options.parameters,
                **({PIN_PARAMETER: "cores"} if options.pin else {}),
                "rml.digest": package.digest,
                "rml.format": package.format,
            }
        ),
    }
    if warmups := warmup_messages(package):
        message["model_warmup"] = warmups
    return render(message)


def _tensors(specs: Sequence[TensorSpec], *, ragged: bool = False) -> list[Value]:
    tensors: list[Value] = []
    for spec in specs:
        tensor: dict[str, Value] = {
            "name": spec.name,
            "data_type": Enum(_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}")),
            "dims": list(spec.shape),
        }
        if ragged:
            tensor["allow_ragged_batch"] = True
        tensors.append(tensor)
    return tensors


def _parameters(values: Mapping[str, str]) -> list[Value]:
    return [{"key": key, "value": {"string_value": values[key]}} for key in sorted(values)]
