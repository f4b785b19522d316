"""Canonical JSON: bounded before it is parsed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.models import canonical

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


def load(buffer: bytes) -> object:
    return canonical.load_object(buffer, bytes_max=1 << 20)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    assert canonical.load_object(canonical.dump(value), bytes_max=1 << 20, depth_max=64) == value


def test_the_bytes_are_ascii_sorted_and_compact() -> None:
    assert canonical.dump({"b": 1, "a": ["ü", None]}) == b'{"a":["\\u00fc",null],"b":1}'


@given(st.binary(max_size=60) | st.text('{}[]",:\\ue0178ab-', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_refused(buffer: bytes) -> None:
    try:
        value = load(buffer)
    except FormatError:
        return
    assert isinstance(value, dict)


@pytest.mark.parametrize(
    "buffer",
    [
        b"",
        b"[]",
        b"1",
        b"{} {}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":"\xff"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"' + b"x" * (1 << 20) + b'"}',
    ],
    ids=lambda buffer: repr(buffer[:16]),
)
def test_what_has_no_canonical_form_is_refused(buffer: bytes) -> None:
    with pytest.raises(FormatError):
        load(buffer)


def test_nesting_is_refused_before_parsing_but_brackets_in_texts_do_not_count() -> None:
    assert load(b'{"a":' + b"[" * 15 + b"]" * 15 + b"}")
    for deep in (b'{"a":' + b"[" * 16 + b"]" * 16 + b"}", b"[" * 500_000, b'{"a":' * 100_000):
        with pytest.raises(FormatError, match="deep"):
            load(deep)
    assert load(b'{"a":"' + b"[" * 100 + b'\\"' + b"{" * 100 + b'"}')


@pytest.mark.parametrize("item", [b"[],", b"{},", b"0,"])
def test_too_many_items_are_refused_before_parsing(item: bytes) -> None:
    buffer = b'{"a":[' + item * 1000 + b"0]}"
    assert canonical.load_object(buffer, bytes_max=1 << 20)
    with pytest.raises(FormatError, match="items"):
        canonical.load_object(buffer, bytes_max=1 << 20, items_max=900)


def test_an_unterminated_text_of_escapes_costs_no_quadratic_time() -> None:
    buffer = b'{"a":"' + b'\\"' * 500_000
    with pytest.raises(FormatError):
        load(buffer)
    started = time.process_time()
    with pytest.raises(FormatError):
        load(buffer)
    assert time.process_time() - started < 5  # measured 0.01 s; quadratic is an hour
