"""A relay between a QMP client and the real QEMU: some of the client's messages are answered here.

Source: QEMU's docs/interop/qmp-spec.txt.
"""

import json
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 1 << 16
_MAX_DESCRIPTORS = 16
"""Descriptors that a client may pass in one message."""
Answer = Callable[[bytes], bytes | None]
"""Takes a client's message; returns the reply (b"" is none), or None if QEMU is to answer.

Raises ConnectionError to hang up.
"""


def serve(
    listener: socket.socket,
    life: int,
    connect: Callable[[], socket.socket],
    answer: Answer,
) -> None:
    """Serve clients, one after the other, until QEMU ends.

    ``life`` is a pipe whose other end only QEMU holds. ``connect`` returns a connection to QEMU's
    monitor.
    """
    while True:
        ready, _, _ = select.select([listener.fileno(), life], [], [])
        if life in ready:
            return
        client, _ = listener.accept()
        with client, suppress(OSError), connect() as qemu:
            relay(client, qemu, answer)


def relay(client: socket.socket, qemu: socket.socket, answer: Answer) -> None:
    """Pass whole messages, with their descriptors, until one side hangs up."""
    replies = _Direction(qemu, client, lambda _message: None)
    requests = _Direction(client, qemu, answer)
    with suppress(ConnectionError):  # it hung up, with messages in flight
        while True:
            ready, _, _ = select.select([client, qemu], [], [])
            for direction in (replies, requests):
                if direction.source in ready and not direction.pump():
                    return


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole messages at the start of a stream, and the rest.

    Messages need no newline between them.
    """
    text = data.decode("latin-1")  # one character for each byte
    found: list[bytes] = []
    at = 0
    while text[at:].strip():
        at += len(text) - at - len(text[at:].lstrip())
        try:
            _, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            end = text.find("\n", at)
            if end < 0:
                break
        found.append(data[at:end])
        at = end
    return found, data[at:].lstrip()


class _Direction:
    """The messages in one direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, answer: Answer) -> None:
        self.source: socket.socket = source
        self._sink = sink
        self._answer = answer
        self._rest = b""
        self._descriptors: list[int] = []

    def pump(self) -> bool:
        """Pass on what has arrived. Returns False at the end of the stream."""
        data, descriptors, _, _ = socket.recv_fds(self.source, _CHUNK, _MAX_DESCRIPTORS)
        self._descriptors += descriptors
        messages, self._rest = split(self._rest + data)
        for message in messages:
            reply = self._answer(message)
            if reply is None:
                self._pass(message + b"\r\n")
            else:
                self.source.sendall(reply)
        return bool(data)

    def _pass(self, message: bytes) -> None:
        descriptors, self._descriptors = self._descriptors, []
        try:
            sent = socket.send_fds(self._sink, [message], descriptors)
            self._sink.sendall(message[sent:])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
