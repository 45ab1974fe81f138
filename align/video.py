"""All the timed text of a video in one row: what `align` works on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from sayso.root import Root
from sayso.rows import Media, Row, Transcript

# Videos whose transcripts are in memory at once; each batch is one scan of the table's video ids.
_BATCH = 1000


class VideoText(Row):
    """A video's media row and its transcripts. It is gathered, never stored; keyed as the media row is."""

    table: ClassVar[str] = Media.table
    key_columns: ClassVar[tuple[str, ...]] = Media.key_columns

    video_id: str
    media: Media
    transcripts: list[Transcript]
    duplicate_of: str | None = Field(default=None, description="smallest id of a video made of the same bytes")


def gather(root: Root) -> Iterator[VideoText]:
    """A row for each fetched video, by id, whether or not anything is said in it."""
    ids, originals = _originals(root)
    for begin in range(0, len(ids), _BATCH):
        chosen = ids[begin : begin + _BATCH]
        transcripts: dict[str, list[Transcript]] = {video_id: [] for video_id in chosen}
        for transcript in root.table(Transcript).rows(video_id=chosen):
            transcripts[transcript.video_id].append(transcript)
        media = {row.video_id: row for row in root.table(Media).rows(video_id=chosen)}
        for video_id in chosen:
            yield video_text(media[video_id], transcripts[video_id], originals.get(video_id))


def video_text(media: Media, transcripts: list[Transcript], duplicate_of: str | None = None) -> VideoText:
    """The row of one video; the order of its transcripts does not matter."""
    ordered = sorted(transcripts, key=lambda transcript: transcript.source)
    return VideoText(video_id=media.video_id, media=media, transcripts=ordered, duplicate_of=duplicate_of)


def _originals(root: Root) -> tuple[list[str], dict[str, str]]:
    """All video ids, sorted, and for each copy the smallest id with the same source bytes."""
    columns = root.table(Media).read(["video_id", "source"]).to_pydict()
    digests = dict(zip(columns["video_id"], (source["sha256"] for source in columns["source"]), strict=True))
    first: dict[str, str] = {}
    copies: dict[str, str] = {}
    for video_id in sorted(digests):
        original = first.setdefault(digests[video_id], video_id)
        if original != video_id:
            copies[video_id] = original
    return sorted(digests), copies
