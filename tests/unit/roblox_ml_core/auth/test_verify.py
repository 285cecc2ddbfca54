"""Signed tokens: the right one is believed; every known way to forge, stretch or misdirect one is refused, and says why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from roblox_ml_core.auth import Grant, Issuer, KeySet, Scope, Verifier
from roblox_ml_core.errors import Unauthorized, Unavailable
from roblox_ml_core.settings import IdentitySettings

ISSUER, AUDIENCE = "https://id.example.org", "roblox-ml"
POD = "system:serviceaccount:ml-safety:trainer"
RSA, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
EC, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
_PUBLIC = jwt.algorithms.RSAAlgorithm.to_jwk


def _jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    kinds = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
    kind = next((one for base, one in kinds.items() if isinstance(key, base)), jwt.algorithms.OKPAlgorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


KEYS = {"keys": [_jwk(RSA, "rsa"), _jwk(EC, "ec"), _jwk(ED, "ed"), {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}]}


def _claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "email": "ann@example.org", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**claims, **changed}.items() if value is not None}


def _sign(
    key: Any = RSA, algorithm: str = "RS256", kid: str | None = "rsa", headers: Mapping[str, Any] = {}, **changed: Any
) -> str:
    named = {"kid": kid} if kid is not None else {}
    return jwt.encode(_claims(**changed), key, algorithm, headers={**named, **headers})


def _issuer(**fields: Any) -> Issuer:
    return Issuer(name="corp", issuer=ISSUER, audience=AUDIENCE, **fields)


def _verifier(issuer: Issuer | None = None, fetch: Any = lambda: KEYS) -> Verifier:
    issuer = issuer or _issuer()
    return Verifier([issuer], key_sets={issuer.name: KeySet(fetch)})


VERIFIER = _verifier()


def _raw(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"x") -> str:
    parts = [json.dumps(dict(part)).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (ED, "EdDSA", "ed")])
def test_a_token_of_its_issuer_proves_its_subject(key: Any, algorithm: str, kid: str) -> None:
    principal, claims = VERIFIER.verify(_sign(key, algorithm, kid))
    assert (principal.id, principal.kind, principal.display) == ("corp:ann", "user", "ann@example.org")
    assert principal.issued_at == claims["iat"]


def _hmac_with_the_public_key() -> str:
    """The classic: the server's public key, which everybody has, used as a shared secret."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = _raw({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, _claims()).rpartition(".")[0]
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


FORGED = {
    "another's signature": (lambda: _sign(OTHER), "signature"),
    "alg none": (lambda: _raw({"alg": "none", "kid": "rsa"}, _claims(), b""), "algorithm"),
    "alg None": (lambda: _raw({"alg": "None", "kid": "rsa"}, _claims(), b""), "algorithm"),
    "no alg": (lambda: _raw({"kid": "rsa"}, _claims()), ""),
    "the public key as a secret": (_hmac_with_the_public_key, "algorithm"),
    "a symmetric key of the set": (lambda: _sign("secret" * 8, "HS256", "oct"), "algorithm"),
    "a symmetric key by its id": (lambda: _sign(RSA, "RS256", "oct"), "key"),
    "an algorithm not on the list": (lambda: _sign(RSA, "RS512"), "algorithm"),
    "an algorithm not of its key": (lambda: _sign(RSA, "PS256"), "not for PS256"),
    "a key that is not there": (lambda: _sign(kid="gone"), "key"),
    "no key id among several": (lambda: _sign(kid=None), "key"),
    "its own key": (lambda: _sign(OTHER, headers={"jwk": _jwk(OTHER, "rsa")}), "jwk"),
    "a key elsewhere": (lambda: _sign(OTHER, headers={"jku": "https://evil.example/jwks"}), "jku"),
    "a certificate elsewhere": (lambda: _sign(OTHER, headers={"x5u": "https://evil.example/x"}), "x5u"),
    "an extension": (lambda: _sign(headers={"crit": ["exp"]}), ""),
    "another audience": (lambda: _sign(aud="billing"), "another service"),
    "no audience": (lambda: _sign(aud=None), "aud"),
    "another issuer": (lambda: _sign(iss="https://evil.example"), "issuer"),
    "an issuer that only begins like ours": (lambda: _sign(iss=ISSUER + ".evil.example"), "issuer"),
    "no issuer": (lambda: _sign(iss=None), "issuer"),
    "expired": (lambda: _sign(exp=int(time.time()) - 120), "expired"),
    "never expiring": (lambda: _sign(exp=None), "exp"),
    "not yet": (lambda: _sign(nbf=int(time.time()) + 600), "not valid yet"),
    "from the future": (lambda: _sign(iat=int(time.time()) + 600), "not valid yet"),
    "from no time": (lambda: _sign(iat=None), "iat"),
    "nobody": (lambda: _sign(sub=None), "sub"),
    "an empty name": (lambda: _sign(sub=""), "names nobody"),
    "a name with a line break": (lambda: _sign(sub="ann\nroot"), "names nobody"),
    "too long": (lambda: _sign(padding="x" * 20_000), "longer"),
    "claims changed after signing": (lambda: _tampered(), "signature"),
}  # fmt: skip


