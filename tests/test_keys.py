"""Keys: text forms, the XOR metric, bucket numbers."""

import copy
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import UsageError
from bytestag.keys import (
    KeyBytes,
    b16_to_bytes,
    b32_to_bytes,
    b64_to_bytes,
    bytes_to_b16,
    bytes_to_b32,
    bytes_to_b64,
    compute_bucket_number,
    leading_zero_bits,
    random_bucket_key,
)

raw_keys = st.binary(min_size=20, max_size=20)
HEX = "37aa63c77398d954473262e1a0057c1e632eda77"


@given(raw_keys)
def test_a_key_is_read_back_from_each_of_its_text_forms(raw: bytes) -> None:
    key = KeyBytes(raw)
    for text in (key.base16, key.base16.upper(), key.base32, key.base32.lower(), key.base64):
        assert KeyBytes(text) == key
    assert key.integer == int(key.binary_str, 2)
    assert len(key.binary_str) == KeyBytes.BIT_SIZE


def test_the_text_forms_are_the_known_ones() -> None:
    key = KeyBytes(HEX)
    assert key.base16 == HEX
    assert key.base32 == "G6VGHR3TTDMVIRZSMLQ2ABL4DZRS5WTX"
    assert key.base64 == "N6pjx3OY2VRHMmLhoAV8HmMu2nc="
    assert str(key) == HEX
    assert repr(key) == f"KeyBytes('{HEX}')"


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_anything_else_is_a_value_error(value: str | bytes) -> None:
    try:
        key = KeyBytes(value)
    except UsageError:
        assert KeyBytes.new_silent(value) is None
    else:
        assert len(key) == 20


@pytest.mark.parametrize("value", [b"", b"x" * 19, b"x" * 21, "", "zz", HEX[:-1], HEX + "00"])
def test_a_value_of_another_length_is_refused(value: str | bytes) -> None:
    with pytest.raises(ValueError):
        KeyBytes(value)


def test_a_number_is_not_a_key() -> None:
    with pytest.raises(UsageError, match="not int"):
        KeyBytes(20)  # type: ignore[arg-type]


def test_a_key_without_an_argument_is_random() -> None:
    assert KeyBytes() != KeyBytes()
    assert KeyBytes.new_silent(None) is None


def test_a_key_equals_its_bytes_and_survives_copying() -> None:
    key = KeyBytes(HEX)
    assert {key: 1}[bytes.fromhex(HEX)] == 1
    assert type(key.binary) is bytes
    for again in (copy.deepcopy(key), pickle.loads(pickle.dumps(key))):
        assert again == key
        assert type(again) is KeyBytes


def test_a_hash_key_validates_its_own_value_only() -> None:
    key = KeyBytes.new_hash(b"some text")
    assert key.base16 == HEX
    key.validate()
    key.validate_value(b"some text")
    KeyBytes.validate_hash_value(key, b"some text")
    with pytest.raises(ValueError):
        key.validate_value(b"other text")
    with pytest.raises(ValueError):
        KeyBytes.validate_hash_value(b"\0" * 20, b"some text")


@given(raw_keys, raw_keys, raw_keys)
def test_distance_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    x, y, z = KeyBytes(a), KeyBytes(b), KeyBytes(c)
    assert x.distance_int(x) == 0
    assert x.distance(y) == y.distance(x)
    assert int.from_bytes(x.distance(y), "big") == x.distance_int(y)
    assert x.distance_int(z) <= x.distance_int(y) + y.distance_int(z)


@pytest.mark.parametrize(
    ("bytes_", "expected"),
    [(b"\xff", 0), (b"\x7f", 1), (b"\x01", 7), (b"\x00\x80", 8), (b"\x00\x00", 16), (b"", 0)],
)
def test_leading_zero_bits_are_counted(bytes_: bytes, expected: int) -> None:
    assert leading_zero_bits(bytes_) == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [(b"\x80" + b"\0" * 19, 0), (b"\0" * 19 + b"\x01", 159), (b"\0\x01" + b"\0" * 18, 15)],
)
def test_the_far_half_is_bucket_0_and_the_nearest_159(other: bytes, expected: int) -> None:
    assert compute_bucket_number(b"\0" * 20, other) == expected


@given(raw_keys, st.integers(0, 159), st.integers(0))
def test_a_random_bucket_key_falls_into_its_bucket(raw: bytes, number: int, seed: int) -> None:
    key = random_bucket_key(raw, number, rng=random.Random(seed))
    assert compute_bucket_number(raw, key) == number
    assert key == random_bucket_key(raw, number, rng=random.Random(seed))
    assert compute_bucket_number(raw, random_bucket_key(raw, number)) == number


def test_a_narrow_space_leaves_the_other_bits_alone() -> None:
    node = KeyBytes(HEX)
    key = random_bucket_key(node, 3, bit_size=8)
    assert compute_bucket_number(node, key) == 3
    assert key[1:] == node[1:]


@pytest.mark.parametrize("number", [-1, 160])
def test_a_bucket_that_does_not_exist_is_refused(number: int) -> None:
    with pytest.raises(ValueError):
        random_bucket_key(KeyBytes(HEX), number)


@given(st.binary(max_size=40))
def test_bytes_survive_each_conversion(value: bytes) -> None:
    assert b16_to_bytes(bytes_to_b16(value)) == value
    assert b32_to_bytes(bytes_to_b32(value)) == value
    assert b64_to_bytes(bytes_to_b64(value)) == value


@pytest.mark.parametrize("decode", [b16_to_bytes, b32_to_bytes, b64_to_bytes])
@pytest.mark.parametrize("text", ["!", "ä", "abc\n"])
def test_bad_text_raises_or_is_none_on_request(decode: object, text: str) -> None:
    assert callable(decode)
    with pytest.raises(UsageError):
        decode(text)
    assert decode(text, ignore_error=True) is None
