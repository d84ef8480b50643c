"""The worker: claim, send, settle. One thread decides, a few send."""

import dataclasses
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue

import structlog

from webhook_app.delivery import Answer, Call, Outcome, Undeliverable, WireForm
from webhook_app.outbox import Claimed, OutboxUnavailable, Queue, Settlement, State

BACKOFF_BASE = 2.0  # seconds; the first retry comes within this
BACKOFF_CAP = 600.0  # seconds
GIVE_UP_AFTER = timedelta(hours=72)
PROBE_EVERY = 30.0  # seconds between two tries while the destination is misconfigured

LEASE = 20.0  # seconds
RENEW_EVERY = 2.0  # seconds
#: No attempt takes longer, and none begins on a lease that ends sooner: nobody else can hold the change meanwhile.
ATTEMPT_DEADLINE = 15.0  # seconds
REPORT_EVERY = 5.0  # seconds
SETTLE_EVERY = 0.05  # seconds; what a crash repeats at most, besides what was under way
IDLE_WAIT = 1.0  # seconds after which a worker looks for retries that have come due
BUSY_WAIT = 0.02  # seconds
LOOK_EVERY = 0.05  # seconds between two looks for work while something is being sent and nothing more was due
TIDY_EVERY = 0.25  # seconds between two batches of housekeeping
TIDY_WAIT = 60.0  # seconds until the next look at whether there is housekeeping to do
DATABASE_WAIT = 1.0  # seconds before the database is tried again
#: How many changes are claimed ahead for each sending thread.
AHEAD = 8

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Job:
    claimed: Claimed
    #: When the lease runs out, on the monotonic clock.
    held_until: float
    answer: Answer | None = None
    started_at: float = 0.0
    duration: float = 0.0


def backoff(attempts: int, rng: random.Random) -> float:
    """Seconds until the next try after so many failed ones: exponential, full jitter, capped."""
    return rng.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempts, 30)))


def decide(claimed: Claimed, answer: Answer, *, started_at: float, duration: float, rng: random.Random) -> Settlement:
    """What an answer makes of a change. Times are seconds since 1970."""
    state, due_at, message = State.PENDING, None, answer.message
    ended_at = started_at + duration
    match answer.outcome:
        case Outcome.DELIVERED:
            state = State.DELIVERED
        case Outcome.REFUSED:
            state = State.DEAD
        case Outcome.MISCONFIGURED:
            # Not at once: another change shall be the next to be tried.
            due_at = ended_at + PROBE_EVERY
        case Outcome.RETRY:
            ended = datetime.fromtimestamp(ended_at, UTC)
            if ended - (claimed.retrying_since or ended) >= GIVE_UP_AFTER:
                state = State.DEAD
                message = f"given up after {GIVE_UP_AFTER // timedelta(hours=1)} hours of trying: {message}"
            else:
                due_at = ended_at + max(backoff(claimed.attempts, rng), answer.retry_after or 0)
    return Settlement(
        claimed=claimed,
        state=state,
        due_at=due_at,
        counts=answer.outcome is not Outcome.MISCONFIGURED,
        started_at=started_at,
        duration=duration,
        outcome=answer.outcome,
        status=answer.status,
        message=message,
        trace_id=answer.trace_id,
        warnings=answer.warnings,
    )


