"""Calls over bare HTTP/2, for what python3-grpcio would not send, or would end by itself."""

import select
import socket

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind, flags, stream, payload):
    return (len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") +
            payload)


def message(body, length=None):
    """As gRPC frames it; `length` is what it claims to be."""
    return b"\0" + (len(body) if length is None else length).to_bytes(4, "big") + body


def _fields(headers):
    headers = {":method": "POST", ":scheme": "http", ":authority": "x", "te": "trailers",
               ":path": "/switchyard.v1.Inference/Generate",
               "content-type": "application/grpc", **headers}
    return b"".join(b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode()
                    for n, v in headers.items())


def _connect(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def _open(address, headers):
    """A connection and the frames that begin a Generate call, stream 1."""
    return (_connect(address), _PREFACE + _frame(_SETTINGS, 0, 0, b"") +
            _frame(_HEADERS, 4, 1, _fields(headers)))


def _frames(answer):
    """Kind, flags, stream and payload of what comes, until the connection ends."""
    while len(head := answer.read(9)) == 9:
        payload = answer.read(int.from_bytes(head[:3], "big"))
        yield head[3], head[4], int.from_bytes(head[5:], "big"), payload


def settings(address):
    """What the server says at first: value by number of RFC 9113, 6.5.2."""
    with _connect(address) as connection, connection.makefile("rb") as answer:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        for kind, _, _, payload in _frames(answer):
            if kind == _SETTINGS:
                return {int.from_bytes(payload[i:i + 2], "big"):
                        int.from_bytes(payload[i + 2:i + 6], "big")
                        for i in range(0, len(payload), 6)}


def ping(address, count):
    """Sends so many pings at once, and a call: what the server says when it ends the connection, or
    None if it answers the call."""
    with _connect(address) as connection, connection.makefile("rb") as answer:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") +
                           _frame(_PING, 0, 0, bytes(8)) * count +
                           _frame(_HEADERS, 5, 1, _fields({})))
        for kind, _, _, payload in _frames(answer):
            if kind == _GOAWAY:
                return payload[8:]
            if kind == _HEADERS:
                return None
        return b""


def begin_calls(address, count):
    """Begins so many calls on one connection, and ends none: whether all are taken."""
    with _connect(address) as connection, connection.makefile("rb") as answer:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        frames = _frames(answer)
        while next(frames)[0] != _SETTINGS:
            pass
        fields = _fields({})
        connection.sendall(
            _frame(_SETTINGS, 1, 0, b"") +  # it holds us to what we have acknowledged
            b"".join(_frame(_HEADERS, 4, 2 * i + 1, fields) for i in range(count)) +
            _frame(_PING, 0, 0, b"behind!!"))
        for kind, _, _, payload in frames:
            if kind in (_HEADERS, _RST_STREAM, _GOAWAY):
                return False
            if payload == b"behind!!":
                return True
        return False


def generate(address, framed, **headers):
    """The trailers of a Generate call with these bytes, as bytes."""
    connection, opening = _open(address, {n.replace("_", "-"): v for n, v in headers.items()})
    with connection, connection.makefile("rb") as answer:
        connection.sendall(opening + _frame(_DATA, 1, 1, framed))
        while True:
            head = answer.read(9)
            payload = answer.read(int.from_bytes(head[:3], "big"))
            if head[3] == _HEADERS and head[4] & 1:  # that end the stream
                return payload


def pour(address, claimed, most):
    """Sends a message of `claimed` bytes, but at most `most`, as flow control lets it: how much
    was sent when the server ended the call or the connection."""
    connection, opening = _open(address, {})
    sent = 0
    with connection, connection.makefile("rb") as answer:
        connection.sendall(opening + _frame(_DATA, 0, 1, message(b"", claimed)))
        windows = {0: 65535 - 5, 1: 65535 - 5}  # of the connection, of the stream
        try:
            while sent < most:
                size = min(16384, *windows.values())
                if size > 0 and not select.select([connection], [], [], 0)[0]:
                    connection.sendall(_frame(_DATA, 0, 1, bytes(size)))
                    sent += size
                    windows = {stream: window - size for stream, window in windows.items()}
                    continue
                head = answer.read(9)
                payload = answer.read(int.from_bytes(head[:3], "big"))
                stream = int.from_bytes(head[5:9], "big")
                if len(head) < 9 or head[3] in (_HEADERS, _RST_STREAM, _GOAWAY):
                    break
                if head[3] == _WINDOW_UPDATE:
                    windows[stream] += int.from_bytes(payload, "big")
                elif head[3] in (_SETTINGS, _PING) and not head[4] & 1:
                    connection.sendall(_frame(head[3], 1, 0, payload if head[3] == _PING else b""))
        except OSError:  # reset
            pass
    return sent
