import torch

from train.augment import AugmentSettings, augment


def clips() -> torch.Tensor:
    return torch.rand(16, 3, 2, 4, 4)


def test_nothing_is_changed_unless_asked_for() -> None:
    frames = clips()
    assert augment(frames, AugmentSettings(), seed=1) is frames


def test_the_same_seed_gives_the_same_colours_and_each_clip_its_own() -> None:
    frames, settings = torch.full((16, 3, 2, 4, 4), 0.5), AugmentSettings(colour=0.5)
    one, again, other = (augment(frames, settings, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.allclose(one, other)
    tints = one[:, :, 0, 0, 0]
    assert len({tuple(tint.tolist()) for tint in tints}) == 16
    torch.testing.assert_close(one, tints[:, :, None, None, None].expand_as(one))  # one tint for a whole clip
    assert one.min() >= 0
    assert one.max() <= 1


def test_grey_clips_have_one_value_in_all_channels() -> None:
    frames = clips()
    torch.testing.assert_close(
        augment(frames, AugmentSettings(grey=1.0), seed=1), frames.mean(dim=1, keepdim=True).expand_as(frames)
    )
    some = augment(clips(), AugmentSettings(grey=0.5), seed=1)
    grey = (some[:, 0] == some[:, 1]).flatten(1).all(dim=1)
    assert 2 < int(grey.sum()) < 14
