"""`rml notifications`, `rml channels`: who was told of what, what waits or was given up, and the ways to reach people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ._console import Json, console, key_values, print_json, show, when

notifications_app = typer.Typer(help="Who was told of what: pending, delivered, dead.", invoke_without_command=True)
channels_app = typer.Typer(help="Named ways to reach people, kept on the control plane.", invoke_without_command=True)
Name = Annotated[str, typer.Argument(metavar="NAME")]
_TRY_S = 12.0


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.add_typer(notifications_app, name="notifications")
    app.add_typer(channels_app, name="channels")


@notifications_app.callback()
def notifications(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="pending, delivered or dead")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    json: Json = False,
) -> None:
    """List notifications, newest first."""
    if context.invoked_subcommand:
        return
    from .._addresses import control

    with control() as client:
        found = client.call("GET", "/v1/notifications", params={"state": state, "limit": limit})
    if json:
        print_json(found)
        return
    rows = [
        (n["id"], when(n["at"]), n["type"], _about(n), _address(n), n["state"], n["attempts"], n["error"])
        for n in found["notifications"]
    ]
    columns = ("id", "happened", "event", "of", "to", "state", "tries", "last error")
    show("", columns, rows, empty="no notifications; a pipeline asks for them with notify=rml.slack(…)")
    console.print("  ".join(f"{count} {name}" for name, count in found["counts"].items()))
    if waiting := _spooled():
        console.print(
            f"{waiting} events of this machine wait for a control plane: start it with `rml up control-plane`"
        )


@notifications_app.command("retry")
def retry(
    id: Annotated[int | None, typer.Argument(metavar="ID")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Everything that was given up.")] = False,
) -> None:
    """Try again now: one notification, or with --dead all that were given up."""
    from .._addresses import control

    if (id is None) == (not dead):
        raise typer.BadParameter("name one notification, or write --dead")
    with control() as client:
        if dead:
            console.print(f"{client.call('POST', '/v1/notifications/retry')['retried']} are tried again")
        else:
            client.call("POST", f"/v1/notifications/{id}/retry")
            console.print(f"notification {id} is tried again")


@channels_app.callback()
def channels(context: typer.Context, json: Json = False) -> None:
    """List channels; secrets are shown by where they come from."""
    if context.invoked_subcommand:
        return
    from .._addresses import control

    with control() as client:
        found = client.call("GET", "/v1/channels")
    if json:
        print_json(found)
        return
    rows = [
        (c["name"], c["kind"], _words(c["options"]), _words(c["secrets"]), ", ".join(c["on"]), c["match"], c["source"])
        for c in found["channels"]
    ]
    columns = ("name", "kind", "options", "secrets", "on", "match", "source")
    show(
        "",
        columns,
        rows,
        empty="no channels; make one: rml channels add slack --kind slack --token-env RML_CHANNEL_SLACK",
    )
    if found["trouble"]:
        console.print(f"[yellow]{found['trouble']}[/]", highlight=False)


@channels_app.command("add")
def add(
    name: Name,
    kind: Annotated[str, typer.Option(help="slack, email, webhook or apprise")],
    url_env: Annotated[str, typer.Option(help="Variable of the control plane that holds the URL.")] = "",
    url_file: Annotated[str, typer.Option(help="File below $RML_HOME/secrets that holds it.")] = "",
    token_env: Annotated[str, typer.Option(help="Slack: variable that holds the bot's token.")] = "",
    token_file: Annotated[str, typer.Option(help="Slack: file below $RML_HOME/secrets that holds it.")] = "",
    secret_env: Annotated[str, typer.Option(help="Webhook: variable that holds the key of signatures.")] = "",
    secret_file: Annotated[str, typer.Option(help="Webhook: file below $RML_HOME/secrets that holds it.")] = "",
    password_env: Annotated[str, typer.Option(help="Mail: variable that holds the password.")] = "",
    password_file: Annotated[str, typer.Option(help="Mail: file below $RML_HOME/secrets that holds it.")] = "",
    target: Annotated[str, typer.Option(help="Where messages go that name no target: '#ml', an address, a URL.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="NAME=VALUE", help="host=…, port=…, sender=…, user=…")
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="What the channel itself hears of: failure, alias, gate, …")
    ] = None,
    match: Annotated[str, typer.Option(help="Of which pipelines and models, by pattern.")] = "*",
) -> None:
    """Make a channel, or change it. Secrets are named, never typed: the control plane reads them when it sends."""
    from .._addresses import control

    options: dict[str, Any] = dict(key_values(option or [], "--option"))
    if target:
        options["target"] = target
    for key, env, file in (
        ("url", url_env, url_file),
        ("token", token_env, token_file),
        ("secret", secret_env, secret_file),
        ("password", password_env, password_file),
    ):
        if env and file:
            raise typer.BadParameter(f"--{key}-env and --{key}-file name the same secret; give one")
        if env or file:
            options[key] = {"env": env} if env else {"file": file}
    with control() as client:
        body = {"kind": kind, "options": options, "on": on or [], "match": match}
        client.call("PUT", f"/v1/channels/{name}", body)
    console.print(f"channel {name} is kept; try it: rml channels test {name}")


@channels_app.command("remove")
def remove(name: Name) -> None:
    """Remove a channel."""
    from .._addresses import control

    with control() as client:
        client.call("DELETE", f"/v1/channels/{name}")
    console.print(f"channel {name} is removed")


@channels_app.command("test")
def test(name: Name, target: Annotated[str, typer.Option(help="Another target than the channel's own.")] = "") -> None:
    """Send a message through a channel, and say what became of it."""
    from .._addresses import control

    with control() as client:
        event = client.call("POST", f"/v1/channels/{name}/test", params={"target": target})["event"]
        end = time.monotonic() + _TRY_S
        tried: list[Any] = []
        while time.monotonic() < end and not any(one["attempts"] for one in tried):
            time.sleep(0.2)
            tried = client.call("GET", f"/v1/events/{event}")["deliveries"]
    if tried and tried[0]["state"] == "delivered":
        console.print(f"channel {name} took the message")
        return
    said = tried[0]["error"] if tried and tried[0]["error"] else "nothing was heard of it yet: rml notifications"
    console.print(f"[red]channel {name}: {said}[/]", highlight=False)
    raise typer.Exit(1)


def _about(notification: Mapping[str, Any]) -> str:
    """What an event is of, in one cell."""
    subject = notification["subject"]
    if model := subject.get("model"):
        return f"{model}@{subject['alias']}" if "alias" in subject else f"{model}/{subject.get('version', '')}"
    return str(subject.get("run") or notification["pipeline"] or subject.get("channel") or "")


def _address(notification: Mapping[str, Any]) -> str:
    """Where it goes, in one cell."""
    through = f"via {notification['channel']}" if notification["channel"] else ""
    kind = notification["kind"] if notification["kind"] != "apprise" else ""
    return " ".join(part for part in (kind, notification["target"], through) if part)


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in facts.items())


def _spooled() -> int:
    """Events that nobody has read: a control plane that runs here has read them within a second."""
    from .._events import spool

    try:
        return sum(1 for path in spool().glob("*.json") if time.time() - path.stat().st_mtime > 5)
    except OSError:
        return 0
