from typing import Any

import pytest

from ingest.tracks import choose


def track(ext: str, **more: Any) -> dict[str, Any]:
    return {"ext": ext, "url": f"http://x.example/{ext}", **more}


def chosen(languages: tuple[str, ...] = ("en",), **info: Any) -> list[tuple[str, str, str]]:
    return [(offer.kind, offer.language, offer.format) for offer in choose(info, languages)]


def test_json3_is_preferred_then_webvtt() -> None:
    assert chosen(subtitles={"en": [track("ttml"), track("srt"), track("vtt"), track("json3")]}) == [
        ("subtitle", "en", "json3")
    ]
    assert chosen(subtitles={"en": [track("ttml"), track("srt"), track("vtt")]}) == [("subtitle", "en", "vtt")]


def test_a_variety_of_the_language_is_taken_where_there_is_nothing_nearer() -> None:
    tracks = {"en-GB": [track("vtt")], "eng": [track("vtt")], "de": [track("vtt")]}
    assert chosen(subtitles=tracks) == [("subtitle", "en-GB", "vtt")]
    assert chosen(subtitles={**tracks, "en": [track("vtt")]}) == [("subtitle", "en", "vtt")]


def test_machine_translations_are_left() -> None:
    """A German talk whose recognised words the site translates into English has no English automatic captions."""
    tracks = {"de-orig": [track("json3")], "de": [track("json3")], "en": [track("json3")]}
    assert chosen(automatic_captions=tracks) == []
    assert chosen(("en", "de"), automatic_captions=tracks) == [("auto", "de", "json3")]


@pytest.mark.parametrize("odd", [track("vtt", protocol="m3u8_native"), {"ext": "vtt"}, track("ttml")])
def test_what_cannot_be_read_plainly_is_left(odd: dict[str, Any]) -> None:
    assert chosen(subtitles={"en": [odd]}) == []


def test_no_captions_are_no_error() -> None:
    assert chosen(subtitles=None, automatic_captions={}) == []
    assert chosen() == []