def _tampered() -> str:
    head, _, signature = _sign().split(".")
    body = base64.urlsafe_b64encode(json.dumps(_claims(sub="root")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize("what", FORGED)
def test_what_proves_nothing_is_refused_and_says_why(what: str) -> None:
    make, says = FORGED[what]
    token = make()
    with pytest.raises(Unauthorized) as refused:
        VERIFIER.verify(token)
    assert says in str(refused.value)
    assert token not in str(refused.value) and token.split(".")[1] not in str(refused.value)


def test_clocks_may_differ_a_little_and_no_more() -> None:
    now = int(time.time())
    VERIFIER.verify(_sign(exp=now - 20, iat=now - 600))
    VERIFIER.verify(_sign(nbf=now + 20, iat=now + 20))
    strict = Verifier([_issuer()], leeway_s=0, key_sets={"corp": KeySet(lambda: KEYS)})
    with pytest.raises(Unauthorized, match="expired"):
        strict.verify(_sign(exp=now - 20, iat=now - 600))


GOOD = _sign()


@given(st.text(max_size=200))
@example("a.b.c")
@example("..")
@example("e30.e30.e30")
@example(_raw({"alg": "RS256", "kid": {"a": 1}}, {"iss": ["x"]}))
@example(_raw({"alg": ["RS256"]}, {"iss": ISSUER}))
@example(_raw({"alg": "RS256", "kid": "rsa"}, {"iss": ISSUER, "exp": 1e400, "aud": 5}))
def test_no_text_crashes_it(text: str) -> None:
    with pytest.raises(Unauthorized):
        VERIFIER.verify(text)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("Aa0-_.=%\0é"))
def test_a_changed_token_is_refused_or_the_same(position: int, other: str) -> None:
    changed = GOOD[:position] + other + GOOD[position + 1 :]
    try:
        principal, _ = VERIFIER.verify(changed)
    except Unauthorized:
        return
    # The last character of base64 has bits that mean nothing.
    assert principal.id == "corp:ann" and changed[:-1] == GOOD[:-1]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "iat", "nbf", "groups", "email", "jti"]), _JSON))
def test_an_issuer_that_signs_nonsense_crashes_nothing(claims: dict[str, Any]) -> None:
    base = _claims()
    base.update(claims)
    base["iss"] = ISSUER
    try:
        token = jwt.api_jws.encode(json.dumps(base).encode(), RSA, "RS256", headers={"kid": "rsa"})
        principal, _ = VERIFIER.verify(token)
    except (Unauthorized, UnicodeEncodeError):
        return
    assert principal.id == f"corp:{base['sub']}"


