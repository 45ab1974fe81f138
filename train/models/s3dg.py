"""S3D-G, the separable 3D Inception network with feature gating (Xie et al., ECCV 2018, arXiv:1712.04851).

    frames (B, 3, T, H, W) in [0, 1] -> stem /2 -> pool /2 -> pool /2 -> 2 blocks -> pool /2 -> 5 blocks -> pool /2
    -> 2 blocks -> mean over time and space -> (B, 1024) -> fc -> (B, embedding)

A k x k x k convolution is split into 1 x k x k then k x 1 x 1; every branch of a block is gated by its own mean.
Modules carry the names of the weights released with MIL-NCE (Miech et al., CVPR 2020), so those load as they are.
`width` scales every channel count: the same code is a network for a cluster and one for a CPU. `motion_only` is ours,
not the paper's: among a few dozen videos a network tells clips apart by what stands still behind them and learns
nothing else; without it only what moves is left.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from sayso.config import Settings
from train.models.released import copy_strictly

# Channels of the branches of a block: 1x1 | 1x1 -> 3x3x3 | 1x1 -> 3x3x3 | pool -> 1x1.
Branches = tuple[int, int, int, int, int, int]
BLOCKS: dict[str, Branches] = {
    "mixed_3b": (64, 96, 128, 16, 32, 32),
    "mixed_3c": (128, 128, 192, 32, 96, 64),
    "mixed_4b": (192, 96, 208, 16, 48, 64),
    "mixed_4c": (160, 112, 224, 24, 64, 64),
    "mixed_4d": (128, 128, 256, 24, 64, 64),
    "mixed_4e": (112, 144, 288, 32, 64, 64),
    "mixed_4f": (256, 160, 320, 32, 128, 128),
    "mixed_5b": (256, 160, 320, 32, 128, 128),
    "mixed_5c": (384, 192, 384, 48, 128, 128),
}

Triple = tuple[int, int, int]
Stem = Literal["plain", "space_to_depth"]


class S3DGSettings(Settings):
    """The shape of an S3D-G tower; the defaults are the published network."""

    width: float = Field(1.0, gt=0, le=4, description="multiplier of every channel count")
    embedding: int = Field(512, ge=1, description="size of the joint embedding")
    stem: Stem = Field(
        "plain",
        description="plain: 3x7x7 on pixels, as the training release has it; space_to_depth: on 2x2x2 blocks of "
        "pixels, as the released inference weights have it",
    )
    motion_only: bool = Field(
        False, description="subtract each clip's mean picture, so that a few videos are not told apart by their rooms"
    )


class SelfGating(nn.Module):
    """Scale each channel by a gate computed from the mean of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        gate = torch.sigmoid(self.fc(x.mean(dim=(2, 3, 4))))
        return x * gate[:, :, None, None, None]


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU; a separable one does space first, then time, each with its norm and ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: Triple = (1, 1, 1),
        *,
        stride: int = 1,
        padding: Triple = (0, 0, 0),
        separable: bool = False,
    ) -> None:
        super().__init__()
        k, p = kernel, padding
        self.separable = separable
        if separable:
            space, time = (1, k[1], k[2]), (k[0], 1, 1)
            self.conv1 = nn.Conv3d(
                channels_in, channels, space, stride=(1, stride, stride), padding=(0, p[1], p[2]), bias=False
            )
            self.conv2 = nn.Conv3d(channels, channels, time, stride=(stride, 1, 1), padding=(p[0], 0, 0), bias=False)
            self.bn2 = nn.BatchNorm3d(channels)
        else:
            self.conv1 = nn.Conv3d(channels_in, channels, k, stride=stride, padding=p, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C, T', H', W')."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.separable:
            x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return x


class SamePool(nn.Module):
    """Max-pooling as TensorFlow's "SAME": k - stride zeros along each axis (fewer in front), then ceil mode.

    Zeros equal minus infinity here, since what comes in has passed a ReLU.
    It is done with channels together, in the midst of channels first too: with channels first it takes a CPU a third of
    the whole network's time. All else keeps its order: a CPU's batch norm loses digits with channels together.
    """

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.padding: list[int] = []
        for k, s in zip(reversed(kernel), reversed(stride), strict=True):
            total = max(k - s, 0)
            self.padding += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, ceil(T / stride), ...)."""
        together = F.pad(x.contiguous(memory_format=torch.channels_last_3d), self.padding)
        pooled = F.max_pool3d(together, self.kernel, self.stride, ceil_mode=True)
        return pooled.contiguous() if x.is_contiguous() else pooled


class InceptionBlock(nn.Module):
    """Four branches side by side, each gated, concatenated over channels."""

    def __init__(self, channels_in: int, branches: Branches) -> None:
        super().__init__()
        b0, b1_a, b1_b, b2_a, b2_b, b3 = branches
        self.conv_b0 = ConvBlock(channels_in, b0)
        self.conv_b1_a = ConvBlock(channels_in, b1_a)
        self.conv_b1_b = ConvBlock(b1_a, b1_b, (3, 3, 3), padding=(1, 1, 1), separable=True)
        self.conv_b2_a = ConvBlock(channels_in, b2_a)
        self.conv_b2_b = ConvBlock(b2_a, b2_b, (3, 3, 3), padding=(1, 1, 1), separable=True)
        self.maxpool_b3 = SamePool((3, 3, 3), (1, 1, 1))
        self.conv_b3_b = ConvBlock(channels_in, b3)
        self.gating_b0, self.gating_b1 = SelfGating(b0), SelfGating(b1_b)
        self.gating_b2, self.gating_b3 = SelfGating(b2_b), SelfGating(b3)
        self.channels = b0 + b1_b + b2_b + b3

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, channels, T, H, W)."""
        parts = [
            self.gating_b0(self.conv_b0(x)),
            self.gating_b1(self.conv_b1_b(self.conv_b1_a(x))),
            self.gating_b2(self.conv_b2_b(self.conv_b2_a(x))),
            self.gating_b3(self.conv_b3_b(self.maxpool_b3(x))),
        ]
        return torch.cat(parts, dim=1)


