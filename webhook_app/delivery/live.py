"""The live check: whether Dynamic Yield can be reached with this key, without telling it anything about anybody."""

from dataclasses import dataclass

from webhook_app.delivery import Answer, Outcome, WireForm
from webhook_app.delivery.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCheck:
    """One thing that was looked at. `works` is None where the answer did not tell."""

    subject: str
    works: bool | None
    said: str


def check_live(client: Client, form: WireForm) -> list[LiveCheck]:
    """Send a request that names nobody, and say what its refusal proves.

    Takes up to 15 s, where nobody answers.
    """
    answer = client.send(form.probe())
    findings = [_host(answer), _tls(answer, encrypted=client.encrypted), _key(answer)]
    findings.append(
        LiveCheck(
            subject="section and events",
            works=None,
            said="cannot be told without opting somebody out: send one of your own addresses through and look for it",
        )
    )
    return findings


def _host(answer: Answer) -> LiveCheck:
    if answer.status is None and answer.reason != "tls":
        return LiveCheck(subject="host", works=False, said=answer.message)
    if answer.reason in ("html", "not_json") or answer.reason.startswith("proxy_"):
        return LiveCheck(subject="host", works=False, said=answer.message)
    if answer.status in (404, 405, 407) or 300 <= (answer.status or 0) < 400:
        return LiveCheck(subject="host", works=False, said=answer.message)
    return LiveCheck(subject="host", works=True, said="answers")


def _tls(answer: Answer, *, encrypted: bool) -> LiveCheck:
    if not encrypted:
        return LiveCheck(subject="TLS", works=None, said="not used: plain http to this machine")
    if answer.reason == "tls":
        return LiveCheck(subject="TLS", works=False, said=answer.message)
    if answer.status is None:
        return LiveCheck(subject="TLS", works=None, said="not reached")
    return LiveCheck(subject="TLS", works=True, said="the certificate is valid for the host")


def _key(answer: Answer) -> LiveCheck:
    if answer.status in (401, 403):
        return LiveCheck(subject="key", works=False, said=answer.message)
    if answer.outcome is Outcome.REFUSED:
        # Refused for what it (deliberately) lacks, so the key had been looked at and found good.
        return LiveCheck(
            subject="key", works=True, said=f"accepted; the empty request was refused with {answer.status}"
        )
    if answer.outcome is Outcome.DELIVERED:
        return LiveCheck(
            subject="key", works=None, said="the empty request was taken, which proves nothing about the key"
        )
    return LiveCheck(subject="key", works=None, said=f"not told: {answer.message or answer.reason}")
