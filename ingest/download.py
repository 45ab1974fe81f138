"""Download: the bytes of one video and its captions to a folder, or the files themselves where they lie here.

Of what a site offers the smallest version is taken whose picture is large enough for the proxy: as one file where the
site has one, else as a picture and a sound that the normalising ffmpeg process reads together. Nothing is decoded,
merged or converted here. File names are fixed; a site names nothing.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from yt_dlp.version import __version__ as YT_DLP_VERSION

from ingest.sites import Info, SiteClient, SiteSettings
from ingest.sources.folder import content_id, is_file_url, path_of
from ingest.tracks import CaptionFile, Offer, beside, choose
from sayso.config import Settings
from sayso.errors import Permanent, RowError, Skip
from sayso.rows import Video

_PROTOCOLS = ("http", "https", "m3u8_native", "http_dash_segments")  # those that yt-dlp moves itself, without ffmpeg
_EXTENSIONS = ("mp4", "webm", "mkv", "mov", "flv", "3gp", "ts", "m4a", "mp3", "ogg", "opus", "wav", "flac", "aac")
_CAPTION_BYTES = 16 << 20
_LIVE = ("is_live", "is_upcoming", "post_live")

_log = logging.getLogger(__name__)


class DownloadSettings(Settings):
    """What is fetched of a video, and what is left alone."""

    short_side_px: int = Field(default=256, gt=0, description="the smallest version at least this large is taken")
    max_bytes: int = Field(default=4 << 30, gt=0, description="larger files are skipped")
    max_seconds: float = Field(default=3 * 3600.0, gt=0, description="longer videos are skipped")
    min_seconds: float = Field(default=1.0, ge=0, description="shorter videos are skipped")
    caption_languages: tuple[str, ...] = Field(default=("en",), description="languages of captions to take")


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A video's files on this machine, and what its site says of it.

    path: picture and sound, or the picture alone where `sound` is a file of its own.
    captions_failed: "<kind>:<language> <reason>" of captions that were offered and could not be had.
    fetched_with: the program and its version, the extractor and the format.
    """

    path: Path
    sound: Path | None = None
    captions: tuple[CaptionFile, ...] = ()
    captions_failed: tuple[str, ...] = ()
    title: str | None = None
    duration: float | None = None
    language: str | None = None
    licence: str | None = None
    channel: str | None = None
    fetched_with: str


def download(video: Video, into: Path, settings: DownloadSettings, sites: SiteSettings) -> Downloaded:
    """Bring a video's files here: from the web into the empty folder `into`, or from where they lie without a copy.

    Raises Skip (too_long, too_short, too_big, live), Retry (http_<status>, network, truncated), Permanent
    (http_<status>, private_address, geo_restricted, unsupported_url, unavailable, extractor_failed, no_media,
    file_missing, file_unreadable, file_changed) and NoSpace.
    """
    if is_file_url(video.url):
        return _local(video, settings)
    with SiteClient(sites, format_sort=[f"+res:{settings.short_side_px}"]) as client:
        info = client.info(video.url)
        _refuse_unwanted(info, settings)
        formats = choose_formats(info.get("formats") or (), settings.short_side_px)
        sizes = [size for chosen in formats if (size := chosen.get("filesize") or chosen.get("filesize_approx"))]
        _refuse_size(sum(sizes), settings)
        captions, failed = fetch_captions(client, choose(info, settings.caption_languages), into)
        paths = [
            _fetch(client, {**info, **chosen}, into / f"{name}.{_extension(chosen)}", settings)
            for name, chosen in zip(("media", "sound"), formats, strict=False)
        ]
    named = "+".join(str(chosen.get("format_id")) for chosen in formats)
    return Downloaded(
        path=paths[0],
        sound=paths[1] if len(paths) > 1 else None,
        captions=tuple(captions),
        captions_failed=tuple(failed),
        title=info.get("title"),
        duration=info.get("duration"),
        language=info.get("language"),
        licence=info.get("license"),
        channel=info.get("channel") or info.get("uploader"),
        fetched_with=f"yt-dlp {YT_DLP_VERSION} {info.get('extractor')} {named}",
    )


