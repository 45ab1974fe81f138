import pytest

from ingest.addresses import is_private_name, leads_to_private, why_not_web


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "http://[2001:db8::1]:8080/", "HTTPS://EXAMPLE.com"])
def test_web_addresses_are_taken(url: str) -> None:
    assert why_not_web(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "video",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "http://",
        "http://a b/",
        "http://x:99999/",
        "https://[1",
    ],
)
def test_anything_else_is_not(url: str) -> None:
    assert why_not_web(url)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "a.localhost", "printer.local", "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0"),
        *("10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]", "localhost."),
    ],
)
def test_private_addresses_are_known_however_they_are_written(host: str) -> None:
    assert is_private_name(f"http://{host}:80/x")
    assert leads_to_private(f"http://{host}:80/x")


@pytest.mark.parametrize("host", ["8.8.8.8", "example.com", "[2606:4700::1111]", "localhost.example.com"])
def test_public_ones_are_not(host: str) -> None:
    assert not is_private_name(f"http://{host}/")
