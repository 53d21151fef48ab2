"""The worker processes of a read-process-write run: one for each client, all in one group.

The workers process records in the same way, so that one checker judges them all: a transaction has
at most 20 records of the source topic, the `PARTS` outputs of each, and the offsets after them.
Each tenth transaction is aborted. A worker writes a journal (journal.py). SIGTERM makes it leave
the group and exit.
"""

import shutil
import signal
import subprocess
import sys
import time

from .journal import Journal
from .paths import CLASSPATH, FETCHED, JAVA, TESTS
from .programs import CLOSING_LINES, build_go, die_with_the_tests

EXIT_S = 120
_GO_WORKER = FETCHED / "franz-go-worker"
_JAVA_LOG = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
_COMMANDS = {
    "librdkafka": [sys.executable, "-m", "harness.worker"],
    "java": [*JAVA, _JAVA_LOG, "-cp", CLASSPATH, "sordini.compat.ReadProcessWriteWorker"],
    "franz-go": [_GO_WORKER],
}


class Workers:
    """The workers by name, which is also the transactional id. A name has one process at a time."""

    def __init__(self, directory, bootstrap, *args):
        self.names = list(_COMMANDS)
        if shutil.which("go"):
            build_go("go", "./worker", _GO_WORKER)
        else:
            self.names.remove("franz-go")
            CLOSING_LINES.append("read-process-write: no worker of franz-go, because Go is missing")
        self._dir, self._bootstrap, self._args = directory, bootstrap, [str(arg) for arg in args]
        self._processes, self._number = {}, 0
        self._journals = {name: [] for name in self.names}

    def start(self, name):
        self._number += 1
        file = self._dir / f"{name}-{self._number}"
        journal, log = file.with_suffix(".journal"), file.with_suffix(".log")
        self._journals[name].append(Journal(journal))
        args = [self._bootstrap, name, *self._args, str(journal)]
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [*_COMMANDS[name], *args],
                cwd=TESTS,
                stdout=out,
                stderr=out,
                preexec_fn=die_with_the_tests,
            )
        self._processes[name] = process, journal, log

    def kill(self, name):
        process = self._processes[name][0]
        process.kill()
        process.wait()

    def replace(self, name):
        """Kills a worker and starts it again. The group waits until the killed member expires."""
        self.kill(name)
        self.start(name)

    def stop(self, name):
        """Stops a worker with SIGTERM: it leaves the group."""
        process = self._processes[name][0]
        process.terminate()
        code = process.wait(EXIT_S)
        assert code == 0, f"{name} exited with {code}:\n{self.report()}"

    def restart(self, name):
        self.stop(name)
        self.start(name)

    def assert_running(self):
        for name, (process, *_) in self._processes.items():
            code = process.poll()
            assert code is None, f"{name} exited with {code}:\n{self.report()}"

    def committed(self):
        """Returns how many transactions each worker has committed."""
        return {
            name: sum(journal.read().committed for journal in journals)
            for name, journals in self._journals.items()
        }

    def journals(self):
        return [journal.read() for journals in self._journals.values() for journal in journals]

    def report(self):
        """Returns the last steps of all processes, and their stacks. Ends some of them."""
        for process, *_ in self._processes.values():
            process.send_signal(signal.SIGQUIT)
        time.sleep(2)
        return "\n".join(
            f"-- {name}\n{_tail(journal, 5)}\n{_tail(log, 100)}"
            for name, (_, journal, log) in self._processes.items()
        )


def _tail(file, lines):
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
