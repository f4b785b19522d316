"""Canonical JSON, read from strangers and written for hashing (pure).

Written: ASCII-escaped, sorted keys, no blanks, so that equal values are equal bytes and have one
hash. Read: any order and spacing, but bounded before the parser sees it, and nothing that has no
canonical form (NaN, 1e999, a name twice). Whatever is wrong raises :class:`FormatError`.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import re
from typing import Any, TypeGuard

from bytestag.errors import FormatError

INT_MAX = 2**63 - 1  # what every language, database and file system can hold

JsonObject = dict[str, Any]

# One match is one string, an unterminated one included: each byte is looked at once.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def dump(value: object) -> bytes:
    """Return the canonical bytes of a JSON value."""
    return _encoder.encode(value).encode("ascii")


def load_object(
    buffer: bytes, *, bytes_max: int, depth_max: int = 16, items_max: int = 1 << 20
) -> JsonObject:
    """Return the JSON object in ``buffer``; its nesting and number of items are checked first."""
    if len(buffer) > bytes_max:
        raise FormatError(f"{len(buffer):,} bytes, more than the {bytes_max:,} that are read")
    skeleton = _STRING.sub(b"", buffer)
    if sum(map(skeleton.count, (b",", b"{", b"["))) > items_max:
        raise FormatError(f"more than {items_max:,} items")
    brackets = skeleton.translate(None, _NO_BRACKETS)
    depth = max(itertools.accumulate(map(_STEP.__getitem__, brackets)), default=0)
    if depth > depth_max:
        raise FormatError(f"nested {depth} deep, more than {depth_max}")
    try:
        value = _decoder.decode(buffer.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"an object is expected, not {type(value).__name__}")
    return value


def take_int(fields: JsonObject, name: str) -> int | None:
    """Remove and return a number from 0 to 2^63 - 1, None if it is not there."""
    value = fields.pop(name, None)
    if value is None or is_count(value):
        return value
    raise FormatError(f"{name!r} is a number from 0 to 2^63 - 1")


def take_text(fields: JsonObject, name: str) -> str | None:
    """Remove and return a text, None if it is not there."""
    value = fields.pop(name, None)
    if value is None or is_text(value):
        return value
    raise FormatError(f"{name!r} is a text")


def take_list(fields: JsonObject, name: str, count_max: int) -> list[Any] | None:
    """Remove and return a list of at most ``count_max``, None if it is not there."""
    value = fields.pop(name, None)
    if value is None:
        return None
    if not isinstance(value, list):
        raise FormatError(f"{name!r} is a list")
    if len(value) > count_max:
        raise FormatError(f"{name!r} has {len(value):,} entries, more than {count_max:,}")
    return value


def is_count(value: object) -> TypeGuard[int]:
    """Return whether this is a number from 0 to 2^63 - 1 (true and false are not)."""
    return type(value) is int and 0 <= value <= INT_MAX


def is_text(value: object) -> TypeGuard[str]:
    """Return whether this is a text that UTF-8 can hold (lone surrogates are not)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def b64(value: bytes) -> str:
    """Return padded base64, as hashes are written in FileInfo."""
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def unb64(text: object, length: int) -> bytes:
    """Read padded base64 of exactly ``length`` bytes."""
    if not isinstance(text, str) or len(text) != (length + 2) // 3 * 4:
        raise FormatError(f"a hash of {length} bytes in base64 is expected")
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise FormatError("a hash is not base64") from error
    if len(value) != length:
        raise FormatError(f"a hash has {length} bytes, not {len(value)}")
    return value


def unhex(text: object, length: int) -> bytes:
    """Read ``length`` bytes in hexadecimal of any case."""
    if not isinstance(text, str) or len(text) != 2 * length:
        raise FormatError(f"a hash of {length} bytes in hexadecimal is expected")
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError("a hash is not hexadecimal") from error
    if len(value) != length:  # fromhex skips blanks
        raise FormatError("a hash is not hexadecimal")
    return value


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise FormatError("a name appears twice in one object")
    return fields


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise FormatError("a number is out of range")
    return value


def _no_constant(text: str) -> float:
    raise FormatError(f"{text} is not a JSON number")


_encoder = json.JSONEncoder(
    ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
)
_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_finite, parse_constant=_no_constant
)
