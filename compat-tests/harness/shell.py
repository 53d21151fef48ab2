"""Runs command lines and compares their output with golden files recorded from Apache Kafka."""

import difflib
import re
import shlex
import time

from .tools import BOOTSTRAP_LAST, WITHOUT_BOOTSTRAP, run_process

# Patterns of what differs between runs, with the marks that replace it.
_VARYING = [
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"((?:TopicId|ClusterId|Cluster ID|DirectoryId|topicId|directoryId)\"?[:=]\s*\"?)"
                r"[A-Za-z0-9_-]{22}"), r"\1<id>"),
    (re.compile(r"(--topic-id )[A-Za-z0-9_-]{22}"), r"\1<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,:]\d{3}Z?\b"), "<date>"),
    (re.compile(r"\b1[789]\d{11}\b"), "<time>"),
    # Ids that members of the consumer protocol choose, before their host.
    (re.compile(r"\b[A-Za-z0-9_-]{22}(?= +/127)"), "<member>"),
    (re.compile(r"\bcrc: \d+"), "crc: <crc>"),
    (re.compile(r"\bproducerId: \d+"), "producerId: <id>"),
    (re.compile(r'("\w*[pP]roducerId":)\d+'), r"\1<id>"),
]  # fmt: skip
SOON_S = 10
# Stack frames, and advice of the tools that does not depend on the broker.
_NOISE = re.compile(r"^\s+(at |\.\.\. \d+ more)|The consumer rebalance protocol \(KIP-848\)")


class Shell:
    """Runs command lines against one broker and keeps a transcript of their output."""

    def __init__(self, broker, host, golden_file, record):
        self.broker = broker
        self._host = host
        self._golden_file = golden_file
        self._record = record
        self._transcript = []

    def __call__(
        self, line, stdin="", sort=False, transcript=True, process=False, timeout=60, until=None,
        within=SOON_S,
    ):  # fmt: skip
        """Runs one command line. `sort` is for output whose order Kafka does not guarantee.

        `until(output)` is for changes that take effect only after their response: the line is
        repeated until it is true, for at most `within` seconds.
        """
        tool, *args = self._split(line)
        run = run_process if process else self._host.run
        result = run(tool, args, stdin, timeout)
        deadline = time.monotonic() + within
        while until is not None and not until(result.stdout) and time.monotonic() < deadline:
            result = run(tool, args, stdin, timeout)
        if transcript:
            self._transcript.append(self._entry(line, result, sort))
        return result

    def start(self, line, stdin=""):
        """Starts one command line without waiting. It is not part of the transcript."""
        tool, *args = self._split(line)
        return self._host.start(tool, args, stdin)

    def note(self, title, lines):
        """Adds chosen lines to the transcript, instead of a whole output."""
        self._transcript.append("\n".join([f"# {title}", *(self._mask(x) for x in lines), ""]))

    def _split(self, line):
        words = shlex.split(line)
        named = {"--bootstrap-server", "--bootstrap-controller"} & set(words)
        if words[0] not in WITHOUT_BOOTSTRAP and not named:
            at = len(words) if words[0] in BOOTSTRAP_LAST else 1
            words[at:at] = ["--bootstrap-server", self.broker.bootstrap]
        return words

    def _entry(self, line, result, sort):
        out = self._normal(result.stdout)
        err = [f"! {text}" for text in self._normal(result.stderr)]
        body = sorted(out) if sort else out
        return "\n".join([f"$ {self._mask(line)}", *body, *err, f"exit {result.exit}", ""])

    def _normal(self, text):
        lines = (self._mask(line).rstrip() for line in text.splitlines())
        return [re.sub(r" {2,}", " ", line) for line in lines if line and not _NOISE.match(line)]

    def _mask(self, text):
        text = text.replace(str(self.broker.dir), "<dir>")
        text = re.sub(rf"\b{self.broker.port}\b", "<port>", text)
        text = re.sub(rf"\b{self.broker.controller_port}\b", "<controller-port>", text)
        for pattern, mark in _VARYING:
            text = pattern.sub(mark, text)
        return text

    def compare(self):
        """Fails with a diff if the transcript differs from the golden file."""
        if not self._transcript:
            return
        got = "\n".join(self._transcript)
        if self._record:
            self._golden_file.parent.mkdir(parents=True, exist_ok=True)
            self._golden_file.write_text(got)
            return
        expected = self._golden_file.read_text()
        if got != expected:
            diff = difflib.unified_diff(
                expected.splitlines(), got.splitlines(), "apache-kafka", self.broker.kind, lineterm=""
            )
            raise AssertionError("the output differs from Apache Kafka's:\n" + "\n".join(diff))
