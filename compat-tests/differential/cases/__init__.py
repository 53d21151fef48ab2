"""The corpus. Every public function of these modules is a case; it gets a `Transcript`."""

import importlib

MODULES = [
    "connections",
    "produce",
    "idempotence",
    "fetch",
    "fetch_sessions",
    "offsets",
    "admin",
    "restarts",
]


def all_cases():
    """All cases as (module, name, function)."""
    for module in MODULES:
        loaded = importlib.import_module(f"{__name__}.{module}")
        for name, function in vars(loaded).items():
            if getattr(function, "__module__", "") == loaded.__name__ and name[0].islower():
                yield module, name, function
