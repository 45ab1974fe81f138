"""One run at a time works on a stage of a root, and one that died holds nobody up for long."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

from sayso.engine import lease as leases
from sayso.engine.lease import Holder, lease
from sayso.errors import RootBusy
from sayso.root import Root
from sayso.rows import now

_HOLD = """
import sys, time
from sayso.engine.lease import lease
from sayso.root import Root
with lease(Root(sys.argv[1]), "other", ["fetch", "align"]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(root: Root) -> subprocess.Popen[str]:
    """A process that holds fetch and align."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, root.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(root: Root, **facts: object) -> Holder:
    """A lease written by another machine."""
    holder = Holder(run_id="far", stages=["fetch"], machine="another", host="far-away").model_copy(update=facts)
    root.storage.put_bytes(holder.model_dump_json().encode(), holder.key)
    return holder


def test_a_second_run_on_a_stage_is_refused_and_says_who_works(root: Root) -> None:
    process = hold(root)
    try:
        with pytest.raises(RootBusy, match=f"process {process.pid} on .* works on fetch"), lease(root, "x", ["fetch"]):
            pass
        with lease(root, "x", ["transcribe"]):
            pass
    finally:
        process.kill()
        process.communicate()
    began = time.monotonic()
    with lease(root, "x", ["fetch"]):
        assert root.storage.list("leases") == ["leases/x.json"]
    assert time.monotonic() - began < 2, "the dead process was waited for"
    assert root.storage.list("leases") == []


def test_a_holder_elsewhere_that_renews_its_lease_is_alive(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_DEAD_AFTER_SECONDS", 5.0)
    elsewhere(root)
    beat = threading.Timer(0.5, lambda: elsewhere(root, beat=now()))
    beat.start()
    with pytest.raises(RootBusy, match="on far-away"), lease(root, "x", ["fetch"], lambda seconds: time.sleep(0.1)):
        pass
    beat.join()


def test_a_holder_elsewhere_that_is_silent_is_dead(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_DEAD_AFTER_SECONDS", 0.5)
    elsewhere(root)
    with lease(root, "x", ["fetch"], lambda seconds: time.sleep(0.1)):
        assert root.storage.list("leases") == ["leases/x.json"]


def test_a_lease_of_long_ago_is_not_watched(root: Root) -> None:
    elsewhere(root, beat=now() - timedelta(hours=1))

    def never(seconds: float) -> None:
        raise AssertionError("it was watched")

    with lease(root, "x", ["fetch"], never):
        pass


def test_a_lease_is_renewed_while_it_is_held(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_BEAT_SECONDS", 0.05)
    with lease(root, "x", ["fetch"]):
        first = Holder.model_validate_json(root.storage.read("leases/x.json"))
        time.sleep(0.5)
        assert Holder.model_validate_json(root.storage.read("leases/x.json")).beat > first.beat


def test_what_is_no_lease_is_left_alone(root: Root) -> None:
    root.storage.put_bytes(b"{}", "leases/strange.json")
    with lease(root, "x", ["fetch"]):
        pass
    assert root.storage.list("leases") == ["leases/strange.json"]