class Worker:
    """Sends what the outbox holds until it is told to stop.

    The deciding thread alone talks to the outbox. The sending threads take jobs from `_todo`, and put them into
    `_done` with an answer, or without one where the change is to be handed back unsent.
    """

    def __init__(
        self,
        queue: Queue,
        form: WireForm,
        send: Callable[[Call], Answer],
        *,
        concurrency: int,
        pace: Callable[[], None] = lambda: None,
        observe: Callable[[Settlement, Answer], None] = lambda settlement, answer: None,
        tidy: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._form = form
        self._send = send
        #: Returns when a sending thread may go on: the ceiling on requests per second.
        self._pace = pace
        #: Hears of every attempt that was written down.
        self._observe = observe
        #: Does a little housekeeping; says whether there is more.
        self._tidy = tidy
        self._concurrency = concurrency
        self._rng = rng or random.Random()  # noqa: S311 (jitter is no secret)
        self._clock = clock
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._todo: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: SimpleQueue[_Job] = SimpleQueue()
        self._under_way: set[_Job] = set()
        self._ended: list[_Job] = []
        self._stopping = threading.Event()
        #: Jobs that have not begun are handed back.
        self._holding_back = False
        self._paused_reason: str | None = None
        self._paused_until = 0.0  # monotonic
        #: One change is tried before all others go on.
        self._probing = False
        #: Only an answer ends the pause, not the time alone.
        self._misconfigured = False
        #: The one change so far that made us think that the destination is misconfigured.
        self._doubted: int | None = None
        #: Changes that were doubted while another was delivered: something on the way dislikes them, not us.
        self._disliked: set[int] = set()
        self._next_report = self._next_renewal = self._next_settlement = 0.0  # monotonic
        self._next_look = self._next_tidying = 0.0  # monotonic

    def stop(self) -> None:
        """Claim nothing more, finish what is under way, hand back the rest. Safe to call from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Returns after `stop`, within `ATTEMPT_DEADLINE` and a few seconds."""
        threads = [threading.Thread(target=self._send_jobs, daemon=True) for _ in range(self._concurrency)]
        for thread in threads:
            thread.start()
        log.info("worker_started", worker=self.name, concurrency=self._concurrency)
        deadline = None
        while not self._stopping.is_set() or self._under_way:
            if self._stopping.is_set():
                self._holding_back = True
                deadline = deadline or time.monotonic() + ATTEMPT_DEADLINE + 5
                if time.monotonic() > deadline:
                    break  # the database is gone; the leases run out by themselves
            try:
                self._turn()
            except OutboxUnavailable as error:
                log.warning("outbox_unavailable", reason=str(error))
                self._stopping.wait(DATABASE_WAIT)
        for _ in threads:
            self._todo.put(None)
        try:
            self._queue.sign_off(self.name)
        except OutboxUnavailable as error:
            log.warning("outbox_unavailable", reason=str(error))
        log.info("worker_stopped", worker=self.name)

    def _turn(self) -> None:
        self._report()
        self._renew()
        self._settle()
        self._tidy_up()
        if self._may_claim() and self._claim():
            return
        if self._under_way:
            self._gather(BUSY_WAIT)
        elif self._paused_reason and not self._probing:
            self._stopping.wait(min(IDLE_WAIT, max(0.0, self._paused_until - time.monotonic())))
        else:
            self._queue.wait(IDLE_WAIT)

    def _may_claim(self) -> bool:
        if self._stopping.is_set() or self._ended:
            return False
        if self._under_way and time.monotonic() < self._next_look:
            return False
        if not self._under_way and self._paused_reason is None:
            # Every answer has been heeded by now, and none of them bids to wait.
            self._holding_back = False
        if self._paused_reason and not self._probing:
            if self._under_way or time.monotonic() < self._paused_until:
                return False
            self._probing, self._holding_back = True, False
        if self._probing:
            return not self._under_way
        return len(self._under_way) <= self._concurrency * AHEAD // 2

    def _claim(self) -> bool:
        limit = 1 if self._probing else self._concurrency * AHEAD - len(self._under_way)
        held_until = time.monotonic() + LEASE
        jobs = [_Job(claimed, held_until) for claimed in self._queue.claim(limit, lease=LEASE)]
        self._under_way.update(jobs)
        for job in jobs:
            self._todo.put(job)
        if not jobs:
            self._next_look = time.monotonic() + LOOK_EVERY
        return bool(jobs)

    def _gather(self, timeout: float) -> None:
        """Take what the sending threads have finished; wait for the first of it."""
        try:
            self._ended.append(self._done.get(timeout=timeout))
            while True:
                self._ended.append(self._done.get_nowait())
        except Empty:
            pass

    def _settle(self) -> None:
        if not self._ended or (time.monotonic() < self._next_settlement and len(self._under_way) > len(self._ended)):
            return
        answered = [job for job in self._ended if job.answer is not None]
        unsent = [job for job in self._ended if job.answer is None]
        self._queue.release(job.claimed for job in unsent)
        # Step by step: should the database fail in between, nothing is written down twice.
        self._under_way.difference_update(unsent)
        self._ended = answered
        answers = [self._believed(job.claimed, job.answer) for job in answered if job.answer is not None]
        settlements = [
            decide(job.claimed, answer, started_at=job.started_at, duration=job.duration, rng=self._rng)
            for job, answer in zip(answered, answers, strict=True)
        ]
        self._queue.settle(settlements)
        self._under_way.difference_update(answered)
        self._ended = []
        self._next_settlement = time.monotonic() + SETTLE_EVERY
        for settlement, answer in zip(settlements, answers, strict=True):
            _log_attempt(settlement)
            self._observe(settlement, answer)
            self._heed(settlement.claimed, answer)

    def _believed(self, claimed: Claimed, answer: Answer) -> Answer:
        """The answer, unless it blames the configuration and the change itself is known to be the reason."""
        if answer.outcome is Outcome.MISCONFIGURED and claimed.id in self._disliked:
            return dataclasses.replace(answer, outcome=Outcome.RETRY)
        return answer

    def _heed(self, claimed: Claimed, answer: Answer) -> None:
        """Pause the whole worker, or go on, as an answer bids."""
        if answer.outcome is Outcome.MISCONFIGURED:
            self._doubt(claimed, answer)
        elif answer.retry_after:
            self._pause(f"Dynamic Yield asked to be left alone: {answer.message}", answer.retry_after)
        elif self._doubted is not None and answer.outcome is Outcome.DELIVERED:
            self._disliked.add(self._doubted)
            self._resume()
        elif self._probing:
            self._resume()

    def _doubt(self, claimed: Claimed, answer: Answer) -> None:
        if self._paused_reason is None:
            # One refusal proves little: a firewall on the way may dislike this one change. Another is tried at once,
            # or a single such change would keep all others waiting.
            self._doubted = claimed.id
            self._pause(answer.message, 0, misconfigured=True)
            return
        if claimed.id != self._doubted:
            self._doubted = None
        self._pause(answer.message, PROBE_EVERY, misconfigured=True)

    def _pause(self, reason: str, seconds: float, *, misconfigured: bool = False) -> None:
        if self._paused_reason is None:
            log.error("destination_paused", worker=self.name, reason=reason, seconds=round(seconds))
        self._paused_reason, self._paused_until = reason, time.monotonic() + seconds
        self._probing, self._holding_back, self._misconfigured = False, True, misconfigured
        self._next_report = 0.0

    def _resume(self) -> None:
        log.info("destination_resumed", worker=self.name)
        self._probing = self._holding_back = self._misconfigured = False
        self._paused_reason = self._doubted = None
        self._next_report = 0.0

    def _report(self) -> None:
        if time.monotonic() < self._next_report:
            return
        reason, until = None, None
        if self._misconfigured or time.monotonic() < self._paused_until:
            reason, until = self._paused_reason, self._clock() + self._paused_until - time.monotonic()
        self._queue.report(self.name, paused_reason=reason, paused_until=until if reason else None)
        self._next_report = time.monotonic() + REPORT_EVERY

    def _renew(self) -> None:
        if time.monotonic() < self._next_renewal:
            return
        held_until = time.monotonic() + LEASE
        kept = self._queue.renew((job.claimed for job in self._under_way), lease=LEASE)
        for job in self._under_way:
            # What was taken from us, because we were stopped or cut off for a while, must not be begun any more.
            job.held_until = held_until if job.claimed in kept else 0.0
        self._next_renewal = time.monotonic() + RENEW_EVERY

    def _tidy_up(self) -> None:
        if not self._stopping.is_set() and time.monotonic() >= self._next_tidying:
            # First, so that housekeeping that fails is not tried again at once.
            self._next_tidying = time.monotonic() + TIDY_WAIT
            if self._tidy():
                self._next_tidying = time.monotonic() + TIDY_EVERY

    def _send_jobs(self) -> None:
        while (job := self._todo.get()) is not None:
            if not self._holding_back:
                self._pace()
            # A stale lease means that the database has been out of reach for a while: somebody else may hold the
            # change by now, and sending it could overtake a newer one.
            if not self._holding_back and job.held_until - time.monotonic() > ATTEMPT_DEADLINE:
                job.started_at, begun = self._clock(), time.monotonic()
                job.answer = self._attempt(job.claimed)
                job.duration = time.monotonic() - begun
                if self._bids_to_wait(job.claimed, job.answer):
                    # At once: until the answer is settled, the other threads would send on.
                    self._holding_back = True
            self._done.put(job)

    def _bids_to_wait(self, claimed: Claimed, answer: Answer) -> bool:
        return bool(self._believed(claimed, answer).outcome is Outcome.MISCONFIGURED or answer.retry_after)

    def _attempt(self, claimed: Claimed) -> Answer:
        if claimed.change is None:
            return Answer(outcome=Outcome.REFUSED, message=claimed.unreadable)
        try:
            return self._send(self._form.call(claimed.change, pseudonym=claimed.pseudonym))
        except Undeliverable as error:
            return Answer(outcome=Outcome.REFUSED, message=error.reason)
        except Exception as error:
            # A bug of ours must not end the thread. The error's text may hold the address, its type does not.
            log.error("attempt_failed", event_id=claimed.id, error=type(error).__name__)
            return Answer(outcome=Outcome.RETRY, message=f"internal error: {type(error).__name__}")


def _log_attempt(settlement: Settlement) -> None:
    claimed, change = settlement.claimed, settlement.claimed.change
    log.info(
        "attempt",
        event_id=claimed.id,
        provider=claimed.provider,
        action=change and change.action,
        person=claimed.pseudonym,
        attempt=claimed.attempts + 1,
        outcome=settlement.outcome,
        status=settlement.status,
        state=settlement.state,
        reason=settlement.message or None,
        trace_id=settlement.trace_id or None,
        duration_ms=round(settlement.duration * 1000, 1),
    )