class S3DG(nn.Module):
    """The video tower; 9.67 M parameters at its full width."""

    def __init__(
        self, stem: Stem = "plain", *, width: float = 1.0, embedding: int = 512, motion_only: bool = False
    ) -> None:
        """Arguments are those of S3DGSettings."""
        super().__init__()
        self.stem, self.width, self.motion_only = stem, width, motion_only
        first, mid = self._scaled(64), self._scaled(192)
        if stem == "space_to_depth":
            self.conv1 = ConvBlock(24, first, (2, 4, 4), padding=(1, 2, 2))
        else:
            self.conv1 = ConvBlock(3, first, (3, 7, 7), stride=2, padding=(1, 3, 3))
        self.conv_2b = ConvBlock(first, first)
        self.conv_2c = ConvBlock(first, mid, (3, 3, 3), padding=(1, 1, 1), separable=True)
        self.gating = SelfGating(mid)
        self.maxpool_2a = SamePool((1, 3, 3), (1, 2, 2))
        self.maxpool_3a = SamePool((1, 3, 3), (1, 2, 2))
        self.maxpool_4a = SamePool((3, 3, 3), (2, 2, 2))
        self.maxpool_5a = SamePool((2, 2, 2), (2, 2, 2))
        channels = mid
        for name, branches in BLOCKS.items():
            block = InceptionBlock(channels, self._scaled_branches(branches))
            self.add_module(name, block)
            channels = block.channels
        self.channels = channels
        self.fc = nn.Linear(channels, embedding)

    def blocks(self) -> list[nn.Module]:
        """The parts whose activations may be computed again (train/activations.py), in order."""
        return [self.conv1, self.conv_2b, self.conv_2c, *map(self.get_submodule, BLOCKS)]

    def _scaled(self, channels: int) -> int:
        return max(4, round(channels * self.width))

    def _scaled_branches(self, branches: Branches) -> Branches:
        b0, b1_a, b1_b, b2_a, b2_b, b3 = (self._scaled(channels) for channels in branches)
        return b0, b1_a, b1_b, b2_a, b2_b, b3

    def _stem(self, frames: Tensor) -> Tensor:
        if self.motion_only:
            frames = frames - frames.mean(dim=2, keepdim=True)
        if self.stem == "plain":
            return self.conv1(frames)  # type: ignore[no-any-return]  # nn.Module calls are untyped
        blocks = rearrange(frames, "b c (t dt) (h dh) (w dw) -> b (dt dh dw c) t h w", dt=2, dh=2, dw=2)
        # Without the first step, row and column the windows lie where TensorFlow's "SAME" puts a strided 3x7x7 stem's.
        return self.conv1(blocks)[:, :, 1:, 1:, 1:]  # type: ignore[no-any-return]

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """(B, 3, T, H, W) in [0, 1] -> "mixed_5c" (B, 1024), its mean over time and space; "embedding" (B, 512).

        The embedding is not normalised. T, H and W are even with the space-to-depth stem.
        """
        x: Tensor = self.maxpool_2a(self._stem(frames))
        x = self.maxpool_3a(self.gating(self.conv_2c(self.conv_2b(x))))
        for name in BLOCKS:
            if name == "mixed_4b":
                x = self.maxpool_4a(x)
            elif name == "mixed_5b":
                x = self.maxpool_5a(x)
            x = self.get_submodule(name)(x)
        mixed_5c = x.mean(dim=(2, 3, 4))
        return {"embedding": self.fc(mixed_5c), "mixed_5c": mixed_5c}


TEXT = "text_module."
"""What the names of the text tower begin with in the released states."""
_TEXT_NAMES = frozenset(
    f"{TEXT}{name}" for name in ("word_embd.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
)


def load_howto100m(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load the weights released with MIL-NCE: of inference (space-to-depth stem) or of training (plain stem).

    `model` is an S3DG, or a model whose towers are `video` (an S3DG) and `text`. A training checkpoint may be given as
    it is: its "state_dict", and the "module." that names begin with, are looked through. Strict: every weight must be
    there in its shape, and nothing else; only a tower without text leaves the five entries of the text tower aside.
    Raises InputError where the weights are of another model.
    """
    inner = state_dict.get("state_dict", state_dict)
    state: dict[str, Tensor] = {name.removeprefix("module."): weight for name, weight in inner.items()}
    wanted = howto100m_state(model)
    if isinstance(model, S3DG):
        state = {name: weight for name, weight in state.items() if name not in _TEXT_NAMES}
    hint = "the released inference weights have stem=space_to_depth, those of the training release stem=plain"
    copy_strictly(state, wanted, hint=hint)


def howto100m_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model under the names of the release; the tensors are the model's own."""
    if isinstance(model, S3DG):
        return model.state_dict()
    video = model.get_submodule("video").state_dict()
    text = model.get_submodule("text").state_dict()
    return {**video, **{f"{TEXT}{name}": weight for name, weight in text.items()}}
