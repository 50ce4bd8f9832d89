"""What Rewright did in this process: counters that any thread may add to.

    before = rewright.stats()
    compiled(x)
    done = rewright.stats() - before
    assert done.nodes > 0 and done.fallbacks == 0, done.fallback_reasons

The parts of the compiler call :func:`record` and :func:`record_fallback`; everybody else reads.
"""

import threading
from collections import deque

import attrs

__all__ = ["Statistics", "record", "record_fallback", "reset_stats", "stats"]

# So many of the latest reasons are kept; `fallbacks` counts all.
_MAX_REASONS = 64


@attrs.frozen(kw_only=True)
class Statistics:
    """The counters at one moment. ``after - before`` says what happened in between.

    Attributes:
        graphs: graphs compiled.
        nodes: IR nodes in them, as handed to the backends.
        segments: parts that they were split into, one backend each.
        rewrites: times that a rule fired.
        cache_hits: compiled things taken from a cache.
        cache_misses: compiled things looked for in a cache and then made.
        specializations: programs finalized for one set of parameters.
        captures: CUDA graphs recorded.
        fallbacks: graphs or parts that run otherwise than compiled, after a failure.
        fallback_reasons: why, oldest first; only the latest 64 are kept.
    """

    graphs: int = 0
    nodes: int = 0
    segments: int = 0
    rewrites: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    specializations: int = 0
    captures: int = 0
    fallbacks: int = 0
    fallback_reasons: tuple[str, ...] = ()

    def __sub__(self, before: "Statistics") -> "Statistics":
        """What was counted since ``before``, which must be older, with no reset in between."""
        counts = {name: getattr(self, name) - getattr(before, name) for name in _COUNTERS}
        if any(count < 0 for count in counts.values()):
            raise ValueError("the subtracted statistics are newer, or were reset in between")
        # Every fallback has one reason, so the new ones are the last.
        first_new = max(len(self.fallback_reasons) - counts["fallbacks"], 0)
        return Statistics(**counts, fallback_reasons=self.fallback_reasons[first_new:])


_COUNTERS = tuple(f.name for f in attrs.fields(Statistics) if f.name != "fallback_reasons")

_lock = threading.Lock()
_counts = dict.fromkeys(_COUNTERS, 0)
_reasons: deque[str] = deque(maxlen=_MAX_REASONS)


def record(
    *,
    graphs: int = 0,
    nodes: int = 0,
    segments: int = 0,
    rewrites: int = 0,
    cache_hits: int = 0,
    cache_misses: int = 0,
    specializations: int = 0,
    captures: int = 0,
) -> None:
    """Add to the counters, all at once. Fallbacks have :func:`record_fallback`."""
    with _lock:
        _counts["graphs"] += graphs
        _counts["nodes"] += nodes
        _counts["segments"] += segments
        _counts["rewrites"] += rewrites
        _counts["cache_hits"] += cache_hits
        _counts["cache_misses"] += cache_misses
        _counts["specializations"] += specializations
        _counts["captures"] += captures


def record_fallback(reason: str) -> None:
    """Count one fallback. ``reason`` is one line that names the node and the user's source."""
    with _lock:
        _counts["fallbacks"] += 1
        _reasons.append(reason)


def stats() -> Statistics:
    """The counters now, from the start of the process or the last :func:`reset_stats`."""
    with _lock:
        return Statistics(**_counts, fallback_reasons=tuple(_reasons))


def reset_stats() -> None:
    """Set every counter to zero."""
    with _lock:
        _counts.update(dict.fromkeys(_COUNTERS, 0))
        _reasons.clear()
