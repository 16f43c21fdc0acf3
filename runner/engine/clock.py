"""The real time."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """The real time."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(asyncio.sleep)
