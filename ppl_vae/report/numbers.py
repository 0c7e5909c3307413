"""Numbers and names as people read them: digits, typographic minus signs, long names cut short."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
SPACE, THIN = "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Number:
    """A number: the text that a page shows, and the value by which a table sorts.

    Attributes:
        value: The value.
        text: The text.
    """

    value: float
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Drawing(Number):
    """A number that a page shows as a drawing.

    Attributes:
        value: The value.
        text: The drawing, as HTML.
    """

    def __html__(self) -> str:
        return self.text


def number(value: float, digits: int = 4) -> Number:
    """Write a number with a fixed number of significant digits.

    Example:
        >>> number(0.0123456).text, number(12.0).value
        ('0.01235', 12.0)
    """
    value = float(value)
    text = f"{value:.{digits}g}"
    if math.isfinite(value) and 1e4 <= abs(value) < 1e7:
        text = f"{value:,.0f}".replace(",", THIN)
    return Number(value, _typeset(value, text))


def decimal(value: float, places: int = 3) -> Number:
    """Write a number with a fixed number of decimal places.

    Example:
        >>> decimal(2 / 3).text
        '0.667'
    """
    grouped = "," if abs(value) >= 1e4 else ""
    text = f"{float(value):z{grouped}.{places}f}".replace(",", THIN)
    return Number(float(value), _typeset(float(value), text))


def with_common_precision(values: Sequence[float], spread: float) -> list[Number]:
    """Write several numbers of one quantity with the same number of decimal places.

    Args:
        values: The numbers.
        spread: How much the quantity varies, such as the width of an interval; the numbers get
            the decimal places that show three digits of it.

    Example:
        >>> [shown.text for shown in with_common_precision([1.86, 2.1861], 0.29)]
        ['1.860', '2.186']
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if not 1e-5 < spread < math.inf or largest >= 1e7:
        return [number(value) for value in values]
    places = min(max(2 - math.floor(math.log10(spread)), 0), 7)
    return [decimal(value, places) for value in values]


def percent(count: int, total: int) -> str:
    """Write a share in whole percent; 0 % and 100 % only where the share is exactly that.

    Example:
        >>> percent(1, 1000).replace(SPACE, " "), percent(999, 1000).replace(SPACE, " ")
        ('under 1 %', '99 %')
    """
    share = 100 * count / total
    if 0 < share < 1:
        return f"under 1{SPACE}%"
    return f"{share if count == total else min(share, 99):.0f}{SPACE}%"


def shortened(text: str, length: int = 40) -> str:
    """Return a text that is no longer than a length, by leaving out its middle.

    Example:
        >>> shortened("from the beginning to the end", 15).startswith("from the")
        True
    """
    if len(text) <= length:
        return text
    tail = length // 3
    return f"{text[: length - tail - 1]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def capitalized(text: str) -> str:
    """Return a text with a capital first letter; other letters are left as they are."""
    return text[:1].upper() + text[1:]


def _typeset(value: float, text: str) -> str:
    """Return the text of a number with a minus sign, and a power of ten in superscripts."""
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}\N{INFINITY}"
    mantissa, exponent, power = text.partition("e")
    mantissa = mantissa.replace("-", MINUS)
    raised = str(int(power)).translate(SUPERSCRIPTS) if exponent else ""
    return f"{mantissa}{THIN}{TIMES}{THIN}10{raised}" if exponent else mantissa
