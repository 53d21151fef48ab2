"""Parses Sordini's log: `2026-01-01T00:00:00.000000Z  INFO sordini::x: message a=1 b=2`."""

import re
import time
from pathlib import Path

LINE = re.compile(r"\S+Z\s+(?P<level>TRACE|DEBUG|INFO|WARN|ERROR) (?P<target>\S+?): (?P<text>.*)")


class LogLines:
    """The lines that are added to a log file from now on (or all, with `from_start`)."""

    def __init__(self, path, from_start=False):
        self.path = Path(path)
        there = self.path.exists() and not from_start
        self._begin = self.path.stat().st_size if there else 0

    def _lines(self):
        if not self.path.exists():
            return []
        text = self.path.read_bytes()[self._begin :].decode(errors="replace")
        return [line for line in map(LINE.match, text.splitlines()) if line]

    def all(self):
        """Returns (level, text) of each line."""
        return [(line["level"], line["text"]) for line in self._lines()]

    def of_level(self, level):
        """Returns (target, text) of each line with this level."""
        return [(it["target"], it["text"]) for it in self._lines() if it["level"] == level]

    def with_text(self, message, **fields):
        """Returns the lines that begin with a message and have these fields."""
        wanted = [f"{name}={value}" for name, value in fields.items()]
        return [
            (level, text)
            for level, text in self.all()
            if text.startswith(message) and all(f" {field} " in f"{text} " for field in wanted)
        ]

    def wait_for(self, message, timeout_s=30):
        """Waits until there is a line that begins with a message."""
        deadline = time.monotonic() + timeout_s
        while not self.with_text(message):
            assert time.monotonic() < deadline, f"no line {message!r}: {self.all()}"
            time.sleep(0.05)

    def faults(self):
        return [(level, text) for level, text in self.all() if level in ("WARN", "ERROR")]


def field(line, name):
    """Returns the number in a field of a line."""
    return int(re.search(rf"\b{name}=(\d+)", line[1])[1])
