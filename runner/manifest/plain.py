"""Whether there is anything to fill in; most jobs of a large manifest have no placeholder, and need no template."""

from __future__ import annotations

from runner.core.spec import Json


def is_plain(value: Json) -> bool:
    """
    Say whether rendering would give back the value as it is: no dollar sign and no null in it.

    >>> is_plain({"prompt": "A kitten", "media": [{"url": "https://example.com/a.png"}]})
    True
    >>> is_plain({"prompt": "${prompt}"})
    False
    """
    kind = type(value)
    if kind is str:
        return "$" not in value
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return value is not None
    for item in value:
        # The two commonest answers are given here, since a call costs more than all of the rest.
        kind = type(item)
        if kind is str:
            if "$" in item:
                return False
        elif item is None or ((kind is dict or kind is list) and not is_plain(item)):
            return False
    return True
