"""SMTP with the standard library: STARTTLS or TLS checked against real certificates, a login, one recipient a message.

Not through apprise: it makes a new Message-ID for every attempt, so a mail sent again after a crash would be a second mail.
"""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from dataclasses import dataclass
from email.utils import parseaddr

from ..outcome import Again, Delivered, Outcome, Refused
from ..rendering import mail
from ..summary import Summary

__all__ = ["Server", "send"]

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed in. `security` is starttls, tls or none."""

    host: str
    sender: str
    port: int = 0
    security: str = "starttls"
    user: str = ""
    password: str = ""
    ca_file: str = ""

    @property
    def domain(self) -> str:
        """The right side of message ids: the sender's domain."""
        return parseaddr(self.sender)[1].rpartition("@")[2] or "localhost"


def send(server: Server, recipient: str, summary: Summary, timeout: float) -> Outcome:
    """Hand one mail in. 4xx and a lost connection mean later, 5xx means no."""
    try:
        message = mail(summary, server.sender, recipient, domain=server.domain)
    except (ValueError, IndexError) as error:
        return Refused(f"{recipient!r} or {server.sender!r} cannot be written in a mail: {error}")
    try:
        client = _connect(server, timeout)
    except smtplib.SMTPResponseException as error:
        return _answered(error.smtp_code, error.smtp_error)
    except smtplib.SMTPNotSupportedError as error:
        return Refused(f"{server.host}: {error}")
    except ssl.SSLCertVerificationError as error:
        return Refused(f"{server.host}: {error.verify_message}")
    except (smtplib.SMTPException, OSError) as error:
        return Again(f"{server.host}: {type(error).__name__}: {error}"[:300])
    try:
        client.send_message(message, parseaddr(server.sender)[1], [recipient])
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        return _answered(code, said)
    except smtplib.SMTPResponseException as error:
        return _answered(error.smtp_code, error.smtp_error)
    except (smtplib.SMTPException, OSError) as error:
        # Perhaps it was taken and only the word of it was lost: sent again, under the same Message-ID.
        return Again(f"{server.host}: {type(error).__name__}: {error}"[:300])
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            client.quit()
        client.close()
    return Delivered()


def _connect(server: Server, timeout: float) -> smtplib.SMTP:
    """A session that is encrypted and logged in, as far as the server's options say so."""
    port = server.port or _PORTS[server.security]
    context = ssl.create_default_context(cafile=server.ca_file or None)
    if server.security == "tls":
        client: smtplib.SMTP = smtplib.SMTP_SSL(server.host, port, timeout=timeout, context=context)
    else:
        client = smtplib.SMTP(server.host, port, timeout=timeout)
    try:
        if server.security == "starttls":
            client.starttls(context=context)
        if server.user and server.password:
            client.login(server.user, server.password)
    except BaseException:
        client.close()
        raise
    return client


def _answered(code: int, said: bytes | str) -> Outcome:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    reason = f"SMTP {code}: {text[:200]}"
    return Refused(reason) if code >= 500 else Again(reason)
