"""Egress: proxy and certificate authorities of every request that leaves, in one place."""

import ipaddress
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import requests

PROXY_FORM = "write it like http://user:password@proxy.example.com:3128"


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """How requests leave: `EGRESS_PROXY`, `EGRESS_CA_FILE`, and nothing else of the environment."""

    #: May hold a password.
    proxy: str = field(default="", repr=False)
    #: A file of PEM certificates, in place of the usual authorities.
    ca_file: str = ""

    @property
    def proxies(self) -> dict[str, str]:
        """As `requests` takes them."""
        return {"http": self.proxy, "https": self.proxy} if self.proxy else {}

    @property
    def verify(self) -> str | bool:
        """As `requests` takes it."""
        return self.ca_file or True

    def session(self) -> "requests.Session":
        # Only now: whoever reads the settings need not send anything.
        from http.cookiejar import DefaultCookiePolicy

        import requests

        session = requests.Session()
        # No .netrc, no proxies and no authorities that somebody set for other programs.
        session.trust_env = False
        session.proxies = self.proxies
        session.verify = self.verify
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        return session


#: As if neither was set.
DIRECT = Egress()

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?", re.ASCII)


def check_proxy(text: str) -> str:
    """The proxy's URL. Raises `ValueError` without the text, which may hold a password."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        # Also where a password holds one of / ? # [ ]: what stands behind it is taken for the port or the path.
        raise ValueError(f"is not a proxy's URL; {PROXY_FORM}, and %2F for a / in the password") from None
    if url.scheme != "http" or port == 0 or not url.hostname or not is_host(url.hostname):
        raise ValueError(f"is not the URL of an HTTP proxy; {PROXY_FORM}")
    if url.path.strip("/") or url.query or url.fragment:
        raise ValueError(f"must hold user, password, host and port only; {PROXY_FORM}, and %2F for a / in the password")
    try:
        unquote(f"{url.username}{url.password}").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("has a user or password with characters that HTTP Basic cannot send (Latin-1 alone)") from None
    return text.rstrip("/")


def is_host(name: str) -> bool:
    """Whether a URL's host can be looked up at all: an address, or labels of letters, digits, `-` and `_`."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        try:
            plain = name.encode("idna").decode()
        except UnicodeError:  # a label that is empty, or too long
            return False
        return bool(_HOST.fullmatch(plain))
    return True


def check_ca_file(path: str) -> str:
    """The path of a file with at least one certificate. Raises `ValueError`."""
    try:
        with Path(path).open("rb"):
            pass
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(
            f"holds no certificate that can be read: {path}; it must be PEM, -----BEGIN CERTIFICATE-----"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot be read: {path}: {error.strerror}; give the path of a PEM file") from None
    return path


def refused_tunnel(error: BaseException) -> int | None:
    """The status with which a proxy refused to connect us, None where that is not what happened.

    `http.client` says it in words only; a test holds the words.
    """
    words = "Tunnel connection failed: "
    text = str(error)
    if not isinstance(error, OSError) or not text.startswith(words):
        return None
    status = text.removeprefix(words)[:3]
    return int(status) if status.isdigit() else None
