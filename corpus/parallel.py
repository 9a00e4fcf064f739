"""Work spread over processes, its results in order, so that what comes out does not depend on how many there are."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from config import RunFailed

Task = TypeVar("Task")
Result = TypeVar("Result")

_context: Any = None  # of a worker process: what its tasks share, or the error that making it ended with


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Callable[[Any, Task], Result],
    tasks: Iterable[Task],
    make_context: Callable[[Any], Any],
    argument: Any,
    workers: int,
    check: Callable[[], None],
) -> Iterator[Result]:
    """Yields ``function(context, task)`` for every task, in the tasks' order.

    Args:
        function: of a module's top level, as ``make_context``.
        make_context: called once in each process with ``argument``; makes what all tasks there share.
        workers: processes; with 1 the work is done in this one.
        check: called several times a second; raises where the user asked to stop.

    Raises:
        RunFailed: a process was ended from outside.
    """
    if workers == 1:
        context = make_context(argument)
        for task in tasks:
            check()
            yield function(context, task)
        return
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(make_context, argument)
    )
    waiting: deque[Future] = deque()
    others = set(multiprocessing.active_children())
    try:
        for task in tasks:
            with signals_held_back():
                waiting.append(pool.submit(_call, function, task))
            if len(waiting) > 2 * workers:
                yield _result(waiting.popleft(), check)
        while waiting:
            yield _result(waiting.popleft(), check)
    except BaseException as error:
        # What is queued would still be done, and its result lost: a pool can't take it back. Nor can it end processes
        # that ignore SIGTERM.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        if not isinstance(error, BrokenProcessPool):
            raise
        raise RunFailed(
            "a worker process was ended from outside, perhaps for want of memory; what is finished is kept: "
            "run the same command again, with fewer --workers if memory is short"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def call_in_process(function: Callable[[Any], Result], argument: Any, check: Callable[[], None]) -> Result:
    """``function(argument)`` in a process of its own, which is ended when ``check`` raises.

    For long calls into a library that does not return before it is done.

    Raises:
        RunFailed: the process ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, argument), daemon=True)
    with signals_held_back():
        process.start()
    sender.close()
    try:
        while not receiver.poll(0.2):
            check()
        kind, value = receiver.recv()
    except EOFError:
        process.join()
        raise RunFailed(
            f"a worker process ended without a result (exit code {process.exitcode}), perhaps for want of memory; "
            "what is finished is kept: run the same command again, with more memory or a smaller --vocab-sample"
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if kind == "error":
        raise value
    return value


def _send_result(sender: Any, function: Callable[[Any], Any], argument: Any) -> None:
    _follow_parent()
    try:
        message = ("result", function(argument))
    except Exception as error:  # raised again by the caller
        message = ("error", error)
    sender.send(message)


def _begin(make_context: Callable[[Any], Any], argument: Any) -> None:
    global _context
    _follow_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    try:
        _context = make_context(argument)
    except Exception as error:  # kept for the first task: here it would only break the pool
        _context = error


def _call(function: Callable[[Any, Any], Any], task: Any) -> Any:
    if isinstance(_context, Exception):
        raise _context
    return function(_context, task)


def _result(future: Future, check: Callable[[], None]) -> Any:
    while not future.done():
        check()
        wait([future], timeout=0.2)
    return future.result()


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Around the start of a process, which inherits this: no request to stop may reach it while Python starts in it.

    Such requests often go to all processes of a run; the main one decides.
    """
    # multiprocessing's own helper process comes first, because starting it lets the signals through again.
    multiprocessing.resource_tracker.ensure_running()
    held_back = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held_back) if hasattr(signal, "pthread_sigmask") else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_requests_to_stop() -> None:
    """In a worker process: Ctrl-C, and the SIGTERM of ``timeout`` or a job scheduler, are left to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _follow_parent() -> None:
    """Leaves requests to stop to the parent, and ends with it however it ends."""
    ignore_requests_to_stop()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
