import pytest

URLS = ("", ":99999", ":abc", "http://[::1", "http://exa mple", "http://x:0")


@pytest.mark.parametrize("url", URLS)
def test_what_is_no_address_is_said(wan, url):
    """One line with what was typed, one with an address, and code 2."""
    said = wan("jobs", "list", "--url", url)

    assert said.code == 2
    first, second = said.err.splitlines()
    assert first == f"error: {url!r} is no address"
    assert second.startswith("hint:  --url takes an address such as http://")


@pytest.mark.parametrize("key", ["a\n", " a", "a\tb", "schlüssel€"])
def test_a_key_that_cannot_be_sent_is_said(wan, monkeypatch, key):
    """Its variable is named, the key is not shown, and the code is 2."""
    monkeypatch.setenv("WAN_API_KEY", key)

    said = wan("jobs", "list")

    assert said.code == 2
    first, second = said.err.splitlines()
    assert first == "error: WAN_API_KEY holds what cannot be sent as a key"
    assert second.startswith("hint:  set it to the key alone")
