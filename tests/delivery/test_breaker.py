"""The circuit breaker, as tables: what is said to it, and what may be sent then. No threads, no waiting."""

from dataclasses import dataclass, field

import pytest

from webhook_app.delivery import Answer, Outcome
from webhook_app.delivery.breaker import BLAME_LIMIT, PROBE_EVERY, REMEMBERED, BreakerState, CircuitBreaker, Pause
from webhook_app.outbox.pauses import PauseCause

TAKEN = Answer(outcome=Outcome.DELIVERED, status=204)
#: Without a word: a pause is a state, not a text.
WRONG_KEY = Answer(outcome=Outcome.MISCONFIGURED, status=401)
FORBIDDEN = Answer(outcome=Outcome.MISCONFIGURED, status=403, message="forbidden")
REFUSED = Answer(outcome=Outcome.REFUSED, status=422)
FAILED = Answer(outcome=Outcome.RETRY, status=503)
ASKED = Answer(outcome=Outcome.RETRY, status=429, message="slow down", retry_after=60.0)


@dataclass
class Section:
    """One section's breaker, and a clock that stands still unless told otherwise."""

    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    now: float = 1000.0

    def answer(self, change: int, answer: Answer, *, took: float = 0.1) -> Outcome:
        self.now += took
        return self.breaker.judge(change, answer, began=self.now - took, now=self.now).outcome

    def probe(self, change: int) -> None:
        assert self.breaker.limit(self.now) == 1
        self.breaker.probe(change)
        assert self.breaker.may_begin(change)
        # Somebody else beside it: the probe would prove nothing, and a wrong key would be used twice.
        assert self.breaker.limit(self.now) == 0
        assert not self.breaker.may_begin(change + 1)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    @property
    def is_closed(self) -> bool:
        return self.breaker.limit(self.now) is None

    @property
    def pause(self) -> Pause | None:
        return self.breaker.pause(self.now)

    @property
    def seconds_until_a_try(self) -> float:
        """0 where one may be tried now."""
        tenths = 0
        while self.breaker.limit(self.now + tenths / 10) == 0:
            tenths += 1
        return tenths / 10


@pytest.fixture
def section() -> Section:
    return Section()


@pytest.mark.parametrize("answer", [TAKEN, REFUSED, FAILED])
def test_what_says_nothing_about_the_set_up_pauses_nothing(answer: Answer, section: Section) -> None:
    for change in range(100):
        assert section.answer(change, answer) is answer.outcome
    assert section.is_closed
    assert section.pause is None


# ---------------------------------------------------------------- a wrong set-up


def test_after_one_refusal_another_change_is_tried_at_once(section: Section) -> None:
    assert section.answer(1, WRONG_KEY) is Outcome.MISCONFIGURED
    assert not section.breaker.may_begin(2)
    section.probe(2)


def test_the_tries_become_rarer_with_every_refusal(section: Section) -> None:
    waits = []
    for change in range(9):
        assert section.answer(change, WRONG_KEY) is Outcome.MISCONFIGURED
        waits.append(section.seconds_until_a_try)
        section.wait(waits[-1])
        section.probe(change + 1)
    assert waits == [0, 1, 2, 4, 8, 16, PROBE_EVERY, PROBE_EVERY, PROBE_EVERY]


def test_many_refusals_of_what_was_under_way_together_count_each(section: Section) -> None:
    for change in range(16):
        section.breaker.judge(change, WRONG_KEY, began=section.now, now=section.now)
    assert section.seconds_until_a_try == PROBE_EVERY


@pytest.mark.parametrize("answer", [TAKEN, REFUSED])
def test_whoever_takes_or_refuses_the_one_that_is_tried_has_looked_at_it_so_all_go_on(
    answer: Answer, section: Section
) -> None:
    section.answer(1, WRONG_KEY)
    section.answer(2, WRONG_KEY)
    section.wait(PROBE_EVERY)
    section.probe(3)
    section.answer(3, answer)
    assert section.is_closed
    assert section.pause is None
    # From the beginning: the next refusal is a first one again.
    section.wait(60)
    section.answer(4, WRONG_KEY)
    assert section.seconds_until_a_try == 0


