"""The sender of a section: threads that send, and a circuit breaker that judges every answer."""

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import structlog

from webhook_app.delivery import Answer, Call, Outcome, Undeliverable
from webhook_app.delivery.breaker import CircuitBreaker, Pause
from webhook_app.delivery.pacer import Pacer
from webhook_app.delivery.sections import Section
from webhook_app.outbox import Claimed, Sent

#: Makes one attempt, and never raises.
Send = Callable[[Call], Answer]

#: No attempt takes longer, and none begins on a lease that ends sooner: nobody else can hold the change meanwhile.
ATTEMPT_DEADLINE = 15.0  # seconds
#: How long after its deadline an attempt is given up that hangs where it cannot be cut off: in the system's resolver.
GRACE = 1.0  # seconds
#: How many changes are claimed ahead for each sending thread.
AHEAD = 8

log = structlog.get_logger()


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One change that was claimed. Without an answer in the end, it is handed back unsent."""

    sender: "Sender"
    claimed: Claimed
    #: When the lease runs out, on the monotonic clock.
    held_until: float
    answer: Answer | None = None
    #: The request as it left, or was about to.
    sent: Sent | None = None
    #: On the monotonic clock, once it has begun.
    began: float | None = None
    #: Seconds since 1970.
    started_at: float = 0.0
    duration: float = 0.0
    _future: "Future[None] | None" = field(default=None, repr=False)


class Sender:
    """Sends for one section, `concurrency` requests at once. `done` is called with each job, from any thread."""

    def __init__(
        self,
        section: Section,
        send: Send,
        *,
        concurrency: int,
        done: Callable[[Job], object],
        stopping: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self.section = section
        self._send = send
        self.breaker = CircuitBreaker()
        self.under_way: set[Job] = set()
        self._concurrency = concurrency
        self._done = done
        self._stopping = stopping
        self._clock = clock
        self._pacer = Pacer(section.requests_per_second)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix=f"send {section.name}")
        #: Of the breaker: threads judge answers, the worker asks what may be claimed.
        self._lock = threading.Lock()

    def room(self) -> int:
        """How many changes to claim now."""
        with self._lock:
            limit = self.breaker.limit(time.monotonic())
        if limit is not None:
            return limit
        most = self._concurrency * AHEAD
        return most - len(self.under_way) if len(self.under_way) <= most // 2 else 0

    def pause(self) -> Pause | None:
        """`until` is on the monotonic clock."""
        with self._lock:
            return self.breaker.pause(time.monotonic())

    def take(self, claimed: Collection[Claimed], held_until: float) -> None:
        """Send them, as soon as a thread is free."""
        for one in claimed:
            with self._lock:
                if not self.breaker.may_begin(one.id):
                    self.breaker.probe(one.id)
            job = Job(sender=self, claimed=one, held_until=held_until)
            self.under_way.add(job)
            job._future = self._pool.submit(self._run, job)

    def overdue(self, now: float) -> list[Job]:
        """Give up what still hangs long after its deadline; what comes of it later is of no interest any more.

        It sends nothing then: the client looks at the time before it does.
        """
        late = [
            job for job in self.under_way if job.answer is None and now - (job.began or now) > ATTEMPT_DEADLINE + GRACE
        ]
        given_up = [replace(job, answer=self._judge(job, _TIMED_OUT, now)) for job in late]
        self.under_way.difference_update(late)
        self.under_way.update(given_up)
        return given_up

    def stop(self) -> None:
        """Hand back what has not begun."""
        for job in list(self.under_way):
            if job._future and job._future.cancel():
                self._done(job)
        self._pool.shutdown(wait=False)

    def _run(self, job: Job) -> None:
        try:
            if self._may_begin(job) and not self._stopping.wait(self._pacer.turn()) and self._may_begin(job):
                job.started_at, job.began = self._clock(), time.monotonic()
                answer = self._attempt(job)
                job.answer = self._judge(job, answer, time.monotonic())
            else:
                with self._lock:
                    self.breaker.handed_back(job.claimed.id)
        except Exception as error:
            log.error("attempt_failed", event_id=job.claimed.id, exc_info=error)
        finally:
            self._done(job)

    def _may_begin(self, job: Job) -> bool:
        with self._lock:
            allowed = self.breaker.may_begin(job.claimed.id)
        # A stale lease means that the database has been out of reach for a while: somebody else may hold the change
        # by now, and sending it could overtake a newer one.
        return allowed and not self._stopping.is_set() and job.held_until - time.monotonic() > ATTEMPT_DEADLINE

    def _judge(self, job: Job, answer: Answer, now: float) -> Answer:
        began = now if job.began is None else job.began
        job.duration = now - began
        with self._lock:
            if job.sent is None:
                # No request was made: it says nothing about the section.
                self.breaker.handed_back(job.claimed.id)
                return answer
            return self.breaker.judge(job.claimed.id, answer, began=began, now=now)

    def _attempt(self, job: Job) -> Answer:
        claimed = job.claimed
        if claimed.change is None:
            return Answer(outcome=Outcome.REFUSED, message=claimed.unreadable)
        try:
            call = self.section.form.call(claimed.change, pseudonym=claimed.pseudonym)
            job.sent = Sent(call.method, self.section.base + call.path, call.body)
            return self._send(call)
        except Undeliverable as error:
            return Answer(outcome=Outcome.REFUSED, message=error.reason)
        except Exception as error:
            # A bug of ours must not end the thread.
            log.error("attempt_failed", event_id=claimed.id, exc_info=error)
            return Answer(outcome=Outcome.RETRY, message=f"internal error: {type(error).__name__}")


_TIMED_OUT = Answer(outcome=Outcome.RETRY, reason="timeout", message="no answer in time", lost=True)
