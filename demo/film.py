"""Writes one video file from its truth: the same truth gives the same bytes (one thread, no clock, no metadata)."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from demo.scenes import frame
from demo.sounds import sound_track
from demo.speech import RATE_HZ, Samples
from demo.truth import FPS, HEIGHT, WIDTH, VideoTruth

# mbtree is off because x264's reads memory that nobody has written: with it the bytes differ now and then.
X264 = {
    "preset": "veryfast",
    "tune": "animation",
    "crf": "21",
    "threads": "1",
    "flags": "+bitexact",
    "x264-params": "mbtree=0",
}


def write_film(truth: VideoTruth, path: Path) -> None:
    """Render a video to an MP4 file: H.264, 320x240 at 25 fps, and AAC, mono."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        picture = container.add_stream("libx264", rate=FPS)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.options = {**X264}
        picture.codec_context.gop_size = 2 * FPS
        sound = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        sound.bit_rate = 56_000
        sound.options = {"flags": "+bitexact"}
        samples = sound_track(truth)
        for second in range(math.ceil(truth.duration)):
            _write_pictures(container, picture, truth, second)
            _write_samples(container, sound, samples, second)
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))


def _write_pictures(
    container: av.container.OutputContainer, stream: av.VideoStream, truth: VideoTruth, second: int
) -> None:
    for index in range(second * FPS, min((second + 1) * FPS, round(truth.duration * FPS))):
        image = av.VideoFrame.from_ndarray(frame(truth, index / FPS), format="rgb24")
        image.pts, image.time_base = index, Fraction(1, FPS)
        container.mux(stream.encode(image))


def _write_samples(
    container: av.container.OutputContainer, stream: av.AudioStream, samples: Samples, second: int
) -> None:
    piece = np.ascontiguousarray(samples[second * RATE_HZ : (second + 1) * RATE_HZ])
    if not len(piece):
        return
    chunk = av.AudioFrame.from_ndarray(piece[None], format="flt", layout="mono")
    chunk.sample_rate, chunk.pts, chunk.time_base = RATE_HZ, second * RATE_HZ, Fraction(1, RATE_HZ)
    container.mux(stream.encode(chunk))