def test_a_failure_of_the_one_that_is_tried_proves_nothing(section: Section) -> None:
    section.answer(1, WRONG_KEY)
    section.probe(2)
    assert section.answer(2, FAILED) is Outcome.RETRY
    assert section.seconds_until_a_try == PROBE_EVERY
    assert section.pause is None or section.pause.reason == WRONG_KEY.message


def test_a_delivery_of_what_was_under_way_ends_the_pause(section: Section) -> None:
    section.answer(1, WRONG_KEY)
    section.answer(2, TAKEN, took=0.5)
    assert section.is_closed


def test_what_is_tried_and_handed_back_makes_room_for_another(section: Section) -> None:
    section.answer(1, WRONG_KEY)
    section.probe(2)
    section.breaker.handed_back(2)
    section.probe(3)


def test_a_pause_needs_no_words_and_is_told_with_those_it_has(section: Section) -> None:
    section.answer(1, WRONG_KEY)
    section.answer(2, WRONG_KEY)
    assert section.pause == Pause(reason="", cause=PauseCause.MISCONFIGURED, until=section.now + 1)
    section.answer(3, FORBIDDEN)
    assert section.pause
    assert section.pause.reason == "forbidden"


def test_a_single_refusal_is_a_pause_only_when_nobody_else_was_there_to_be_tried(section: Section) -> None:
    section.answer(1, FORBIDDEN)
    assert section.pause is None
    section.wait(1.0)
    assert section.breaker.limit(section.now) == 1
    assert section.pause
    assert section.breaker.state is BreakerState.HALF_OPEN


# ---------------------------------------------------------------- one change that something on the way dislikes


def test_a_change_that_is_refused_while_another_is_taken_is_to_blame_itself_and_pauses_nothing(
    section: Section,
) -> None:
    # Under way at once: 2 began after 1, and was taken.
    began = section.now
    section.breaker.judge(2, TAKEN, began=began + 0.1, now=began + 0.3)
    judged = section.breaker.judge(1, FORBIDDEN, began=began, now=began + 0.4)
    assert judged.outcome is Outcome.RETRY
    assert section.is_closed


def test_a_few_that_are_always_refused_are_given_up_after_so_many_times_while_all_others_pass(
    section: Section,
) -> None:
    outcomes = []
    for number in range(BLAME_LIMIT + 1):
        section.answer(1, FORBIDDEN)
        if not section.is_closed:
            section.probe(1000 + number)
        section.answer(1000 + number, TAKEN)
        assert section.is_closed
        outcomes.append(section.breaker.judge(7, FORBIDDEN, began=section.now - 1, now=section.now).outcome)
    assert outcomes[: BLAME_LIMIT - 1] == [Outcome.RETRY] * (BLAME_LIMIT - 1)
    assert outcomes[BLAME_LIMIT - 1] is Outcome.REFUSED


def test_what_it_was_given_up_for_is_said(section: Section) -> None:
    for _ in range(BLAME_LIMIT):
        section.answer(2, TAKEN, took=0.0)
        judged = section.breaker.judge(1, FORBIDDEN, began=section.now, now=section.now)
    assert judged.message == f"refused {BLAME_LIMIT} times while others were taken: forbidden"


def test_it_does_not_pause_the_others_later_either_when_it_is_alone(section: Section) -> None:
    section.answer(1, FORBIDDEN)
    section.probe(2)
    section.answer(2, TAKEN)
    for _ in range(100):
        section.wait(600)
        # Nobody else was sent meanwhile: no new evidence for or against it.
        assert section.answer(1, FORBIDDEN) is Outcome.RETRY
        assert section.is_closed


