"""One `InferenceService` (v1beta1, Standard mode) per endpoint, and its disruption budget.

The pods bring the endpoint's present version (`storageUri`) and are ready when the agent has proved it. Promotion, rollback,
canaries and experiments need no new InferenceService: the door decides, the agent loads. Applying again after a promotion
only changes what a new pod starts with.
"""

from __future__ import annotations

from .pods import Json, disruption_budget, metadata, probe
from .runtime import FORMAT, HTTP_PORT, RUNTIME
from .values import Installation, Model, Resources, Scaling, check

__all__ = ["inference_service", "service_objects"]


def service_objects(
    model: Model, installation: Installation, scaling: Scaling | None = None, resources: Resources | None = None
) -> list[Json]:
    """The objects of one endpoint's model servers, checked."""
    scaling, resources = scaling or Scaling(), resources or Resources()
    check(model, installation, scaling, resources)
    # KServe gives a predictor's pods this label.
    selector = {"app": f"isvc.{model.endpoint}-predictor"}
    budget = disruption_budget(f"{model.endpoint}-predictor", selector, scaling, installation)
    service = inference_service(model, installation, scaling, resources)
    return [service] if budget is None else [service, budget]


def inference_service(model: Model, installation: Installation, scaling: Scaling, resources: Resources) -> Json:
    """Nothing here is checked twice: `service_objects` refuses what a cluster would."""
    predictor: Json = {
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        # The agent watches the processes of Triton's backends, which are in the container next to its own.
        "shareProcessNamespace": True,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {"fsGroup": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app": f"isvc.{model.endpoint}-predictor"}},
            }
        ],
        "model": {
            "modelFormat": {"name": FORMAT, "version": "1"},
            "runtime": RUNTIME,
            "protocolVersion": "v2",
            "storageUri": model.uri,
            "resources": resources.to_json(),
            "readinessProbe": probe(f"/v2/models/{model.triton}/ready", HTTP_PORT),
        },
    }
    if installation.service_account is not None:
        predictor["serviceAccountName"] = installation.service_account
    predictor |= _autoscaling(model, scaling)
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": _autoscaler(scaling),
        "roblox-ml.io/package": model.reference,
    }
    extra = {"roblox-ml.io/endpoint": model.endpoint, "roblox-ml.io/model": model.name}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata(model.endpoint, installation, extra, annotations),
        "spec": {"predictor": predictor},
    }


def _autoscaler(scaling: Scaling) -> str:
    if scaling.by == "queue":
        return "keda"
    return "none" if scaling.fixed else "hpa"


def _autoscaling(model: Model, scaling: Scaling) -> Json:
    """By CPU, KServe makes the autoscaler, with the cluster's defaults. By waiting time, KEDA does, as told here.

    Up at once and by half, down slowly: a new replica loads models before it helps.
    """
    behavior = {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 50, "periodSeconds": 30}],
        },
        "scaleDown": {"stabilizationWindowSeconds": 300},
    }
    if scaling.by == "queue":
        external = {
            "metric": {
                "backend": "prometheus",
                "serverAddress": scaling.prometheus,
                "query": _queue_query(model),
            },
            "target": {"type": "Value", "value": str(scaling.target)},
        }
        return {"autoScaling": {"metrics": [{"type": "External", "external": external}], "behavior": behavior}}
    if scaling.fixed:
        return {}
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": scaling.target}}
    return {"autoScaling": {"metrics": [{"type": "Resource", "resource": resource}]}}


def _queue_query(model: Model) -> str:
    """Milliseconds that a request waited on average in Triton's queue during the last minute, over all versions."""
    which = f'{{model=~"{model.name}\\\\.[0-9]+"}}'
    waited, served = f"nv_inference_queue_duration_us{which}", f"nv_inference_request_success{which}"
    return f"sum(rate({waited}[1m])) / clamp_min(sum(rate({served}[1m])), 0.001) / 1000"
