"""Tells of work that goes on for longer than it may, with the stack of its thread; knows nothing of what the work is.

A thread cannot be ended from outside. What can be done is that nobody waits for it any more, and that the log shows where it hangs.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


_LOOK_S = 5.0
"""Longest time between two looks. The thread ends when it finds nothing to watch, so short pieces of work neither start one each
nor have to wake it as they end."""


class Watch:
    """A piece of work under watch, done by the thread that made this object."""

    __slots__ = ("bound_s", "on_overdue", "since", "thread_id", "what")

    def __init__(self, what: str, bound_s: float, on_overdue: Callable[[], None] | None) -> None:
        self.what = what
        self.bound_s = bound_s
        self.on_overdue = on_overdue
        self.since = time.monotonic()
        self.thread_id = threading.get_ident()

    def restart(self) -> None:
        """A sign of life: the bound counts from now. Costs nothing."""
        self.since = time.monotonic()

    @property
    def overdue_at(self) -> float:
        return self.since + self.bound_s


class Watchdog:
    """Watches any number of pieces of work with one thread, which runs only while there is some, and shortly after."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards what follows; the thread waits on it for the next bound
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, what: str, bound_s: float, on_overdue: Callable[[], None] | None = None) -> Iterator[Watch]:
        """Watch what the caller does in this block.

        Args:
            what: for the log. bound_s: seconds without `restart` after which its stack is logged, once.
            on_overdue: called then, in the watchdog's thread.
        """
        watch = Watch(what, bound_s, on_overdue)
        with self._changed:
            self._watches.add(watch)
            self._ensure_thread(bound_s)
        try:
            yield watch
        finally:
            with self._changed:
                self._watches.discard(watch)

    def _ensure_thread(self, bound_s: float) -> None:
        if self._thread is not None:
            if bound_s < _LOOK_S:
                self._changed.notify()
            return
        thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the limit of threads; the next piece of work tries again
            logger.error("the watchdog cannot start: %s", error)
            return
        self._thread = thread

    def _run(self) -> None:
        while (overdue := self._next()) is not None:
            try:
                _tell(overdue)
                if overdue.on_overdue is not None:
                    overdue.on_overdue()
            except Exception:  # the other pieces of work are still to be watched
                logger.exception("%s took too long, and so did dealing with it", overdue.what)

    def _next(self) -> Watch | None:
        """The next one that is overdue, waited for; None, and the thread has to end, where there is nothing to watch."""
        with self._changed:
            while self._watches or self._changed.wait_for(lambda: bool(self._watches), _LOOK_S):
                first = min(self._watches, key=lambda watch: watch.overdue_at)
                left_s = first.overdue_at - time.monotonic()
                if left_s <= 0:
                    self._watches.discard(first)
                    return first
                self._changed.wait(min(left_s, _LOOK_S))
            self._thread = None
            return None


def _tell(watch: Watch) -> None:
    frame = sys._current_frames().get(watch.thread_id)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "its thread has ended"
    logger.error("%s takes longer than %g seconds; it hangs here:\n%s", watch.what, watch.bound_s, stack)


WATCHDOG = Watchdog()
