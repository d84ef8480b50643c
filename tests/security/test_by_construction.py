"""Rules that the code is held to by reading it: secrets, connections, rooms, requirements."""

import ast
import re
from collections import Counter

import pytest

from tests.processes import ROOT
from tests.security.source import exists, imports, modules

# ---------------------------------------------------------------- comparing secrets

SECRET = re.compile(r"secret|password|token|signature|digest|api_key|credential|hmac|csrf|signed|mac\b", re.IGNORECASE)

#: Comparisons that only sound like one of secrets, and why they leak nothing.
HARMLESS = {
    ("auth/sns.py", "message.get('Type') not in SIGNED_FIELDS"): "the names of message types",
    ("delivery/answers.py", "secret.casefold() in text.casefold()"): "hides what we sent; nobody is let in by it",
    ("outbox/intake.py", "one_time_tokens.c.token_hash == token['token_hash']"): "SQL, over keyed hashes",
    (
        "outbox/intake.py",
        "connection.execute(first).scalar_one() == token['body_hash']",
    ): "keyed hashes: no guess helps",
    ("outbox/reconciliations.py", "reconciliations.c.lease == token"): "SQL, over a lease of our own",
    ("sync/paging.py", "token in seen"): "where a list goes on, as its ESP has just said",
    ("providers/expression_checks.py", "token['type'] == 'quoted_identifier'"): "tokens of a grammar",
    ("providers/expression_checks.py", "token['type'] == 'unquoted_identifier'"): "tokens of a grammar",
    ("providers/auth_config.py", "'{body}' not in signed"): "the template of what is signed",
    ("providers/auth_config.py", "'{form}' not in signed"): "the template of what is signed",
    ("providers/auth_config.py", "f'{{{part}}}' in signed"): "the template of what is signed",
    ("providers/auth_config.py", "f'{{{part}}}' not in signed"): "the template of what is signed",
    ("dev/sandbox/state.py", "given != self._api_key"): "a stand-in on this machine that guards nothing",
}


def comparisons(tree: ast.Module) -> list[str]:
    """Comparisons by value in which something is named like a secret."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(
            isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops
        ):
            names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            names |= {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
            if any(map(SECRET.search, names)):
                found.append(ast.unparse(node))
    return found


def test_no_secret_is_compared_with_an_operator() -> None:
    found = {(path, comparison) for path, tree in modules().items() for comparison in comparisons(tree)}
    # An operator stops at the first byte that differs, and the time it takes tells a guesser how far he got. Compare
    # with `auth.matches_any`; or, if it is no secret after all, say so in the table above.
    assert found - HARMLESS.keys() == set()
    # The table holds nothing that is no longer there.
    assert HARMLESS.keys() - found == set()


def test_compare_digest_stands_in_one_place() -> None:
    found = [
        (path, function.name)
        for path, tree in modules().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).endswith("compare_digest")
    ]
    assert found == [("auth/__init__.py", "matches_any")]


# ---------------------------------------------------------------- who talks to whom

#: Everything that can open a connection.
NETWORK = ("requests", "urllib.request", "urllib3", "http.client", "socket", "smtplib", "asyncio")
#: Who does, and to whom. Nobody else's code can be talked into calling an address that a stranger chose.
CALLERS = {
    "auth/sns.py": "Amazon's own hosts, checked by pattern, no redirects",
    "cli/simulate.py": "the URL that a person types after `flask simulate`",
    "delivery/client.py": "Dynamic Yield: a base from the settings, no redirects",
    "delivery/deadline.py": "the same, and ends what takes too long",
    "delivery/worker.py": "nobody: the host's name stands in the worker's",
    "egress.py": "nobody: says how the others' requests leave",
    "dev/run.py": "nobody: looks for a free port, and whether our own answers",
    "dev/sandbox/faults.py": "answers only",
    "dev/sandbox/server.py": "answers only",
    "dev/sandbox/__init__.py": "answers only",
    "dev/sandbox/wire.py": "answers only",
    "outbox/engines/deadlines.py": "nobody: ends a connection to the database that answers nothing",
    "sync/api.py": "an ESP's API: a base from the settings, no redirects",
    "sync/aws_signature.py": "nobody: signs what sync/api.py asks",
    "sync/sources.py": "nobody: says to sync/api.py what to ask",
    "dev/tunnel.py": "ngrok's agent on this machine",
    "web_worker.py": "nobody: ends the connections of whoever called us and never finishes",
}


def test_only_these_modules_open_connections() -> None:
    callers = {
        path
        for path, tree in modules().items()
        if any(name == module or name.startswith(f"{module}.") for name in imports(tree) for module in NETWORK)
    }
    assert callers == CALLERS.keys()


# ---------------------------------------------------------------- rooms

#: A row of the table of rooms in docs/architecture.md, which is read as the rule: room, and what it may import.
ROW = re.compile(r"^\| `([a-z_]+)(?:\.py|/)` \|.*\| ([^|]*) \|$", re.MULTILINE)
#: Wires the others, or is an entrance of its own: nobody else imports one of these.
ENTRANCES = {"__init__", "cli", "console", "dev"}


def table_of_rooms() -> dict[str, set[str] | None]:
    """Room → the rooms it may import besides itself; None where it may import all of them."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = ROW.findall(page.partition("## The rooms")[2].partition("\n## ")[0])
    assert len(rows) == len(dict(rows)), "a room stands there twice"
    return {room: None if allowed == "everything" else set(re.findall(r"`(\w+)`", allowed)) for room, allowed in rows}


