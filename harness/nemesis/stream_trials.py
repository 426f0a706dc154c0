"""What is asked through a proxy to see a toxic, and whether what came back shows it.

Each trial is had beside the proxy, too: a toxic is judged by the difference, so what else is slow or dead is not taken
for it. A connection shows a toxic, or shows none, or neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.nemesis.stream_samples import End, Question, Sample, ask, ask_much, say_farewell
from harness.nemesis.streams import Stream, Way
from harness.nemesis.toxics import Kind, ToxicSpec
from harness.topology.proxies import Service

#: How long what goes up is made to take, milliseconds, and the most that is sent for it, bytes.
_UP_MS, _UP_MOST = 200, 400_000
#: The least that a difference must be to be told from what a busy machine takes, milliseconds.
_LEAST_MS = 40.0
#: In pieces of so many bytes a server says by itself what is long.
_OWN_PIECE = 1300
#: The longest that a trial of what comes down is listened to, milliseconds, and the longest silence beyond what a toxic
#: takes, which a server that is well ends within a few.
_DOWN_MS, _SILENCE_MS = 1000.0, 400.0
#: Of what is expected: from here on it is there, and up to here it is not.
_THERE, _NOT_THERE = 0.5, 0.25


@dataclass(frozen=True)
class Trial:
    """One question, and which of a fault's ways it is to show."""

    question: Question
    toxic: ToxicSpec
    ways: tuple[Way, ...]
    #: How much longer it takes where each of these ways has the toxic, milliseconds.
    expected_ms: float
    #: How long to wait for an answer, milliseconds.
    patience_ms: float
    #: Whether a connection with the toxic on some of its ways only would show it.
    one_is_enough: bool

    @property
    def chance(self) -> int:
        """On how many ways the toxic may be, each of which would show."""
        return len(self.ways) if self.one_is_enough else 1

    def shows(self, given: Sample, beside: Sample, *, some: bool) -> bool | None:
        """Whether the toxic is seen.

        Args:
            given: through the proxy.
            beside: the same question to the server itself.
            some: only a share of connections has the toxic, each way by chance of its own.
        """
        kind = self.toxic.kind
        if kind is Kind.DOWN:
            return {End.REFUSED: True, End.SILENT: None}.get(given.end, False)
        if given.end in (End.REFUSED, End.SILENT) or not self.is_sound(beside):
            return None
        if kind is Kind.RESET_PEER:
            return True if given.end is End.RESET and not given.answered else _unless(given.answered)
        if kind is Kind.TIMEOUT:
            return not given.answered
        return self._by_what_came(given, beside, 1 / len(self.ways) if some else 1.0)

    def _by_what_came(self, given: Sample, beside: Sample, part: float) -> bool | None:
        if self.toxic.kind is Kind.LIMIT_DATA:
            return self._is_cut(given)
        if self.toxic.kind is Kind.SLICER and self.ways == (Way.DOWN,):
            return self._is_sliced(given, beside)
        return self._is_late(given, beside, part)

    def is_sound(self, beside: Sample) -> bool:
        """Whether the server itself did what it does where nothing is wrong, so that it can be compared."""
        if self.toxic.kind is Kind.DOWN:
            return True  # who listens is a proxy, whatever is behind it
        if self.question.farewell:
            return beside.end in (End.CLOSED, End.RESET)
        if self.toxic.kind is Kind.LIMIT_DATA and self.ways == (Way.DOWN,):
            return beside.received > self.toxic.size
        return beside.answered

    def _is_cut(self, given: Sample) -> bool | None:
        if self.ways == (Way.UP,):
            return not given.answered
        if given.received > self.toxic.size:
            return False
        return True if given.end in (End.CLOSED, End.RESET) else None

    def _is_sliced(self, given: Sample, beside: Sample) -> bool | None:
        """By the segments that it came in, whatever time they took."""
        if not (given.answered and given.segments and beside.segments):
            return None
        own = beside.segments * given.received / beside.received
        wanted = given.received / (self.toxic.size + self.toxic.variation)
        if wanted < 1.5 * own:
            return None
        share = (given.segments - own) / (wanted - own)
        return True if share >= _THERE else (False if share <= _NOT_THERE else None)

    def _is_late(self, given: Sample, beside: Sample, part: float) -> bool | None:
        late, usual = self.moment(given), self.moment(beside)
        if late is None or usual is None:
            return None
        share = (late - usual) / (self.expected_ms * part)
        return True if share >= _THERE else (False if share <= _NOT_THERE else None)

    def moment(self, sample: Sample) -> float | None:
        """What a toxic that is slow makes later, milliseconds; None where it never came, or no time is looked at."""
        if not self.expected_ms:
            return None
        found = sample.first_ms
        if self.toxic.kind is Kind.SLOW_CLOSE:
            found = sample.end_ms
        elif self.ways == (Way.DOWN,) and sample.first_ms is not None:
            found = sample.last_ms
        # what is still on its way has taken all the patience already
        return self.patience_ms if found is None and sample.end is End.OPEN else found


