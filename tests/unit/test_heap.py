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


HOLES = """
from pathlib import Path
from clinic_ai.heap import give_back, share_one_heap

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

assert share_one_heap()
held = [bytes(3000) for _ in range(20_000)]
del held[:-1]  # the last one lies at the end of the heap
before = resident_mb()
give_back()
print(before - resident_mb())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's heap keeps what lies below something in use"
)
def test_what_is_free_in_the_middle_of_the_heap_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=60, check=True)
    assert float(done.stdout) > 40
