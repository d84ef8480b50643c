"""Limit of C: so many threads that do nothing but `requests.Session.post`, one session each."""

import threading
import time
from collections import deque

import requests

URL = "http://127.0.0.1:{port}/v2/collect/user/event"
HEADERS = {"DY-API-Key": "benchmark", "Content-Type": "application/json"}


def run(port: int, bodies: list[bytes], threads: int) -> tuple[int, float, float]:
    """Post all bodies; returns how many, and the CPU and wall seconds it took."""
    waiting, failed = deque(bodies), threading.Event()

    def post() -> None:
        # Without `trust_env=False` a session looks for proxies and .netrc at each request, and is a third slower.
        with requests.Session() as session:
            session.trust_env = False
            while True:
                try:
                    body = waiting.popleft()
                except IndexError:
                    return
                if session.post(URL.format(port=port), data=body, headers=HEADERS, timeout=30).status_code != 204:
                    failed.set()

    cpu, wall = time.process_time(), time.perf_counter()
    running = [threading.Thread(target=post) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failed.is_set():
        raise RuntimeError("the sandbox refused a body")
    return len(bodies), time.process_time() - cpu, time.perf_counter() - wall
