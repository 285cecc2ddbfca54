"""Who is asking and what they may do: principals, grants, service tokens, and the verification of signed tokens.

Verification lives here, on the ground floor, so that every service can do it; issuing is the control plane's alone.
"""

from .grants import EVERYTHING, ROLES, Action, Decision, Grant, Limit, Resource, Scope, decide, parse_grant
from .jwks import KeySet
from .principal import LOCAL, Principal
from .tokens import PREFIX, ServiceToken, digest_of, is_service_token, make, parse
from .verify import Issuer, Verifier

__all__ = [
    "EVERYTHING",
    "LOCAL",
    "PREFIX",
    "ROLES",
    "Action",
    "Decision",
    "Grant",
    "Issuer",
    "KeySet",
    "Limit",
    "Principal",
    "Resource",
    "Scope",
    "ServiceToken",
    "Verifier",
    "decide",
    "digest_of",
    "is_service_token",
    "make",
    "parse",
    "parse_grant",
]
