"""Makes our own JPEG of a foreign picture; a program of its own, run locked up as ffmpeg is (ingest/jail.py).

Run as `python -I picture.py SOURCE TARGET SHORT_SIDE LEAST_SIDE MOST_PIXELS QUALITY`. Pillow and not ffmpeg reads
pictures: the ffmpeg that comes in a wheel has no PNG, and what is asked of a picture (upright by its EXIF, colours by
its profile, transparent on white, scaled without aliasing) is one call each here. Prints one line of JSON: the
JPEG's {"width", "height"}, or {"refused": reason, "message"}. Ends with status ENOSPC where the disk is full.
"""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
_WHITE = (255, 255, 255, 255)


@dataclass
class Refused(Exception):
    """This is no picture that is taken."""

    reason: str
    message: str


def convert(source: str, target: str, short_side: int, least_side: int, most_pixels: int, quality: int) -> Image.Image:
    """Write the JPEG and return the picture as it went in. Raises Refused, OSError and what Pillow raises."""
    Image.MAX_IMAGE_PIXELS = None  # looked at below, where it becomes a reason
    try:
        image = Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        raise Refused("not_a_picture", f"none of {', '.join(FORMATS)}") from None
    if image.width * image.height > most_pixels:
        raise Refused("too_large", f"{image.width}x{image.height} pixels")
    if min(image.size) < least_side:
        raise Refused("too_small", f"{image.width}x{image.height} pixels")
    scale = min(1.0, short_side / min(image.size))
    image.draft("RGB", (round(2 * scale * image.width), round(2 * scale * image.height)))
    image.load()  # of an animation the first picture
    profile = image.info.get("icc_profile")
    upright = _plain(ImageOps.exif_transpose(image))
    if scale < 1:
        scale = short_side / min(upright.size)
        size = (max(1, round(scale * upright.width)), max(1, round(scale * upright.height)))
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    final = _on_white(_in_srgb(upright, profile))
    final.info = {}
    # A quality of colour as of brightness; tables made for this picture are smaller than the standard's.
    final.save(target, "JPEG", quality=quality, subsampling=0, optimize=True)
    return final


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that can be scaled and that keeps what colours mean: no palettes, no more than 8 bits."""
    if image.mode.startswith(("I;16", "I")):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in ("L", "RGB", "CMYK") and not image.has_transparency_data:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """By its colour profile, where it has one that can be read and fits; else as it is."""
    if profile:
        try:
            theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            ours = ImageCms.createProfile("sRGB")
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            found = ImageCms.profileToProfile(image, theirs, ours, outputMode=mode)
            return found or image
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def main(arguments: list[str], say: Callable[[str], object] = sys.stdout.write) -> None:
    """Convert one picture and print what came of it."""
    source, target, *numbers = arguments
    short_side, least_side, most_pixels, quality = map(int, numbers)
    try:
        made = convert(source, target, short_side, least_side, most_pixels, quality)
        say(json.dumps({"width": made.width, "height": made.height}))
    except Refused as refused:
        say(json.dumps({"refused": refused.reason, "message": refused.message}))
    except MemoryError:
        say(json.dumps({"refused": "too_large", "message": "takes more memory than it may have"}))
    # Pillow's readers raise these, and whatever Python raises, of files that are broken.
    except (OSError, ValueError, SyntaxError, TypeError, EOFError, LookupError, ArithmeticError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(errno.ENOSPC)
        say(json.dumps({"refused": "undecodable", "message": f"{type(error).__name__}: {error}"[:300]}))


if __name__ == "__main__":
    main(sys.argv[1:])