def imported_by_room() -> dict[str, set[str]]:
    used: dict[str, set[str]] = {}
    for path, tree in modules().items():
        used.setdefault(own_room(path), set()).update(known_rooms(path, tree))
    return used


def room(module: str) -> str:
    """`webhook_app.auth.sns` → `auth`."""
    return module.split(".")[1]


def own_room(path: str) -> str:
    return path.partition("/")[0].removesuffix(".py")


def known_rooms(path: str, tree: ast.Module) -> set[str]:
    """The rooms of ours that a module imports, its own left out."""
    found = {name for name in imports(tree) if name.startswith("webhook_app.") and exists(name)}
    return {room(name) for name in found} - {own_room(path)}


def test_every_room_stands_in_the_architecture_and_none_that_has_gone() -> None:
    assert table_of_rooms().keys() == imported_by_room().keys()


@pytest.mark.parametrize(("name", "allowed"), table_of_rooms().items())
def test_a_room_imports_what_the_architecture_says(name: str, allowed: set[str] | None) -> None:
    # Both ways: a permission that nobody uses any more would hide the next one who comes to need it.
    assert allowed is None or imported_by_room().get(name) == allowed


def test_nobody_imports_an_entrance() -> None:
    for path, tree in modules().items():
        if own_room(path) not in ENTRANCES:
            assert not known_rooms(path, tree) & ENTRANCES, path


# ---------------------------------------------------------------- names and sizes

#: Names of more than one class, and why they are not confused.
SHARED_NAMES = {"Worker": "gunicorn's name for a web process, and ours for the one that sends"}
MAX_LINES = 60


def test_a_class_has_its_name_for_itself() -> None:
    names = Counter(node.name for tree in modules().values() for node in tree.body if isinstance(node, ast.ClassDef))
    assert {name for name, number in names.items() if number > 1} == SHARED_NAMES.keys()


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        (path, node.name)
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno >= MAX_LINES
    }
    assert long == set()


# ---------------------------------------------------------------- what is installed


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_to_one_version_and_its_hashes(name: str) -> None:
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    wanted = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    assert len(wanted) > 10
    for line in wanted:
        # Without a hash, whoever can replace a file on the index, or on the way, runs code with our secrets.
        assert re.match(r"[A-Za-z0-9._-]+==\S+ +--hash=sha256:[0-9a-f]{64}", line), line


def test_what_is_pinned_is_what_was_asked_for() -> None:
    for name in ("requirements", "requirements-dev"):
        pinned = {
            found.lower().replace("_", "-")
            for found in re.findall(r"^([\w.-]+)==", (ROOT / f"{name}.txt").read_text(), re.MULTILINE)
        }
        asked = re.findall(r"^([\w.-]+)", (ROOT / f"{name}.in").read_text(), re.MULTILINE)
        assert {one.lower().replace("_", "-") for one in asked if not one.startswith("-")} <= pinned


def test_nothing_is_run_from_text() -> None:
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path
        assert not {"pickle", "marshal", "shelve"} & set(imports(tree)), path
