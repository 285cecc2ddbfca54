"""Each event once per channel, over real connections: while the other side is down, busy, slow, rude, and while we are killed."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import roblox_ml as rml
from roblox_ml import _events

Wait = Callable[..., Any]


def say(n: int, *notify: Any, type: str = "run.failed", **facts: Any) -> str:
    emission = _events.emit(type, {"run": f"nightly-{n}", "pipeline": "nightly", "execution": 1}, notify, **facts)
    assert emission.trouble(10) == ""
    return emission.id


def test_a_provider_that_was_down_gets_each_event_once_and_in_order(planes: Any, receiver: Any, wait_for: Wait) -> None:
    receiver.stop()
    plane = planes().start()
    hook = rml.webhook(f"{receiver.url}/hook", on=["failure", "success"])
    ids = []
    for n in range(12):
        ids.append(say(n, hook, type="run.failed" if n % 3 else "run.succeeded"))
        time.sleep(0.02)
    assert len(wait_for(lambda: [n for n in plane.notifications("pending") if n["attempts"]])) > 0
    receiver.start()
    wait_for(lambda: len(plane.notifications("delivered")) == 12, 60)
    assert receiver.events() == ids
    assert plane.notifications("pending") == [] == plane.notifications("dead")


def test_saying_it_again_changes_nothing(planes: Any, receiver: Any, wait_for: Wait) -> None:
    plane = planes().start()
    hook = rml.webhook(f"{receiver.url}/hook")
    for _ in range(3):
        event = say(1, hook, hook)
        wait_for(lambda: plane.notifications("delivered"))
    document = {
        "schema": 1, "id": event, "type": "run.failed", "at": time.time(), "pipeline": "nightly", "facts": {},
        "subject": {"run": "nightly-1", "pipeline": "nightly", "execution": 1}, "notify": [hook.to_json()],
    }  # fmt: skip
    with plane.client() as client:
        for _ in range(3):
            assert client.call("POST", "/v1/events", document) == {"id": event, "created": False}
    say(2, hook)
    wait_for(lambda: len(plane.notifications("delivered")) == 2)
    assert receiver.events().count(event) == 1 and len(receiver.posts) == 2


def test_two_control_planes_on_one_database_do_not_tell_twice(planes: Any, receiver: Any, wait_for: Wait) -> None:
    first, second = planes().start(), planes().start()
    hooks = [rml.webhook(f"{receiver.url}/{n}") for n in range(4)]
    ids = [say(n, *hooks) for n in range(15)]
    wait_for(lambda: first.notifications("pending") == [] and len(first.notifications("delivered")) == 60, 60)
    assert len(second.notifications()) == 60
    told = [(post.path, post.event) for post in receiver.posts]
    assert sorted(told) == sorted((f"/{n}", event) for n in range(4) for event in ids)


def test_slack_s_429_is_waited_out(planes: Any, receiver: Any, wait_for: Wait, make_answer: Callable[..., Any]) -> None:
    plane = planes(RML_CHANNEL_SLACK=f"{receiver.url}/services/T0/B0/secret-path").start()
    with plane.client() as client:
        client.call("PUT", "/v1/channels/slack", {"kind": "slack", "options": {"url": {"env": "RML_CHANNEL_SLACK"}}})
    receiver.script.append(make_answer(429, b"rate_limited", {"retry-after": "2"}))
    ids = [say(n, rml.slack("#ml")) for n in range(3)]
    wait_for(lambda: len(plane.notifications("delivered")) == 3)
    first, *rest = receiver.posts
    assert rest[0].at - first.at >= 2.0, "came back before Slack asked it to"
    assert [post.event for post in rest] == ids, "the others waited behind the one that was told to wait"
    assert "secret-path" not in plane.log


def test_slack_s_web_api_says_no_with_200(
    planes: Any, receiver: Any, wait_for: Wait, make_answer: Callable[..., Any]
) -> None:
    plane = planes(RML_CHANNEL_BOT="xoxb-1-not-real", RML_NOTIFY_BASE_S="0.02").start()
    options = {"token": {"env": "RML_CHANNEL_BOT"}, "api": receiver.url}
    with plane.client() as client:
        client.call("PUT", "/v1/channels/slack", {"kind": "slack", "options": options})
    receiver.script.extend(
        [
            make_answer(200, b'{"ok":false,"error":"ratelimited"}'),
            make_answer(200, b'{"ok":false,"error":"channel_not_found"}'),
        ]
    )
    receiver.usual = make_answer(200, b'{"ok":true,"channel":"C1","ts":"1.2"}')
    event = say(1, rml.slack("#ml-alerts"))
    wait_for(lambda: plane.notifications("delivered"))
    assert [post.path for post in receiver.posts] == ["/chat.postMessage"] * 3
    last = receiver.posts[-1]
    assert last.headers["authorization"] == "Bearer xoxb-1-not-real" and last.json["channel"] == "#ml-alerts"
    assert last.json["metadata"]["event_payload"]["id"] == event == last.event
    assert "Slack: channel_not_found" in plane.log and "xoxb-1-not-real" not in plane.log


def test_errors_time_outs_and_cut_connections_are_tried_again(
    planes: Any, receiver: Any, wait_for: Wait, make_answer: Callable[..., Any]
) -> None:
    plane = planes(RML_NOTIFY_TIMEOUT_S="1").start()
    receiver.script.extend(
        [
            make_answer(500),
            make_answer(cut=True),
            make_answer(hang=1.6),
            make_answer(503),
            make_answer(302, headers={"location": "/x"}),
        ]
    )
    event = say(1, rml.webhook(f"{receiver.url}/hook"))
    wait_for(lambda: plane.notifications("delivered"), 60)
    assert receiver.events() == [event] * 6
    assert {post.path for post in receiver.posts} == {"/hook"}, "a redirect is not followed"
    assert [post.headers["x-rml-attempt"] for post in receiver.posts] == list("123456")


def test_one_that_hangs_does_not_hold_up_the_others(
    planes: Any, receivers: Callable[[], Any], wait_for: Wait, make_answer: Callable[..., Any]
) -> None:
    slow, quick = receivers(), receivers()
    plane = planes().start()
    slow.usual = make_answer(hang=30)
    ids = [say(n, rml.webhook(f"{slow.url}/slow"), rml.webhook(f"{quick.url}/quick")) for n in range(8)]
    wait_for(lambda: quick.events() == ids)
    assert len([n for n in plane.notifications("pending") if n["target"].endswith("/slow")]) == 8


def test_killed_between_sending_and_recording_it_is_sent_again_under_the_same_id(
    planes: Any, receiver: Any, wait_for: Wait, make_answer: Callable[..., Any]
) -> None:
    plane = planes().start()
    receiver.script.append(make_answer(hang=0.8))  # it has the message, and we do not know yet
    event = say(1, rml.webhook(f"{receiver.url}/hook"))
    wait_for(lambda: receiver.posts)
    plane.kill()
    plane.start()
    wait_for(lambda: plane.notifications("delivered"))
    assert receiver.events() == [event, event]
    assert receiver.posts[0].body == receiver.posts[1].body


def test_what_fails_for_too_long_is_given_up_listed_and_can_be_tried_again(
    planes: Any, receiver: Any, wait_for: Wait, make_answer: Callable[..., Any]
) -> None:
    plane = planes(RML_NOTIFY_DEAD_AFTER_S="1").start()
    receiver.usual = make_answer(500, b"no")
    event = say(1, rml.webhook(f"{receiver.url}/hook"))
    (dead,) = wait_for(lambda: plane.notifications("dead"))
    assert dead["error"] == "HTTP 500: no" and dead["event"] == event and dead["attempts"] >= 10
    tried = len(receiver.posts)
    time.sleep(0.6)
    assert len(receiver.posts) == tried
    receiver.usual = make_answer()
    with plane.client() as client:
        assert client.call("POST", "/v1/notifications/retry") == {"retried": 1}
    wait_for(lambda: plane.notifications("delivered"))
    assert len(receiver.posts) == tried + 1


def test_a_webhook_is_signed_over_its_exact_bytes(planes: Any, receiver: Any, wait_for: Wait, rml_home: Path) -> None:
    folder = rml_home / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "partner").write_text("shared-key-1\n")
    (folder / "partner").chmod(0o600)
    plane = planes().start()
    with plane.client() as client:
        client.call("PUT", "/v1/channels/partner", {"kind": "webhook", "options": {"secret": {"file": "partner"}}})
    event = say(1, rml.webhook(f"{receiver.url}/hook", via="partner"), error="ValueError: x", log=["a", "b"])
    (post,) = wait_for(lambda: receiver.posts)
    at, mac = (part.partition("=")[2] for part in post.headers["x-rml-signature"].split(","))
    assert mac == hmac.new(b"shared-key-1", f"{at}.".encode() + post.body, hashlib.sha256).hexdigest()
    assert (
        post.json["id"] == event
        and post.json["facts"]["error"] == "ValueError: x"
        and "nightly failed" in post.json["text"]
    )


def test_mail_goes_over_starttls_with_a_login_and_a_stable_id(
    planes: Any, mail_server: Any, wait_for: Wait, rml_home: Path
) -> None:
    plane = planes(RML_CHANNEL_MAIL=mail_server.password, RML_NOTIFY_BASE_S="0.02").start()
    options = {
        "host": "127.0.0.1", "port": mail_server.port, "sender": "rml <rml@example.com>", "user": "rml",
        "password": {"env": "RML_CHANNEL_MAIL"}, "ca_file": mail_server.ca_file,
    }  # fmt: skip
    with plane.client() as client:
        client.call("PUT", "/v1/channels/email", {"kind": "email", "options": options})
    mail_server.box.refusals.extend(["450 4.2.1 come back later", "550 5.7.1 not now", "451 4.3.0 busy"])
    event = say(1, rml.email("ada@example.org"), step="train", error="ValueError: no rows", log=["epoch 1", "boom"])
    wait_for(lambda: plane.notifications("delivered"), 60)
    (envelope,) = mail_server.box.mails
    assert mail_server.box.encrypted == [True] and set(mail_server.logins) == {("rml", mail_server.password)}
    assert envelope.mail_from == "rml@example.com" and envelope.rcpt_tos == ["ada@example.org"]
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert message["Message-ID"].startswith(f"<{event}.") and message["X-Rml-Event-Id"] == event
    body = message.get_body(("plain",))
    assert body is not None
    assert all(wanted in body.get_content() for wanted in ("nightly failed in train", "ValueError: no rows", "epoch 1"))
    assert mail_server.password not in plane.log


def test_a_mail_server_with_a_certificate_of_nobody_gets_no_password(
    planes: Any, mail_server: Any, wait_for: Wait
) -> None:
    plane = planes(RML_CHANNEL_MAIL="never-sent").start()
    options = {
        "host": "127.0.0.1", "port": mail_server.port, "sender": "rml@example.com", "user": "rml",
        "password": {"env": "RML_CHANNEL_MAIL"},
    }  # fmt: skip
    with plane.client() as client:
        client.call("PUT", "/v1/channels/email", {"kind": "email", "options": options})
    say(1, rml.email("ada@example.org"))
    (waiting,) = wait_for(lambda: [n for n in plane.notifications("pending") if n["attempts"]])
    assert "certificate" in waiting["error"] or "self" in waiting["error"]
    assert mail_server.logins == [] and mail_server.box.mails == []


def test_apprise_speaks_the_rest(planes: Any, receiver: Any, wait_for: Wait, make_answer: Callable[..., Any]) -> None:
    plane = planes(RML_CHANNEL_PAGER=f"json://127.0.0.1:{receiver.port}/pager").start()
    with plane.client() as client:
        body = {"kind": "apprise", "options": {"url": {"env": "RML_CHANNEL_PAGER"}}}
        client.call("PUT", "/v1/channels/ops-pager", body)
    receiver.script.append(make_answer(500))
    event = say(1, rml.apprise("ops-pager"), error="ValueError: x")
    wait_for(lambda: plane.notifications("delivered"))
    assert [post.path for post in receiver.posts] == ["/pager"] * 2
    assert event in receiver.posts[-1].json["message"] and "ValueError: x" in receiver.posts[-1].json["message"]


def test_a_channel_that_is_missing_shows_why_and_delivers_once_it_is_there(
    planes: Any, receiver: Any, wait_for: Wait, rml_home: Path
) -> None:
    plane = planes(RML_NOTIFY_BASE_S="0.02").start()
    event = say(1, rml.slack("#ml"))
    (waiting,) = wait_for(lambda: [n for n in plane.notifications("pending") if n["attempts"]])
    assert "rml channels add slack" in waiting["error"]
    file = rml_home / "channels.toml"
    file.touch(mode=0o600)
    file.write_text(f'[slack]\nkind = "slack"\nurl = "{receiver.url}/services/x"\n')
    wait_for(lambda: plane.notifications("delivered"))
    assert receiver.events() == [event]
