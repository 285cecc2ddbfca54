"""`rml login`, `logout`, `whoami`, `tokens`, `teams`, `grants`, `roles`, `secrets`, `audit`: who you are and who may do what."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated, Any

import typer

from ._console import Json, console, print_json, show, when

tokens_app = typer.Typer(help="Service tokens, for what is not a person.", no_args_is_help=True)
teams_app = typer.Typer(help="Teams own models, blobs and secrets.", no_args_is_help=True)
grants_app = typer.Typer(help="Who holds which role over what.", no_args_is_help=True)
secrets_app = typer.Typer(help="Which team a step's secret belongs to (names only).", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="The control plane; default: RML_CONTROL_URL, else this machine's.")]
Principal = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="ISSUER:SUBJECT as rml whoami shows it.")]
ScopeText = Annotated[str, typer.Argument(metavar="SCOPE", help="team:NAME, model:NAME or *")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    for command in (login, logout, whoami, roles, audit):
        app.command()(command)
    for name, group in (("tokens", tokens_app), ("teams", teams_app), ("grants", grants_app), ("secrets", secrets_app)):
        app.add_typer(group, name=name)


def login(
    url: Url = "",
    issuer: Annotated[str, typer.Option(help="Which provider, where there are several.")] = "",
    browser: Annotated[bool, typer.Option("--browser", help="A browser on this machine instead of a code.")] = False,
    token: Annotated[bool, typer.Option("--token", help="Keep a service token, read from standard input.")] = False,
) -> None:
    """Log in: an address and a code to confirm on any device. Kept in $RML_HOME/credentials.json, for you alone."""
    from .. import _credentials, _login

    where = _where(url)
    _login.require_private(where, "the control plane")
    entry: dict[str, Any]
    if token:
        text = typer.prompt("service token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
        entry = {"kind": "token", "token": text}
    else:
        provider = _login.discover(_chosen(_call(where, "GET", "/v1/auth", "")["issuers"], issuer, where))
        if provider.device_endpoint and not browser:
            answer = _login.device_flow(provider, _tell)
        else:
            answer = _login.browser_flow(provider, _tell)
        entry = _login.entry(provider, answer)
    known = _call(where, "GET", "/v1/whoami", entry["token"])  # the control plane's word, before anything is kept
    _credentials.remember(where, {**entry, "principal": known["principal"]})
    console.print(f"logged in to {where} as {known['principal']}", highlight=False)
    _roles_of(known)


def logout(url: Url = "") -> None:
    """End the login here, at the control plane and at the provider."""
    from .. import _credentials

    where = _where(url)
    entry = _credentials.forget(where)
    if entry is None:
        console.print(f"there is no login for {where}", highlight=False)
        return
    ended = []
    with suppress(Exception):  # it may be away, or the token may have ended by itself: it is gone from here anyway
        if _call(where, "POST", "/v1/logout", str(entry["token"]))["ended"]:
            ended.append("the control plane")
    if entry.get("revocation_endpoint") and entry.get("refresh_token"):
        with suppress(Exception):
            fields = {"token": str(entry["refresh_token"]), "client_id": str(entry["client_id"])}
            if _credentials.post_form(str(entry["revocation_endpoint"]), fields)[0] < 400:
                ended.append("the provider")
    also = f" and at {' and '.join(ended)}" if ended else ""
    console.print(f"logged out of {where} here{also}", highlight=False)


def whoami(url: Url = "", json: Json = False) -> None:
    """Who the control plane takes you for, and what you may do."""
    where = _where(url)
    known = _call(where, "GET", "/v1/whoami")
    if json:
        print_json(known)
        return
    console.print(f"{known['principal']} at {where}", highlight=False)
    _roles_of(known)


def roles() -> None:
    """The roles, and what each allows."""
    found = _call(_where(""), "GET", "/v1/roles")["roles"]
    show("", ("role", "allows"), [(role, ", ".join(actions)) for role, actions in found.items()], empty="")


def audit(
    subject: Annotated[str, typer.Argument(help="A model, NAME/VERSION or NAME@ALIAS; empty: everything.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what was refused.")] = False,
    limit: int = 50,
    json: Json = False,
) -> None:
    """Who changed what, and who was refused and why; newest first."""
    query = {"limit": limit, "subject": subject or None, "outcome": "refused" if refused else None}
    found = _call(_where(""), "GET", "/v1/audit", params=query)["audit"]
    if json:
        print_json(found)
        return
    rows = [
        (when(row["at"]), row["actor"], row["principal"], row["action"], row["subject"],
         (row["detail"] or {}).get("reason", ""))
        for row in found
    ]  # fmt: skip
    show("", ("when", "who", "proved", "what", "of", "why"), rows, empty="nothing is recorded")


@tokens_app.command("create")
def tokens_create(
    name: str,
    role: Annotated[
        str, typer.Option(help="The most it may do: infer, view, run, register, promote, serve, admin.")
    ] = "view",
    scope: Annotated[str, typer.Option(help="Where: team:NAME, model:NAME or * (wherever you may).")] = "*",
    days: Annotated[int, typer.Option(help="How long it lives; 0: the control plane's default.")] = 0,
    owner: Annotated[str, typer.Option(help="service:TEAM/NAME instead of you; ends with no person's leaving.")] = "",
    json: Json = False,
) -> None:
    """Make a service token. It is shown this once."""
    body = {"name": name, "role": role, "scope": scope, "days": days or None, "owner": owner or None}
    made = _call(_where(""), "POST", "/v1/tokens", body=body)
    if json:
        print_json(made)
        return
    if sys.stdout.isatty():
        limits = f"{made['role']} on {made['scope']}, until {when(made['expires_at'])}"
        console.print(f"{made['id']}: {limits}. Shown this once:", highlight=False)
    typer.echo(made["token"])  # alone when piped, for `… | kubectl create secret --from-file=token=/dev/stdin`


@tokens_app.command("list")
def tokens_list(
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's; for administrators.")] = False,
    json: Json = False,
) -> None:
    """Your service tokens, without their secrets."""
    found = _call(_where(""), "GET", "/v1/tokens", params={"everybody": str(everybody).lower()})["tokens"]
    if json:
        print_json(found)
        return
    rows = [
        (t["id"], t["name"], t["owner"], f"{t['role']} on {t['scope']}", t["state"], when(t["expires_at"]),
         when(t["used_at"]))
        for t in found
    ]  # fmt: skip
    show("", ("id", "name", "owner", "limit", "state", "until", "last used"), rows, empty="no tokens")


@tokens_app.command("revoke")
def tokens_revoke(token: Annotated[str, typer.Argument(help="Its id, as rml tokens list shows it.")]) -> None:
    """End a service token at once."""
    # Somebody may paste the whole token: only its id may go into an address.
    gone = _call(_where(""), "DELETE", f"/v1/tokens/{_id_of(token)}")
    console.print(f"{gone['id']} ({gone['name']}) is revoked", highlight=False)


@teams_app.command("list")
def teams_list(json: Json = False) -> None:
    """The teams you may see."""
    found = _call(_where(""), "GET", "/v1/teams")["teams"]
    if json:
        print_json(found)
        return
    show("", ("team", "models"), [(t["name"], t["models"]) for t in found], empty="no team that you may see")


@teams_app.command("show")
def teams_show(team: str) -> None:
    """A team's models and published pipelines, and who holds which role in it."""
    found = _call(_where(""), "GET", f"/v1/teams/{team}")
    rows = [(m["principal"], m["role"]) for m in found["members"]]
    owned = "; ".join(f"{kind}: {', '.join(found[kind])}" for kind in ("models", "pipelines") if found.get(kind))
    show(f"{team}: {owned or 'owns nothing'}", ("principal", "role"), rows, empty="nobody")


