"""yt-dlp as we use it: quiet, without configuration files, cache or helpers, polite, and told which addresses to leave.

Everything that touches a web site goes through `SiteClient`: reading pages, listing playlists and searches, and moving
bytes. It never runs a post-processor, an external downloader or a shell, and takes no file name from a site.
"""

import io
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field
from yt_dlp import YoutubeDL
from yt_dlp.extractor import gen_extractor_classes
from yt_dlp.globals import all_plugins_loaded, plugin_dirs
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, RequestError
from yt_dlp.plugins import load_all_plugins
from yt_dlp.utils import YoutubeDLError, unsmuggle_url

from ingest.addresses import leads_to_private, why_not_web
from ingest.guard import public_only
from ingest.refusals import refusal
from sayso.config import Settings
from sayso.errors import ConfigError, Permanent, Retry

Info = dict[str, Any]  # yt-dlp's description of a video or a playlist

_CHUNK_BYTES = 1 << 16

_log = logging.getLogger(__name__)
_last_request: dict[str, float] = {}  # host -> when this process may ask it again
_pause_lock = threading.Lock()
_plugin_lock = threading.Lock()


class SiteSettings(Settings):
    """How web sites are asked, for listings and for downloads."""

    plugin_dirs: tuple[str, ...] = Field(
        default=("default",), description="folders of yt-dlp plugins; `default` is what is installed beside it"
    )
    extractor_args: dict[str, dict[str, list[str]]] = Field(
        default={}, description="yt-dlp's extractor arguments, for example {youtube: {player_client: [web]}}"
    )
    cookies: Path | None = Field(default=None, description="a Netscape cookie file; no cookies are sent without one")
    proxy: str | None = Field(default=None, description="URL of a proxy; names are then resolved there")
    allow_private: bool = Field(default=False, description="allow loopback and private addresses")
    timeout: float = Field(default=20.0, gt=0, description="seconds without an answer or a byte before giving up")
    retries: int = Field(default=1, ge=0, description="tries more inside one attempt of a row")
    pause: float = Field(default=0.0, ge=0, description="least seconds between a worker's requests to one host")
    pauses: dict[str, float] = Field(default={}, description="the same for a domain and all under it")


@dataclass(frozen=True)
class Identity:
    """Who yt-dlp says is responsible for a URL, found without asking the network.

    single: True for one video, False for a list of them, None where only the site knows.
    """

    extractor: str
    id: str | None
    single: bool | None

    @property
    def generic(self) -> bool:
        """Whether no extractor knows the site."""
        return self.extractor == "generic"


def use_plugins(settings: SiteSettings) -> None:
    """Make yt-dlp load the plugins of `settings.plugin_dirs` in this process, once for each set of folders.

    yt-dlp reads its plugin folders from a module-wide list when its first YoutubeDL is made; a later change needs a
    call of its own. Raises ConfigError for a folder that is not there.
    """
    for folder in settings.plugin_dirs:
        if folder != "default" and not Path(folder).is_dir():
            raise ConfigError(f"plugin_dirs: {folder} is not a folder")
    with _plugin_lock:
        wanted = list(settings.plugin_dirs)
        if plugin_dirs.value != wanted or not all_plugins_loaded.value:
            plugin_dirs.value = wanted
            load_all_plugins()


def identify(url: str, settings: SiteSettings) -> Identity:
    """Say which extractor takes a URL and which id it reads off it. Asks nobody."""
    use_plugins(settings)
    plain = unsmuggle_url(url)[0]
    for extractor in gen_extractor_classes():
        if extractor.suitable(plain):
            break
    found = extractor.get_temp_id(plain)
    return Identity(extractor.ie_key().lower(), found and str(found), extractor.is_single_video(plain))


