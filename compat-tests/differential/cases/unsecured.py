"""Requests about ACLs, users, quotas and transactions to a broker that has none of them."""

_FILTER = {
    "resourceTypeFilter": 2,
    "resourceNameFilter": "any",
    "patternTypeFilter": 3,
    "principalFilter": None,
    "hostFilter": None,
    "operation": 1,
    "permissionType": 1,
}
_ACL = {
    "resourceType": 2,
    "resourceName": "any",
    "resourcePatternType": 3,
    "principal": "User:any",
    "host": "*",
    "operation": 2,
    "permissionType": 3,
}
_CODES = (-1, 0, 1, 2, 7, 50)


def describe_acls(t):
    t.ask_all("a topic's", "DescribeAcls", _FILTER)
    for version in (1, 3):
        for field in ("resourceTypeFilter", "patternTypeFilter", "operation", "permissionType"):
            for code in _CODES:
                t.ask(f"{field} {code}", "DescribeAcls", version, {**_FILTER, field: code})
    for principal in ("", "any", "User:", "Group:any"):
        t.ask(f"of {principal!r}", "DescribeAcls", 3, {**_FILTER, "principalFilter": principal})


def create_acls(t):
    t.ask_all("two", "CreateAcls", {"creations": [_ACL, _ACL]})
    t.ask_all("none", "CreateAcls", {"creations": []})
    for version in (1, 3):
        for field in ("resourceType", "resourcePatternType", "operation", "permissionType"):
            for code in _CODES:
                body = {"creations": [_ACL, {**_ACL, field: code}]}
                t.ask(f"{field} {code}", "CreateAcls", version, body)
    for field in ("resourceName", "principal", "host"):
        t.ask(f"empty {field}", "CreateAcls", 3, {"creations": [{**_ACL, field: ""}]})


def delete_acls(t):
    t.ask_all("two", "DeleteAcls", {"filters": [_FILTER, _FILTER]})
    t.ask_all("none", "DeleteAcls", {"filters": []})
    for version in (1, 3):
        for field in ("resourceTypeFilter", "patternTypeFilter", "operation", "permissionType"):
            for code in _CODES:
                body = {"filters": [_FILTER, {**_FILTER, field: code}]}
                t.ask(f"{field} {code}", "DeleteAcls", version, body)


def delegation_tokens(t):
    t.ask_all("create", "CreateDelegationToken", {"renewers": [], "maxLifetimeMs": -1})
    for kind in (None, "", "User", "Group"):
        for name in (None, "", "any"):
            owner = {"ownerPrincipalType": kind, "ownerPrincipalName": name}
            body = {**owner, "renewers": [], "maxLifetimeMs": -1}
            t.ask(f"create for {kind!r} {name!r}", "CreateDelegationToken", 3, body)
    for kind in ("", "User", "Group"):
        renewers = [{"principalType": kind, "principalName": "any"}]
        body = {"renewers": renewers, "maxLifetimeMs": 0}
        t.ask(f"create with renewer {kind!r}", "CreateDelegationToken", 3, body)
    t.ask_all("renew", "RenewDelegationToken", {"hmac": b"none such", "renewPeriodMs": -1})
    t.ask("renew, empty", "RenewDelegationToken", 2, {"hmac": b"", "renewPeriodMs": 1})
    t.ask_all("expire", "ExpireDelegationToken", {"hmac": b"none such", "expiryTimePeriodMs": -1})
    owners = [{"principalType": "User", "principalName": "any"}]
    for label, body in {"of one": owners, "of none": [], "of all": None}.items():
        t.ask_all(f"describe {label}", "DescribeDelegationToken", {"owners": body})


def client_quotas(t):
    exact, default, specified = 0, 1, 2
    filters = {
        "everything": [],
        "a user": [("user", exact, "any")],
        "the default user and any client": [
            ("user", default, None), ("client-id", specified, None)],
        "no type": [("", exact, "any")],
        "a type twice": [("user", exact, "any"), ("user", specified, None)],
        "the default twice": [("ip", default, None), ("ip", default, None)],
        "an unknown type": [("none-such", exact, "any")],
        "a type in capitals": [("User", exact, "any")],
        "exact null": [("user", exact, None)],
        "exact and empty": [("client-id", exact, "")],
        "default with a name": [("user", default, "any")],
        "specified with a name": [("user", specified, "any")],
        "match type 3": [("user", 3, None)],
        "match type -1": [("user", -1, "any")],
        "an address": [("ip", exact, "no address")],
        "an address and a user": [("ip", exact, "127.0.0.1"), ("user", exact, "any")],
        "an address and a client": [("client-id", specified, None), ("ip", default, None)],
        "an unknown type after an error": [("user", 3, None), ("none-such", exact, "any")],
    }  # fmt: skip
    for label, components in filters.items():
        components = [
            {"entityType": kind, "matchType": match, "match": name}
            for kind, match, name in components
        ]
        for strict in (False, True):
            named = f"{label}{', strict' if strict else ''}"
            body = {"components": components, "strict": strict}
            t.ask_all(named, "DescribeClientQuotas", body)


def user_scram_credentials(t):
    for label, users in {"all": None, "none": [], "one": ["any"], "no name": [""]}.items():
        body = {"users": users and [{"name": name} for name in users]}
        t.ask(label, "DescribeUserScramCredentials", 0, body)
    twice = {"users": [{"name": "any"}, {"name": "any"}]}
    t.ask("one twice", "DescribeUserScramCredentials", 0, twice)


def transactions(t):
    states = ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit",
              "CompleteAbort", "PrepareEpochFence", "Dead"]  # fmt: skip
    t.ask_all("all", "ListTransactions", {})
    t.ask_all("in each state", "ListTransactions", {"stateFilters": states})
    unknown = {"stateFilters": ["Ongoing", "ongoing", "", "Unknown", ""]}
    t.ask_all("in unknown states", "ListTransactions", unknown)
    t.ask_all("of producers", "ListTransactions", {"producerIdFilters": [-1, 7]})
    t.ask("that take long", "ListTransactions", 2, {"durationFilter": 1000})
    for pattern in ("", "a.*", "(", "[a", "*", "x{3,1}", "a{1001}", "(?=a)", "(?i)a", "[[:alpha:]]",
                    "\\pN", "\\p{Greek}", "\\", "\\1", "\\K", "(?P<n>a)", "[b-a]"):  # fmt: skip
        t.ask(f"like {pattern}", "ListTransactions", 2, {"transactionalIdPattern": pattern})


def transaction_patterns(t):
    """Repetitions, flags and escapes that RE2/J refuses or accepts."""
    for pattern in ("a**", "a++", "a*??", "a+?+", "a{2}{3}", "a{2}*", "(a*)*", "(?:a+)+",
                    "(?:a{2}){3}", "a{1000}", "a{0,1001}", "(?:a{100}){10}", "(?:a{100}){11}",
                    "(?x)a", "(?u)a", "(?m-s:a)", "(?U)a+", "\\u0041", "\\x{41}", "\\pL",
                    "\\p{Script=Greek}", "(?<n>a)"):  # fmt: skip
        t.ask(f"like {pattern}", "ListTransactions", 2, {"transactionalIdPattern": pattern})
