"""The product leans on nothing private of Flask, werkzeug, gunicorn, structlog, marshmallow, requests and the others.

What a library does not document changes with its next release, without a word: once, every request would have ended
in a TypeError on the next Flask.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator

import pytest

from tests.security.source import modules

#: Names that begin with an underscore and are documented all the same.
DOCUMENTED = {
    "_mapping": "SQLAlchemy's Row: underscored as in a named tuple, so that it is no column's name",
    "_fields": "named tuples",
    "_asdict": "named tuples",
    "_replace": "named tuples",
    "_exit": "os: how a forked child ends",
}

#: A library and a method of a class of its that we override → where its documentation invites one to.
EXTENSION_POINTS = {
    ("marshmallow", "_deserialize"): "Custom fields: override _serialize and/or _deserialize",
    ("marshmallow", "_serialize"): "the same",
    ("flask", "dumps"): "flask.json.provider.JSONProvider: must be implemented",
    ("flask", "loads"): "the same",
    (
        "click",
        "get_command",
    ): "a Group that loads its commands lazily, https://click.palletsprojects.com/en/stable/complex/",
    ("click", "list_commands"): "the same",
    ("click", "convert"): "ParamType: a custom type must override it",
    ("flask", "get_cookie_secure"): "flask.sessions.SessionInterface: a subclass may decide otherwise",
    ("gunicorn", "init_process"): "a worker class; tests/test_web_worker.py is the contract",
    ("gunicorn", "handle"): "the same",
    ("gunicorn", "handle_request"): "the same",
    ("gunicorn", "handle_error"): "the same",
    ("gunicorn", "access"): "logger_class: a logger of one's own; tests/test_heroku.py is the contract",
    ("gunicorn", "reopen_files"): "the same",
    ("gunicorn", "setup"): "the same",
    ("markdown", "run"): "Treeprocessor: subclasses implement it",
    ("prometheus_client", "collect"): "Custom collectors",
    ("requests", "get_connection_with_tls_context"): "HTTPAdapter: exposed for use when subclassing; "
    "tests/delivery/test_client.py is the contract",
    ("urllib3", "connect"): "HTTPConnection: how it is opened, as in http.client; the same contract",
}


def underscored(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def defined(tree: ast.Module) -> Iterator[str]:
    """Every name that a module makes itself: functions, classes, variables, attributes and fields."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr
            case ast.Name(ctx=ast.Store()):
                yield node.id


def private_names(tree: ast.Module) -> Iterator[str]:
    """Private names of others that a module reads, writes, imports or asks for by text."""
    own = set(defined(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if underscored(name) and name not in own:
                yield name
            case ast.ImportFrom(names=names, module=str(module)) if not module.startswith("webhook_app"):
                yield from (alias.name for alias in names if underscored(alias.name))
                yield from (part for part in module.split(".") if underscored(part) and part != "_typeshed")
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                if underscored(name) and name not in own:
                    yield name


def overrides() -> Iterator[tuple[str, str, str]]:
    """A module of ours, a library's class that it derives from, and a method of that which it replaces."""
    for path in modules():
        if "/migrations/" in f"/{path}":
            continue
        module = importlib.import_module(
            "webhook_app." + path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        )
        for _, ours in inspect.getmembers(module, inspect.isclass):
            if ours.__module__ != module.__name__:
                continue
            for name in vars(ours):
                base = next((base for base in ours.__mro__[1:] if name in vars(base)), None)
                if base and is_library(base) and is_written_in(ours, name):
                    yield path, base.__module__.partition(".")[0], name


def is_written_in(ours: type, name: str) -> bool:
    """Whether it is a method in the class's own text, no special one, and none that a decorator or metaclass made."""
    method = vars(ours)[name]
    return (
        inspect.isfunction(method)
        and method.__qualname__ == f"{ours.__qualname__}.{name}"
        and not name.startswith("__")
    )


def is_library(base: type) -> bool:
    return base.__module__.partition(".")[0] not in ("webhook_app", "builtins", "typing", "abc", "enum", "dataclasses")


def test_nothing_private_of_a_library_is_touched() -> None:
    found = {(path, name) for path, tree in modules().items() for name in private_names(tree) if name not in DOCUMENTED}
    assert found == set()


def test_only_documented_extension_points_are_overridden() -> None:
    found = set(overrides())
    unknown = {(path, name) for path, library, name in found if (library, name) not in EXTENSION_POINTS}
    assert unknown == set()
    # The table holds nothing that has gone.
    assert EXTENSION_POINTS.keys() - {(library, name) for _, library, name in found} == set()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("request._cached_data", ["_cached_data"]),
        ("self._mine = 1\nself._mine", []),
        ("self._theirs", ["_theirs"]),
        ("from flask.globals import _cv_app", ["_cv_app"]),
        ("getattr(row, '_hidden')", ["_hidden"]),
        ("class A:\n    _field: int\na._field", []),
        ("a.__class__", []),
    ],
)
def test_the_search_finds_what_is_there(source: str, names: list[str]) -> None:
    assert list(private_names(ast.parse(source))) == names
