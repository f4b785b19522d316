"""iperf3 between two hosts: what the kernel's congestion controls reach."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Sequence

from benchmarks.namespaces import Host
from benchmarks.report import note


def flow(hosts: Sequence[Host], control: str, seconds: float) -> float | None:
    """Return the Mbit/s of one TCP flow to the second host; None where it cannot run."""
    if shutil.which("iperf3") is None:
        return None
    server = subprocess.Popen(
        hosts[1].command("iperf3", "-s", "-1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.5)
        command = ["iperf3", "-J", "-C", control, "-t", str(seconds), "-c"]
        done = subprocess.run(
            hosts[0].command(*command, hosts[1].address),
            capture_output=True,
            text=True,
            timeout=seconds + 50,
        )
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e6
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        note(f"iperf3 {control}: {error!r}")
        return None
    finally:
        server.kill()
        server.wait(10)
