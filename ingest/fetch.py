"""The stage fetch: a video's bytes brought here, made into a proxy, and published with its captions.

All keys are derived from the video's id, so fetching twice writes the same objects. The foreign bytes live in a
temporary folder and are gone afterwards, unless `keep_original` is set.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ingest.download import Downloaded, DownloadSettings, download
from ingest.ffmpeg import find_ffmpeg
from ingest.normalise import NormaliseSettings, Proxy, normalise
from ingest.probe import CONTAINERS, Probe, probe
from ingest.sites import SiteSettings
from sayso.config import Settings
from sayso.errors import Skip
from sayso.ids import safe
from sayso.root import Root
from sayso.rows import CaptionTrack, Forgotten, Media, SourceFacts, StoredObject, Video
from sayso.stage import Resources, Stage

_CHUNK_BYTES = 1 << 20


class FetchSettings(Settings):
    """How videos are brought here and what is kept of them."""

    download: DownloadSettings = DownloadSettings()
    profile: NormaliseSettings = NormaliseSettings()
    keep_original: bool = Field(False, description="keep the fetched files beside the proxy")
    download_seconds: float = Field(1800.0, gt=0, description="wall-clock seconds that a download may take")


class Fetch(Stage[Video, Media]):
    """Fetches and normalises each video."""

    name: ClassVar[str] = "fetch"
    reads = Video
    writes = Media

    def __init__(self, root: Root, settings: FetchSettings, sites: SiteSettings | None = None) -> None:
        """`sites` says how web sites are asked, which listings and downloads share."""
        super().__init__(root)
        self.settings = settings
        self.sites = sites or SiteSettings()
        self.resources = Resources(cpus=1.0)

    def time_limit(self, row: Video) -> float:
        """What the download and ffmpeg may take together; ffmpeg ends itself before the worker is ended."""
        return self.settings.download_seconds + self.settings.profile.time_limit(row.duration)

    def video_seconds(self, row: Video, made: Sequence[Media]) -> float:
        """The duration of what was fetched."""
        return sum(media.duration for media in made)

    def open(self) -> None:
        """Find ffmpeg, and what is not to be fetched again. Nobody forgets anything while a run works."""
        self.ffmpeg = find_ffmpeg()
        forgotten = self.root.table(Forgotten).read(["id", "source_sha256"])
        self.forgotten = {*forgotten["id"].to_pylist(), *forgotten["source_sha256"].to_pylist()} - {None}

    def __call__(self, row: Video) -> Sequence[Media]:
        """The video's Media row, its objects published. Raises what download, probe and normalise raise."""
        if row.video_id in self.forgotten:
            raise Skip("forgotten", "somebody asked for it to be forgotten")
        longest = self.settings.profile.max_duration
        if row.duration and row.duration > longest:
            raise Skip("too_long", f"{row.duration:.0f} s; at most {longest:.0f} s are taken")
        with tempfile.TemporaryDirectory(prefix="sayso-") as name:
            folder, foreign = Path(name), Path(name) / "foreign"
            foreign.mkdir()
            got = download(row, foreign, self.settings.download, self.sites)
            if self.forgotten and digest_of_files(got) in self.forgotten:
                raise Skip("forgotten", "the file has the bytes of one that was forgotten")
            files = [(path, probe(path, folder, self.ffmpeg)) for path in (got.path, got.sound) if path]
            found = reduce(Probe.with_sound, (part for _, part in files))
            proxy = normalise(found, folder / "proxy.mp4", self.settings.profile, self.ffmpeg)
            originals = list(self._originals(row.video_id, files)) if self.settings.keep_original else []
            return [self._publish(row.video_id, got, found, proxy, originals)]

    def _publish(
        self, video_id: str, got: Downloaded, found: Probe, proxy: Proxy, originals: list[StoredObject]
    ) -> Media:
        stored = self.root.storage.put_file(proxy.path, f"media/{video_id}/proxy.mp4")
        return Media(
            video_id=video_id,
            key=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
            duration=proxy.duration,
            width=proxy.width,
            height=proxy.height,
            fps=proxy.fps,
            audio=proxy.audio,
            still=proxy.still,
            captions=list(self._captions(video_id, got)),
            originals=originals,
            source=source_facts(got, found, proxy.duration),
            normalised_with=f"ffmpeg {self.ffmpeg.version}",
        )

    def _captions(self, video_id: str, got: Downloaded) -> Iterator[CaptionTrack]:
        """Publish the caption files, one of each kind, language and format."""
        tracks = {f"{track.kind}.{safe(track.language)}.{track.format}": track for track in got.captions}
        for name, track in tracks.items():
            stored = self.root.storage.put_file(track.path, f"media/{video_id}/{name}")
            yield CaptionTrack(kind=track.kind, language=track.language, format=track.format, **stored.model_dump())

    def _originals(self, video_id: str, files: Sequence[tuple[Path, Probe]]) -> Iterator[StoredObject]:
        """Publish the fetched files. Their endings come from what is inside them."""
        for name, (path, part) in zip(("original", "original-sound"), files, strict=False):
            yield self.root.storage.put_file(path, f"media/{video_id}/{name}.{CONTAINERS[part.container]}")


def source_facts(got: Downloaded, found: Probe, decoded: float) -> SourceFacts:
    """What the fetched files were. SHA-256 and size are of picture and sound, one after the other.

    `decoded` is the duration that is told where the container declares none.
    """
    video = found.video
    digest, size = _hash(got)
    return SourceFacts(
        sha256=digest,
        bytes=size,
        container=CONTAINERS[found.container],
        video_codec=video.codec if video else None,
        audio_codec=found.audio.codec if found.audio else None,
        width=video.width if video else None,
        height=video.height if video else None,
        fps=video.fps if video else None,
        duration=found.duration or decoded,
        fetched_with=got.fetched_with,
    )


def digest_of_files(got: Downloaded) -> str:
    """The SHA-256 that `source_facts` gives."""
    return _hash(got)[0]


def _hash(got: Downloaded) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for path in (path for path in (got.path, got.sound) if path):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    return digest.hexdigest(), size