def test_a_wrong_key_gives_nobody_up_however_long_it_lasts(section: Section) -> None:
    """What was refused by mistake once, while others passed, must not be counted against it for ever."""
    section.answer(1, FORBIDDEN)
    section.probe(2)
    section.answer(2, TAKEN)
    outcomes = set()
    for _ in range(1000):
        section.wait(PROBE_EVERY)
        for change in (1, 3, 4):
            outcomes.add(section.answer(change, WRONG_KEY))
    assert Outcome.REFUSED not in outcomes
    assert not section.is_closed


def test_one_that_is_known_to_be_disliked_does_not_hold_up_the_search_for_another(section: Section) -> None:
    section.answer(1, FORBIDDEN)
    section.probe(2)
    section.answer(2, TAKEN)
    section.answer(1, FORBIDDEN)  # now it is known
    section.wait(60)
    section.answer(3, WRONG_KEY)
    section.answer(4, WRONG_KEY)
    section.wait(PROBE_EVERY)
    section.probe(1)
    section.answer(1, FORBIDDEN)
    section.probe(5)


def test_what_was_taken_after_all_is_forgotten(section: Section) -> None:
    section.answer(1, FORBIDDEN)
    section.probe(2)
    section.answer(2, TAKEN)
    section.answer(1, TAKEN)
    section.wait(60)
    assert section.answer(1, FORBIDDEN) is Outcome.MISCONFIGURED


def test_a_day_of_a_wrong_key_fills_no_memory(section: Section) -> None:
    for change in range(3 * REMEMBERED):
        section.answer(change, WRONG_KEY)
    assert len(section.breaker._refused) <= REMEMBERED


# ---------------------------------------------------------------- Retry-After


def test_dynamic_yield_is_left_alone_for_as_long_as_it_asks(section: Section) -> None:
    assert section.answer(1, ASKED) is Outcome.RETRY
    reason = "Dynamic Yield asked to be left alone: slow down"
    assert section.pause == Pause(reason=reason, cause=PauseCause.ASKED_TO_WAIT, until=section.now + 60, is_brief=True)
    # What was under way with it changes nothing.
    section.answer(2, TAKEN)
    section.answer(3, FAILED)
    assert section.seconds_until_a_try == pytest.approx(59.8)


def test_the_longest_wish_counts(section: Section) -> None:
    section.answer(1, ASKED)
    section.answer(2, Answer(outcome=Outcome.RETRY, status=429, retry_after=5.0))
    assert section.seconds_until_a_try == pytest.approx(59.9)


@pytest.mark.parametrize("answer", [TAKEN, REFUSED, FAILED])
def test_then_one_is_tried_and_whatever_comes_of_it_all_go_on(answer: Answer, section: Section) -> None:
    section.answer(1, ASKED)
    section.wait(60)
    assert section.pause is None
    section.probe(2)
    section.answer(2, answer)
    assert section.is_closed


def asked(seconds: float) -> Answer:
    return Answer(outcome=Outcome.RETRY, status=429, retry_after=seconds)


@pytest.mark.parametrize(
    ("wishes", "is_brief"),
    [
        ([1.0], True),
        ([60.0], True),
        ([61.0], False),
        ([1.0, 61.0], False),
        ([61.0, 1.0], False),  # the longest wish counts
    ],
)
def test_a_pause_of_a_minute_that_it_asked_for_is_nobodys_business(
    wishes: list[float], is_brief: bool, section: Section
) -> None:
    for change, seconds in enumerate(wishes):
        section.answer(change, asked(seconds))
    assert section.pause is not None
    assert section.pause.is_brief is is_brief
    section.wait(61)
    section.probe(9)
    section.answer(9, TAKEN)
    section.answer(10, asked(1.0))
    assert section.pause is not None
    assert section.pause.is_brief


def test_a_wrong_key_is_told_however_soon_it_is_tried_again(section: Section) -> None:
    for change in range(3):
        section.answer(change, WRONG_KEY)
    section.answer(4, asked(1.0))
    assert section.pause is not None
    assert not section.pause.is_brief


def test_unless_it_asks_again(section: Section) -> None:
    section.answer(1, ASKED)
    section.wait(60)
    section.probe(2)
    section.answer(2, ASKED)
    assert section.seconds_until_a_try == 60
