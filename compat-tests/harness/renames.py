"""Records how the files of a directory get and lose their names (inotify)."""

import ctypes
import os
import struct

MOVED_FROM, MOVED_TO, CREATED, REMOVED = 0x40, 0x80, 0x100, 0x200
# An event: watch, kind, cookie, length of the name that follows.
EVENT = struct.Struct("iIII")
BUFFER_BYTES = 1 << 20


class Renames:
    """Watches a directory, without its subdirectories. The kernel keeps up to 16,384 events."""

    def __init__(self, directory):
        libc = ctypes.CDLL(None, use_errno=True)
        self.queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        kinds = MOVED_FROM | MOVED_TO | CREATED | REMOVED
        watch = libc.inotify_add_watch(self.queue, os.fsencode(directory), kinds)
        assert watch >= 0, os.strerror(ctypes.get_errno())

    def take(self):
        """Returns (former name, new name) in order. A new file has no former name, and a removed
        file has no new name."""
        found, moved = [], {}
        while data := self._read():
            at = 0
            while at < len(data):
                _, kind, cookie, length = EVENT.unpack_from(data, at)
                at += EVENT.size + length
                name = data[at - length : at].rstrip(b"\0").decode()
                if kind & MOVED_FROM:
                    moved[cookie] = name
                elif kind & REMOVED:
                    found.append((name, None))
                else:
                    found.append((moved.get(cookie), name))
        return found

    def _read(self):
        try:
            return os.read(self.queue, BUFFER_BYTES)
        except BlockingIOError:
            return b""

    def close(self):
        os.close(self.queue)
