"""A connection that can send any bytes, and reports a close or silence as a result."""

import itertools
import socket
import struct

from . import schema

ANSWER_TIMEOUT_S = 15
CLOSED = "the connection is closed"
SILENT = "no answer"
_UNSUPPORTED_VERSION = 35


class Connection:
    def __init__(self, port, client_id="differential"):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation_ids = itertools.count(1)
        self.client_id = client_id

    def close(self):
        self._socket.close()

    def request(self, api, version, body):
        """Sends one request. Returns its decoded response, or a mark that there was none."""
        correlation_id = self.send(api, version, body)
        return self.receive(api, version, correlation_id)

    def send(self, api, version, body):
        correlation_id = next(self._correlation_ids)
        head = self.header(schema.api_key(api), version, correlation_id)
        if schema.is_flexible(api, version):
            head += b"\0"
        data = body if isinstance(body, bytes) else schema.encode_request(api, version, body)
        self.send_frame(head + data)
        return correlation_id

    def header(self, key, version, correlation_id):
        client_id = self.client_id.encode()
        return struct.pack(">hhih", key, version, correlation_id, len(client_id)) + client_id

    def send_frame(self, data):
        self.send_bytes(struct.pack(">i", len(data)) + data)

    def send_bytes(self, data):
        try:
            self._socket.sendall(data)
        except OSError:
            pass  # the connection is closed, and the next read reports it

    def receive(self, api, version, correlation_id):
        frame = self.receive_frame()
        if isinstance(frame, str):
            return frame
        if (got := struct.unpack_from(">i", frame)[0]) != correlation_id:
            raise ValueError(f"correlation id {got} in place of {correlation_id}")
        body = frame[4:]
        if api == "ApiVersions":
            if struct.unpack_from(">h", body)[0] == _UNSUPPORTED_VERSION:
                version = 0  # KIP-511
        elif schema.is_flexible(api, version):
            if body[0] != 0:
                raise ValueError("tagged fields in a response header")
            body = body[1:]
        return schema.decode_response(api, version, body)

    def receive_frame(self, timeout=ANSWER_TIMEOUT_S):
        """Returns the bytes of a frame, or a mark that the connection closed or stayed silent."""
        self._socket.settimeout(timeout)
        try:
            size = self._read(4)
            if size is None:
                return CLOSED
            return self._read(struct.unpack(">i", size)[0]) or CLOSED
        except TimeoutError:
            return SILENT
        except ConnectionError:
            return CLOSED

    def peek(self, timeout):
        """Waits for a response without reading it. Returns its first byte, CLOSED or SILENT."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) or CLOSED
        except TimeoutError:
            return SILENT

    def _read(self, length):
        data = bytearray()
        while len(data) < length:
            piece = self._socket.recv(min(length - len(data), 1 << 20))
            if not piece:
                return None
            data += piece
        return bytes(data)
