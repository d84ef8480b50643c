"""Put on the path of a process of its own, this sets its clock wrong by `CLOCK_AHEAD` seconds."""

import os
import time

_real, _ahead = time.time, float(os.environ.get("CLOCK_AHEAD", "0"))
time.time = lambda: _real() + _ahead
