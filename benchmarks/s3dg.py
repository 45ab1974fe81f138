"""S3D-G forward and backward on the CPU, against a plain channels-first implementation with the same weights.

    python -m benchmarks.s3dg [--rounds 5] [--threads 2] [--full 4x16x112]

The plain one below is written straight from the paper's description with nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d and
nn.ConstantPad3d; all its tensors lie channels first. A third side is the same with weights and frames in
channels_last_3d, to show where that order helps. All three give the same embeddings and gradients, which is looked at
first, in float64. Sides take turns; the ratio is the median over the rounds. Target: sayso at most 1.0 x the plain one.
"""

from __future__ import annotations

import argparse
import copy
import time
from statistics import median

import torch
from torch import Tensor, nn

from train.models.s3dg import BLOCKS, S3DG
from train.models.video_text import VideoTextSettings
from train.recipe import load_recipe

AT_MOST = 1.0


class Unit(nn.Module):
    """Convolution, norm, ReLU; with a thin convolution over time after it where it is separable."""

    def __init__(self, inner: int, outer: int, size: int = 1, *, separable: bool = False) -> None:
        super().__init__()
        k, p = size, size // 2
        self.conv1 = nn.Conv3d(inner, outer, (1, k, k), padding=(0, p, p), bias=False)
        self.bn1 = nn.BatchNorm3d(outer)
        if separable:
            self.conv2 = nn.Conv3d(outer, outer, (k, 1, 1), padding=(p, 0, 0), bias=False)
            self.bn2 = nn.BatchNorm3d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.separable = separable

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, T, H, W) -> (B, outer, T, H, W)."""
        x = self.relu(self.bn1(self.conv1(x)))
        if self.separable:
            x = self.relu(self.bn2(self.conv2(x)))
        return x


class Gate(nn.Module):
    """Feature gating."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        weights: Tensor = torch.sigmoid(self.fc(torch.mean(x, dim=[2, 3, 4])))
        return weights[:, :, None, None, None] * x


class Block(nn.Module):
    """Four gated branches."""

    def __init__(self, inner: int, a: int, b0: int, b1: int, c0: int, c1: int, d: int) -> None:
        super().__init__()
        self.conv_b0 = Unit(inner, a)
        self.conv_b1_a, self.conv_b1_b = Unit(inner, b0), Unit(b0, b1, 3, separable=True)
        self.conv_b2_a, self.conv_b2_b = Unit(inner, c0), Unit(c0, c1, 3, separable=True)
        self.maxpool_b3 = nn.MaxPool3d(3, stride=1, padding=1)
        self.conv_b3_b = Unit(inner, d)
        self.gating_b0, self.gating_b1, self.gating_b2, self.gating_b3 = Gate(a), Gate(b1), Gate(c1), Gate(d)
        self.outer = a + b1 + c1 + d

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, T, H, W) -> (B, outer, T, H, W)."""
        first = self.gating_b0(self.conv_b0(x))
        second = self.gating_b1(self.conv_b1_b(self.conv_b1_a(x)))
        third = self.gating_b2(self.conv_b2_b(self.conv_b2_a(x)))
        fourth = self.gating_b3(self.conv_b3_b(self.maxpool_b3(x)))
        return torch.cat((first, second, third, fourth), dim=1)


Six = tuple[int, int, int, int, int, int]


def same_pool(kernel: tuple[int, int, int], stride: tuple[int, int, int], pad: Six) -> nn.Module:
    """TensorFlow's "SAME" pooling: zeros around, then ceil mode."""
    return nn.Sequential(nn.ConstantPad3d(pad, 0.0), nn.MaxPool3d(kernel, stride, ceil_mode=True))


