"""media -> transcripts: the caption tracks that came with a video."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

from align.captions.parse import parse
from align.captions.settings import CaptionsSettings
from sayso.errors import Permanent, Skip
from sayso.root import Root
from sayso.rows import CaptionTrack, Media, Row, Span, Transcript
from sayso.stage import Stage

_LOG = logging.getLogger(__name__)
# The format that says most comes first.
_RICHEST = ("json3", "vtt", "srt")


class Captions(Stage[Media, Transcript]):
    """Reads a video's caption tracks from storage; one transcript a kind and language.

    A track that cannot be read is left out while another can; Skip("no_captions") where there is no text at all,
    Permanent("bad_captions") where all that there is cannot be read.
    """

    name: ClassVar[str] = "captions"
    reads: ClassVar[type[Row]] = Media
    writes: ClassVar[type[Row]] = Transcript

    def __init__(self, root: Root, settings: CaptionsSettings | None = None) -> None:
        super().__init__(root)
        self.settings = settings or CaptionsSettings()

    def video_seconds(self, row: Media, made: Sequence[Transcript]) -> float:
        """The video's duration."""
        return row.duration

    def __call__(self, row: Media) -> Sequence[Transcript]:
        """One transcript a source that has any text."""
        transcripts: dict[str, Transcript] = {}
        broken: list[Permanent] = []
        for track in sorted(row.captions, key=lambda track: (_RICHEST.index(track.format), track.key)):
            source = f"{track.kind}:{track.language}"
            if source in transcripts:
                continue
            try:
                spans = self._read(track)
            except Permanent as error:
                _LOG.warning("%s: %s", track.key, error)
                broken.append(Permanent(error.reason, f"{track.key}: {error.message}"))
                continue
            if spans:
                transcripts[source] = _transcript(row.video_id, source, track.language, spans)
        if not transcripts and broken:
            raise broken[0]
        if not transcripts:
            raise Skip("no_captions")
        return [transcripts[source] for source in sorted(transcripts)]

    def _read(self, track: CaptionTrack) -> list[Span]:
        data = self.root.storage.read(track.key)
        return parse(data, track.format, language=track.language, settings=self.settings)


def _transcript(video_id: str, source: str, language: str, spans: list[Span]) -> Transcript:
    return Transcript(
        video_id=video_id,
        source=source,
        language=language.lower().replace("_", "-").split("-")[0],
        speech_seconds=covered([span for span in spans if span.kind == "speech"]),
        spans=spans,
    )


def covered(spans: Sequence[Span]) -> float:
    """Seconds that spans cover together; where they overlap counts once."""
    total, until = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total
