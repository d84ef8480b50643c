import sys
import tempfile
from pathlib import Path

from tests import postgres
from tests.mutation.flaws import FLAWS
from tests.mutation.run import at_once, line, run_all, survivors

results = []
with tempfile.TemporaryDirectory() as work, postgres.server() as server:
    for result in run_all(Path(work), server.url, at_once=at_once()):
        print(line(result), flush=True)  # noqa: T201 (a command that a person runs)
        results.append(result)
alive = survivors(results)
print(f"\n{len(FLAWS) - len(alive)} of {len(FLAWS)} wrong receivers caught")  # noqa: T201
sys.exit(1 if alive else 0)
