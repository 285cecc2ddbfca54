"""What of an endpoint's policy a mesh can carry out without our door: the split of its traffic between versions.

`split_of` reduces a policy to shares per version; `http_route` writes them as a Gateway API HTTPRoute, `envoy_route` as Envoy
configuration. Both send a request to the same pods and rewrite the path to the version. What a mesh cannot do is in
`Split.left_out`, a sentence each, and stays in the written files as a comment: a split that silently is not the policy's would
make every analysis of it wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from roblox_ml_core.names import triton_name
from roblox_ml_core.policy import SCALE, Policy, Ref
from roblox_ml_core.policy.model import EndpointPolicy, Experiment

from .pods import Json, metadata
from .values import Installation, check

__all__ = ["TOTAL", "Split", "envoy_route", "http_route", "split_of"]

TOTAL = 1_000_000  # the largest weight of an HTTPRoute backend
UNIT_HEADER = "x-rml-unit"


@dataclass(frozen=True, slots=True)
class Split:
    """Which version gets how much, in parts of `TOTAL`, and what of the policy that leaves out."""

    endpoint: str
    unit: str
    shares: tuple[tuple[Ref, int], ...]
    left_out: tuple[str, ...] = ()


def split_of(policy: Policy, endpoint: str) -> Split:
    """The shares of an endpoint's versions over all units that send their id.

    The layer whose experiments choose the model comes first, as in `decide`; a canary takes its share of everybody else.
    """
    found = policy.endpoints[endpoint]
    shares: dict[Ref, Fraction] = {found.ref: Fraction(0)}
    left_out = list(_left_out(found))
    rest = Fraction(1)
    if not found.killed:
        for experiment, width in _stretches(found):
            if not experiment.chooses_model or experiment.targeting:
                continue
            at = 0
            for arm in experiment.arms:
                share = Fraction(width * (arm.until - at), SCALE * SCALE)
                at = arm.until
                if arm.ref is not None:
                    shares[arm.ref] = shares.get(arm.ref, Fraction(0)) + share
                    rest -= share
        if found.canary is not None:
            share = rest * Fraction(found.canary.share, SCALE)
            shares[found.canary.ref] = shares.get(found.canary.ref, Fraction(0)) + share
            rest -= share
    shares[found.ref] += rest
    return Split(endpoint, found.unit, _rounded(tuple(shares.items())), tuple(left_out))


def _stretches(found: EndpointPolicy) -> Iterator[tuple[Experiment, int]]:
    """Every experiment of the endpoint's layers, and how many buckets it has."""
    for layer in found.layers:
        ends = (*layer.starts[1:], SCALE)
        widths: dict[str, int] = {}
        owners = {}
        for start, end, owner in zip(layer.starts, ends, layer.owners, strict=True):
            if owner is not None:
                widths[owner.name] = widths.get(owner.name, 0) + end - start
                owners[owner.name] = owner
        yield from ((owners[name], width) for name, width in widths.items())


def _left_out(found: EndpointPolicy) -> Iterator[str]:
    if found.killed:
        return
    for experiment, _ in _stretches(found):
        if experiment.targeting:
            yield f"experiment {experiment.name}: its targeting reads attributes; all its units get the champion"
        elif not experiment.chooses_model:
            yield f"experiment {experiment.name}: its arms change parameters, which only a door hands to a handler"
        elif any(arm.params for arm in experiment.arms):
            yield f"experiment {experiment.name}: the parameters of its arms are not sent"
    for holdout, _ in found.holdouts:
        yield f"holdout {holdout.name}: its units are split like all others, so it holds nobody out"
    for shadow in found.shadows:
        yield f"shadow {shadow.name}: a mesh can mirror, but nobody compares the answers; leave shadows to a door"


