"""Boots a kernel for one command: passes its output on as it comes, and signals in; ends it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec

from harness.errors import EnvironmentLacking, TestbedError, UsageError
from harness.usermode import keeper, machine
from harness.usermode.machine import WHERE, Console
from harness.usermode.order import (
    ANSWERS,
    GRACE_S,
    INIT_FILE,
    ORDER_FILE,
    TOP_FOLDER,
    Ended,
    Lines,
    Order,
    Refused,
    Running,
    Screen,
    Signal,
    line,
)

#: How long a kernel may take to start the command, seconds; 2 s are usual, a Docker engine takes some more.
BOOT_S = 120
#: How long a kernel may take to end after the command, seconds: what was written goes to the disk.
_POWER_OFF_S = 60
DEFAULT_DEADLINE_S = 3600.0
MOST_DEADLINE_S = 7 * 86400.0

_CHUNK = 65536
#: So much of the kernel's own messages is kept for an error's cause, bytes.
_LOG = 16384
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Outcome:
    """How a command in a guest ended."""

    code: int
    #: From the start of the kernel to the start of the command, seconds.
    boot_s: float
    #: From the start of the command to its end, seconds.
    ran_s: float


def make_order(
    command: Sequence[str],
    *,
    writable: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
    docker: bool = False,
    streams: tuple[int, int] = (1, 2),
) -> Order:
    """An order for a command in this process's working directory and environment, writing to its streams.

    Raises:
        UsageError: the guest cannot see one of the folders.
    """
    if not command:
        raise UsageError("no command was given", where=WHERE, next_step="as in `zkchaos usermode -- pytest tests`")
    directory = Path.cwd()
    machine.check_visible(directory, "the working directory")
    for folder in writable:
        machine.check_visible(folder, "the folder")
        if not folder.is_dir():
            raise UsageError("there is no such folder", where=str(folder), next_step="make it, or name another")
    given = dict(os.environ if environ is None else environ)
    given.pop("DOCKER_HOST", None)  # an engine of this machine is out of reach
    out, err = (_screen(stream) for stream in streams)
    folders = tuple(dict.fromkeys(str(folder) for folder in writable))
    return Order(tuple(command), str(directory), given, folders, out, err, docker)


def _screen(stream: int) -> Screen | None:
    try:
        size = os.get_terminal_size(stream)
    except OSError:
        return None
    return Screen(size.lines, size.columns)


def run_in_guest(
    order: Order,
    *,
    memory_mb: int = machine.DEFAULT_MEMORY_MB,
    deadline_s: float = DEFAULT_DEADLINE_S,
    streams: tuple[int, int] = (1, 2),
) -> Outcome:
    """Boot a kernel, run the command in it, and wait until both have ended.

    In the main thread, SIGINT, SIGTERM and SIGHUP go to the command, so that a run heals and writes its page; a second
    one kills it.

    Args:
        order: the command and its surroundings.
        memory_mb: the guest's memory, which also bounds what it takes of this machine's.
        deadline_s: the command is told to end (SIGTERM) after so many seconds; some time later, the kernel is killed.
        streams: descriptors for what the command writes on its two streams.

    Raises:
        UsageError: the memory or the deadline is out of bounds.
        EnvironmentLacking: something is not installed, there is no room for the memory, or the machine refuses.
        TestbedError: the kernel ended without a word, or the deadline has passed.
    """
    if not machine.LEAST_MEMORY_MB <= memory_mb <= machine.MOST_MEMORY_MB:
        allowed = f"allowed: {machine.LEAST_MEMORY_MB} to {machine.MOST_MEMORY_MB} MB"
        raise UsageError(f"{memory_mb} MB is not allowed", where="--memory", next_step=allowed)
    if not 0 < deadline_s <= MOST_DEADLINE_S:
        raise UsageError(f"{deadline_s:g} s is not allowed", where="--deadline", next_step="allowed: up to 7 days")
    if machine.inside():
        raise UsageError("this is a user-mode kernel already, and it holds no second one", where=WHERE)
    kernel = machine.find_kernel(os.environ)
    memory = machine.memory_folder(memory_mb, os.environ)
    with tempfile.TemporaryDirectory(prefix="zkchaos-", dir=machine.scratch_parent()) as name:
        scratch = Path(name)
        (scratch / TOP_FOLDER).mkdir()
        (scratch / ORDER_FILE).write_bytes(msgspec.json.encode(order))
        init = scratch / INIT_FILE
        init.write_text(machine.init_script(scratch), encoding="utf-8")
        init.chmod(0o700)
        supervision = Supervision(kernel, scratch, memory, memory_mb=memory_mb, deadline_s=deadline_s, streams=streams)
        with supervision:
            return supervision.run()


class Supervision:
    """One kernel, from its start to its end."""

    def __init__(
        self,
        kernel: str,
        scratch: Path,
        memory: Path,
        *,
        memory_mb: int,
        deadline_s: float,
        streams: tuple[int, int],
    ) -> None:
        self._begun = time.monotonic()
        self._deadline_s = deadline_s
        self._end_by = self._begun + BOOT_S
        self._why_ended: str | None = None
        self._running: float | None = None
        self._answer: Ended | Refused | None = None
        self._ended_at = 0.0
        self._interrupts = 0
        self._log = b""
        self._heard = Lines()
        self._selector = selectors.DefaultSelector()
        (log, log_in), (answers, answers_in), (out, out_in), (err, err_in) = (os.pipe() for _ in range(4))
        orders_out, self._orders = os.pipe()
        alive, self._alive = os.pipe()
        self._streams: dict[int, int | None] = {out: streams[0], err: streams[1]}
        self._sources = {log: self._keep_log, answers: self._hear, out: self._pass_on, err: self._pass_on}
        for source in self._sources:
            self._selector.register(source, selectors.EVENT_READ)
        console = Console(log_in, orders_out, answers_in, out_in, err_in)
        # Beyond the command's own deadline: this one is for a kernel that hangs, and for a caller that is gone.
        limits = (BOOT_S + deadline_s + GRACE_S + _POWER_OFF_S, GRACE_S + _POWER_OFF_S)
        words = [sys.executable, "-I", "-S", keeper.__file__, *(str(limit) for limit in limits), str(alive)]
        try:
            self._keeper = subprocess.Popen(
                [*words, *machine.command_line(kernel, scratch, memory_mb, console)],
                pass_fds=(alive, *console.all()),
                stdin=subprocess.DEVNULL,
                stdout=log_in,
                stderr=log_in,
                env={"PATH": os.defpath, "HOME": str(scratch), "TMPDIR": str(memory)},
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
            )
        finally:
            for descriptor in (alive, *console.all()):
                os.close(descriptor)

    def __enter__(self) -> Supervision:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._keeper.wait()
        self._selector.close()
        for descriptor in (*self._sources, self._orders):
            os.close(descriptor)

    def run(self) -> Outcome:
        """Until the kernel has ended. Raises as `run_in_guest`."""
        with _signals() as (wake, received):
            if wake is not None:
                self._selector.register(wake, selectors.EVENT_READ)
            while self._sources.keys() & self._selector.get_map().keys():
                left = max(0.0, self._end_by - time.monotonic())
                for key, _events in self._selector.select(left):
                    if key.fd == wake:
                        os.read(key.fd, _CHUNK)
                    else:
                        self._read(key.fd)
                while received:
                    self._interrupt(received.pop(0))
                if time.monotonic() >= self._end_by:
                    self._too_late()
        return self._outcome()

    def _read(self, source: int) -> None:
        chunk = os.read(source, _CHUNK)
        if chunk:
            self._sources[source](source, chunk)
        else:
            self._selector.unregister(source)

    def _keep_log(self, _source: int, chunk: bytes) -> None:
        self._log = (self._log + chunk)[-_LOG:]

    def _pass_on(self, source: int, chunk: bytes) -> None:
        target = self._streams[source]
        try:
            while chunk and target is not None:
                chunk = chunk[os.write(target, chunk) :]
        except BrokenPipeError:  # nobody reads on, as in `zkchaos usermode -- COMMAND | head`
            self._streams[source] = None
            self._interrupt(signal.SIGTERM)

    def _hear(self, _source: int, chunk: bytes) -> None:
        for said in self._heard.feed(chunk):
            answer = ANSWERS.decode(said)
            now = time.monotonic()
            if isinstance(answer, Running):
                self._running = now
                self._end_by = now + self._deadline_s
            else:
                self._answer, self._ended_at = answer, now
                self._running = self._running or now
                self._end_by = now + _POWER_OFF_S

    def _interrupt(self, number: int) -> None:
        """Pass a signal on to the command; kill it at the second one, and the kernel at the third."""
        self._interrupts += 1
        if self._running is None or self._interrupts > 2:
            self._why_ended = "interrupted"
            self._kill()
        elif self._answer is None:
            self._tell(number if self._interrupts == 1 else signal.SIGKILL)
            self._end_by = time.monotonic() + GRACE_S

    def _too_late(self) -> None:
        if self._why_ended is None and self._running is not None and self._answer is None and not self._interrupts:
            self._why_ended = f"the command had not ended after {self._deadline_s:g} s and was told to"
            self._tell(signal.SIGTERM)
            self._end_by = time.monotonic() + GRACE_S
            return
        self._why_ended = self._why_ended or "it did not end in time, and was killed"
        self._kill()
        self._end_by = time.monotonic() + _POWER_OFF_S  # its pipes end with it, much sooner

    def _tell(self, number: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile
            os.write(self._orders, line(Signal(number)))

    def _kill(self) -> None:
        """Let the keeper kill the kernel at once; nothing happens if it has ended."""
        if self._keeper.poll() is None:
            self._keeper.send_signal(signal.SIGTERM)

    def _outcome(self) -> Outcome:
        if self._why_ended == "interrupted":
            raise KeyboardInterrupt
        if self._why_ended is not None:
            raise TestbedError(self._why_ended, where=WHERE, next_step="--deadline gives it more time")
        if isinstance(self._answer, Refused):
            raise EnvironmentLacking(self._answer.why, where=WHERE, next_step=machine.INSTALL)
        if self._answer is None or self._running is None:
            last = [text for text in self._log.decode(errors="replace").splitlines() if text.strip()][-6:]
            raise TestbedError(
                "the kernel ended without a word",
                where=WHERE,
                cause="this machine forbids ptrace, or the guest ran out of memory",
                next_step=f"its last messages: {' / '.join(last)[-1500:] or 'none'}",
            )
        return Outcome(self._answer.code, self._running - self._begun, self._ended_at - self._running)


@contextlib.contextmanager
def _signals() -> Iterator[tuple[int | None, list[int]]]:
    """Collect signals instead of being ended by them, and a descriptor that wakes; none outside of the main thread."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield None, received
        return

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    former_wake = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    former = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield wake, received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_wake)
        os.close(wake)
        os.close(woken)
