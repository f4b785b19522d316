import pytest

from bytestag.cli.values import (
    Address,
    Duration,
    Size,
    about,
    count,
    parse_duration,
    parse_size,
    print_duration,
    print_size,
)
from bytestag.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("10GiB", 10 * 2**30),
        ("10gib", 10 * 2**30),
        ("2G", 2 * 2**30),
        ("500 MB", 500_000_000),
        ("1.5KiB", 1536),
        ("3B", 3),
    ],
)
def test_a_size_is_read_as_people_write_it(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "ten", "1XB", "1GiBB", "1e9", "٣GiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90d", 7_776_000), ("12h", 43_200), ("1.5m", 90), ("2w", 1_209_600)],
)
def test_a_duration_is_read_as_people_write_it(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1y"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError):
        parse_duration(text)


def test_sizes_and_durations_are_printed_for_people():
    assert print_size(0) == "0 B"
    assert print_size(1536) == "1.5 KiB"
    assert print_size(512 * 2**20) == "512 MiB"
    assert print_size(5000 * 2**40) == "5000 TiB"
    assert print_duration(90 * 86_400) == "90 days"
    assert print_duration(3600) == "1 hour"
    assert print_duration(1.25) == "1.2 s"
    assert count(1, "file") == "1 file"
    assert count(1200, "file") == "1,200 files"


def test_a_number_in_the_configuration_file_is_bytes_but_no_duration():
    assert Size().convert(1024, None, None) == 1024
    assert Duration().convert(0, None, None) == 0
    assert Duration().convert("7d", None, None) == 604_800


def test_an_address_is_host_and_port():
    assert Address().convert("[::1]:4000", None, None) == ("::1", 4000)
    with pytest.raises(UsageError) as caught:
        Address().convert("nowhere", None, None)
    assert "192.0.2.1:41234" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1 node"), (99, "99 nodes"), (1249, "1,200 nodes")]
)
def test_an_estimate_has_two_digits(number, text):
    assert about(number, "node") == f"about {text}"
