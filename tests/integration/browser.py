"""A headless Chromium, driven over its debugging pipe: no driver, no port, no network.

The messages are those of the Chrome DevTools Protocol, one JSON object each, ended by a NUL byte, on file
descriptors 3 and 4 of the browser.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

#: What a JSON document may hold.
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

TIMEOUT_S = 60
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
)


def chromium() -> str:
    """The browser's path; skips the test where there is none, fails it where ZKCHAOS_REQUIRE demands one."""
    for name in _NAMES:
        path = shutil.which(name)
        if path:
            return path
    reason = f"no headless browser: none of {', '.join(_NAMES)} is on PATH"
    if "chromium" in os.environ.get("ZKCHAOS_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


class Tab:
    """One page in one browser; what it logs and what it requests is kept."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._buffer = b""
        self._last = 0
        self._session = ""
        #: Console messages of level error or warning, uncaught exceptions, and refusals by the page's own policy.
        self.complaints: list[str] = []
        #: Every address that the page asked for.
        self.requests: list[str] = []
        self._loaded = False

    def attach(self) -> None:
        """Open a blank page and listen to it."""
        target = text(self.call("Target.createTarget", url="about:blank"), "targetId")
        self._session = text(self.call("Target.attachToTarget", targetId=target, flatten=True), "sessionId")
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Json) -> Mapping[str, Json]:
        """Do one thing and wait for its result."""
        self._last += 1
        message: dict[str, Json] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return mapping(answer, "result")
            self._note(answer)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Show a file in a window of a size, and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature: Mapping[str, Json] = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._note(self._read())

    def evaluate(self, expression: str) -> Json:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return mapping(answer, "result").get("value")

    def mouse(self, kind: str, x: float, y: float, *, clicks: int = 0) -> None:
        """One event of the mouse: `mouseMoved`, `mousePressed`, `mouseReleased`."""
        button = "none" if kind == "mouseMoved" and not clicks else "left"
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=1, clickCount=clicks)

    def key(self, name: str) -> None:
        """Press and release a key that writes nothing."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name)

    def _read(self) -> Mapping[str, Json]:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser did not answer within {TIMEOUT_S} s"
            chunk = os.read(self._receive, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        decoded: Mapping[str, Json] = json.loads(message)
        return decoded

    def _note(self, event: Mapping[str, Json]) -> None:
        method = event.get("method")
        parameters = event.get("params")
        assert isinstance(parameters, Mapping)
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(text(mapping(parameters, "request"), "url"))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters.get("exceptionDetails")))
        elif method == "Runtime.consoleAPICalled" and parameters.get("type") in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(parameters.get("args")))
        elif method == "Log.entryAdded":
            self.complaints.append(json.dumps(parameters.get("entry")))


def text(answer: Mapping[str, Json], key: str) -> str:
    """A string of an answer."""
    value = answer[key]
    assert isinstance(value, str)
    return value


def mapping(answer: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    """An object of an answer."""
    value = answer[key]
    assert isinstance(value, Mapping)
    return value


@contextmanager
def browser(home: Path) -> Iterator[Tab]:
    """Start a browser with a fresh profile below `home`, and end it with all its processes."""
    path = chromium()
    home.mkdir()
    ours, theirs = _pipes()
    log = os.open(home / "browser.log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    # The numbers 3 and 4 are the browser's; subprocess cannot give a child a descriptor of a chosen number.
    places = ((theirs[0], 3), (theirs[1], 4), (log, 1), (log, 2))
    process = os.posix_spawn(
        path,
        [path, *_FLAGS.split(), f"--user-data-dir={home}", "about:blank"],
        {**os.environ, "HOME": str(home)},
        file_actions=[(os.POSIX_SPAWN_DUP2, *place) for place in places],
        setsid=True,
    )
    for descriptor in (*theirs, log):
        os.close(descriptor)
    try:
        tab = Tab(*ours)
        tab.attach()
        yield tab
    finally:
        for descriptor in ours:
            os.close(descriptor)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """Our ends (to write, to read) and the browser's (to read, to write), all well above 4."""
    commands, send = os.pipe()
    receive, events = os.pipe()
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (send, receive, commands, events)]
    for descriptor in (commands, send, receive, events):
        os.close(descriptor)
    return (moved[0], moved[1]), (moved[2], moved[3])
