"""What computing costs: core-hours, and money where the environment variable `WAVECITY_CORE_HOUR` has a price."""

import os

from wavecity.geo.errors import InputError

VARIABLE = "WAVECITY_CORE_HOUR"


def cost(core_seconds: float) -> str:
    """Core-hours, with what they cost if `WAVECITY_CORE_HOUR` has the price of one, e.g. `0.04 EUR`.

    Raises
    ------
    InputError
        The price is no number with a currency.

    Examples
    --------
    >>> cost(7200)
    '2.0 core-hours'
    """
    hours = core_seconds / 3600
    text = f"{hours:,.{1 if hours >= 1 else 3}f} core-hours"
    price = price_of_core_hour()
    return f"{text} ({hours * price[0]:,.2f} {price[1]})" if price else text


def price_of_core_hour() -> tuple[float, str] | None:
    """Number and currency of `WAVECITY_CORE_HOUR`; None where it is not set.

    Raises
    ------
    InputError
        It is no number with a currency.
    """
    given = os.environ.get(VARIABLE, "")
    if not given:
        return None
    number, _, currency = given.strip().partition(" ")
    try:
        return float(number), currency.strip()
    except ValueError:
        msg = f"{VARIABLE}={given}: write the price of a core for an hour, e.g. 0.04 EUR"
        raise InputError(msg) from None
