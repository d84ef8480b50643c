"""The worker: claim, send, settle. One thread decides and talks to the outbox; each section has threads that send."""

import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

import structlog

from webhook_app.delivery import Answer
from webhook_app.delivery.retrying import decide
from webhook_app.delivery.sections import Section
from webhook_app.delivery.sender import ATTEMPT_DEADLINE, Job, Send, Sender
from webhook_app.outbox import OutboxUnavailable, Queue, Settlement
from webhook_app.outbox.pauses import ReportedPause

LEASE = 20.0  # seconds
RENEW_EVERY = 2.0  # seconds
REPORT_EVERY = 5.0  # seconds
SETTLE_EVERY = 0.05  # seconds; what a crash repeats at most, besides what was under way
IDLE_WAIT = 1.0  # seconds after which a worker looks for retries that have come due
BUSY_WAIT = 0.02  # seconds
GATHER = 0.005  # seconds in which further answers come in before they are looked at together
OVERDUE_EVERY = 0.5  # seconds between two looks for attempts that hang
LOOK_EVERY = 0.05  # seconds between two looks for work while something is being sent and nothing more was due
TIDY_EVERY = 0.25  # seconds between two batches of housekeeping
TIDY_WAIT = 60.0  # seconds until the next look at whether there is housekeeping to do
DATABASE_WAIT = 1.0  # seconds before the database is tried again
#: How long a worker that has to stop waits for what is under way. Heroku kills after 30 s.
STOP_WITHIN = ATTEMPT_DEADLINE + 5  # seconds

log = structlog.get_logger()


