"""What a node frees it has again without the system's help."""

import subprocess
import sys

import pytest

CHURN = """
import resource, sys
from bytestag.events.heap import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def churn():
    for _ in range(50):
        b"".join([bytes([1]) * 2**18 for _ in range(4)])
churn()
before = faults()
churn()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_values_that_come_and_go_cost_no_page_faults():
    def faults(how):
        ran = subprocess.run(
            [sys.executable, "-c", CHURN, how], capture_output=True, check=True, text=True
        )
        return int(ran.stdout)

    assert faults("kept") < 500
    assert faults("given back") > 5000
