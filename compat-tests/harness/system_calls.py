"""Faults in the system calls of a running broker, with strace."""

import contextlib
import os
import shutil
import subprocess
import time


def can_inject():
    return os.geteuid() == 0 and shutil.which("strace") is not None


@contextlib.contextmanager
def injected(broker, path, calls, fault):
    """Changes these calls on this path, for example by the fault `error=ENOSPC`."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-q", "-o", "/dev/null", "-P", path, "-p", str(broker.process.pid)]
        + ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"],
        stderr=subprocess.PIPE,
    )
    try:
        time.sleep(1)
        assert tracer.poll() is None, tracer.stderr.read()
        yield
    finally:
        tracer.terminate()
        tracer.wait(timeout=30)