class _Provider:
    """An issuer whose keys and health the test decides, and who counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [_jwk(RSA, "one")]
        self.asked, self.up, self.time = 0, True, 1000.0

    def fetch(self) -> dict[str, Any]:
        self.asked += 1
        if not self.up:
            raise OSError("away")
        return {"keys": self.keys}

    def key_set(self) -> KeySet:
        return KeySet(self.fetch, fresh_s=600, retry_s=10, stale_s=3600, clock=lambda: self.time)


def test_keys_are_fetched_once_and_again_when_a_new_one_signs() -> None:
    provider = _Provider()
    keys = provider.key_set()
    for _ in range(5):
        keys.key("one", "RS256")
    assert provider.asked == 1
    provider.keys = [_jwk(RSA, "one"), _jwk(OTHER, "two")]
    provider.time += 11
    keys.key("two", "RS256")
    assert provider.asked == 2
    provider.keys = [_jwk(OTHER, "two")]  # the first is withdrawn
    provider.time += 601
    with pytest.raises(Unauthorized):
        keys.key("one", "RS256")


def test_invented_key_ids_do_not_make_us_ask_and_ask() -> None:
    provider = _Provider()
    keys = provider.key_set()
    for number in range(50):
        with pytest.raises(Unauthorized):
            keys.key(f"invented-{number}", "RS256")
    assert provider.asked == 1
    assert keys.key("one", "RS256").algorithm_name == "RS256"


def test_an_issuer_that_is_away_changes_nothing_for_a_while() -> None:
    provider = _Provider()
    keys = provider.key_set()
    keys.key("one", "RS256")
    provider.up = False
    provider.time += 3000
    assert keys.key("one", "RS256").key_id == "one"
    provider.time += 700
    with pytest.raises(Unavailable):
        keys.key("one", "RS256")
    cold = _Provider()
    cold.up = False
    with pytest.raises(Unavailable):
        cold.key_set().key("one", "RS256")


def test_groups_and_service_accounts_are_mapped_to_grants() -> None:
    people = _issuer(groups={"ml-safety": ["team:safety=register"], "everyone": ["*=view"]})
    principal, _ = _verifier(people).verify(_sign(groups=["ml-safety", "unknown", 7]))
    assert principal.grants == {Grant("register", Scope("team", "safety"))}
    pods = Issuer(
        name="pods", issuer="https://kubernetes.default.svc", audience=AUDIENCE, kind="pod",
        subjects={"system:serviceaccount:ml-safety:*": ["team:safety=run"], POD: ["model:toxicity=register"]},
    )  # fmt: skip
    token = _sign(iss=pods.issuer, aud=[AUDIENCE], sub=POD, email=None)
    principal, _ = Verifier([_issuer(), pods], key_sets={"corp": KeySet(dict), "pods": KeySet(lambda: KEYS)}).verify(
        token
    )
    assert (principal.kind, principal.id, principal.display) == ("pod", f"pods:{POD}", POD)
    assert {str(grant) for grant in principal.grants} == {"run on team:safety", "register on model:toxicity"}
    near = _sign(iss=pods.issuer, sub="system:serviceaccount:ml-safety-evil:trainer")
    assert _verifier(pods).verify(near)[0].grants == frozenset()


def test_an_email_is_a_name_only_when_its_issuer_vouches_for_it() -> None:
    verifier = _verifier(_issuer(subject_claim="email"))
    with pytest.raises(Unauthorized, match="not verified"):
        verifier.verify(_sign())
    assert verifier.verify(_sign(email_verified=True))[0].id == "corp:ann@example.org"


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "http://id.example.org"}, {"algorithms": ["RS256", "none"]}, {"algorithms": ["HS256"]}, {"name": "A b"},
     {"audience": ""}, {"colour": "red"}],
)  # fmt: skip
def test_unsafe_settings_are_refused(changed: dict[str, Any]) -> None:
    one = {"name": "corp", "issuer": ISSUER, "audience": AUDIENCE, **changed}
    with pytest.raises(ValidationError):
        IdentitySettings(issuers=[one])  # type: ignore[list-item]


def test_an_issuer_cannot_be_there_twice_or_take_a_name_of_ours() -> None:
    one = {"name": "corp", "issuer": ISSUER, "audience": AUDIENCE}
    for other in (one, {**one, "name": "b"}, {**one, "issuer": "https://b.example.org"}):
        with pytest.raises(ValueError, match="twice"):
            IdentitySettings(issuers=[one, other]).trusted()  # type: ignore[list-item]
    with pytest.raises(ValueError, match="taken"):
        IdentitySettings(issuers=[{**one, "name": "service"}]).trusted()  # type: ignore[list-item]
