"""The binary form of one transaction (jute, big-endian): a payload of the log.

The layouts are those of `zookeeper.jute` (module `org.apache.zookeeper.txn`) and `SerializeUtils.deserializeTxn`,
3.4 to 3.9. A payload is a `TxnHeader`, the body of its type, and since 3.6 an optional `TxnDigest`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec

from harness.errors import HistoryError
from harness.zookeeper.txn import Txn, TxnKind

_HEADER = struct.Struct(">qiQqi")
_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")
_INTS = struct.Struct(">ii")
_DIGEST = struct.Struct(">iq")
#: The version in a TxnDigest, `DigestCalculator.DIGEST_VERSION`; readers ignore it.
_DIGEST_VERSION = 2
#: An ACL of one entry, everything to world:anyone, as `vector<ACL>`. By far the most common one.
_OPEN_ACL = struct.pack(">ii", 1, 31) + struct.pack(">i", 5) + b"world" + struct.pack(">i", 6) + b"anyone"
_OPEN_ACL_LENGTH = len(_OPEN_ACL)
#: More entries than this in any vector are not believed; a request has at most about 1 MB.
_MAX_ENTRIES = 1_000_000

_KINDS = {int(kind): kind for kind in TxnKind}

HEADER_LENGTH = _HEADER.size


class _Body(msgspec.Struct, gc=False):
    """What a body decoder found, and the offset just after it."""

    end: int
    path: str | None = None
    data: bytes | None = None
    version: int | None = None
    error: int = 0
    ephemeral: bool = False
    timeout_ms: int = 0
    parts: tuple[Txn, ...] = ()
    deleted: tuple[str, ...] | None = None


def decode_txn(payload: bytes) -> Txn:
    """Decode one payload, whose checksum was found right before.

    Raises:
        HistoryError: it is of no known layout. `where` is left to the caller.
    """
    try:
        session, cxid, zxid, time_ms, number = _HEADER.unpack_from(payload, 0)
        body = _decode_body(payload, _HEADER.size, number, (session, cxid, zxid, time_ms))
        digest = _decode_digest(payload, body.end)
    except (struct.error, UnicodeDecodeError, _BadLayout) as problem:
        raise HistoryError(
            f"a transaction has a layout that is not known: {problem}",
            cause="it was written by a version of ZooKeeper that this reader does not know",
        ) from problem
    return Txn(
        session,
        cxid,
        zxid,
        time_ms,
        _KINDS[number],
        body.path,
        body.data,
        body.version,
        body.error,
        body.ephemeral,
        body.timeout_ms,
        body.parts,
        body.deleted,
        digest,
        payload if digest is None else payload[: body.end],
    )


class _BadLayout(ValueError):
    """Internal: a field makes no sense."""


def _decode_body(payload: bytes, at: int, number: int, header: tuple[int, int, int, int]) -> _Body:
    decoder = _DECODERS.get(number)
    if decoder is not None:
        return decoder(payload, at)
    if number == TxnKind.MULTI:
        return _multi(payload, at, header)
    raise _BadLayout(f"type {number}")


def _decode_digest(payload: bytes, at: int) -> int | None:
    left = len(payload) - at
    if left == 0:
        return None
    if left != _DIGEST.size:
        raise _BadLayout(f"{left} bytes are left over")
    _version, digest = _DIGEST.unpack_from(payload, at)
    return int(digest)


def _string(payload: bytes, at: int) -> tuple[str, int]:
    (length,) = _INT.unpack_from(payload, at)
    end = at + 4 + length
    if length < 0 or end > len(payload):
        raise _BadLayout(f"a string of {length} bytes")
    return payload[at + 4 : end].decode(), end


def _buffer(payload: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = _INT.unpack_from(payload, at)
    if length == -1:
        return None, at + 4
    end = at + 4 + length
    if length < 0 or end > len(payload):
        raise _BadLayout(f"data of {length} bytes")
    return payload[at + 4 : end], end


def _count(payload: bytes, at: int) -> tuple[int, int]:
    (count,) = _INT.unpack_from(payload, at)
    if count > _MAX_ENTRIES:
        raise _BadLayout(f"a vector of {count} entries")
    return count, at + 4  # -1 is a null vector


def _skip_acl(payload: bytes, at: int) -> int:
    if payload[at : at + _OPEN_ACL_LENGTH] == _OPEN_ACL:
        return at + _OPEN_ACL_LENGTH
    count, at = _count(payload, at)
    for _ in range(count):
        _scheme, at = _string(payload, at + 4)
        _identity, at = _string(payload, at)
    return at


def _create(payload: bytes, at: int) -> _Body:
    path, at = _string(payload, at)
    data, at = _buffer(payload, at)
    at = _skip_acl(payload, at)
    ephemeral = payload[at : at + 1] == b"\x01"
    return _Body(at + 5, path, data, ephemeral=ephemeral)  # then parentCVersion


def _create_container(payload: bytes, at: int) -> _Body:
    path, at = _string(payload, at)
    data, at = _buffer(payload, at)
    return _Body(_skip_acl(payload, at) + 4, path, data)


def _create_ttl(payload: bytes, at: int) -> _Body:
    body = _create_container(payload, at)
    body.end += 8
    return body


def _delete(payload: bytes, at: int) -> _Body:
    path, at = _string(payload, at)
    return _Body(at, path)


def _set_data(payload: bytes, at: int) -> _Body:
    path, at = _string(payload, at)
    data, at = _buffer(payload, at)
    (version,) = _INT.unpack_from(payload, at)
    return _Body(at + 4, path, data, version)


def _set_acl(payload: bytes, at: int) -> _Body:
    path, at = _string(payload, at)
    at = _skip_acl(payload, at)
    (version,) = _INT.unpack_from(payload, at)
    return _Body(at + 4, path, None, version)


def _check(payload: bytes, at: int) -> _Body:
    path, at = _string(payload, at)
    (version,) = _INT.unpack_from(payload, at)
    return _Body(at + 4, path, None, version)


def _error(payload: bytes, at: int) -> _Body:
    (code,) = _INT.unpack_from(payload, at)
    return _Body(at + 4, error=code)


def _create_session(payload: bytes, at: int) -> _Body:
    (timeout,) = _INT.unpack_from(payload, at)
    return _Body(at + 4, timeout_ms=timeout)


def _close_session(payload: bytes, at: int) -> _Body:
    """Nothing before 3.6, then a vector of paths; either may be followed by a digest."""
    left = len(payload) - at
    if left == 0:
        return _Body(at)
    try:
        count, end = _count(payload, at)
        paths: list[str] = []
        for _ in range(count):
            path, end = _string(payload, end)
            if not path.startswith("/"):
                raise _BadLayout("a path without a slash")
            paths.append(path)
        if len(payload) - end not in (0, _DIGEST.size):
            raise _BadLayout("bytes are left over")
    except (struct.error, UnicodeDecodeError, _BadLayout):
        if left == _DIGEST.size:
            return _Body(at)
        raise
    return _Body(end, deleted=tuple(paths))


def _multi(payload: bytes, at: int, header: tuple[int, int, int, int]) -> _Body:
    count, at = _count(payload, at)
    parts: list[Txn] = []
    for _ in range(count):
        (number,) = _INT.unpack_from(payload, at)
        data, at = _buffer(payload, at + 4)
        decoder = _DECODERS.get(number)
        if decoder is None or data is None:
            raise _BadLayout(f"type {number} within a multi")
        body = decoder(data, 0)
        if body.end != len(data):
            raise _BadLayout("bytes are left over within a multi")
        parts.append(
            Txn(
                *header,
                _KINDS[number],
                body.path,
                body.data,
                body.version,
                body.error,
                body.ephemeral,
                body.timeout_ms,
                (),
                body.deleted,
            )
        )
    return _Body(at, parts=tuple(parts))


_DECODERS: dict[int, Callable[[bytes, int], _Body]] = {
    int(TxnKind.CREATE): _create,
    int(TxnKind.CREATE2): _create,
    int(TxnKind.CREATE_CONTAINER): _create_container,
    int(TxnKind.CREATE_TTL): _create_ttl,
    int(TxnKind.DELETE): _delete,
    int(TxnKind.DELETE_CONTAINER): _delete,
    int(TxnKind.SET_DATA): _set_data,
    int(TxnKind.RECONFIG): _set_data,
    int(TxnKind.SET_ACL): _set_acl,
    int(TxnKind.CHECK): _check,
    int(TxnKind.ERROR): _error,
    int(TxnKind.CREATE_SESSION): _create_session,
    int(TxnKind.CLOSE_SESSION): _close_session,
}


def encode_txn(txn: Txn) -> bytes:
    """The payload of a transaction: what a server would have logged, with an open ACL where there is one.

    `raw` is not looked at; what a `Txn` does not keep (ACL, parent's cversion, TTL) is given a plain value.
    """
    header = _HEADER.pack(txn.session, txn.cxid, txn.zxid, txn.time_ms, txn.kind)
    digest = b"" if txn.digest is None else _DIGEST.pack(_DIGEST_VERSION, txn.digest)
    return header + _encode_body(txn) + digest


def _encode_body(txn: Txn) -> bytes:
    return _ENCODERS[txn.kind](txn)


def _encode_create(txn: Txn) -> bytes:
    return _packed(txn.path) + _packed(txn.data) + _OPEN_ACL + bytes([txn.ephemeral]) + _INT.pack(1)


def _encode_create_container(txn: Txn) -> bytes:
    return _packed(txn.path) + _packed(txn.data) + _OPEN_ACL + _INT.pack(1)


def _encode_create_ttl(txn: Txn) -> bytes:
    return _encode_create_container(txn) + _LONG.pack(1000)


def _encode_delete(txn: Txn) -> bytes:
    return _packed(txn.path)


def _encode_set_data(txn: Txn) -> bytes:
    return _packed(txn.path) + _packed(txn.data) + _INT.pack(txn.version or 0)


def _encode_set_acl(txn: Txn) -> bytes:
    return _packed(txn.path) + _OPEN_ACL + _INT.pack(txn.version or 0)


def _encode_check(txn: Txn) -> bytes:
    return _packed(txn.path) + _INT.pack(txn.version or 0)


def _encode_error(txn: Txn) -> bytes:
    return _INT.pack(txn.error)


def _encode_create_session(txn: Txn) -> bytes:
    return _INT.pack(txn.timeout_ms)


def _encode_close_session(txn: Txn) -> bytes:
    return b"" if txn.deleted is None else _INT.pack(len(txn.deleted)) + b"".join(map(_packed, txn.deleted))


def _encode_multi(txn: Txn) -> bytes:
    parts = [(int(part.kind), _encode_body(part)) for part in txn.parts]
    return _INT.pack(len(parts)) + b"".join(_INTS.pack(number, len(body)) + body for number, body in parts)


_ENCODERS: dict[TxnKind, Callable[[Txn], bytes]] = {
    TxnKind.CREATE: _encode_create,
    TxnKind.CREATE2: _encode_create,
    TxnKind.CREATE_CONTAINER: _encode_create_container,
    TxnKind.CREATE_TTL: _encode_create_ttl,
    TxnKind.DELETE: _encode_delete,
    TxnKind.DELETE_CONTAINER: _encode_delete,
    TxnKind.SET_DATA: _encode_set_data,
    TxnKind.RECONFIG: _encode_set_data,
    TxnKind.SET_ACL: _encode_set_acl,
    TxnKind.CHECK: _encode_check,
    TxnKind.ERROR: _encode_error,
    TxnKind.CREATE_SESSION: _encode_create_session,
    TxnKind.CLOSE_SESSION: _encode_close_session,
    TxnKind.MULTI: _encode_multi,
}


def _packed(value: str | bytes | None) -> bytes:
    if value is None:
        return _INT.pack(-1)
    data = value.encode() if isinstance(value, str) else value
    return _INT.pack(len(data)) + data