def _unless(answered: bool) -> bool | None:
    """Whoever was answered was not reset; of others nothing is known."""
    return False if answered else None


def trials_of(stream: Stream, service: Service, *, much: int) -> list[Trial]:
    """What shows a fault of streams on a port.

    Args:
        stream: the fault.
        service: whose port it is.
        much: how many bytes the longest answer of this server has.

    Returns:
        One trial, or one for each way; empty where too little can be said for it to be seen.
    """
    toxic, ways = stream.toxic, stream.ways
    match toxic.kind:
        case Kind.BANDWIDTH | Kind.SLICER | Kind.LIMIT_DATA:
            found = [_up(toxic, service) if way is Way.UP else _down(toxic, service, much) for way in ways]
            return [trial for trial in found if trial is not None]
        case Kind.DOWN:
            return [Trial(say_farewell(), toxic, ways, 0.0, _SILENCE_MS, True)]
        case Kind.SLOW_CLOSE:
            expected = float(toxic.time_ms * len(ways))
            return [Trial(say_farewell(), toxic, ways, expected, expected + _SILENCE_MS, True)]
        case Kind.LATENCY:
            expected = float(toxic.time_ms * len(ways))
            patience = expected + toxic.jitter_ms * len(ways) + _SILENCE_MS
            return [Trial(ask(service), toxic, ways, expected, patience, True)]
    silence = _SILENCE_MS + (toxic.time_ms * len(ways) if toxic.kind is Kind.RESET_PEER else 0)
    return [Trial(ask(service), toxic, ways, 0.0, silence, True)]


def _up(toxic: ToxicSpec, service: Service) -> Trial:
    """So much is sent that it takes a while, or is too much; the server answers when it has all of it."""
    if toxic.kind is Kind.LIMIT_DATA:
        return Trial(ask(service, toxic.size + 100), toxic, (Way.UP,), 0.0, _SILENCE_MS, False)
    if toxic.kind is Kind.BANDWIDTH:
        question = ask(service, min(_UP_MOST, toxic.rate * _UP_MS))
        expected = question.length / toxic.rate
    else:
        piece = toxic.size + toxic.variation
        question = ask(service, min(_UP_MOST, max(2, _UP_MS // toxic.time_ms) * piece))
        expected = question.length / piece * toxic.time_ms
    return Trial(question, toxic, (Way.UP,), expected, 3 * expected + _SILENCE_MS, False)


def _down(toxic: ToxicSpec, service: Service, much: int) -> Trial | None:
    """The server's longest answer takes a while, or is cut."""
    question = ask_much(service)
    if toxic.kind is Kind.LIMIT_DATA:
        cut = Trial(question, toxic, (Way.DOWN,), 0.0, _SILENCE_MS, False)
        return cut if much > toxic.size else None
    if toxic.kind is Kind.SLICER:
        enough = much / (toxic.size + toxic.variation) >= max(4.0, 2 * (1 + much / _OWN_PIECE))
        return Trial(question, toxic, (Way.DOWN,), 0.0, _DOWN_MS + _SILENCE_MS, False) if enough else None
    expected = much / toxic.rate
    if expected < _LEAST_MS:
        return None
    listened = min(1.5 * expected + _SILENCE_MS, _DOWN_MS + _SILENCE_MS)
    return Trial(question, toxic, (Way.DOWN,), min(expected, _DOWN_MS), listened, False)
