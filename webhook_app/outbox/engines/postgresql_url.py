"""Reading a PostgreSQL URL as libpq does, and telling a mistake in it before the first webhook comes.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS

No message repeats a value: an unescaped character in a password makes libpq take its rest for a host, a port or an
option. The name of an option is repeated only where it cannot be such a rest.
"""

import re
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

Parameters = dict[str, str]

EXAMPLE = "postgres://user:password@host/name"
ESCAPE = (
    f"cannot be read; write it like {EXAMPLE}, and in user and password %40 for @, %2F for /, %3A for :, %3F for ? "
    "and %25 for %"
)
#: libpq reads these numbers only once it talks to a server.
_NUMBERS = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
_SCHEME = re.compile(r"^postgres(ql)?(\+\w+)?://")
#: A folder that does not exist: libpq checks every option, then finds no socket there.
_NOWHERE = "/nonexistent"


def read_url(url: str) -> Parameters:
    """The parameters for `psycopg.connect`. Raises `ValueError` with the cure."""
    rest = _SCHEME.sub("", url)
    if re.search(r"\s", url):
        raise ValueError(f"holds a space; write one URL, like {EXAMPLE}, and %20 for a space")
    if "://" in rest:
        raise ValueError(
            "holds two URLs; several hosts of one database go into one, like postgres://user:password@host1,host2/name"
        )
    if rest.count("@") > 1 or re.search("/.*@", rest):
        raise ValueError(ESCAPE)
    parameters = _parsed(f"postgresql://{rest}")
    if "dbname" not in parameters and "service" not in parameters:
        raise ValueError(f"names no database; write it like {EXAMPLE}")
    if problem := _problem(parameters):
        raise ValueError(problem)
    return parameters


def _parsed(url: str) -> Parameters:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError as error:
        if unknown := re.search(r'invalid URI query parameter: "(\w+)"', str(error)):
            raise ValueError(f"has the option {unknown[1]}, which PostgreSQL's driver does not know") from None
        raise ValueError(ESCAPE) from None


def _problem(parameters: Parameters) -> str | None:
    hosts = parameters.get("host", "").split(",")
    if any(host.count(":") == 1 for host in hosts):
        return "has a port in its option host; write several hosts like postgres://user:password@host1:5432,host2/name"
    for name in _NUMBERS:
        if not re.fullmatch(r"\d+", parameters.get(name, "0")):
            return f"has the option {name}, which must be a whole number"
    for name in _FILES:
        if (file := parameters.get(name)) and file != "system" and not Path(file).exists():
            return f"has the option {name}, which names a file that is not there"
    return _refused_by_libpq(parameters, len(hosts))


def _refused_by_libpq(parameters: Parameters, hosts: int) -> str | None:
    nowhere = parameters | {"host": ",".join([_NOWHERE] * hosts)}
    nowhere.pop("hostaddr", None)
    try:
        psycopg.connect("", **nowhere).close()  # type: ignore[arg-type] # any option may be a text
    except psycopg.Error as error:
        if "connection to server" in str(error):
            return None
        for name in parameters:
            if re.search(rf"\b{name}\b", str(error)) and name != "port":
                return f"has the option {name} with a value that PostgreSQL's driver does not know"
        if "port" in str(error):
            return f"has a port that is none, or not one for each host; {ESCAPE}"
    return ESCAPE
