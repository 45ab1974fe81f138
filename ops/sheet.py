"""A contact sheet of an export: clips with the narrations that go with them, as one PNG.

python -m ops.sheet ROOT EXPORT OUT.png
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

from sayso.root import Root
from sayso.rows import Shard

_COLUMNS, _ROWS = 4, 3
_WIDTH_PX, _HEIGHT_PX, _TEXT_PX, _GAP_PX = 320, 240, 58, 12


def sheet(root: Root, export: str) -> Image.Image:
    """Twelve clips of an export, each from another video where there are so many."""
    shown = Image.new("RGB", (_COLUMNS * (_WIDTH_PX + _GAP_PX) + _GAP_PX, _ROWS * _cell() + _GAP_PX), "white")
    draw = ImageDraw.Draw(shown)
    font = ImageFont.load_default(15)
    for number, (picture, text) in zip(range(_COLUMNS * _ROWS), _clips(root, export), strict=False):
        row, column = divmod(number, _COLUMNS)
        x, y = _GAP_PX + column * (_WIDTH_PX + _GAP_PX), _GAP_PX + row * _cell()
        picture.thumbnail((_WIDTH_PX, _HEIGHT_PX))
        shown.paste(picture, (x, y))
        draw.multiline_text((x, y + _HEIGHT_PX + 4), textwrap.shorten(textwrap.fill(text, 42), 120), "black", font)
    return shown


def _cell() -> int:
    return _HEIGHT_PX + _TEXT_PX + _GAP_PX


def _clips(root: Root, export: str) -> Iterator[tuple[Image.Image, str]]:
    """The middle picture and the narration of samples, first one of each video, then the rest."""
    later = []
    videos: set[str] = set()
    for shard in sorted(root.table(Shard).rows(), key=lambda shard: shard.shard):
        if shard.export != export:
            continue
        with root.storage.local(shard.key) as path, tarfile.open(path) as tar:
            members = {member.name: member for member in tar}
            for name in [name for name in members if name.endswith(".json")]:
                facts = json.load(_file(tar, members[name]))
                clip = _file(tar, members[name.removesuffix(".json") + ".mp4"]).read()
                if facts["video_id"] in videos:
                    later.append((clip, facts))
                    continue
                videos.add(facts["video_id"])
                yield _middle(clip), facts["text"]
    for clip, facts in later:
        yield _middle(clip), facts["text"]


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> io.BufferedIOBase:
    file = tar.extractfile(member)
    assert file is not None
    return io.BytesIO(file.read())


def _middle(clip: bytes) -> Image.Image:
    with av.open(io.BytesIO(clip), "r") as container:
        frames = list(container.decode(video=0))
    return Image.fromarray(frames[len(frames) // 2].to_ndarray(format="rgb24"))


if __name__ == "__main__":
    sheet(Root(sys.argv[1]).open(), sys.argv[2]).save(Path(sys.argv[3]), optimize=True)
