"""Group commit: whoever finds nobody committing commits for all who came meanwhile."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

GIVE_WAY = 0.0002  # seconds; a reader of a webhook needs that long

Work = TypeVar("Work")
Done = TypeVar("Done")


def _held() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class _Ticket(Generic[Work, Done]):
    work: Work
    result: Done | None = None
    error: Exception | None = None
    #: Somebody has left the next commit to this thread.
    leads: bool = False
    #: Let go of once: when it leads, or else when its work is done. A bare lock, for an `Event` takes far longer.
    asleep: threading.Lock = field(default_factory=_held)


class GroupCommit(Generic[Work, Done]):
    """Calls `commit` with the work of every thread that waits, and hands each its own result.

    A commit costs an fsync whether it holds one row or a hundred. `commit` takes a list and returns as many results,
    none of them None; what it raises, every thread of the group gets. `TimeoutError` after `timeout` seconds of
    waiting.
    """

    def __init__(self, commit: Callable[[list[Work]], list[Done]], *, timeout: float) -> None:
        self._commit = commit
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._waiting: list[_Ticket[Work, Done]] = []
        self._committing = False
        #: How many shared each of the last commits.
        self._lately = deque([0], maxlen=16)

    def __call__(self, work: Work) -> Done:
        ticket: _Ticket[Work, Done] = _Ticket(work)
        with self._mutex:
            self._waiting.append(ticket)
            if not self._committing:
                self._committing = ticket.leads = True
        if not ticket.leads and not ticket.asleep.acquire(timeout=self._timeout):
            self._give_up(ticket)
        if ticket.leads:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None  # noqa: S101 (one of the two is set by now; mypy cannot know)
        return ticket.result

    def _give_up(self, ticket: _Ticket[Work, Done]) -> None:
        with self._mutex:
            if ticket.leads:
                return  # woken just now: the others wait for it
            if ticket in self._waiting:
                self._waiting.remove(ticket)
        # If it was not waiting, it may still be committed. That is no harm: sent again, it counts as a duplicate.
        raise TimeoutError

    def _lead(self) -> None:
        self._let_others_join()
        with self._mutex:
            tickets, self._waiting = self._waiting, []
            self._lately.append(len(tickets))
        try:
            results = self._commit([ticket.work for ticket in tickets])
            for ticket, result in zip(tickets, results, strict=True):
                ticket.result = result
        except Exception as error:
            for ticket in tickets:
                ticket.error = error
        finally:
            self._hand_over(tickets)

    def _let_others_join(self) -> None:
        """Give way as long as that brings more work: threads that are nearly there come along, each of them once.

        Where as many are here as ever came together lately, nobody else is expected.
        """
        known, expected = 0, max(self._lately)
        while known < len(self._waiting) < expected:
            known = len(self._waiting)
            time.sleep(GIVE_WAY)

    def _hand_over(self, tickets: list[_Ticket[Work, Done]]) -> None:
        """Wake those whose work is done, and one of those who came meanwhile: it commits for all of them."""
        with self._mutex:
            if self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].asleep.release()
            else:
                self._committing = False
        for ticket in tickets:
            if not ticket.leads:
                ticket.asleep.release()
