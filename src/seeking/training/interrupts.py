"""Interrupts: requests to stop (by a signal) or to save (by the clock)."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

import torch
from accelerate import Accelerator

from seeking.errors import EXIT_SAVED, ProcessError

Batch = TypeVar("Batch")

SAME_INTERRUPT_SECONDS = 2.0
"""A launcher forwards Ctrl-C to processes that have received it themselves; within this time it is the same one."""

PATIENCE_SECONDS = 5.0
"""How long a stop waits for a batch that is being loaded, in a run of one process."""

STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that ask for a stop; if processes receive different ones, all of them take the first of these."""


class Stopped(BaseException):
    """Raised to stop a run.

    Attributes:
        signal: the signal that asked for it, the same in all processes.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number

    def exit(self) -> BaseException:
        """What ends the program when the run is saved."""
        return KeyboardInterrupt() if self.signal == signal.SIGINT else SystemExit(EXIT_SAVED)


class Requests:
    """Pending requests to a run.

    Args:
        accelerator: used to communicate between processes.
        due: returns whether this process wants to save after this batch.

    Attributes:
        signal: the signal that asked this process to stop, if any.
        save: whether all processes save after this batch.
        waiting: whether this process is waiting for a batch.
        failed: whether a process has failed and all of them know.
    """

    def __init__(self, accelerator: Accelerator, due: Callable[[], bool]) -> None:
        self.signal: int | None = None
        self.save = self.waiting = self.failed = False
        self._agreed_signal: int | None = None
        self._accelerator, self._due = accelerator, due

    @property
    def several(self) -> bool:
        """Whether the run has several processes, which must agree on when to stop."""
        return bool(self._accelerator.num_processes > 1)

    def requested(self, failed: bool = False) -> list[float]:
        """The requests to this process, and whether it has failed, as numbers; ``agree`` takes their means."""
        self._agreed_signal, self.save, self.failed = self.signal, self._due(), False
        return [*self._stop_requests(), float(self.save), float(failed)]

    def agree(self, means: list[float]) -> None:
        """Adopt the requests to any process, given the means of ``requested`` over all processes."""
        *stops, save, failed = means
        self._agreed_signal, self.save, self.failed = _first_requested(stops), save > 0, failed > 0

    def stop_after_batch(self) -> None:
        """Stop if requested; with several processes, only if they have agreed on it.

        Raises:
            Stopped: a stop was requested.
        """
        number = self._agreed_signal if self.several else self.signal
        if number is not None:
            raise Stopped(number)

    def stop_now(self, failed: bool = False) -> None:
        """Stop if any process was asked to or has failed; all processes must call this.

        Args:
            failed: whether this process has failed.

        Raises:
            Stopped: a stop was requested.
            ProcessError: another process has failed.
        """
        asked = [*self._stop_requests(), float(failed)]
        if self.several:
            asked = self._accelerator.reduce(torch.tensor(asked, device=self._accelerator.device), "sum").tolist()
        *stops, failures = asked
        self.failed = failures > 0
        if (number := _first_requested(stops)) is not None:
            raise Stopped(number)
        if self.failed and not failed:
            raise ProcessError("another process of this run has failed; see its message")

    def waits(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """These batches. A stop does not wait for a batch for longer than ``PATIENCE_SECONDS``, in one process.

        Several processes must take the step together, so they wait for the batch.

        Raises:
            Stopped: during iteration: a stop was requested, and the next batch takes long or cannot be loaded. The
                signal may have ended the workers, too.
        """
        iterator = iter(batches)
        while True:
            self.waiting = not self.several
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except Exception:
                if self.waiting and self.signal is not None:
                    raise Stopped(self.signal) from None
                raise
            finally:
                self.waiting = False
            yield batch

    def _stop_requests(self) -> list[float]:
        return [float(self.signal == number) for number in STOPPING]


def _first_requested(asked: Iterable[float]) -> int | None:
    return next((number for number, count in zip(STOPPING, asked, strict=True) if count > 0), None)


@contextlib.contextmanager
def handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C, SIGTERM and SIGHUP with this handler, unless they are ignored.

    Signals can only be handled in the main thread; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


@contextlib.contextmanager
def listening(requests: Requests) -> Iterator[None]:
    """Turn SIGTERM, SIGHUP and the first Ctrl-C into stop requests; a second Ctrl-C interrupts immediately."""
    first_time = 0.0
    requests.signal = None
    ended, process = threading.Event(), os.getpid()

    def remind(main_thread: int) -> None:
        while not ended.wait(PATIENCE_SECONDS):  # A signal also ends the system call that the main thread waits in.
            signal.pthread_kill(main_thread, signal.SIGTERM)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_time
        if os.getpid() != process:  # A worker, which inherits the handler, goes on until it is shut down.
            return
        seconds = time.monotonic() - first_time
        second_interrupt = number == signal.SIGINT == requests.signal
        if second_interrupt and (not requests.several or seconds > SAME_INTERRUPT_SECONDS):
            raise KeyboardInterrupt
        if requests.signal is None:
            requests.signal, first_time = number, time.monotonic()
            if not requests.several:
                reminder = threading.Thread(target=remind, args=(threading.get_ident(),), daemon=True)
                reminder.start()
                reminders.append(reminder)
        elif requests.waiting and seconds >= PATIENCE_SECONDS:
            raise Stopped(requests.signal)

    reminders: list[threading.Thread] = []
    with handling(handle):
        try:
            yield
        finally:
            ended.set()
            for reminder in reminders:  # No signal of theirs may come when others handle signals again.
                reminder.join()
