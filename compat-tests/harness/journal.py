"""Journals of workers: what each worker process of a read-process-write run did.

A journal has a line of JSON for each step of the process, written before the step:

    {"assigned": [0, 1]}                the group assigned these partitions of the source topic
    {"begin": "java.17.1"}              begin a transaction; its name has worker, process and number
    {"send": "java.17.1 0 5 1", "partition": 2}
                                        send a record (`Output`) to this partition of the sink topic
    {"outcome": "committing"}           commit the transaction
    {"outcome": "committed"}            the commit succeeded; also "aborted"
    {"error": "..."}                    a call failed
"""

import json

from .exactly_once import COMMITTED, Output, Transaction


class Journal:
    """The journal of one process, read while the process writes it."""

    def __init__(self, path):
        path.touch()
        self._file, self._rest = open(path, "rb"), b""
        self.transactions, self.errors, self.assignments, self.committed = {}, [], 0, 0
        self._now = None

    def read(self):
        """Reads the lines that were written since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            self._add(json.loads(line))
        return self

    def _add(self, step):
        if "begin" in step:
            self._now = self.transactions[step["begin"]] = Transaction(step["begin"])
        elif "send" in step:
            self._now.sent.append((step["partition"], Output.parse(step["send"])))
        elif "outcome" in step:
            self._now.outcome = step["outcome"]
            self.committed += step["outcome"] == COMMITTED
        elif "assigned" in step:
            self.assignments += 1
        else:
            self.errors.append(step["error"])
