"""Runs test programs in other languages, and keeps their closing lines for the report."""

import os
import shutil
import subprocess

import pytest

CLOSING_LINES = []


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