@teams_app.command("add")
def teams_add(team: str) -> None:
    """Make a team."""
    console.print(f"team {_call(_where(''), 'PUT', f'/v1/teams/{team}')['name']}", highlight=False)


@teams_app.command("remove")
def teams_remove(team: str) -> None:
    """Remove a team that owns no model."""
    console.print(f"removed team {_call(_where(''), 'DELETE', f'/v1/teams/{team}')['name']}", highlight=False)


@teams_app.command("take-model")
def teams_take_model(team: str, model: str) -> None:
    """Give a model to a team."""
    moved = _call(_where(""), "PUT", f"/v1/models/{model}/team", body={"team": team})
    console.print(f"{model} belongs to team {moved['team']} (before: {moved['from'] or 'nobody'})", highlight=False)


@grants_app.command("list")
def grants_list(principal: str = "", scope: str = "", json: Json = False) -> None:
    """Your own roles, and those over what you administer."""
    query = {"principal": principal or None, "scope": scope or None}
    found = _call(_where(""), "GET", "/v1/grants", params=query)["grants"]
    if json:
        print_json(found)
        return
    rows = [(g["principal"], g["role"], g["scope"], g["created_by"], when(g["created_at"])) for g in found]
    show("", ("principal", "role", "scope", "by", "when"), rows, empty="no role was given")