class Worker:
    """Sends what the outbox holds until it is told to stop."""

    def __init__(
        self,
        queue: Queue,
        sections: Iterable[Section],
        *,
        connect: Callable[[Section], Send],
        concurrency: int,
        observe: Callable[[Settlement, Answer], None] = lambda settlement, answer: None,
        tidy: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._queue = queue
        #: Hears of every attempt that was written down.
        self._observe = observe
        #: Does a little housekeeping; says whether there is more.
        self._tidy = tidy
        self._rng = rng or random.Random()  # noqa: S311 (jitter is no secret)
        self._stopping = threading.Event()
        self._done: SimpleQueue[Job] = SimpleQueue()
        self._ended: list[Job] = []
        self._senders = [
            Sender(
                section,
                connect(section),
                concurrency=concurrency,
                done=self._done.put,
                stopping=self._stopping,
                clock=clock,
            )
            for section in sections
        ]
        self._paused: dict[str, str] = {}
        #: What is done now and then → when it is due, on the monotonic clock.
        self._due = dict.fromkeys(("report", "renew", "overdue", "settle", "look", "tidy"), 0.0)

    def stop(self) -> None:
        """Claim nothing more, finish what is under way, hand back the rest. Safe to call from a signal handler."""
        self._stopping.set()

    def run(self) -> bool:
        """Returns after `stop`, within `STOP_WITHIN` and a few seconds: whether nothing is under way any more."""
        log.info("worker_started", worker=self.name, sections=[sender.section.name for sender in self._senders])
        try:
            while not self._stopping.is_set():
                self._try(self._turn)
        except Exception as error:
            # A bug of ours. What is leased comes back by itself, and the platform starts another worker.
            log.critical("worker_failed", worker=self.name, exc_info=error)
            raise SystemExit(1) from None
        finally:
            self._stopping.set()
            for sender in self._senders:
                sender.stop()
        deadline = time.monotonic() + STOP_WITHIN
        while self._under_way() and time.monotonic() < deadline:
            self._try(self._finish)
        finished = not self._under_way()
        self._try(lambda: self._queue.sign_off(self.name))
        log.info("worker_stopped", worker=self.name)
        return finished

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OutboxUnavailable as error:
            log.warning("outbox_unavailable", reason=str(error))
            # Not on `_stopping`, which would not wait at all once it is set.
            time.sleep(DATABASE_WAIT)

    def _turn(self) -> None:
        self._finish(wait=0)
        self._tidy_up()
        if self._claim():
            return
        if self._under_way():
            self._gather(BUSY_WAIT)
        elif (seconds := self._all_paused_for()) > 0:
            self._stopping.wait(min(IDLE_WAIT, seconds))
        else:
            self._queue.wait(IDLE_WAIT)

    def _finish(self, wait: float = BUSY_WAIT) -> None:
        """Everything but claiming: keep what is under way, and write down what has ended."""
        self._report()
        self._renew()
        self._gather(wait)
        self._settle()

    def _under_way(self) -> int:
        return sum(len(sender.under_way) for sender in self._senders)

    def _claim(self) -> bool:
        """Whether there was something to be claimed."""
        if self._ended or (self._under_way() and not self._is_due("look", LOOK_EVERY)):
            return False
        found = False
        for sender in self._senders:
            if room := sender.room():
                held_until = time.monotonic() + LEASE
                claimed = self._queue.claim(room, section=sender.section.name, lease=LEASE)
                sender.take(claimed, held_until)
                found = found or bool(claimed)
        if found:
            self._due["look"] = 0.0
        return found

    def _gather(self, wait: float) -> None:
        """Take what the senders have finished; wait for the first of it."""
        if self._is_due("overdue", OVERDUE_EVERY):
            for sender in self._senders:
                self._ended += sender.overdue(time.monotonic())
        with suppress(Empty):
            job = self._done.get(timeout=wait) if wait else self._done.get_nowait()
            if wait:
                # To wake up for every single answer would cost as much as to send it.
                time.sleep(GATHER)
            while True:
                # Else it was given up before.
                if job in job.sender.under_way:
                    self._ended.append(job)
                job = self._done.get_nowait()

    def _settle(self) -> None:
        if not self._ended or (not self._is_due("settle", SETTLE_EVERY) and self._under_way() > len(self._ended)):
            return
        answered = [(job, job.answer) for job in self._ended if job.answer is not None]
        unsent = [job for job in self._ended if job.answer is None]
        self._queue.release(job.claimed for job in unsent)
        # Step by step: should the database fail in between, nothing is written down twice.
        self._forget(unsent)
        settlements = [
            decide(
                job.claimed,
                answer,
                sent=job.sent,
                started_at=job.started_at,
                duration=job.duration,
                rng=self._rng,
            )
            for job, answer in answered
        ]
        self._queue.settle(settlements)
        self._forget(job for job, _ in answered)
        for settlement, (_, answer) in zip(settlements, answered, strict=True):
            _log_attempt(settlement)
            self._observe(settlement, answer)

    def _forget(self, jobs: Iterable[Job]) -> None:
        gone = set(jobs)
        self._ended = [job for job in self._ended if job not in gone]
        for job in gone:
            job.sender.under_way.discard(job)

    def _report(self) -> None:
        paused = {sender.section.name: sender.pause() for sender in self._senders}
        pauses = {name: pause for name, pause in paused.items() if pause and not pause.is_brief}
        reasons = {name: pause.reason for name, pause in pauses.items()}
        if not self._is_due("report", REPORT_EVERY) and reasons == self._paused:
            return
        reported = [ReportedPause(name, pause.reason, pause.cause) for name, pause in pauses.items()]
        self._queue.report(self.name, pauses=reported)
        for name in reasons.keys() - self._paused.keys():
            seconds = round(max(0.0, pauses[name].until - time.monotonic()))
            log.error("destination_paused", worker=self.name, section=name, reason=reasons[name], seconds=seconds)
        for name in self._paused.keys() - reasons.keys():
            log.info("destination_resumed", worker=self.name, section=name)
        self._paused = reasons

    def _all_paused_for(self) -> float:
        """Seconds until one of the sections may be tried again; 0 where there is one."""
        pauses = [sender.pause() for sender in self._senders]
        return min(max(0.0, pause.until - time.monotonic()) if pause else 0.0 for pause in pauses)

    def _renew(self) -> None:
        if not self._is_due("renew", RENEW_EVERY):
            return
        held_until = time.monotonic() + LEASE
        jobs = [job for sender in self._senders for job in sender.under_way]
        kept = self._queue.renew((job.claimed for job in jobs), lease=LEASE)
        for job in jobs:
            # What was taken from us, because we were stopped or cut off for a while, must not be begun any more.
            job.held_until = held_until if job.claimed in kept else 0.0

    def _tidy_up(self) -> None:
        if not self._is_due("tidy", TIDY_WAIT):
            return
        try:
            if self._tidy():
                self._due["tidy"] = time.monotonic() + TIDY_EVERY
        except OutboxUnavailable:
            raise
        except Exception as error:
            # Housekeeping must not keep anybody's opt-out waiting. The error's text may hold an address.
            log.error("housekeeping_failed", exc_info=error)

    def _is_due(self, what: str, every: float) -> bool:
        """Whether it is time for it; if so, the next time is `every` seconds from now."""
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + every
        return True


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