class Plain(nn.Module):
    """S3D-G with the plain stem."""

    def __init__(self, width: float, embedding: int, *, motion_only: bool) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(4, round(channels * width))

        self.motion_only = motion_only
        self.conv1 = Unit(3, wide(64))
        self.conv1.conv1 = nn.Conv3d(3, wide(64), (3, 7, 7), stride=2, padding=(1, 3, 3), bias=False)
        self.maxpool_2a = same_pool((1, 3, 3), (1, 2, 2), (0, 1, 0, 1, 0, 0))
        self.conv_2b, self.conv_2c = Unit(wide(64), wide(64)), Unit(wide(64), wide(192), 3, separable=True)
        self.gating = Gate(wide(192))
        self.maxpool_3a = same_pool((1, 3, 3), (1, 2, 2), (0, 1, 0, 1, 0, 0))
        self.maxpool_4a = same_pool((3, 3, 3), (2, 2, 2), (0, 1, 0, 1, 0, 1))
        self.maxpool_5a = same_pool((2, 2, 2), (2, 2, 2), (0, 0, 0, 0, 0, 0))
        channels = wide(192)
        for name, branches in BLOCKS.items():
            block = Block(channels, *map(wide, branches))
            self.add_module(name, block)
            channels = block.outer
        self.fc = nn.Linear(channels, embedding)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, embedding)."""
        x = frames - frames.mean(dim=2, keepdim=True) if self.motion_only else frames
        x = self.conv_2c(self.conv_2b(self.maxpool_2a(self.conv1(x))))
        x = self.maxpool_3a(self.gating(x))
        for name in BLOCKS:
            if name == "mixed_4b":
                x = self.maxpool_4a(x)
            elif name == "mixed_5b":
                x = self.maxpool_5a(x)
            x = self.get_submodule(name)(x)
        embedding: Tensor = self.fc(torch.mean(x, dim=[2, 3, 4]))
        return embedding


class Side:
    """A network and its frames."""

    def __init__(self, network: nn.Module, frames: Tensor) -> None:
        self.network, self.frames = network, frames

    def step(self) -> tuple[float, Tensor, Tensor]:
        """Seconds of a forward and backward, the embeddings, and the gradient of the first convolution."""
        self.network.zero_grad()
        began = time.perf_counter()
        out = self.network(self.frames)
        embedding = out["embedding"] if isinstance(out, dict) else out
        torch.autograd.backward(embedding.square().mean())
        took = time.perf_counter() - began
        gradient = self.network.get_parameter("conv1.conv1.weight").grad
        assert gradient is not None
        return took, embedding.detach(), gradient


def check_same(sides: list[Side]) -> None:
    """Assert that all are the same function, on two of the clips; float32 differs with the order of sums."""
    found = [Side(copy.deepcopy(side.network).double(), side.frames[:2].double()).step() for side in sides]
    for _, embedding, gradient in found[1:]:
        torch.testing.assert_close(embedding, found[0][1], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(gradient, found[0][2], rtol=1e-6, atol=1e-10)


def compare(width: float, embedding: int, frames: Tensor, *, motion_only: bool, rounds: int) -> None:
    """Print the times of the three sides and the ratios."""
    torch.manual_seed(0)
    ours = S3DG(width=width, embedding=embedding, motion_only=motion_only)
    first, last = (Plain(width, embedding, motion_only=motion_only) for _ in range(2))
    for plain in (first, last):
        plain.load_state_dict(ours.state_dict())
    together = torch.channels_last_3d
    last.to(memory_format=together)  # type: ignore[call-overload]  # a torch stub lacks 3d
    sides = {
        "plain, channels first": Side(first, frames),
        "plain, channels last": Side(last, frames.contiguous(memory_format=together)),
        "sayso": Side(ours, frames),
    }
    check_same(list(sides.values()))
    for side in sides.values():
        side.step()  # the first finds its algorithms
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            taken[name].append(side.step()[0])
    print(f"width {width:g}, frames {'x'.join(map(str, frames.shape))}, {torch.get_num_threads()} threads")
    for name, times in taken.items():
        ratio = median(one / base for one, base in zip(times, taken["plain, channels first"], strict=True))
        target = f" (at most {AT_MOST})" if name == "sayso" else ""
        print(f"  {name:>21}: {median(times) * 1000:7.0f} ms, {ratio:.2f} x plain channels first{target}", flush=True)


def main() -> None:
    """Compare on the demo recipe's clips and on the published network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", default="4x16x112", help="clips x frames x px for the network at its full width")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    recipe = load_recipe("mil_nce_demo", ["data.root=none", "output.folder=none"])
    assert isinstance(recipe.model, VideoTextSettings)
    video, clips = recipe.model.video, recipe.data.clips
    share = recipe.data.batch // recipe.engine.ranks
    frames = torch.rand(share, 3, clips.frames, clips.size, clips.size)
    compare(video.width, video.embedding, frames, motion_only=video.motion_only, rounds=asked.rounds)
    number, length, size = map(int, asked.full.split("x"))
    compare(1.0, 512, torch.rand(number, 3, length, size, size), motion_only=False, rounds=asked.rounds)


if __name__ == "__main__":
    main()
