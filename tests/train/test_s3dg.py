from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch.utils.flop_counter import FlopCounterMode

from sayso.errors import InputError
from train.models.s3dg import S3DG, S3DGSettings, SamePool, Stem, howto100m_state, load_howto100m
from train.models.video_text import VideoText, VideoTextSettings


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_full_tower_has_the_published_size() -> None:
    # 9.67 M parameters and 37.1 GMAC are those of the released network: space-to-depth stem, fc to 512 included.
    model = S3DG("space_to_depth").to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        out = model(torch.empty(1, 3, 32, 224, 224, device="meta"))
    assert {name: tuple(each.shape) for name, each in out.items()} == {"embedding": (1, 512), "mixed_5c": (1, 1024)}
    assert parameters(model) == 9_670_800
    assert counter.get_total_flops() / 2e9 == pytest.approx(37.1, abs=0.05)


def test_state_has_the_names_of_the_released_weights() -> None:
    state = S3DG("space_to_depth").state_dict()
    assert len(state) == 532  # 537 with the five of the text tower
    assert state["conv1.conv1.weight"].shape == (64, 24, 2, 4, 4)
    assert state["conv_2c.bn2.running_var"].shape == (192,)
    assert state["gating.fc.weight"].shape == (192, 192)
    assert state["mixed_4f.conv_b1_b.conv2.weight"].shape == (320, 320, 3, 1, 1)
    assert state["mixed_5c.gating_b3.fc.bias"].shape == (128,)
    assert state["fc.weight"].shape == (512, 1024)
    assert S3DG().state_dict()["conv1.conv1.weight"].shape == (64, 3, 3, 7, 7)


@pytest.mark.parametrize("stem", get_args(Stem))
def test_both_stems_see_the_same_grid(stem: Stem) -> None:
    model = S3DG(stem, width=0.1)
    assert model._stem(torch.rand(2, 3, 8, 32, 32)).shape[2:] == (4, 16, 16)


def test_space_to_depth_stem_is_a_strided_stem_padded_as_tensorflow_does() -> None:
    """A 3x7x7 kernel of stride 2 on "SAME" padding is a 2x4x4 kernel on 2x2x2 blocks, its last taps zero."""
    model = S3DG("space_to_depth", width=0.1).eval()
    kernel = torch.randn(6, 3, 3, 7, 7)
    taps = F.pad(kernel, (0, 1, 0, 1, 0, 1))
    with torch.no_grad():
        model.conv1.conv1.weight.copy_(
            rearrange(taps, "o c (t dt) (h dh) (w dw) -> o (dt dh dw c) t h w", dt=2, dh=2, dw=2)
        )
    frames = torch.rand(1, 3, 6, 16, 16)
    same = F.conv3d(F.pad(frames, (2, 3, 2, 3, 0, 1)), kernel, stride=2)
    torch.testing.assert_close(model._stem(frames), F.relu(model.conv1.bn1(same)))


@pytest.mark.parametrize(("size", "stride", "out"), [(7, 2, 4), (8, 2, 4), (5, 1, 5), (2, 2, 1)])
def test_same_pool_gives_ceil_of_size_over_stride(size: int, stride: int, out: int) -> None:
    pool = SamePool((3, 3, 3), (stride, stride, stride))
    assert pool(torch.rand(1, 1, size, size, size)).shape == (1, 1, out, out, out)


def test_same_pool_pads_behind_when_the_stride_is_two() -> None:
    # TensorFlow pads an even axis (size 4, kernel 3, stride 2) with one zero behind: windows [0..2] and [2..3].
    row = torch.tensor([5.0, 1.0, 2.0, 3.0]).reshape(1, 1, 1, 1, 4)
    assert SamePool((1, 1, 3), (1, 1, 2))(row).flatten().tolist() == [5.0, 3.0]


def test_a_narrow_tower_runs_on_small_clips_and_learns() -> None:
    model = S3DG(width=0.125, embedding=16)
    clips = torch.rand(2, 3, 4, 32, 32)
    out = model(clips)
    assert (out["mixed_5c"].shape, out["embedding"].shape) == ((2, model.channels), (2, 16))
    out["embedding"].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_motion_only_sees_no_room() -> None:
    model = S3DG(width=0.1, motion_only=True).eval()
    moving, room, other_room = torch.rand(1, 3, 4, 32, 32), torch.rand(1, 3, 1, 32, 32), torch.rand(1, 3, 1, 32, 32)
    torch.testing.assert_close(model._stem(moving + room), model._stem(moving + other_room))
    assert not torch.allclose(model._stem(moving + room), model._stem(moving.flip(2) + room))


def released(stem: Stem, *, prefix: str = "") -> dict[str, torch.Tensor]:
    """A state as it is published: all towers, words of word2vec."""
    torch.manual_seed(1)
    model = VideoText(VideoTextSettings(video=S3DGSettings(stem=stem)), words=66250, word_dim=300)
    return {
        f"{prefix}{name}": torch.rand_like(each.float()).to(each.dtype) for name, each in howto100m_state(model).items()
    }


@pytest.mark.parametrize("stem", get_args(Stem))
def test_released_weights_load_as_they_are_and_are_saved_so(stem: Stem) -> None:
    state = released(stem)
    assert len(state) == 537
    assert state["text_module.word_embd.weight"].shape == (66250, 300)
    model = VideoText(VideoTextSettings(video=S3DGSettings(stem=stem)), words=66250, word_dim=300)
    load_howto100m(model, state)
    saved = howto100m_state(model)
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in state)
    tower = S3DG(stem)
    load_howto100m(tower, state)
    assert torch.equal(tower.fc.weight, model.video.fc.weight)


def test_a_training_checkpoint_loads_as_it_is() -> None:
    tower = S3DG()
    state = released("plain", prefix="module.")
    load_howto100m(tower, {"epoch": 3, "state_dict": state})
    assert torch.equal(
        tower.state_dict()["mixed_3b.conv_b0.bn1.running_mean"], state["module.mixed_3b.conv_b0.bn1.running_mean"]
    )


def test_weights_of_another_model_are_refused_whole() -> None:
    tower = S3DG()
    before = {name: each.clone() for name, each in tower.state_dict().items()}
    with pytest.raises(
        InputError, match=r"conv1\.conv1\.weight is \(64, 24, 2, 4, 4\), not \(64, 3, 3, 7, 7\).*stem=space_to_depth"
    ):
        load_howto100m(tower, released("space_to_depth"))
    state = released("plain")
    state["more"] = state.pop("fc.bias")
    with pytest.raises(InputError, match=r"2 entries, the first: fc\.bias is not there"):
        load_howto100m(tower, state)
    assert all(torch.equal(each, before[name]) for name, each in tower.state_dict().items())
