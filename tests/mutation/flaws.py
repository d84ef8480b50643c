"""The nine receivers that are wrong, as changes to the text of the code."""

from dataclasses import dataclass

RECEIVER = "webhook_app/receiver.py"
INTAKE = "webhook_app/outbox/intake.py"
INSERTS = "webhook_app/outbox/inserts.py"
HASHING = "webhook_app/outbox/hashing.py"
REGISTER = "webhook_app/outbox/register.py"
ROWS = "webhook_app/outbox/rows.py"
FORWARDER = "webhook_app/delivery/worker.py"
SERVING = "webhook_app/serving.py"
WEB = "webhook_app/web.py"

PROMISE = "tests/test_promise.py"
RECEIVING = "tests/test_receiver.py"


@dataclass(frozen=True, slots=True)
class Edit:
    file: str
    #: Stands in the file exactly once.
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    #: Which of the nine flaws; one that can be made in several ways has several mutants.
    flaw: str
    #: What this one does.
    does: str
    edits: tuple[Edit, ...]
    #: One of these must fail.
    caught_by: tuple[str, ...]


NEWER = "WHERE excluded.version > consents.version"
INSERT_OR_IGNORE = '_IGNORE = "ON CONFLICT (dedupe_key) DO NOTHING"'

MUTANTS = (
    Mutant(
        flaw="acknowledge before commit",
        does="answers at once and stores in a thread",
        edits=(
            Edit(RECEIVER, "added = intake.read_and_add(\n", "added = _acknowledge(intake)(\n"),
            Edit(
                RECEIVER,
                "def _answer_probe(",
                """def _acknowledge(intake):
    import threading
    from webhook_app.outbox import Added

    def add(provider, read, **more):
        reading = read()
        storing = threading.Timer(0.2, lambda: suppressing(intake.read_and_add, provider, lambda: reading, **more))
        storing.daemon = True
        storing.start()
        return reading, Added(accepted=len(reading.changes), duplicates=0, quarantined=len(reading.quarantined))

    return add


def suppressing(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except Exception:
        pass


def _answer_probe(""",
            ),
        ),
        caught_by=(
            f"{RECEIVING}::test_a_change_is_on_disk_before_the_answer",
            f"{RECEIVING}::test_a_database_that_cannot_be_used_makes_the_esp_send_it_again",
        ),
    ),
    Mutant(
        flaw="look, then insert",
        does="asks whether the event is known, and stores it if not",
        edits=(
            Edit(INSERTS, INSERT_OR_IGNORE, '_IGNORE = ""'),
            Edit(
                INTAKE,
                "        signed = [(",
                """        with self._database.read() as looking:
            known = {bytes(key) for (key,) in looking.exec_driver_sql("SELECT dedupe_key FROM events").all()}
        for webhook in webhooks:
            webhook.rows[:] = [row for row in webhook.rows if row.dedupe_key not in known]
        signed = [(""",
            ),
            Edit(
                "webhook_app/outbox/migrations/versions/0001_outbox.py",
                'op.create_index("events_dedupe_key", "events", ["dedupe_key"], unique=True)',
                'op.create_index("events_dedupe_key", "events", ["dedupe_key"])',
            ),
        ),
        caught_by=(f"{PROMISE}::test_one_event_from_sixteen_threads_of_two_processes_is_one_row",),
    ),
    Mutant(
        flaw="settle before send",
        does="writes down that a change is delivered when it is claimed",
        edits=(
            Edit(
                FORWARDER,
                "                sender.take(claimed, held_until)\n",
                """                self._queue.settle(
                    [decide(one, Answer(outcome="delivered"), started_at=0.0, duration=0.0, rng=self._rng)
                    for one in claimed]
                )
                sender.take(claimed, held_until)
""",
            ),
        ),
        caught_by=(f"{PROMISE}::test_while_dynamic_yield_has_not_answered_the_change_still_waits",),
    ),
    Mutant(
        flaw="no dedupe record",
        does="gives every event a key of its own",
        edits=(
            Edit(
                HASHING,
                "        what = (provider, change.reason",
                "        return _NO_TIME + os.urandom(HASH_BYTES)\n        what = (provider, change.reason",
            ),
        ),
        caught_by=(f"{RECEIVING}::test_a_second_post_of_the_same_batch_adds_nothing",),
    ),
    Mutant(
        flaw="no dedupe record",
        does="takes the ESP's event id for the event, and ESPs resend with a new one",
        edits=(Edit(HASHING, "str(micros), change.message_id)", "str(micros), change.message_id, change.event_id)"),),
        caught_by=(f"{RECEIVING}::test_a_second_post_of_the_same_batch_adds_nothing",),
    ),
    Mutant(
        flaw="side effect before dedupe",
        does="calls Dynamic Yield while it receives, before it knows whether the event is new",
        edits=(
            Edit(
                RECEIVER,
                "    reading, added = intake.read_and_add(\n",
                """    from flask import current_app
    from webhook_app.delivery.client import Client

    client = Client(settings.events_api_base, settings.events_api_key)
    for change, _ in read(provider, webhook, forward_opt_ins=settings.forward_opt_ins).changes:
        form = current_app.extensions["sections"]["default"].form
        client.send(form.call(change, pseudonym=""))
    client.close()
    reading, added = intake.read_and_add(
""",
            ),
        ),
        caught_by=(
            f"{PROMISE}::test_what_is_known_already_leads_to_nothing_and_no_webhook_calls_dynamic_yield_itself",
        ),
    ),
    Mutant(
        flaw="side effect before dedupe",
        does="makes a known event due again",
        edits=(
            Edit(INSERTS, "    if not stored:\n", "    if False:\n"),
            Edit(INSERTS, '"events.id > ?"', '"events.id > ? - 1000"'),
            Edit(REGISTER, NEWER, "WHERE true"),
        ),
        caught_by=(
            f"{PROMISE}::test_what_is_known_already_leads_to_nothing_and_no_webhook_calls_dynamic_yield_itself",
        ),
    ),
    Mutant(
        flaw="trusts arrival order",
        does="takes what came last for the newest",
        edits=(Edit(ROWS, "version=occurred_at * 2", "version=now * 2"),),
        caught_by=(f"{PROMISE}::test_an_older_change_that_arrives_later_is_not_sent_after_the_newer_one",),
    ),
    Mutant(
        flaw="trusts arrival order",
        does="lets whatever came last into the register",
        edits=(Edit(REGISTER, NEWER, "WHERE true"),),
        caught_by=(f"{PROMISE}::test_an_older_change_that_arrives_later_is_not_sent_after_the_newer_one",),
    ),
    Mutant(
        flaw="logs an address or a secret",
        does="logs the path of a request, which may hold the secret",
        edits=(Edit(SERVING, "route=rule and rule.rule,", "route=request.path,"),),
        caught_by=(f"{PROMISE}::test_no_log_line_of_a_webhook_or_an_attempt_holds_an_address_or_a_secret",),
    ),
    Mutant(
        flaw="logs an address or a secret",
        does="logs whom an attempt was about",
        edits=(
            Edit(FORWARDER, "        person=claimed.pseudonym,\n", "        person=change and change.identity.key,\n"),
        ),
        caught_by=(f"{PROMISE}::test_no_log_line_of_a_webhook_or_an_attempt_holds_an_address_or_a_secret",),
    ),
    Mutant(
        flaw="logs an address or a secret",
        does="logs the text of an error nobody expected",
        edits=(Edit(WEB, "exc_info=error", "error=repr(error)"),),
        caught_by=(f"{PROMISE}::test_an_error_nobody_expected_names_its_place_and_not_what_it_was_about",),
    ),
    Mutant(
        flaw="parses before it verifies",
        does="reads the events first",
        edits=(
            Edit(
                RECEIVER,
                "    token = provider.scheme.verify(webhook)\n",
                "    read(provider, webhook, forward_opt_ins=settings.forward_opt_ins)\n"
                "    token = provider.scheme.verify(webhook)\n",
            ),
        ),
        caught_by=(f"{PROMISE}::test_nothing_of_a_body_is_read_before_its_sender_is_known",),
    ),
    Mutant(
        flaw="accepts a stale or re-used signature",
        does="does not look at SendGrid's timestamp",
        edits=(
            Edit(
                "webhook_app/auth/sendgrid.py",
                "        check_age(moment, now=self.clock(), tolerance=self.tolerance)\n",
                "",
            ),
        ),
        caught_by=(f"{PROMISE}::test_a_signature_counts_for_25_hours",),
    ),
    Mutant(
        flaw="accepts a stale or re-used signature",
        does="calls no timestamp stale, whatever the scheme",
        edits=(Edit("webhook_app/auth/reading.py", "    if abs(now - moment) > tolerance:\n", "    if False:\n"),),
        caught_by=("tests/auth/test_vectors.py::test_a_signed_timestamp_goes_stale",),
    ),
    Mutant(
        flaw="accepts a stale or re-used signature",
        does="accepts a one-time token with any body",
        edits=(Edit(INTAKE, 'scalar_one() == token["body_hash"])', "scalar_one())"),),
        caught_by=(f"{PROMISE}::test_a_signature_that_covers_no_body_is_good_for_one_body",),
    ),
)

FLAWS = tuple(dict.fromkeys(mutant.flaw for mutant in MUTANTS))
