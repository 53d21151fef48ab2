"""Runs test programs written in other languages, and keeps the line each of them closes with."""

import os
import shutil
import subprocess

import pytest

CLOSING_LINES = []


def run_program(name, command, closing, cwd=None, env=None, timeout=600):
    """Runs one program to its end: it fails the test unless it exits with 0.

    `closing` picks the program's own closing line out of its output.
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
    """Skips, visibly, where a program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
