"""Random patterns in about the syntax of RE2, and texts that some of them match.

They avoid what RE2/J cannot do: with the flag `i`, it runs for ever on a range with U+1C80 to
U+1C88, and `(?i:b\\d)|B` matches "b". They stay below the size at which Sordini refuses a pattern.
"""

# What a pattern is made of. Some pieces are whole, most become valid only beside others.
_PIECES = [
    *"aab1_-., :^$|*+?(){}[]\\&~<>PpQEdwxUZ\u00e4\u03b1\n",
    "(?:", "(?i)", "(?-i)", "(?s)", "(?m)", "(?U)", "(?i:", "(?s-i:", "(?)", "(?P<n>", "(?<m>",
    "(?=", "[^", "[]", "[^]", "[:alpha:]", "[[:^digit:]]", "[a-c]", "[B-k]", "[--a]", "[[:", ":]",
    "-]", "\\d", "\\W", "\\s", "\\b", "\\B", "\\A", "\\z", "\\Q", "\\E", "\\n", "\\-", "\\.", "\\_",
    "\\x41", "\\x{3b1}", "\\x{", "\\0", "\\141", "\\7", "\\pL", "\\p{Greek}", "\\P{^Lu}", "\\p{",
    "{2}", "{0}", "{1,3}", "{2,}", "{,2}", "{3,1}", "{02}", "{1001}",
]  # fmt: skip
_ATOMS = [
    *"aabb1_-\u00e4\u03b1\u212a", ".", ".", "^", "$", "()", "[ab]", "[^a]", "[a-cB-D1]", "[\\d_-]",
    "[^\\W]", "[]-]", "[[:upper:]1]", "\\d", "\\W", "\\w", "\\s", "\\b", "\\B", "\\A", "\\z",
    "\\x61", "\\142", "\\Qa.b\\E", "\\p{Greek}", "\\P{Lt}", "\\n", "{", "a{,2}",
    "(?i)", "(?m)", "(?s)", "(?-i)",
]  # fmt: skip
_REPEATS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{0}", "{1,3}", "{0,2}?", "{2,}"]
_OPENINGS = ["(", "(?:", "(?i:", "(?s:", "(?m:", "(?U:", "(?-i:", "(?i-s:"]
_TEXT = "aaabbABK1_-. \n\u00e4\u00c4\u03b1\u017f\u212a"


def pattern(rng):
    """Returns a pattern of random pieces, or a valid one, which may then lose or get a piece."""
    if rng.random() < 0.3:
        return "".join(rng.choice(_PIECES) for _ in range(rng.randint(1, 7)))
    made = _expression(rng, 3)
    if rng.random() < 0.4:
        at = rng.randint(0, len(made))
        made = made[:at] + rng.choice([*_PIECES, ""]) + made[at + rng.randint(0, 1) :]
    return made


def _expression(rng, depth):
    return "|".join(_alternative(rng, depth) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _alternative(rng, depth):
    return "".join(_part(rng, depth) for _ in range(rng.randint(1, 4)))


def _part(rng, depth):
    part = rng.choice(_ATOMS)
    if depth and rng.random() < 0.3:
        part = f"{rng.choice(_OPENINGS)}{_expression(rng, depth - 1)})"
    return part + rng.choice(_REPEATS) if rng.random() < 0.3 else part


def texts(rng, count):
    """Returns different texts, which are not empty. Most are short."""
    made = {}
    while len(made) < count:
        made["".join(rng.choice(_TEXT) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6))))] = True
    return list(made)