def choose_formats(formats: Sequence[Info], short_side_px: int) -> list[Info]:
    """Return the format to fetch, or a picture and a sound to fetch together.

    formats: worst first, sorted by yt-dlp with `+res:<short side>`, which ranks the smallest picture that is large
    enough above all others. One file with both is preferred unless only a separate picture is large enough.
    Raises Permanent("no_media") if nothing can be fetched without help.
    """
    native = [one for one in formats if one.get("protocol", "https") in _PROTOCOLS and not one.get("has_drm")]
    pictures = [one for one in native if one.get("vcodec") != "none"]
    sounds = [one for one in native if one.get("vcodec") == "none" and one.get("acodec") != "none"]
    whole = next((one for one in reversed(pictures) if one.get("acodec") != "none"), None)
    silent = next((one for one in reversed(pictures) if one.get("acodec") == "none"), None)
    if whole is not None:
        larger = silent is not None and _short_side(silent) > _short_side(whole) and bool(sounds)
        if not larger or _short_side(whole) >= short_side_px or not _short_side(whole):
            return [whole]
    if silent is not None:
        return [silent, *sounds[-1:]]
    if sounds:
        return sounds[-1:]
    raise Permanent("no_media", f"none of the {len(formats)} formats offered can be fetched as plain video or sound")


def _short_side(chosen: Info) -> int:
    sides = [int(side) for side in (chosen.get("width"), chosen.get("height")) if side]
    return min(sides, default=0)


def _refuse_unwanted(info: Info, settings: DownloadSettings) -> None:
    if info.get("_type", "video") != "video":
        raise Permanent("not_one_video", "the URL is a list of videos; discover it instead")
    if info.get("is_live") or info.get("live_status") in _LIVE:
        raise Skip("live", "a live stream, or one that has not begun")
    duration = info.get("duration")
    if duration and duration > settings.max_seconds:
        raise Skip("too_long", f"{duration:.0f} s is longer than max_seconds ({settings.max_seconds:.0f})")
    if duration and duration < settings.min_seconds:
        raise Skip("too_short", f"{duration:.1f} s is shorter than min_seconds ({settings.min_seconds:.1f})")


def _refuse_size(size_bytes: float, settings: DownloadSettings) -> None:
    if size_bytes > settings.max_bytes:
        raise Skip("too_big", f"{size_bytes:.0f} bytes are more than max_bytes ({settings.max_bytes})")


def _fetch(client: SiteClient, info: Info, path: Path, settings: DownloadSettings) -> Path:
    def stop_if_too_big(progress: dict[str, Any]) -> None:
        _refuse_size(max(progress.get(name) or 0 for name in ("downloaded_bytes", "total_bytes")), settings)

    client.download(path, info, progress=stop_if_too_big)
    return path


def _extension(chosen: Info) -> str:
    return str(chosen["ext"]) if chosen.get("ext") in _EXTENSIONS else "bin"


def fetch_captions(client: SiteClient, offers: Sequence[Offer], into: Path) -> tuple[list[CaptionFile], list[str]]:
    """Fetch captions, and say which could not be had: a video is worth fetching without them."""
    files, failed = [], []
    for number, offer in enumerate(offers):
        path = into / f"caption-{number}.{offer.format}"
        try:
            data = offer.data.encode() if offer.data is not None else client.read(offer.url, _CAPTION_BYTES)[1]
        except RowError as error:
            failed.append(f"{offer.kind}:{offer.language} {error.reason}")
            _log.warning("captions %s:%s: %s", offer.kind, offer.language, error.message)
            continue
        path.write_bytes(data)
        files.append(CaptionFile(kind=offer.kind, language=offer.language, format=offer.format, path=path))
    return files, failed


def _local(video: Video, settings: DownloadSettings) -> Downloaded:
    path = path_of(video.url)
    try:
        if content_id(path) != video.video_id:
            raise Permanent("file_changed", f"{path} is not the file that was discovered; discover it again")
        size = path.stat().st_size
        captions = tuple(beside(path))
    except FileNotFoundError:
        raise Permanent("file_missing", f"{path}: no such file") from None
    except OSError as error:
        raise Permanent("file_unreadable", f"{path}: {error.strerror}") from None
    _refuse_size(size, settings)
    return Downloaded(path=path, captions=captions, title=path.stem, fetched_with="file")
