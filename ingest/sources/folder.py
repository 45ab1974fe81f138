"""Media files on this machine, as videos.

An id is made from the file's size and samples of its bytes, not from its path: a file that is moved, renamed or found
through another folder is the same video, and a file whose content was replaced is another one.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sayso.errors import InputError
from sayso.ids import video_id
from sayso.rows import Video

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".ogv", ".3gp"),
)
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus", ".wma")
MEDIA_SUFFIXES = VIDEO_SUFFIXES + AUDIO_SUFFIXES
EXTRACTOR = "file"

_SAMPLE_BYTES = 1 << 16


def find(path: Path) -> Iterator[Video]:
    """Yield a video for a media file, or for every media file in a folder and the folders in it, by path.

    What a file holds is not looked at here, only its name; hidden files are left out. Raises InputError for a folder
    without media files and for a file that cannot be read.
    """
    if path.is_file():
        yield _video(path)
        return
    seen, found = 0, False
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if hidden or not file.is_file():
            continue
        seen += 1
        if is_media(file):
            found = True
            yield _video(file)
    if not found:
        what = f"none of its {seen} files is" if seen else "it is empty; it has to hold"
        raise InputError(f"{path}: {what} a media file ({', '.join(VIDEO_SUFFIXES[:5])}, ... by name)")


def is_media(path: Path) -> bool:
    """Whether a file's name says that it holds video or sound."""
    return path.suffix.lower() in MEDIA_SUFFIXES


def content_id(path: Path) -> str:
    """Return the video id of a file: a digest of its size and of its first, middle and last 64 KiB. Raises OSError."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return video_id(EXTRACTOR, digest.hexdigest()[:20])


def is_file_url(url: str) -> bool:
    """Whether a video lies on this machine."""
    return url.startswith("file://")


def path_of(url: str) -> Path:
    """Return the path of a `file://` URL."""
    return Path(unquote(urlsplit(url).path))


def _video(path: Path) -> Video:
    try:
        name = content_id(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return Video(video_id=name, url=path.resolve().as_uri(), title=path.stem, found_by="folder")