class SiteClient:
    """One conversation with web sites; a context manager. Its errors are those of `ingest.refusals`."""

    def __init__(self, settings: SiteSettings, **options: Any) -> None:
        use_plugins(settings)
        self.settings = settings
        self._answers = ExitStack()  # yt-dlp leaves some of them open
        self._last_error: BaseException | None = None
        self._ydl = YoutubeDL({**_options(settings), **options})
        self._send = self._ydl.urlopen
        self._ydl.urlopen = self._urlopen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.close()
        self._ydl.close()

    def info(self, address: str) -> Info:
        """Ask about a URL or a search: a video with its formats, or a list whose entries are not asked about.

        Raises Skip, Retry, Permanent or NoSpace.
        """
        with self._translated():
            found = self._ydl.extract_info(address, download=False)
            return dict(found or {})

    def download(self, path: Path, info: Info, progress: Callable[[Info], None]) -> None:
        """Fetch the bytes of one format to `path`; `info` is a video's info with the format's keys laid over it.

        progress: called with yt-dlp's state (`downloaded_bytes`) as bytes come in; what it raises ends the download.
        Raises as `info` does.
        """
        self._ydl.add_progress_hook(progress)
        with self._translated():
            done, _ = self._ydl.dl(str(path), info)
        if not done or not path.is_file():
            raise Retry("truncated", "the download ended without a file")

    def read(
        self, url: str, limit_bytes: int, headers: dict[str, str] | None = None, seconds: float = math.inf
    ) -> tuple[str, bytes]:
        """Return the content type and the first `limit_bytes` bytes of a resource. Raises as `info` does.

        Permanent("too_slow") where they are not here after `seconds`.
        """
        deadline = time.monotonic() + seconds
        with self._translated():
            for left in range(self.settings.retries, -1, -1):
                try:
                    with self._ydl.urlopen(Request(url, headers=headers or {})) as answer:
                        return str(answer.headers.get("Content-Type", "")), _body(answer, limit_bytes, deadline)
                except RequestError:
                    if not left:
                        raise
        raise AssertionError("the last try returns or raises")

    def _urlopen(self, request: Any) -> Any:
        """Stand before every request that yt-dlp makes: check its address, keep the pause, remember how it failed."""
        url = str(request if isinstance(request, str) else request.url)
        self._check(url)
        _keep_pause(urlsplit(url).hostname or "", self.settings)
        try:
            with self._guarded():
                answer = self._send(request)
        except RequestError as error:
            self._last_error = error
            if isinstance(error, HTTPError):
                self._answers.callback(error.close)
            raise
        self._answers.callback(answer.close)
        self._last_error = None
        if answer.url and answer.url != url:
            try:
                self._check(answer.url)
            except Permanent:
                answer.close()
                raise
        return answer

    def _guarded(self) -> AbstractContextManager[None]:
        """Connections are watched too: a redirect, or a name that changes its address, could lead inside."""
        return nullcontext() if self.settings.allow_private or self.settings.proxy else public_only()

    def _check(self, url: str) -> None:
        if why := why_not_web(url):
            raise Permanent("unsupported_url", f"{url}: {why}")
        if not self.settings.allow_private and not self.settings.proxy and leads_to_private(url):
            host = urlsplit(url).hostname
            raise Permanent("private_address", f"{host} is a private address; allow_private: true allows it")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        self._last_error = None
        try:
            yield
        except (YoutubeDLError, OSError) as error:
            known = refusal(error, last_network_error=self._last_error)
            if known is None:
                raise
            raise known from error


def _body(answer: Any, limit_bytes: int, deadline: float) -> bytes:
    """The first bytes of an answer. Retry("truncated") where it ends before it should."""
    data = bytearray()
    while chunk := answer.read(min(_CHUNK_BYTES, limit_bytes - len(data))):
        data += chunk
        if time.monotonic() > deadline:
            raise Permanent("too_slow", f"only {len(data)} bytes came in time")
    declared = str(answer.headers.get("Content-Length", ""))
    if (
        declared.isdecimal()
        and not answer.headers.get("Content-Encoding")
        and len(data) < min(int(declared), limit_bytes)
    ):
        raise Retry("truncated", f"{len(data)} bytes came of {declared}")
    return bytes(data)


class _Aside:
    """Takes what yt-dlp says: nothing of it is for people, for what matters comes as an error."""

    def debug(self, message: str) -> None:
        _log.debug("%s", message)

    info = warning = error = debug


def _options(settings: SiteSettings) -> Info:
    return {
        "quiet": True,
        "noprogress": True,
        "no_warnings": True,
        "color": "never",
        "logger": _Aside(),
        "cachedir": False,
        "cookiefile": _cookies(settings.cookies),
        "proxy": settings.proxy,
        "extractor_args": {name.lower(): dict(args) for name, args in settings.extractor_args.items()},
        "socket_timeout": settings.timeout,
        "retries": settings.retries,
        "extractor_retries": settings.retries,
        "fragment_retries": settings.retries,
        "skip_unavailable_fragments": False,
        "hls_prefer_native": True,
        "extract_flat": "in_playlist",
        "format": _last_format,
        "nopart": True,
        "overwrites": True,
        "updatetime": False,
        "fixup": "never",
    }


def _cookies(path: Path | None) -> io.StringIO | None:
    """Return the cookies as a stream: yt-dlp writes cookies back, and workers share the file."""
    try:
        return io.StringIO(path.read_text()) if path else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cookies: {path} cannot be read ({error})") from None


def _last_format(context: Info) -> Any:
    """Satisfy yt-dlp, which wants to select a format before ours are chosen from the sorted list."""
    return context["formats"][-1:]


def _keep_pause(host: str, settings: SiteSettings) -> None:
    under = [pause for domain, pause in settings.pauses.items() if host == domain or host.endswith(f".{domain}")]
    pause = max(under, default=settings.pause)
    if not pause:
        return
    with _pause_lock:
        begin = max(time.monotonic(), _last_request.get(host, 0.0))
        _last_request[host] = begin + pause
    time.sleep(max(0.0, begin - time.monotonic()))
