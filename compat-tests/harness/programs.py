"""Runs test programs in other languages, and keeps their closing lines for the report."""

import ctypes
import os
import shutil
import signal
import subprocess

import pytest

from .paths import TESTS

CLOSING_LINES = []
_PR_SET_PDEATHSIG = 1


def run_program(name, command, closing, cwd=None, env=None, timeout=600):
    """Runs a program. The test fails unless it exits with 0.

    `closing` is the pattern of the program's closing line.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    lines = [line for line in done.stdout.splitlines() if closing in line]
    CLOSING_LINES.append(f"{name}: {lines[-1].strip() if lines else 'no closing line'}")
    assert done.returncode == 0 and lines, f"{name} exited with {done.returncode}:\n{done.stdout}"


def need(program):
    """Skips the test if a program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def build_go(module, package, program):
    """Compiles a Go program of a module in compat-tests. Skips the test if Go is not installed."""
    need("go")
    command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", program, package]
    subprocess.run(command, cwd=TESTS / module, check=True, timeout=900)


def die_with_the_tests():
    """Makes the kernel kill this process when the test process ends: a `preexec_fn`."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
