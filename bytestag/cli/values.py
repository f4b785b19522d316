"""Values of options: sizes, durations, addresses, as people write them (pure)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from bytestag.errors import UsageError

if TYPE_CHECKING:
    IntType = click.ParamType[int]
    AddressType = click.ParamType[tuple[str, int]]
else:
    IntType = AddressType = click.ParamType  # generic from click 8.4 on

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTP", 1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}IB": 1024**_power, f"{_letter}B": 1000**_power}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*"
_SIZE = re.compile(_NUMBER + "([A-Za-z]*)")
_DURATION = re.compile(_NUMBER + "([smhdw])")


def parse_size(text: str) -> int:
    """Read ``10GiB``, ``500MB``, ``2G`` (binary) or ``0``. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"{text!r} is not a size", hint="a size looks like 10GiB, 500MB or 0")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_duration(text: str) -> int:
    """Read ``90d``, ``12h`` or ``0`` as seconds. Raises UsageError."""
    if text.strip() == "0":
        return 0
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a duration", hint="a duration looks like 90d, 12h or 0")
    return int(float(match[1]) * _SECONDS[match[2]])


def print_size(size: float) -> str:
    """Return a size for people: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"


def print_duration(seconds: float) -> str:
    """Return a duration for people: ``90 days``."""
    for name, unit in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'' if count == 1 else 's'}"
    return f"{seconds:.1f} s"


def count(number: int, noun: str) -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def about(number: int, noun: str) -> str:
    """Return an estimate to two digits, as it is no better: ``about 1,200 nodes``."""
    return f"about {count(int(float(f'{number:.2g}')), noun)}"


class Size(IntType):
    """An option that is a size."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else parse_size(str(value))


class Duration(IntType):
    """An option that is a duration."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) and value else parse_duration(str(value))


class Address(AddressType):
    """An option that is ``host:port``."""

    name = "host:port"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        from bytestag.uri import parse_address

        try:
            return parse_address(str(value))
        except UsageError as error:
            raise UsageError(error.message, hint="an address looks like 192.0.2.1:41234") from error
