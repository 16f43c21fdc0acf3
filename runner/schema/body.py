"""How big a request's body may be (wire facts 5, row 34)."""

from __future__ import annotations

import json
from typing import Any

from runner.core.problem import Finding, Severity
from runner.core.value import frozen


@frozen
class BodyLimit:
    """Bytes of the body past which there is a warning, and past which the server refuses it."""

    warning: int
    error: int

    def finding(self, size_bytes: int) -> Finding | None:
        """
        Say what is wrong with a body of this size, or None.

        >>> BodyLimit(warning=10_000_000, error=64_000_000).finding(12_500_000).message
        'the request has 12.5 MB; over 10 MB may be refused'
        """
        size = f"the request has {size_bytes / 1e6:.1f} MB"
        hint = "use public URLs instead of data in the request"
        if size_bytes > self.error:
            return Finding((), f"{size}; the server takes {self.error / 1e6:.0f} MB at most", hint)
        if size_bytes > self.warning:
            return Finding(
                (), f"{size}; over {self.warning / 1e6:.0f} MB may be refused", hint, Severity.WARNING
            )
        return None


def body_bytes(request: Any) -> int:
    """
    Measure a request as it would be sent.

    >>> body_bytes({"prompt": "小猫"})
    19
    """
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"), default=str)
    return len(text.encode("utf-8", "replace"))
