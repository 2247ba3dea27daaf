"""Origins as browsers send them, against patterns as agents write them."""

from __future__ import annotations

import pytest

from server.origins import MAX_PATTERNS, parse_origin, read_allowed_origins

DEMO = "https://demo.site.com"
BENEATH = "https://*.site.com"
LOCAL = "http://localhost:*"
BOTH = "https://*.site.com:*"


def allows(pattern: str, origin: str) -> bool:
    allowed, unusable = read_allowed_origins([pattern])
    assert unusable == []
    return allowed.match(parse_origin(origin))


@pytest.mark.proves("row-180")
@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        (DEMO, "https://demo.site.com"),
        (DEMO, "https://demo.site.com:443"),
        (DEMO, "HTTPS://Demo.Site.COM"),
        ("https://Demo.Site.com:443/", "https://demo.site.com"),
        (" https://demo.site.com ", "https://demo.site.com"),
        ("http://demo.site.com", "http://demo.site.com:80"),
        (BENEATH, "https://a.site.com"),
        (BENEATH, "https://a.b.c.site.com:443"),
        (BENEATH, "https://xn--mnchen-3ya.site.com"),
        (LOCAL, "http://localhost"),
        (LOCAL, "http://localhost:5173"),
        (LOCAL, "http://LOCALHOST:65535"),
        (BOTH, "https://a.site.com"),
        (BOTH, "https://a.b.site.com:8443"),
        ("*", "https://anything.example"),
        ("*", "http://127.0.0.1:9"),
        ("*", "http://[::1]:5173"),
        ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
        ("http://[0:0:0:0:0:0:0:1]:*", "http://[::1]:5173"),
        ("https://MÜNCHEN.example", "https://xn--mnchen-3ya.example"),
        ("https://*.münchen.example", "https://a.xn--mnchen-3ya.example"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
        ("http://intranet", "http://intranet"),
        ("https://my_app.site.com", "https://my_app.site.com"),
    ],
)
def test_an_allowed_origin_matches(pattern: str, origin: str) -> None:
    assert allows(pattern, origin)


@pytest.mark.proves("row-180")
@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        (DEMO, "http://demo.site.com"),
        (DEMO, "https://demo.site.com:8443"),
        (DEMO, "https://x.demo.site.com"),
        (DEMO, "https://demo.site.com.evil.io"),
        (DEMO, "https://demo-site.com"),
        (DEMO, "https://demoXsite.com"),
        (BENEATH, "https://site.com"),
        (BENEATH, "https://.site.com"),
        (BENEATH, "https://evilsite.com"),
        (BENEATH, "https://a.site.com.evil.io"),
        (BENEATH, "https://a.site.com:8443"),
        (BENEATH, "http://a.site.com"),
        (LOCAL, "https://localhost"),
        (LOCAL, "https://localhost:5173"),
        (LOCAL, "http://127.0.0.1:5173"),
        (LOCAL, "http://localhost.evil.io"),
        (LOCAL, "http://evil.localhost"),
        (BOTH, "https://site.com:8443"),
        (BOTH, "http://a.site.com:8443"),
        ("*", "null"),
        ("*", ""),
        ("*", "file://"),
        ("*", "chrome-extension://abcdef"),
        ("*", "capacitor://localhost"),
        ("https://xn--strae-oqa.example", "https://strasse.example"),
        ("http://127.0.0.1", "http://127.1"),
        ("http://localhost:8080", "http://localhost"),
    ],
)
def test_another_origin_does_not_match(pattern: str, origin: str) -> None:
    assert not allows(pattern, origin)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "",
        " ",
        "https://",
        "https://app.site.com/",
        "https://app.site.com/path",
        "https://app.site.com?x",
        "https://app.site.com#x",
        "https://user@app.site.com",
        "https://app.site.com@evil.io",
        "https://evil.io\\@app.site.com",
        "https://app.site.com\r\nX: y",
        "https://app.site.com\n",
        "https://app.site.com ",
        "https://app.site.com, https://evil.io",
        "https://app.site.com https://evil.io",
        "https://app.site.com:",
        "https://app.site.com:0443",
        "https://app.site.com:0",
        "https://app.site.com:65536",
        "https://app.site.com:99999999999",
        "https://app.site.com:+443",
        "https://app.site.com:٤٤٣",
        "https://app.site.com.",
        "https://app..site.com",
        "https://-app.site.com",
        "https://*.site.com",
        "https://münchen.example",
        "https://аpp.site.com",
        "https://\u212a.site.com",
        "https://[::1",
        "https://[::1]evil",
        "https://[:::::]",
        "https://[fe80::1%25eth0]",
        "ftp://app.site.com",
        "wss://app.site.com",
        "javascript://app.site.com",
        "//app.site.com",
        "app.site.com",
        "https:app.site.com",
        "https:///app.site.com",
        "https://" + "a." * 150 + "com",
    ],
)
def test_what_no_browser_sends_is_no_origin(text: str) -> None:
    assert parse_origin(text) is None
    assert not read_allowed_origins(["*", "https://app.site.com"])[0].match(parse_origin(text))