@grants_app.command("give")
def grants_give(principal: Principal, scope: ScopeText, role: str) -> None:
    """Give a role."""
    _call(_where(""), "POST", "/v1/grants", body={"principal": principal, "scope": scope, "role": role})
    console.print(f"{principal} has {role} on {scope}", highlight=False)


@grants_app.command("take")
def grants_take(principal: Principal, scope: ScopeText, role: str) -> None:
    """Take a role away; it counts from the next request on."""
    _call(_where(""), "DELETE", "/v1/grants", params={"principal": principal, "scope": scope, "role": role})
    console.print(f"{principal} no longer has {role} on {scope}", highlight=False)


@grants_app.command("revoke-all")
def grants_revoke_all(
    principal: Principal,
    disable: Annotated[bool, typer.Option("--disable", help="And do not let them in again.")] = False,
) -> None:
    """End every token and login of somebody."""
    _call(_where(""), "POST", "/v1/principals/revoke", body={"principal": principal, "disable": disable})
    console.print(f"what {principal} had is ended{' and they are shut out' if disable else ''}", highlight=False)


@secrets_app.command("list")
def secrets_list() -> None:
    """Names of your teams' secrets."""
    found = _call(_where(""), "GET", "/v1/secrets")["secrets"]
    show("", ("secret", "team", "by"), [(s["name"], s["team"], s["by"]) for s in found], empty="no secret is owned")


@secrets_app.command("own")
def secrets_own(secret: str, team: str) -> None:
    """Say that a step secret belongs to a team."""
    _call(_where(""), "PUT", f"/v1/secrets/{secret}", body={"team": team})
    console.print(f"secret {secret} belongs to team {team}", highlight=False)


def _where(url: str) -> str:
    from .._addresses import control_url

    return (url or control_url()).rstrip("/")


def _call(
    where: str,
    method: str,
    path: str,
    token: str | None = None,
    *,
    body: dict[str, Any] | None = None,
    params: dict[str, Any] | None = None,
) -> Any:
    """One request, as whoever is logged in unless `token` says otherwise (empty: as nobody)."""
    from .. import _siblings
    from .._addresses import translated
    from .._credentials import token_for

    sent = (token_for(where) or "") if token is None else token
    client = _siblings.load("roblox_ml_core.registry").RegistryClient
    with translated(), client(where, sent) as connection:
        return connection.call(method, path, body, params=params)


def _chosen(issuers: list[dict[str, Any]], name: str, where: str) -> dict[str, Any]:
    from .._login import LoginFailed

    names = ", ".join(str(one["name"]) for one in issuers)
    found = [one for one in issuers if not name or one["name"] == name]
    if len(found) == 1:
        return found[0]
    if not issuers:
        raise LoginFailed(
            f"{where} knows no identity provider",
            why="it was started without RML_IDENTITY_ISSUERS",
            fix="use a service token (rml login --token), or have its operator configure one",
        )
    raise LoginFailed(f"{where} has the providers {names}", fix=f"say which: rml login --issuer {issuers[0]['name']}")


def _tell(address: str, code: str) -> None:
    console.print(f"open [bold]{address}[/]" if code else "open in a browser on this machine:", highlight=False)
    if code:
        console.print(f"and confirm the code [bold]{code}[/]", highlight=False)
    else:
        typer.echo(address)


def _roles_of(known: dict[str, Any]) -> None:
    for grant in known["grants"]:
        console.print(f"  {grant}", highlight=False)
    if known.get("limit"):
        console.print(f"  at most {known['limit']['role']} on {known['limit']['scope']}", highlight=False)
    if not known["grants"]:
        console.print("  no role yet: an administrator of your team gives one with rml grants give", highlight=False)


def _id_of(token: str) -> str:
    parts = token.split("_")
    return f"rml_{parts[1]}" if len(parts) > 2 and parts[0] == "rml" else token
