"""The cases: every public function of these modules is one, and gets a `Transcript`."""

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
    "nodes",
    "groups",
    "members",
    "static_members",
    "commits",
    "expiry",
    "consumer_groups",
    "consumer_groups_off",
    "mixed_groups",
    "group_conversions",
    "group_conversions_upgrade",
    "group_conversions_downgrade",
    "group_conversions_disabled",
    "log_dirs",
    "shapes",
    "unsecured",
    "restarts",
    "transactions",
    "transaction_ends",
    "transaction_writes",
    "transaction_offsets",
    "transaction_restarts",
    "transaction_expiry",
]
# The cases write records with timestamps of years ago, which must not expire.
_SETTINGS = {"log_retention_ms": "-1", "group_max_size": "3", "group_min_session_timeout_ms": "300"}


def settings_of(module):
    """Returns the settings of a module's broker: those of all modules, and its `SETTINGS`."""
    loaded = importlib.import_module(f"{__name__}.{module}")
    return {**_SETTINGS, **getattr(loaded, "SETTINGS", {})}


def all_cases():
    """Yields all cases as (module, name, function)."""
    for module in MODULES:
        loaded = importlib.import_module(f"{__name__}.{module}")
        for name, function in vars(loaded).items():
            if getattr(function, "__module__", "") == loaded.__name__ and name[0].islower():
                yield module, name, function
