"""Pictures that stand alone, as samples of images and documents have them: JPEG -> pixels, cut and scaled."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sayso.errors import CorruptObject
from shards.crop import Crop
from shards.decode import Pixels

if TYPE_CHECKING:
    from PIL import Image

_MOST_PIXELS = 64 << 20
"""Our own pictures are far smaller; a header that says more is not one of ours."""


def stills(jpegs: Sequence[bytes], crop: Crop) -> Pixels:
    """JPEGs of any sizes -> uint8 (len(jpegs), size, size, 3), RGB. CorruptObject where one cannot be decoded."""
    out = np.empty((len(jpegs), crop.size, crop.size, 3), dtype=np.uint8)
    for row, jpeg in zip(out, jpegs, strict=True):
        row[:] = np.asarray(_still(jpeg, crop))
    return out


def _still(jpeg: bytes, crop: Crop) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise CorruptObject(f"picture of {image.width}x{image.height} px is not one of ours")
            box = crop.box(image.width, image.height)
            # The decoder halves a picture at hardly any cost; twice the size wanted is left for scaling well.
            scale = crop.size / min(box.width, box.height)
            image.draft("RGB", (round(2 * scale * image.width), round(2 * scale * image.height)))
            box = crop.box(image.width, image.height)
            part = (box.left, box.top, box.left + box.width, box.top + box.height)
            square = image.convert("RGB").resize((crop.size, crop.size), Image.Resampling.BILINEAR, part)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptObject(f"picture cannot be decoded ({error})") from None
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else square
