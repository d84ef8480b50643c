"""What a process on a developer's machine runs with: the environment, then `.env`, then what was made up."""

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dotenv import dotenv_values

from webhook_app.dev.simulation import SENDGRID_DEV_KEY
from webhook_app.settings import MADE_UP

DEV_ENV = Path("instance/dev.env")


def environment() -> dict[str, str]:
    """The environment, then `.env`, then what was made up before; an earlier one wins, an empty value is none."""
    environ = with_made_up(_filled(_dotenv()) | _filled(os.environ))
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}"
    environ["PYTHONUNBUFFERED"] = "1"
    # As in the Dockerfile.
    environ.setdefault("MALLOC_ARENA_MAX", "2")
    environ.setdefault("PORT", "8000")
    return environ


def _dotenv() -> Mapping[str, str | None]:
    try:
        return dotenv_values(".env", encoding="utf-8")
    except UnicodeDecodeError:
        sys.exit("Cannot start: .env is not UTF-8 (Windows-1252?): save it as UTF-8")


def with_made_up(environ: Mapping[str, str]) -> dict[str, str]:
    """Filled up with what `make run` has made up in this folder, and under `MADE_UP` the names of that."""
    made_up = {name: value for name, value in _filled(dotenv_values(DEV_ENV)).items() if name not in environ}
    if "SENDGRID_VERIFICATION_KEYS" in environ:
        made_up.pop(SENDGRID_DEV_KEY, None)  # it is the other half of another key
    return {**environ, **made_up, MADE_UP: ",".join(made_up)}


def make_up(environ: dict[str, str]) -> list[str]:
    """Add what is missing for development to `environ` and to `instance/dev.env`; the names of what was made."""
    made: dict[str, str] = {}
    if "SENDGRID_VERIFICATION_KEYS" not in environ:
        made |= _sendgrid_key_pair()
    if not any(name.startswith("EMARSYS_") for name in environ):
        made["EMARSYS_TOKENS"] = secrets.token_urlsafe(24)
    if not environ.keys() & {"CONSOLE_PASSWORD", "CONSOLE_USERS"}:
        made["CONSOLE_PASSWORD"] = secrets.token_urlsafe(12)
    if "SECRET_KEY" not in environ:
        made["SECRET_KEY"] = secrets.token_urlsafe(32)
    if made:
        DEV_ENV.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(DEV_ENV, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in made.items())
    environ |= made
    environ[MADE_UP] = ",".join(filter(None, [environ.get(MADE_UP, ""), *made]))
    return list(made)


def _filled(given: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in given.items() if value and value.strip()}


def _sendgrid_key_pair() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "SENDGRID_VERIFICATION_KEYS": base64.b64encode(public).decode(),
        SENDGRID_DEV_KEY: base64.b64encode(private).decode(),
    }
