"""Which captions of a video are taken, and the caption files that lie beside a file on this machine.

Sites offer people's captions and automatic ones, each in many languages and formats, and translate automatic ones by
machine. For every wanted language at most one of each kind is taken, in the language in which it was spoken.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["subtitle", "auto"]
Format = Literal["json3", "vtt", "srt"]

FORMATS: tuple[Format, ...] = ("json3", "vtt", "srt")  # best first: json3 has word times
_ORIGINAL = "-orig"  # marks the language of recognition among machine translations of it
_WORD_TIMES = re.compile(rb"<\d+:\d\d:\d\d\.\d{3}><c")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A caption track as a site offers it: its text lies at `url`, or came with the page as `data`."""

    kind: Kind
    language: str
    format: Format
    url: str
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class CaptionFile:
    """A caption track on this machine."""

    kind: Kind
    language: str
    format: Format
    path: Path


def choose(info: Mapping[str, Any], languages: Sequence[str]) -> list[Offer]:
    """Return the tracks of yt-dlp's `info` to take: for each language, a person's and the recogniser's, if offered."""
    offers = []
    for language in languages:
        offers.append(_best("subtitle", info.get("subtitles") or {}, language))
        offers.append(_best("auto", _spoken(info.get("automatic_captions") or {}), language))
    return list({(offer.kind, offer.language): offer for offer in offers if offer}.values())


def beside(path: Path) -> Iterator[CaptionFile]:
    """Yield the caption files beside a media file: NAME.srt, NAME.vtt, NAME.json3, NAME.LANGUAGE.vtt, ...

    A file without a language in its name is taken to be English ("und" is of no use to a filter by language); WebVTT
    with word times was written by a machine.
    """
    for candidate in sorted(path.parent.iterdir()):
        format_ = next((known for known in FORMATS if candidate.suffix.lower() == f".{known}"), None)
        if format_ is None or not candidate.name.startswith(f"{path.stem}.") or not candidate.is_file():
            continue
        middle = candidate.name.removeprefix(path.stem)[: -len(candidate.suffix)].removeprefix(".")
        if middle and not _LANGUAGE.fullmatch(middle):
            continue
        automatic = format_ == "json3" or bool(_WORD_TIMES.search(candidate.read_bytes()))
        yield CaptionFile(
            kind="auto" if automatic else "subtitle", language=middle or "en", format=format_, path=candidate
        )


def _spoken(tracks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the automatic tracks without machine translations, where the site says which one is not translated."""
    original = {language: track for language, track in tracks.items() if language.endswith(_ORIGINAL)}
    return original or dict(tracks)


def _best(kind: Kind, tracks: Mapping[str, Any], language: str) -> Offer | None:
    """Return the track in a language (or, failing that, in a variety of it) in the best format there is."""
    same = [name for name in tracks if name.removesuffix(_ORIGINAL) == language]
    varieties = sorted(name for name in tracks if name.startswith(f"{language}-") and name not in same)
    for name in (*same, *varieties):
        for format_ in FORMATS:
            for track in tracks[name]:
                plain = track.get("protocol") in (None, "http", "https")
                if track.get("ext") == format_ and plain and (track.get("url") or track.get("data")):
                    found = name.removesuffix(_ORIGINAL)
                    return Offer(
                        kind=kind, language=found, format=format_, url=track.get("url", ""), data=track.get("data")
                    )
    return None
