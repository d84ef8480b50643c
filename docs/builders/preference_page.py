"""`docs/preference-page.md`: the same events as a browser sends them, made from the schemas that we send with."""

import json
import re
from collections.abc import Iterator

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.delivery.events_api import CHANNEL_TITLE, DEFAULT_NAMES, PROPERTIES

#: Which identifiers the browser script takes, and what stands for them in the examples.
EXAMPLES = {
    IdentityKind.EMAIL: ("an email address", "jane@example.com"),
    IdentityKind.EXTERNAL: ("an external id", "852456456"),
}

HEADINGS = {
    Action.OPT_OUT: "Opt out",
    Action.OPT_IN: "Opt in again",
}

INTRODUCTION = """\
# Opt-outs on your own preference page

<!-- Made from the schemas by `make docs`; a test fails when it is stale. -->

This service forwards the unsubscribes that happen inside your ESP. Where people change their mind on a page of your
own, the Dynamic Yield script is already there and can be told directly. The events are the ones that this service
sends, key by key.

- The page must carry the Dynamic Yield script of the section, so that `DY.API` exists.
- An event names its person by one identifier, never by both.
- The address goes in the clear and trimmed, not hashed. The key is `plainTextEmail`; `plainTestEmail`, as some
  examples have it, is a typo.
- Use the external id only if Dynamic Yield knows your people by it: with Emarsys or a custom ESP integration.
- `name` is for people and may be anything; Dynamic Yield goes by `dyType`.
- Tell your ESP as well, or it goes on sending what it sends by itself.
"""

USE = """\
## On the page

```html
<form id="newsletter">
  <label>Email <input name="email" type="email" required></label>
  <button>Unsubscribe</button>
</form>
<script>
  document.getElementById("newsletter").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const address = new FormData(submitted.target).get("email").trim();
%s
  });
</script>
```
"""


def rendered() -> str:
    """The whole page, as Markdown."""
    sections = [INTRODUCTION, *_sections(), USE % _indented(_script(Action.OPT_OUT, IdentityKind.EMAIL, "address"))]
    return "\n".join(sections)


def _sections() -> Iterator[str]:
    for action, heading in HEADINGS.items():
        for kind, (title, value) in EXAMPLES.items():
            yield f"## {heading}, by {title}\n\n```js\n{_script(action, kind, json.dumps(value))}\n```\n"


def _script(action: Action, kind: IdentityKind, value: str) -> str:
    """The call for the browser; `value` is the JavaScript expression of the identifier."""
    place = "THE-IDENTIFIER"
    change = ConsentChange(action=action, identity=Identity(kind=kind, value=place), reason="preference page")
    event = {
        "name": DEFAULT_NAMES[action].replace("{channel}", CHANNEL_TITLE[kind]),
        "properties": PROPERTIES[kind].dump(change),
    }
    # JSON is JavaScript; only the quotes around the keys go, as people write it.
    script = re.sub(r'^( *)"(\w+)":', r"\1\2:", json.dumps(event, indent=2), flags=re.MULTILINE)
    return f'DY.API("event", {script.replace(json.dumps(place), value)});'


def _indented(script: str) -> str:
    return "\n".join(f"    {line}" for line in script.splitlines())
