"""Nothing inside our network is connected to, whatever a redirect or a name server says."""

from __future__ import annotations

import socket
import threading

import pytest

from ingest import sites
from ingest.guard import public_only
from ingest.sites import SiteClient, SiteSettings
from sayso.errors import Permanent


@pytest.fixture
def listener() -> socket.socket:
    """A socket on loopback that nobody may reach."""
    inside = socket.create_server(("127.0.0.1", 0))
    inside.settimeout(0.2)
    return inside


def test_a_name_that_changes_its_address_leads_nowhere(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at the URL is made to find nothing, as when a name server answers differently the second time."""
    monkeypatch.setattr(sites, "leads_to_private", lambda url: False)
    port = listener.getsockname()[1]
    with listener, SiteClient(SiteSettings()) as client:
        with pytest.raises(Permanent) as caught:
            client.read(f"http://127.0.0.1:{port}/", 10)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert caught.value.reason == "private_address"


def test_the_guard_ends_with_its_context_and_holds_for_its_thread_alone(listener: socket.socket) -> None:
    address = listener.getsockname()
    reached: list[bool] = []

    def elsewhere() -> None:
        with socket.create_connection(address):
            reached.append(True)

    with listener:
        with public_only():
            with pytest.raises(Permanent), socket.socket() as refused:
                refused.connect(address)
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join()
        with socket.create_connection(address):
            reached.append(True)
    assert reached == [True, True]