@pytest.mark.parametrize(
    "pattern",
    [
        "https://a*.com",
        "https://*",
        "https://*:*",
        "https://*.",
        "https://*.*.site.com",
        "https://a.*.site.com",
        "https://site.*",
        "https://*site.com",
        "*.site.com",
        "*://site.com",
        "http*://site.com",
        "https://site.com:80*",
        "https://site.com:*:*",
        "https://site.com/path",
        "https://site.com//",
        "https://site.com?x=1",
        "https://user@site.com",
        "https://site.com.",
        "https://*.1.2.3.4",
        "https://*.[::1]",
        "https://straße.example",
        "https://a b.com",
        "ftp://site.com",
        "null",
        "",
        "**",
        "https://" + "a" * 300 + ".com",
        "https://\u2024.com",
        "https://" + "a" * 64 + "ü.com",
    ],
)
def test_a_pattern_that_means_nothing_is_told_and_allows_nothing(pattern: str) -> None:
    allowed, unusable = read_allowed_origins([pattern])
    assert unusable == [pattern]
    assert not allowed
    for origin in ("https://site.com", "https://a.site.com", "https://abc.com", "https://strasse.example"):
        assert not allowed.match(parse_origin(origin))


def test_one_bad_pattern_does_not_take_the_good_ones_with_it() -> None:
    allowed, unusable = read_allowed_origins(["https://*", DEMO, "nonsense", LOCAL])
    assert unusable == ["https://*", "nonsense"]
    assert allowed.match(parse_origin(DEMO))
    assert allowed.match(parse_origin("http://localhost:1"))


def test_patterns_are_bounded_and_repeated_ones_count_once() -> None:
    many = [f"https://site-{count}.com" for count in range(MAX_PATTERNS + 5)]
    allowed, unusable = read_allowed_origins([DEMO] * 500 + many)
    assert len(unusable) == 6
    assert allowed.match(parse_origin(DEMO))


def test_no_more_patterns_are_read_than_there_may_be() -> None:
    allowed, unusable = read_allowed_origins([*(f"nonsense-{count}" for count in range(MAX_PATTERNS)), DEMO])
    assert (len(unusable), bool(allowed)) == (MAX_PATTERNS + 1, False)


def test_nothing_allowed_allows_nothing() -> None:
    allowed, _ = read_allowed_origins([])
    assert not allowed
    assert not allowed.match(parse_origin(DEMO))


def test_an_origin_is_written_as_browsers_write_it() -> None:
    for text in ("https://app.site.com", "http://localhost:5173", "http://[::1]:8080"):
        assert str(parse_origin(text)) == text
    assert str(parse_origin("HTTPS://App.Site.com:443")) == "https://app.site.com"
