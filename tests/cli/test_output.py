import io
import json
import os
import sys

import pytest

from bytestag.cli.output import Output, OutputGone, fill_streams, printable
from bytestag.cli.screens import Meter
from bytestag.errors import NotFound


@pytest.fixture(autouse=True)
def no_colours(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)


def test_the_answer_goes_to_standard_output_and_the_rest_beside_it(capsys):
    output = Output()
    output.answer("link")
    output.note("a note")
    output.warn("a warning")
    output.error(NotFound("gone", hint="look elsewhere"))
    out, err = capsys.readouterr()
    assert out == "link\n"
    assert err == ("  a note\nwarning: a warning\nerror: gone\n  hint: look elsewhere\n")


def test_quiet_keeps_the_answer_and_twice_keeps_nothing(capsys):
    quiet, silent = Output(quiet=1), Output(quiet=2)
    quiet.note("a note")
    quiet.answer("link")
    silent.answer("link")
    quiet.warn("a warning")
    silent.error(NotFound("gone"))
    assert capsys.readouterr() == ("link\n", "")


def test_an_error_is_an_object_with_json(capsys):
    Output(is_json=True).error(NotFound("gone"))
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "type": "error",
        "code": "not_found",
        "message": "gone",
        "hint": None,
        "exit": 3,
    }
    assert err == ""


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(capsys):
    times = iter([0.0, 5.0, 10.0, 19.0, 20.0])
    output = Output(clock=lambda: next(times))
    for done in range(5):
        output.progress("hashing", done, 10)
    assert capsys.readouterr().err == "  hashing 20 %\n  hashing 40 %\n"


def test_progress_tells_bytes_rate_what_is_left_and_sources():
    times = iter([5.0, 7.0, 9.0])
    meter = Meter(lambda: next(times))
    mib = 1024 * 1024
    assert meter.text(8 * mib, 32 * mib) == "8 MiB of 32 MiB"  # that was there before
    assert (
        meter.text(12 * mib, 32 * mib, 1) == "12 MiB of 32 MiB, 2 MiB/s, ETA 10.0 s, from 1 source"
    )
    assert meter.text(32 * mib, 32 * mib, 3) == "32 MiB of 32 MiB, 6 MiB/s, from 3 sources"


def test_json_and_quiet_show_no_progress(capsys):
    for output in (Output(is_json=True, clock=lambda: 0), Output(quiet=1, clock=lambda: 0)):
        output.progress("hashing")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("choice", "environment", "has_color"),
    [
        ("auto", {}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_follows_the_flag_then_the_environment(
    capsys, monkeypatch, choice, environment, has_color
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    Output(color=choice).error(NotFound("gone"))
    assert ("\x1b[" in capsys.readouterr().err) is has_color


def test_a_bar_is_shown_on_a_terminal_and_taken_away(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    output = Output()
    output.progress("hashing [red]x", 1, 2)
    output.end_progress()
    output.note("done")
    err = capsys.readouterr().err
    assert "hashing [red]x" in err
    assert err.endswith("  done\n")


def test_names_from_elsewhere_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"
    assert printable("données 日本") == "données 日本"
    assert printable("two\nlines") == "two lines"
    assert printable("odd \udc80 byte") == "odd \\udc80 byte"


def test_what_the_terminal_cannot_show_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    Output().answer("données")
    assert raw.getvalue() == b"donn\\xe9es\n"


def test_a_stream_that_nobody_reads_is_said_once_and_discarded(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputGone) as caught:
            Output().answer("x")
        assert caught.value.is_unread
        Output().answer("y")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_an_answer_that_cannot_be_kept_is_no_space(monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputGone) as caught:
            Output().answer("x")
        assert caught.value.exit_status == 8


def test_closed_streams_become_the_null_device(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    fill_streams()
    with sys.stdout, sys.stderr:
        Output().answer("x")
        Output().note("y")
