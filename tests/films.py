"""Small real videos of one colour, and small models that were never trained."""

from __future__ import annotations

import base64
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch

from shards.reader import ReaderSettings
from train.models.gated import GatedSettings, GatedTextSettings, GatedVideoText
from train.models.s3dg import S3DGSettings
from train.models.text import TextSettings
from train.models.video_text import VideoText, VideoTextSettings
from train.vocabulary import Vocabulary
from train.weights import ModelCard, Trained, save_model

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}

# ONNX files whose features are known: the means of red, green and blue. Made by onnx.helper of GlobalAveragePool and
# Flatten, to "pooler_output". The first takes any number of pictures of any size, and has the pixels as another output
# before that; the second takes one picture of 32 px.
MEANS = base64.b85decode(
    "2nZ4YI<El=4hjKy5(8~va3Ta!Wo&f{843Y-5&>``5l3uqVqt7Sc4cy5XJt@tZ)^%13IT8u4RCL7Y-Ms^Z*_EVb#x*JMr>hpbY*T50cTns3ITW$844E&"
    "0TL4m0}=sZ3IYfN3Ih@Wa|#0z0dry?3IlCna1t2`7YG3o6AA+o0b&XQ2m=ZO5&?4x0}=sqVjv0)aBpvHWpZC{b#!obbP^8=4F~}e2?_%e0b&XQ2m?X{"
    "3IGrd"
)
MEANS_OF_ONE = base64.b85decode(
    "2nZ4YI(Z5i3ITW$0dOJ_M{I9mVQfKmWpZI>Wl(Q#Yzi9+0dNuxaBpvHWpZC{b#!obbRq{vY+-bCWo{AyXIdKy0eBJ?3KR$d5)cXk2muNL2m=ZN2p|dq"
    "2q0n~3Jq{?Z)|09UvG7EaCLMN4hjqi0TKub0tf*L0tf>_1PTBU4F"
)


def film(
    path: Path,
    colours: list[tuple[int, int, int]],
    *,
    seconds: float = 8.0,
    codec: Literal["libx264", "mpeg4"] = "libx264",
) -> None:
    """Write a video of 64 x 48 px and 10 frames a second that shows each colour for the same time; an edge moves."""
    options = {"g": "10", "keyint_min": "10", "preset": "ultrafast", "threads": "1"} if codec == "libx264" else {}
    number = round(seconds * 10)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for at in range(number):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[:, : 32 + at % 8] = colours[at * len(colours) // number]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def random_model(folder: Path) -> Path:
    """A small S3D-G with a text tower as it is before training, saved as a model's folder."""
    torch.manual_seed(0)
    settings = VideoTextSettings(
        video=S3DGSettings(width=0.125, embedding=16), text=TextSettings(hidden=32, word_dim=16, max_words=8)
    )
    words = Vocabulary(["now", "the", "one", "moves", *COLOURS], max_words=8)
    clips = ReaderSettings(frames=4, fps=5, size=32, candidates=1, per_video=False)
    card = ModelCard(model=settings, clips=clips, words=len(words), word_dim=16, step=0)
    model = VideoText(settings, words=len(words), word_dim=16)
    _settle(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, Trained(model.eval(), words, card))
    return folder


def gated_model(folder: Path) -> Path:
    """The smallest model over features, as it is before training, saved as a model's folder."""
    settings = GatedSettings(streams={"2d": 4}, embedding=4, text=GatedTextSettings(hidden=4, max_words=4))
    card = ModelCard(model=settings, clips=ReaderSettings(), words=2, word_dim=3, step=0)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, Trained(GatedVideoText(settings, words=2, word_dim=3), Vocabulary(["now"], 4), card))
    return folder


@torch.no_grad()
def _settle(model: VideoText) -> None:
    """Give the batch norms the statistics of colours: without them everything looks the same to the tower."""
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            part.momentum = 1.0
    colours = torch.tensor(list(COLOURS.values()))[:, :, None, None, None] / 255
    model.train().video((colours + 0.2 * torch.randn(4, 3, 4, 32, 32)).clamp(0, 1))
