"""The corpus. Every public function of these modules is a case; it gets a `Transcript`."""

import importlib

MODULES = [
    "connections",
    "produce",
    "codecs",
    "idempotence",
    "fetch",
    "fetch_sessions",
    "offsets",
    "admin",
    "loggers",
    "metadata",
    "topics",
    "partitions",
    "cluster",
    "groups",
    "members",
    "static_members",
    "commits",
    "expiry",
    "log_dirs",
    "shapes",
    "unsecured",
    "restarts",
]
# Records of the corpus are years old, and stay.
_SETTINGS = {"log_retention_ms": "-1", "group_max_size": "3", "group_min_session_timeout_ms": "300"}


def settings_of(module):
    """What a module's broker is configured with: `SETTINGS` adds to what all have."""
    loaded = importlib.import_module(f"{__name__}.{module}")
    return {**_SETTINGS, **getattr(loaded, "SETTINGS", {})}


def all_cases():
    """All cases as (module, name, function)."""
    for module in MODULES:
        loaded = importlib.import_module(f"{__name__}.{module}")
        for name, function in vars(loaded).items():
            if getattr(function, "__module__", "") == loaded.__name__ and name[0].islower():
                yield module, name, function
