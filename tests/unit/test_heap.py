"""One heap for all threads, as glibc itself counts them in a fresh interpreter."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys, tempfile, threading
from clinic_ai.heap import share_one_heap

if sys.argv[1] == "shared":
    assert share_one_heap()
held, all_hold = [], threading.Barrier(5)

def hold():
    held.append(bytes(100_000))  # beyond what Python serves from pools of its own
    all_hold.wait()

threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
all_hold.wait()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""


def heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives threads heaps of their own")
def test_threads_share_one_heap_where_each_would_have_its_own() -> None:
    assert heaps("own") > 1
    assert heaps("shared") == 1
