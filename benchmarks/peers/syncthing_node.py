"""A syncthing on loopback: ``receive HOME DEVICE PORT FILE BYTES`` takes a file from another one.

Discovery, relays, port mapping, reports and upgrades are off. Each has a home of its own, with a
device ID made beforehand; the one that receives is started for it, and stopped. Each is told of the
other, and of the folder, through its REST interface.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HOST = "127.0.0.1"
FOLDER = "benchmark"
UP_SECONDS = 20
TRANSFER_SECONDS = 180
OFF = ("globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled",
       "startBrowser", "crashReportingEnabled")  # fmt: skip
NUMBERS = {"urAccepted": "-1", "autoUpgradeIntervalH": "0", "stunKeepaliveStartS": "0"}
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Node:
    """One syncthing, by its home."""

    home: Path
    api_port: int
    api_key: str
    port: int
    device: str

    @classmethod
    def make(cls, home: Path, api_port: int, port: int) -> Node:
        """Make a home: a key, and a configuration that stays on loopback."""
        generate = ["syncthing", "generate", "--home", str(home), "--no-default-folder",
                    "--skip-port-probing"]  # fmt: skip
        subprocess.run(generate, check=True, capture_output=True)
        tree = ElementTree.parse(home / "config.xml")
        options = tree.getroot().find("options")
        gui = tree.getroot().find("gui")
        assert options is not None
        assert gui is not None
        _set(gui, "address", f"{HOST}:{api_port}")
        _set(options, "listenAddress", f"tcp://{HOST}:{port}")
        for name in OFF:
            _set(options, name, "false")
        for name, number in NUMBERS.items():
            _set(options, name, number)
        tree.write(home / "config.xml")
        return cls.load(home)

    @classmethod
    def load(cls, home: Path) -> Node:
        """Return the node of a home that was made."""
        root = ElementTree.parse(home / "config.xml").getroot()
        api = _text(root, "gui/address").rpartition(":")[2]
        port = _text(root, "options/listenAddress").rpartition(":")[2]
        device = root.find("device")
        assert device is not None
        return cls(home, int(api), _text(root, "gui/apikey"), int(port), device.attrib["id"])

    @property
    def command(self) -> list[str]:
        """What runs it."""
        home = ["--home", str(self.home)]
        return ["syncthing", "serve", *home, "--no-browser", "--no-restart", "--no-upgrade"]

    def call(self, path: str, data: object = None) -> Any:
        """Ask its REST interface; with ``data``, post it."""
        body = json.dumps(data).encode() if data is not None else None
        url = f"http://{HOST}:{self.api_port}/rest/{path}"
        request = urllib.request.Request(url, body, {"X-API-Key": self.api_key})
        with urllib.request.urlopen(request, timeout=UP_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def wait_until_up(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            try:
                self.call("system/ping")
            except OSError:
                return False
            return True

        _wait(answers, UP_SECONDS)

    def meet(self, device: str, port: int) -> None:
        """Tell it of the other's device."""
        other = {"deviceID": device, "addresses": [f"tcp://{HOST}:{port}"]}
        self.call("config/devices", other)

    def share(self, directory: Path, device: str, kind: str) -> None:
        """Share a directory with the other: ``sendonly`` or ``receiveonly``."""
        folder = {
            "id": FOLDER, "path": str(directory), "type": kind, "fsWatcherEnabled": False,
            "devices": [{"deviceID": self.device}, {"deviceID": device}],
        }  # fmt: skip
        self.call("config/folders", folder)

    def wait_until_it_has(self, size: int, seconds: float) -> None:
        """Wait until the folder holds so many bytes, and nothing is done with it."""

        def has_all() -> bool:
            try:
                status = self.call(f"db/status?folder={FOLDER}")
            except OSError:  # it has not begun yet
                return False
            return bool(status["state"] == "idle" and status["localBytes"] == size)

        _wait(has_all, seconds)


def receive(home: str, device: str, port: str, out: str, size: str) -> None:
    """Run a syncthing until it has the file of the other, and put it in its place."""
    node, place = Node.load(Path(home)), Path(home) / "received"
    process = subprocess.Popen(node.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        node.wait_until_up()
        node.meet(device, int(port))
        node.share(place, device, "receiveonly")
        node.wait_until_it_has(int(size), TRANSFER_SECONDS)
    finally:
        process.terminate()
        process.wait()
    (place / Path(out).name).rename(out)


def _wait(is_over: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_over():
        if time.monotonic() > until:
            raise RuntimeError(f"it took more than {seconds:g} s")
        time.sleep(POLL_SECONDS)


def _set(parent: ElementTree.Element, name: str, text: str) -> None:
    found = parent.find(name)
    if found is None:
        found = ElementTree.SubElement(parent, name)
    found.text = text


def _text(parent: ElementTree.Element, path: str) -> str:
    found = parent.findtext(path)
    assert found is not None, path
    return found


if __name__ == "__main__":
    assert sys.argv[1] == "receive", __doc__
    receive(*sys.argv[2:])
