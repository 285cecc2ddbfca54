"""Who answers a request: the policy snapshot, and the one pure decision that door, clients, batch jobs and analysis share.

    policy = read_policy(snapshot["policy"])
    decision = decide(policy, "feed", "user-17", {"country": "DE"})
    decision.ref.key, decision.arms, decision.params

docs/formats/policy-snapshot.md has the format, docs/formats/policy-decision.md the rules, with test vectors.
"""

from .allocation import NoRoom, Range, allocate
from .deciding import decide, decide_for
from .frames import decide_frame
from .hashing import SCALE, bucket, seed_of
from .holders import holders
from .model import Arm, Decision, EndpointPolicy, Experiment, Exposure, LogPolicy, Policy, Ref, UnknownEndpoint
from .reading import PolicyInvalid, digest_of, read_policy

__all__ = [
    "SCALE",
    "Arm",
    "Decision",
    "EndpointPolicy",
    "Experiment",
    "Exposure",
    "LogPolicy",
    "NoRoom",
    "Policy",
    "PolicyInvalid",
    "Range",
    "Ref",
    "UnknownEndpoint",
    "allocate",
    "bucket",
    "decide",
    "decide_for",
    "decide_frame",
    "digest_of",
    "holders",
    "read_policy",
    "seed_of",
]
