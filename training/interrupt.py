"""Ctrl-C and SIGTERM: at once where nothing is at stake, at the next safe point where state must be saved first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Check = Callable[[], None]  # called between batches; raises Interrupted where the user asked to stop


class Interrupted(BaseException):
    """The user, or the system, asked to stop. Not an Exception, so that no library swallows it.

    Attributes:
        at_check: whether it was raised by :meth:`Signals.check`, where state is whole, and not in the middle of things.
    """

    def __init__(self, signal_number: int, message: str = "interrupted", at_check: bool = False) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.message = message
        self.at_check = at_check


class Signals:
    """Listens for SIGINT and SIGTERM. Inside :meth:`deferred` a signal waits for :meth:`check`; a second does not."""

    def __init__(self) -> None:
        self._deferring = False
        self._pending: int | None = None

    def install(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        at_once = not self._deferring or self._pending is not None
        self._pending = number  # what is raised inside a finalizer gets lost; the next check sees it then
        if at_once:
            raise Interrupted(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    @property
    def pending(self) -> int | None:
        """The signal that came since the last check."""
        return self._pending

    def check(self) -> None:
        """Raises Interrupted if a signal has come since the last check."""
        if self._pending is not None:
            number, self._pending = self._pending, None
            raise Interrupted(number, at_check=True)
