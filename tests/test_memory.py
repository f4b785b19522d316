"""One heap for all threads of a command, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

COUNT_HEAPS = """
import ctypes, threading
from bytestag.daemon.memory import share_one_heap

if {shared}:
    share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
barrier = threading.Barrier(4)

def allocate():
    libc.malloc(1000)
    barrier.wait(10)  # all at once, or one would take over the heap of another that has ended

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("shared", [True, False])
def test_threads_share_one_heap(shared):
    program = COUNT_HEAPS.format(shared=shared)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    heaps = done.stdout.count("<heap nr=")
    assert heaps == 1 if shared else heaps > 1
