"""The kinds of preprocessing this door knows, and what each must be able to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..door.service import Door
    from ..door.snapshot import Target

__all__ = ["KINDS", "Call", "Handler", "Kind", "open_kind"]

#: kind → module with a function `open_kind(door) -> Kind`; imported on first use, so that a door whose endpoints need
#: none of a kind's libraries does not load them.
KINDS = {"ranking": "roblox_ml_serving.ranking.endpoint", "text": "roblox_ml_serving.text.endpoint"}

Headers = list[tuple[bytes, bytes]]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of one request besides its body.

    Attributes:
        unit: the endpoint's unit id, if the client gave one.
        params: what the arms of the unit's experiments say, merged.
    """

    inference_id: str
    unit: str | None = None
    params: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


class Handler(Protocol):
    """Answers the requests of one endpoint at one version.

    Where clients see other tensors than the model's, it has a property `tensors`: inputs and outputs as v2 metadata has them.

    Raises (all methods):
        Refused: the door's own answer, as everywhere in the door.
    """

    async def rest(self, body: bytes, json_length: int | None, deadline: float, call: Call) -> tuple[Headers, bytes]:
        """Headers and body of the answer to a v2 request; `deadline` on the loop's clock."""

    async def grpc(self, message: bytes, deadline: float, call: Call) -> bytes:
        """The `ModelInferResponse` to a `ModelInferRequest`, both as bytes."""


class Kind(Protocol):
    """One kind of preprocessing in one door process."""

    def load(self, files: Mapping[str, Path]) -> Any:
        """What the files hold, checked; called in a thread.

        Raises:
            ValueError: they cannot be used; the message says why.
        """

    def handler(self, target: Target, loaded: Any) -> Handler:
        """The handler of an endpoint; the same one for the same target."""

    def adopt(self, targets: Collection[Target]) -> None:
        """These are the endpoints of this kind from now on: what belonged to others may go."""

    async def close(self) -> None:
        """The door ends."""


def open_kind(kind: str, door: Door) -> Kind:
    """Raises:
    KeyError: a newer control plane speaks of a kind that this door does not know.
    """
    module: Any = import_module(KINDS[kind])
    opened: Kind = module.open_kind(door)
    return opened
