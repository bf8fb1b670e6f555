"""The daemon: one appliance in the foreground, which listens to signals."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import structlog

from clinic_ai import __version__
from clinic_ai.appliance import Appliance
from clinic_ai.confinement import keep_capabilities
from clinic_ai.control.server import ControlServer
from clinic_ai.heap import give_back, share_one_heap
from clinic_ai.home import Home, add_new_folders, check_home, lock_home
from clinic_ai.lanes import places
from clinic_ai.logs import configure
from clinic_ai.notify import notify, watchdog_interval_s
from clinic_ai.plugins import find_plugins
from clinic_ai.settings import load_settings

log = structlog.get_logger()

GIVE_BACK_S = 60.0
"""How often free memory is given back to the machine."""


def run(home: Home, *, on_ready: Callable[[Appliance], None] | None = None) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT; return the exit status.

    Raise ClinicError, in one sentence, if the home, its settings, its lock or a socket cannot be used.
    """
    share_one_heap()
    keep_capabilities()
    add_new_folders(home)
    check_home(home)
    settings = load_settings(home.clinic_toml)
    configure(settings.log.level, settings.log.format)
    stopping, reloading = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    signal.signal(signal.SIGHUP, lambda *_: reloading.set())
    with lock_home(home):
        appliance = Appliance(home, settings, find_plugins())
        server = None
        try:
            appliance.open()
            server = ControlServer(home, appliance.services(), group=settings.control.group)
            server.start()
            appliance.start()
            notify("READY=1", f"STATUS=Watching {len(settings.inbox)} inboxes")
            log.info("daemon.ready", version=__version__, home=str(home.path), boot=appliance.boot_id)
            if on_ready is not None:
                on_ready(appliance)
            _wait(appliance, stopping, reloading)
            notify("STOPPING=1")
            log.info("daemon.stopping")
        finally:
            if server is not None:
                server.stop()
            appliance.stop()
    return 0


def _wait(appliance: Appliance, stopping: threading.Event, reloading: threading.Event) -> None:
    beat = watchdog_interval_s()
    give_back_after = time.monotonic()  # what the start alone needed goes back at once
    while not stopping.wait(timeout=min(beat or 1.0, 1.0)):
        if beat is not None:
            notify("WATCHDOG=1")
        if time.monotonic() >= give_back_after:
            give_back()
            give_back_after = time.monotonic() + GIVE_BACK_S
        if reloading.is_set():
            reloading.clear()
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                appliance.reload()
            except Exception as error:  # noqa: BLE001 - process boundary: a reload must never end the daemon
                log.error("reload.failed", error=type(error).__name__, at=places(error))
            notify("READY=1")
