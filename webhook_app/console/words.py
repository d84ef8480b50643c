"""What an ESP's words mean to a person: `group_unsubscribe` → "left a group"."""

import re

from webhook_app.consent import Action

#: What is found in an ESP's word → what a person would say. The first that fits counts.
WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"spam|complain|abuse|fbl", "reported spam"),
        (r"group.?unsub|unsub\w*.group|asm", "left a group"),
        (r"group.?resub", "joined a group again"),
        (r"subscriptiongroup", "left a group"),
        (r"import|csv", "imported"),
        (r"reconcile|suppression|suppress", "on the suppression list"),
        (r"re.?subscrib|unsuppress", "subscribed again"),
        (r"list.?unsubscribe.?header|one.?click", "unsubscribed with one click"),
        (r"unsub|opt.?out|opted.?out|remov", "unsubscribed"),
        (r"hard.?bounce|bounce|dropped|cleaned", "dead address"),
        (r"subscri|opt.?in|opted.?in", "subscribed"),
    )
)


def in_words(reason: str, action: Action | None) -> str:
    """The word of the ESP in a person's words; where nothing fits, what it comes to."""
    for pattern, words in WORDS:
        if pattern.search(reason) and _agrees(words, action):
            return words
    return {Action.OPT_OUT: "opted out", Action.OPT_IN: "opted in", None: reason}[action]


def _agrees(words: str, action: Action | None) -> bool:
    """Whether the words say the same as the change: of `subscription changed` nobody can tell."""
    means_opt_in = words in ("joined a group again", "subscribed again", "subscribed")
    return action is None or words == "imported" or means_opt_in is (action is Action.OPT_IN)
