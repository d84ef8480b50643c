"""Many threads, one commit: everybody gets its own result, and a failure that is everybody's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from webhook_app.outbox.group_commit import GroupCommit

PATIENCE = 10.0  # seconds


def test_every_thread_gets_its_own_result_and_most_share_a_commit() -> None:
    groups: list[int] = []

    def commit(work: list[int]) -> list[int]:
        groups.append(len(work))
        time.sleep(0.005)
        return [2 * number for number in work]

    together = GroupCommit(commit, timeout=PATIENCE)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(together, range(1, 401))) == [2 * number for number in range(1, 401)]
    assert sum(groups) == 400
    # Sixteen threads behind a commit of 5 ms: one by one it would have been 400 commits.
    assert len(groups) < 100


def test_one_at_a_time_commits_at_once_and_alone() -> None:
    together: GroupCommit[int, int] = GroupCommit(lambda work: work, timeout=PATIENCE)
    assert [together(number) for number in range(1, 100)] == list(range(1, 100))


def test_a_failure_goes_to_all_of_its_group_and_not_to_the_next() -> None:
    broken = threading.Event()
    broken.set()

    def commit(work: list[int]) -> list[int]:
        time.sleep(0.002)
        if broken.is_set():
            raise OSError("disk full")
        return work

    together = GroupCommit(commit, timeout=PATIENCE)

    def send(number: int) -> bool:
        try:
            return together(number) == number
        except OSError:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert not any(pool.map(send, range(1, 101)))
        broken.clear()
        assert all(pool.map(send, range(1, 101)))


def test_a_thread_whose_work_is_done_does_not_wait_for_the_next_commit() -> None:
    """With a plain lock it would queue for it behind the next leader."""
    durations = iter([0.05, 0.05, 1.0])

    def commit(work: list[str]) -> list[str]:
        time.sleep(next(durations, 0))
        return work

    together = GroupCommit(commit, timeout=PATIENCE)
    ended: dict[str, float] = {}

    def send(name: str, after: float) -> None:
        time.sleep(after)
        together(name)
        ended[name] = time.monotonic()

    began = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        for name, after in (("first", 0.0), ("second", 0.01), ("third", 0.02), ("slow", 0.07)):
            pool.submit(send, name, after)
    assert max(ended[name] - began for name in ("first", "second", "third")) < 0.5
    assert ended["slow"] - began > 1.0


def test_who_waits_too_long_gives_up_and_leaves_the_others_in_peace() -> None:
    go_on = threading.Event()

    def commit(work: list[str]) -> list[str]:
        go_on.wait(PATIENCE)
        return work

    together = GroupCommit(commit, timeout=0.1)
    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(together, "leader")
        time.sleep(0.02)
        waiting = pool.submit(together, "follower")
        with pytest.raises(TimeoutError):
            waiting.result(PATIENCE)
        go_on.set()
        assert leading.result(PATIENCE) == "leader"
        # What gave up is not committed behind the back of whoever was told that it failed.
        assert together("later") == "later"
