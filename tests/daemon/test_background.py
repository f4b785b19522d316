"""Whom a number means, what a node's last words are."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from bytestag.daemon import background
from bytestag.daemon.background import Process
from bytestag.errors import Timeout
from bytestag.gateway.door import Door
from bytestag.gateway.place import DoorPlace

WAITS = "import signal, sys; {} print('up', flush=True); signal.pause()"


def child(text=""):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS.format(text)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    return process


def test_a_number_means_a_process_that_began_when_it_did(tmp_path):
    own = Process(os.getpid(), background._began(os.getpid()))
    assert own.is_alive
    assert not Process(os.getpid(), "12345").is_alive
    background._write_pid(tmp_path / background.PID_NAME, own)
    assert background.remembered(tmp_path) == own
    for text in ("", "x", f"{os.getpid()} 12345", "0 1", "-1 1"):
        (tmp_path / background.PID_NAME).write_text(text)
        assert background.remembered(tmp_path) is None


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not say")
def test_who_holds_a_door_is_asked_of_the_system(tmp_path):
    place = DoorPlace(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place.socket_path))
        listening.listen()
        process = background.holder(Door(place))
    assert process is not None
    assert process.pid == os.getpid()
    assert process.is_alive


def test_a_process_is_ended_and_its_file_removed(tmp_path):
    with child() as process:
        target = Process(process.pid, background._began(process.pid))
        background._write_pid(tmp_path / background.PID_NAME, target)
        background.stop(target, tmp_path)
        assert process.wait() == -signal.SIGTERM
    assert not (tmp_path / background.PID_NAME).exists()
    background.stop(target, tmp_path)


def test_a_stranger_with_the_number_is_left_alone(tmp_path):
    with child() as process:
        background.stop(Process(process.pid, "12345"), tmp_path)
        assert process.poll() is None
        process.kill()


def test_one_that_does_not_end_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "STOP_SECONDS", 0.1)
    with child("signal.signal(signal.SIGTERM, signal.SIG_IGN);") as process:
        target = Process(process.pid, background._began(process.pid))
        with pytest.raises(Timeout, match="has not ended"):
            background.stop(target, tmp_path)
        process.kill()


def test_the_last_words_are_the_error_of_this_start(tmp_path):
    log = tmp_path / "log"
    log.write_text("error: an old one\n")
    begin = log.stat().st_size
    assert background._last_words(log, begin) == "the node ended and said nothing"
    with open(log, "a") as file:
        file.write("starting\nerror: the port is taken\n  hint: another\n")
    assert background._last_words(log, begin) == "the port is taken"


def test_a_long_log_is_put_aside(tmp_path, monkeypatch):
    log = tmp_path / "node.log"
    assert background._rotate(log) == 0
    log.write_text("12345")
    assert background._rotate(log) == 5
    monkeypatch.setattr(background, "LOG_BYTES_MAX", 4)
    assert background._rotate(log) == 0
    assert (tmp_path / "node.log.1").read_text() == "12345"
