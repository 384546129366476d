"""How a measurement is said beside the limit that it breaks: with as many digits as tell the two apart."""

from __future__ import annotations

_MOST_DIGITS = 6


def apart(value: float, limit: float, kind: str = "f", digits: int = 0) -> tuple[str, str]:
    """Return both as text, alike only where they are the same to six digits behind the point.

    `kind` is f for numbers, % for shares and g where `digits`, enough for most, are all digits and not those behind the
    point. So 98.04 % is not said to be 98 % where 98 % is trusted.
    """
    for more in range(digits, _MOST_DIGITS + 1):
        said = f"{value:.{more}{kind}}", f"{limit:.{more}{kind}}"
        if said[0] != said[1]:
            return said
    return f"{value:.{digits}{kind}}", f"{limit:.{digits}{kind}}"
