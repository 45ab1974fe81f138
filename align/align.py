"""transcripts -> narrations: sentences with times, each kept or dropped with a reason.

    VideoText -> the transcripts to trust -> sentences -> filters -> narrations

A pure function of its row: neither the order of transcripts nor of their spans matters, nor what other videos there
are. That a video is a copy of another is seen where shards are planned (shards/plan.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from align.quality import Context, QualitySettings, is_junk, judge
from align.sentences import Sentence, SentenceSettings, sentences
from align.video import VideoText, gather
from sayso.config import Settings
from sayso.errors import Skip
from sayso.ids import narration_id
from sayso.root import Root
from sayso.rows import Media, Narration, Row, Transcript
from sayso.stage import Stage

Kind = Literal["subtitle", "asr", "auto"]


class AlignSettings(Settings):
    """Which text is taken, how it is cut and what is dropped."""

    sources: tuple[Kind, ...] = Field(
        default=("subtitle", "asr", "auto"),
        min_length=1,
        description="kinds of text, the most trusted first: written by people, our own recognition, the site's own",
    )
    take: Literal["first", "all"] = Field(
        default="first",
        description="first: only the most trusted source with usable text; all: each usable source, side by side",
    )
    languages: tuple[str, ...] = Field(
        default=("en",), description="languages that are kept, the most wanted first; empty: any"
    )
    sentences: SentenceSettings = Field(default=SentenceSettings(), description="where words are cut into sentences")
    quality: QualitySettings = Field(default=QualitySettings(), description="when a sentence is dropped")

    @field_validator("languages")
    @classmethod
    def _without_regions(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(primary(language) for language in languages)


class Align(Stage[VideoText, Narration]):
    """Makes the narrations of a video, dropped ones too.

    Skip: no_video (sound only), no_speech (nothing is said), wrong_language (nothing in a wanted language),
    low_confidence (the whole text is junk).
    """

    name: ClassVar[str] = "align"
    reads: ClassVar[type[Row]] = Media
    writes: ClassVar[type[Row]] = Narration
    after: ClassVar[Mapping[str, type[Row]]] = {"transcribe": Transcript, "captions": Transcript}

    def __init__(self, root: Root, settings: AlignSettings | None = None) -> None:
        super().__init__(root)
        self.settings = settings or AlignSettings()

    def inputs(self, keys: Collection[str]) -> Iterator[VideoText]:
        """These videos, each with all of its transcripts."""
        return gather(self.root, keys)

    def video_seconds(self, row: VideoText, made: Sequence[Narration]) -> float:
        """The video's duration."""
        return row.media.duration

    def __call__(self, row: VideoText) -> Sequence[Narration]:
        """The narrations by source and start."""
        return narrations(row, self.settings)


def narrations(row: VideoText, settings: AlignSettings) -> list[Narration]:
    """The narrations of a video, kept or with a reason; Skip where there can be none."""
    if row.media.width == 0:
        raise Skip("no_video", "sound only")
    context = _context(row.media, settings)
    chosen = choose(row.transcripts, context, settings)
    return [made for transcript, said in chosen for made in _narrations(transcript, said, context)]


def choose(
    transcripts: Sequence[Transcript], context: Context, settings: AlignSettings
) -> list[tuple[Transcript, list[Sentence]]]:
    """The transcripts to take, with their sentences.

    Skip with the reason that came closest: low_confidence, else wrong_language, else no_speech.
    """
    refused = {"no_speech"}
    chosen = []
    for transcript in _by_preference(transcripts, settings):
        said = sentences(transcript.spans, settings.sentences)
        reason = _unusable(transcript, said, context, settings)
        if reason:
            refused.add(reason)
            continue
        chosen.append((transcript, said))
        if settings.take == "first":
            break
    if not chosen:
        raise Skip(next(reason for reason in ("low_confidence", "wrong_language", "no_speech") if reason in refused))
    return chosen


def _by_preference(transcripts: Sequence[Transcript], settings: AlignSettings) -> list[Transcript]:
    """Transcripts of the wanted kinds: by kind, then by language, then by name."""
    sources: Sequence[str] = settings.sources

    def rank(transcript: Transcript) -> tuple[int, int, str]:
        language = primary(transcript.language)
        wanted = settings.languages.index(language) if language in settings.languages else len(settings.languages)
        return sources.index(_kind(transcript)), wanted, transcript.source

    return sorted((each for each in transcripts if _kind(each) in settings.sources), key=rank)


def _kind(transcript: Transcript) -> str:
    return transcript.source.partition(":")[0]


def _unusable(
    transcript: Transcript, said: Sequence[Sentence], context: Context, settings: AlignSettings
) -> str | None:
    if all(sentence.sound for sentence in said):
        return "no_speech"
    if settings.languages and primary(transcript.language) not in settings.languages:
        return "wrong_language"
    return "low_confidence" if is_junk(said, context) else None


def primary(language: str) -> str:
    """A language without its region or script: "en" of "en-US"."""
    return language.lower().replace("_", "-").split("-")[0]


def _context(media: Media, settings: AlignSettings) -> Context:
    still = max((stretch.end - stretch.start for stretch in media.still), default=0.0)
    share = still / media.duration if media.duration > 0 else 0.0
    return Context(settings.quality, media.duration, share)


def _narrations(transcript: Transcript, said: Sequence[Sentence], context: Context) -> Iterator[Narration]:
    taken: set[str] = set()
    for sentence in said:
        reason = judge(sentence, context)
        # Inside the video, but for what is dropped for being outside: there the times are the evidence.
        end = sentence.end if reason == "outside" else min(sentence.end, context.duration)
        yield Narration(
            narration_id=_unused_id(transcript, sentence.start, taken),
            video_id=transcript.video_id,
            start=round(sentence.start, 3),
            end=round(end, 3),
            text=sentence.text,
            source=transcript.source,
            language=primary(transcript.language),
            confidence=sentence.confidence,
            kept=not reason,
            reason=reason,
        )


def _unused_id(transcript: Transcript, start: float, taken: set[str]) -> str:
    """The id for a start; sentences that begin together get those of the next milliseconds."""
    shift = 0
    while (made := narration_id(transcript.video_id, transcript.source, start + shift / 1000)) in taken:
        shift += 1
    taken.add(made)
    return made
