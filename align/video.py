"""All the timed text of a video in one row: what `align` works on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar

from sayso.root import Root
from sayso.rows import Media, Row, Transcript

# Videos whose transcripts are in memory at once; for each block both tables are scanned for its ids.
_BLOCK = 1000


class VideoText(Row):
    """A video's media row and its transcripts. It is gathered, never stored; keyed as the media row is."""

    table: ClassVar[str] = Media.table
    key_columns: ClassVar[tuple[str, ...]] = Media.key_columns

    video_id: str
    media: Media
    transcripts: list[Transcript]


def gather(root: Root, video_ids: Collection[str]) -> Iterator[VideoText]:
    """A row for each of these videos that was fetched, whether or not anything is said in it."""
    ids = sorted(set(video_ids))
    for begin in range(0, len(ids), _BLOCK):
        media = {row.video_id: row for row in root.table(Media).rows(video_id=ids[begin : begin + _BLOCK])}
        transcripts: dict[str, list[Transcript]] = {video_id: [] for video_id in media}
        for transcript in root.table(Transcript).rows(video_id=media):
            transcripts[transcript.video_id].append(transcript)
        for video_id, row in media.items():
            yield video_text(row, transcripts[video_id])


def video_text(media: Media, transcripts: list[Transcript]) -> VideoText:
    """The row of one video; the order of its transcripts does not matter."""
    ordered = sorted(transcripts, key=lambda transcript: transcript.source)
    return VideoText(video_id=media.video_id, media=media, transcripts=ordered)
