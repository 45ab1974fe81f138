"""From a sample as it was read to what a model takes of it.

{key}.mp4             -> frames and sound
{key}.m4a             -> sound
{key}.jpg, {key}.0.jpg, {key}.1.jpg, ...  -> frames, one a picture
{key}.2d.npy, {key}.3d.npy, ...           -> features, a row a narration
{key}.json            -> narrations, and the times of all this
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import torch
from pydantic import Field, model_validator

from sayso.config import Settings
from sayso.errors import ConfigError, CorruptObject
from sayso.rows import PLACE
from shards.crop import Crop
from shards.decode import Pixels, decode, opened
from shards.decode_torchcodec import check_torchcodec, decode_torchcodec
from shards.features import ENDING, drawn_pairs, read_rows, unit_rows
from shards.library import RawSample
from shards.order import uniforms
from shards.sound import SoundSettings, lengths, log_mel, waveform
from shards.stills import stills

_DECODERS = {"pyav": decode, "torchcodec": decode_torchcodec}


class Clip(TypedDict):
    """A decoded sample. Times are seconds of the source video."""

    key: str
    video_id: str
    start: float
    end: float
    frames: torch.Tensor
    """uint8 (T, H, W, 3); of a document its pictures in order, of sound or features alone none: T is 0"""
    narrations: list[str]
    """K candidates, the anchor first; "" where one is missing"""
    narration_mask: torch.Tensor
    """bool (K,), True where a candidate is there"""
    waveform: NotRequired[torch.Tensor]
    """float32 (samples,), from `start` on; 0 where there is no sound"""
    log_mel: NotRequired[torch.Tensor]
    """float32 (mel_bins, columns), from `start` on; -10 where there is no sound"""
    sound_mask: NotRequired[torch.Tensor]
    """bool (samples,) or (columns,), True where there is sound"""
    features: NotRequired[torch.Tensor]
    """float32 (n, D), of n narrations of one video in the order of `narrations`: each stream's row with its length
    divided out, the streams side by side by their names"""
    streams: NotRequired[dict[str, int]]
    """of features: the streams by name, and how many numbers of a row are theirs"""
    origins: NotRequired[dict[str, str]]
    """of features: what made each stream, where the export says it"""


class ClipSettings(Settings):
    """What is taken of a sample and how."""

    frames: int = Field(32, ge=1, description="frames T of a clip; at most so many pictures of a document")
    fps: float = Field(10.0, gt=0, description="frames a second, by presentation time")
    size: int = Field(224, ge=1, description="side of the square crop, in px")
    short_side: int | None = Field(
        None, ge=1, description="short side before cropping, in px; 8/7 of size where not given"
    )
    candidates: int = Field(5, ge=1, description="narrations K in the bag of a clip")
    pairs: int = Field(
        64,
        ge=1,
        description="of features: narrations n drawn of a video; those of a video that has fewer come several times",
    )
    crop: Literal["random", "center", "resized"] = Field(
        "random", description="where the crop lies in the picture; resized also draws its area and shape"
    )
    area: tuple[float, float] = Field((0.08, 1.0), description="shares of the picture that a resized crop may have")
    aspect: tuple[float, float] = Field((0.75, 4 / 3), description="widths by heights that a resized crop may have")
    flip: bool = Field(True, description="mirror half of the clips")
    start: Literal["random", "center"] = Field("random", description="where the T frames lie in the window")
    decoder: Literal["pyav", "torchcodec"] = Field(
        "pyav", description="what decodes films; torchcodec has to be installed, with FFmpeg's shared libraries"
    )
    sound: SoundSettings = Field(SoundSettings(), description="what is taken of a clip's sound")

    @model_validator(mode="after")
    def _consistent(self) -> ClipSettings:
        if self.scaled_short_side < self.size:
            raise ValueError(f"short_side {self.scaled_short_side} is below the crop's size, {self.size}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area {self.area} must be two rising shares of 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect {self.aspect} must be two rising numbers above 0")
        if self.sound.form == "log_mel" and self.sound_seconds < self.sound.mel_window:
            raise ValueError(f"sound.seconds {self.sound_seconds} is below sound.mel_window, {self.sound.mel_window}")
        return self

    @property
    def scaled_short_side(self) -> int:
        """The short side before cropping, in px."""
        return self.short_side or round(self.size * 8 / 7)

    @property
    def seconds(self) -> float:
        """How long the frames of a clip last."""
        return self.frames / self.fps

    @property
    def sound_seconds(self) -> float:
        """How long the sound of a clip lasts."""
        return self.sound.seconds or self.seconds


def check_decoder(settings: ClipSettings) -> None:
    """ConfigError with the fix where the decoder that is asked for is not installed."""
    if settings.decoder == "torchcodec":
        check_torchcodec()


def make_clip(sample: RawSample, settings: ClipSettings, seed: str) -> Clip:
    """Decode a sample.

    What is random is drawn from (seed, the sample's key), not from a stream of numbers: what a clip looks like does
    not depend on who reads it. Raises CorruptObject where the sample cannot be decoded, and ConfigError where
    nothing of it is asked for.
    """
    facts, members = sample.facts, sample.members
    if any(extension.endswith(f".{ENDING}") for extension in members):
        return _pairs(sample, settings, f"{seed}:{sample.key}:pairs")
    start_at, *drawn = uniforms(f"{seed}:{sample.key}:augment", 4) + uniforms(f"{seed}:{sample.key}:shape", 2)
    jpegs = _jpegs(members)[: settings.frames]
    if settings.sound.form == "none" and not jpegs and "mp4" not in members:
        raise ConfigError("sound.form: samples of this export have sound only; take waveform or log_mel")
    lasts = settings.seconds if "mp4" in members else settings.sound_seconds
    start = _start(facts, lasts, 0.5 if settings.start == "center" else start_at)
    texts = [candidate["text"] for candidate in facts["candidates"][: settings.candidates]]
    missing = settings.candidates - len(texts)
    clip = Clip(
        key=sample.key,
        video_id=facts["video_id"],
        start=start,
        end=min(start + lasts, facts["clip_end"]),
        frames=torch.from_numpy(_frames(members, jpegs, start - facts["clip_start"], _crop(settings, drawn), settings)),
        narrations=[_of_pictures(text, len(jpegs)) if jpegs else text for text in texts] + [""] * missing,
        narration_mask=torch.tensor([True] * len(texts) + [False] * missing),
    )
    if settings.sound.form != "none":
        _add_sound(clip, members, start - facts["clip_start"], settings)
    return clip


def _pairs(sample: RawSample, settings: ClipSettings, seed: str) -> Clip:
    """A sample of features: narrations of one video, drawn, each with what is seen while it is said."""
    facts, ending = sample.facts, f".{ENDING}"
    said = facts["candidates"]
    streams = {
        extension.removesuffix(ending): read_rows(data, f"{sample.key}.{extension}")
        for extension, data in sample.members.items()
        if extension.endswith(ending)
    }
    if not said or any(len(rows) != len(said) for rows in streams.values()):
        raise CorruptObject(f"{sample.key}: its features are not those of {len(said)} narrations")
    chosen = drawn_pairs(seed, len(said), settings.pairs)
    return Clip(
        key=sample.key,
        video_id=facts["video_id"],
        start=facts["clip_start"],
        end=facts["clip_end"],
        frames=torch.empty((0, settings.size, settings.size, 3), dtype=torch.uint8),
        narrations=[said[place]["text"] for place in chosen.tolist()],
        narration_mask=torch.ones(settings.pairs, dtype=torch.bool),
        features=torch.from_numpy(unit_rows(streams, chosen)),
        streams={name: rows.shape[1] for name, rows in streams.items()},
        origins=facts.get("streams", {}),
    )


def _start(facts: Mapping[str, Any], lasts: float, share: float) -> float:
    """Where the frames, or sound alone, begin, in seconds of the source: at `share` of the room that the window leaves.

    Where the window is shorter than they last they end with it, as far as the clip reaches back.
    """
    first = max(facts["start"], facts["clip_start"])
    last = min(facts["end"], facts["clip_end"]) - lasts
    return float(first + share * (last - first) if last > first else max(last, facts["clip_start"]))


def _crop(settings: ClipSettings, drawn: Sequence[float]) -> Crop:
    x, y, flip, area, aspect = drawn
    centred = settings.crop == "center"
    (least_area, most_area), (least_aspect, most_aspect) = settings.area, settings.aspect
    return Crop(
        size=settings.size,
        short_side=settings.scaled_short_side,
        x=0.5 if centred else x,
        y=0.5 if centred else y,
        flip=settings.flip and flip < 0.5,
        area=least_area + area * (most_area - least_area) if settings.crop == "resized" else None,
        aspect=least_aspect * (most_aspect / least_aspect) ** aspect,
    )


def _jpegs(members: Mapping[str, bytes]) -> list[bytes]:
    """The pictures that stand alone, in order: "jpg", or "0.jpg", ..., "9.jpg", "10.jpg", ..."""
    named = [extension for extension in members if extension.endswith("jpg")]
    return [members[extension] for extension in sorted(named, key=lambda name: (len(name), name))]


def _frames(
    members: Mapping[str, bytes], jpegs: Sequence[bytes], start: float, crop: Crop, settings: ClipSettings
) -> Pixels:
    if "mp4" not in members:
        return stills(jpegs, crop)
    times = [start + i / settings.fps for i in range(settings.frames)]
    return _DECODERS[settings.decoder](members["mp4"], times, crop)


def _of_pictures(text: str, count: int) -> str:
    """A text up to the place of the first picture that is not among the `count` first."""
    return PLACE.join(text.split(PLACE)[: count + 1])


def _add_sound(clip: Clip, members: Mapping[str, bytes], start: float, settings: ClipSettings) -> None:
    sound = settings.sound
    samples = round(settings.sound_seconds * sound.rate)
    data = members.get("mp4", members.get("m4a"))
    wave, heard = torch.zeros(samples), torch.zeros(samples, dtype=torch.bool)
    if data is not None:
        with opened(data) as container:
            wave, heard = waveform(container, start, samples, sound.rate)
    if sound.form == "waveform":
        clip["waveform"], clip["sound_mask"] = wave, heard
    else:
        _, hop = lengths(sound)
        clip["log_mel"] = columns = log_mel(wave, sound)
        clip["sound_mask"] = heard[::hop][: columns.shape[1]]
