"""The first process of the guest: makes the surroundings, runs the command, says how it ended, and powers off.

Run by the `init` of the scratch folder as `python -m harness.usermode.guest SCRATCH`. Its own messages and tracebacks
go to the kernel's console, which the machine shows only where the guest ends without a word.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

from harness.errors import ZkChaosError
from harness.usermode import calls
from harness.usermode.order import (
    CONTROL,
    GRACE_S,
    SIGNALS,
    STDERR,
    STDOUT,
    Answer,
    Ended,
    Lines,
    Order,
    Refused,
    Running,
    Screen,
    line,
    read_order,
)
from harness.usermode.surroundings import ENGINE, enter, search_path, start_engine

_CHUNK = 65536
#: As a shell says that a command is not there, or may not be executed.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class Terminal:
    """One of the kernel's consoles: bytes go through it as they are."""

    def __init__(self, name: str) -> None:
        self.descriptor = os.open(f"/dev/{name}", os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.descriptor)

    def write(self, data: bytes) -> None:
        """Write all of it; waits while nobody reads."""
        while data:
            data = data[os.write(self.descriptor, data) :]

    def resize(self, screen: Screen) -> None:
        """Tell programs the size of the terminal that the machine shows this on."""
        size = struct.pack("HHHH", screen.rows, screen.columns, 0, 0)
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, size)

    def drain(self) -> None:
        """Wait until the machine has everything."""
        termios.tcdrain(self.descriptor)


class Stream:
    """One of the command's output streams: the terminal itself, or a pipe that is emptied into it."""

    def __init__(self, name: str, screen: Screen | None) -> None:
        self.terminal = Terminal(name)
        self.source: int | None = None
        self.command_end = self.terminal.descriptor
        if screen is not None:
            self.terminal.resize(screen)
        else:
            self.source, self.command_end = os.pipe()
            os.set_blocking(self.source, False)

    def started(self) -> None:
        """The command has its end now."""
        if self.source is not None:
            os.close(self.command_end)

    def pass_on(self) -> None:
        """Pass on what is there."""
        if self.source is None:
            return
        try:
            chunk = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            os.close(self.source)
            self.source = None
        self.terminal.write(chunk)

    def finish(self) -> None:
        """Pass on the rest; nobody writes any more."""
        while self.source is not None:
            self.pass_on()
        self.terminal.drain()


class Guest:
    """Runs one command."""

    def __init__(self, control: Terminal, order: Order) -> None:
        self._control = control
        self._order = order
        self._streams = (Stream(STDOUT, order.stdout), Stream(STDERR, order.stderr))
        self._heard = Lines()
        self._machine_is_there = True
        self._kill_at: float | None = None

    def run(self) -> int:
        """Run the command to its end and return its exit code."""
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        try:
            command = self._start()
        except FileNotFoundError as problem:
            return self._not_started(problem, _NOT_FOUND)
        except OSError as problem:
            return self._not_started(problem, _NOT_EXECUTABLE)
        for stream in self._streams:
            stream.started()
        say(self._control, Running(time.clock_gettime(time.CLOCK_BOOTTIME)))
        while (code := _reap(command.pid)) is None:
            self._wait(wake)
            with contextlib.suppress(BlockingIOError):
                os.read(wake, _CHUNK)
            for stream in self._streams:
                stream.pass_on()
            self._listen(command.pid)
        command.returncode = code
        self._end_the_rest()
        return code

    def _start(self) -> subprocess.Popen[bytes]:
        environ = {**self._order.environ, "PATH": search_path(self._order.environ)}
        if self._order.docker:
            environ["DOCKER_HOST"] = ENGINE
        out, err = self._streams
        return subprocess.Popen(
            self._order.command,
            cwd=self._order.directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out.command_end,
            stderr=err.command_end,
            start_new_session=True,
        )

    def _not_started(self, problem: OSError, code: int) -> int:
        self._streams[1].terminal.write(f"zkchaos: {problem.filename}: {problem.strerror}\n".encode())
        for stream in self._streams:
            stream.started()
        return code

    def _wait(self, wake: int) -> None:
        """Wait until something is to be done."""
        sources = [wake, *(s.source for s in self._streams if s.source is not None)]
        if self._machine_is_there:
            sources.append(self._control.descriptor)
        left = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        select.select(sources, [], [], left)

    def _listen(self, command: int) -> None:
        """Do what the machine says; end the command if the machine has gone, or if it does not end in time."""
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            _send(command, signal.SIGKILL)
        if not self._machine_is_there or not select.select([self._control.descriptor], [], [], 0)[0]:
            return
        try:
            chunk = os.read(self._control.descriptor, _CHUNK)
        except OSError:
            chunk = b""  # the terminal was hung up
        for said in self._heard.feed(chunk):
            _send(command, SIGNALS.decode(said).number)
        if not chunk:
            self._machine_is_there = False
            self._kill_at = time.monotonic() + GRACE_S
            _send(command, signal.SIGTERM)

    def _end_the_rest(self) -> None:
        """Kill what the command has left, so that its streams come to an end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        for stream in self._streams:
            stream.finish()


def _send(command: int, number: int) -> None:
    """Send a signal to the command; an interrupt to its whole group, as a terminal does."""
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGINT:
            os.killpg(command, number)
        else:
            os.kill(command, number)


def _reap(command: int) -> int | None:
    """Reap every process that has ended, as a first process must; the exit code of the command if it is one of them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == command:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def say(control: Terminal, answer: Answer) -> None:
    """Tell the machine."""
    control.write(line(answer))
    control.drain()


def main() -> None:
    """As the module says; powers off whatever happens."""
    try:
        _work(Path(sys.argv[1]))
    finally:
        sys.stderr.flush()
        os.sync()  # the writable folders' files are in the guest's memory until now
        calls.power_off()


def _work(scratch: Path) -> None:
    order = read_order(scratch)
    try:
        enter(scratch, order)
        if order.docker:
            start_engine()
    except (OSError, ZkChaosError, subprocess.SubprocessError) as problem:
        with contextlib.suppress(OSError):
            calls.mount("devtmpfs", "/dev")  # the kernel has mounted it, unless we were about to do it again
        say(Terminal(CONTROL), Refused(str(problem)))
        return
    control = Terminal(CONTROL)
    code = Guest(control, order).run()
    os.sync()
    say(control, Ended(code))


if __name__ == "__main__":
    main()