def _rounded(shares: Sequence[tuple[Ref, Fraction]]) -> tuple[tuple[Ref, int], ...]:
    """Whole parts that sum to `TOTAL`: what is cut off goes to those who lost most (largest remainder)."""
    parts = [int(share * TOTAL) for _, share in shares]
    lost = sorted(range(len(shares)), key=lambda at: (parts[at] - shares[at][1] * TOTAL, at))
    for at in lost[: TOTAL - sum(parts)]:
        parts[at] += 1
    return tuple((ref, part) for (ref, _), part in zip(shares, parts, strict=True))


def http_route(split: Split, installation: Installation, gateway: str, hostname: str | None = None) -> Json:
    """A Gateway API HTTPRoute. Gateways draw anew for every request: shares hold, stickiness does not."""
    check(installation)
    backends = [
        {
            "group": "",
            "kind": "Service",
            "name": f"{split.endpoint}-predictor",
            "port": 80,
            "weight": weight,
            "filters": [_rewrite(ref), _told(ref)],
        }
        for ref, weight in split.shares
    ]
    rule = {
        "matches": [{"path": {"type": "Exact", "value": f"/v2/models/{split.endpoint}/infer"}, "method": "POST"}],
        "backendRefs": backends,
        "timeouts": {"request": "30s"},
    }
    spec: Json = {"parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway}]}
    if hostname is not None:
        spec["hostnames"] = [hostname]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(split.endpoint, installation, {"roblox-ml.io/endpoint": split.endpoint}),
        "spec": spec | {"rules": [rule]},
    }


def _path(ref: Ref) -> str:
    return f"/v2/models/{triton_name(ref.model, ref.version)}/versions/{ref.version}/infer"


def _rewrite(ref: Ref) -> Json:
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": _path(ref)}}}


def _told(ref: Ref) -> Json:
    """Who analyses must know which version answered: the only trace of the assignment."""
    header = {"name": "x-rml-model-version", "value": str(ref.version)}
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [header]}}


def envoy_route(split: Split, upstream: tuple[str, int]) -> Json:
    """Envoy's `route_config` and `clusters` for the split, sticky by the unit's header.

    Envoy hashes the header's value and takes the cluster of that hash: a unit stays where it is as long as the weights stay.
    Envoy's hash is not the policy's, so the same shares fall on other units than behind a door. Who sends no unit is
    spread at random. The path is rewritten per version by a filter of the upstream cluster.
    """
    weighted = [
        {
            "name": _cluster(ref),
            "weight": weight,
            "response_headers_to_add": [
                {
                    "header": {"key": "x-rml-model-version", "value": str(ref.version)},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
        }
        for ref, weight in split.shares
    ]
    route = {
        "match": {"path": f"/v2/models/{split.endpoint}/infer"},
        "route": {
            "weighted_clusters": {"clusters": weighted, "use_hash_policy": True},
            "hash_policy": [{"header": {"header_name": UNIT_HEADER}}],
            "timeout": "30s",
        },
    }
    return {
        "route_config": {
            "name": split.endpoint,
            "virtual_hosts": [{"name": split.endpoint, "domains": ["*"], "routes": [route]}],
        },
        "clusters": [_cluster_of(ref, upstream) for ref, _ in split.shares],
    }


def _cluster(ref: Ref) -> str:
    return f"{ref.model}.{ref.version}"


def _cluster_of(ref: Ref, upstream: tuple[str, int]) -> Json:
    kind = "type.googleapis.com/envoy.extensions"
    host, port = upstream
    address = {"socket_address": {"address": host, "port_value": port}}
    # Envoy lets no header mutation touch the path, and a weighted cluster has no rewrite of its own.
    rewrite = f'function envoy_on_request(handle) handle:headers():replace(":path", "{_path(ref)}") end'
    return {
        "name": _cluster(ref),
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": _cluster(ref),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kind}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": [
                    {
                        "name": "path",
                        "typed_config": {
                            "@type": f"{kind}.filters.http.lua.v3.Lua",
                            "default_source_code": {"inline_string": rewrite},
                        },
                    },
                    {
                        "name": "codec",
                        "typed_config": {"@type": f"{kind}.filters.http.upstream_codec.v3.UpstreamCodec"},
                    },
                ],
            }
        },
    }
