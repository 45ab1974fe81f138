"""Samples of features, as a training step takes them: pairs of a narration and what is seen while it is said."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from sayso.errors import CorruptObject
from shards.clips import ClipSettings, make_clip
from shards.features import Rows, drawn_pairs, max_pooled, npy, read_rows
from shards.library import RawSample

NAMES = ["crack the eggs", "whisk them", "heat the pan", "pour them in", "fold it", "serve it"]


def rows_of(count: int, dim: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float16)


def raw(streams: dict[str, Rows], texts: list[str]) -> RawSample:
    candidates = [{"narration_id": text, "start": 0.0, "end": 1.0, "text": text} for text in texts]
    facts: dict[str, Any] = {"video_id": "site:v", "start": 0.0, "end": 9.0, "clip_start": 0.0, "clip_end": 9.0}
    members = {f"{name}.npy": npy(rows) for name, rows in streams.items()}
    return RawSample("site_v", members, {**facts, "candidates": candidates})


def test_each_narration_keeps_its_own_rows_and_streams_stand_by_name() -> None:
    third, second = rows_of(6, 5, seed=1), rows_of(6, 3, seed=2)
    clip = make_clip(raw({"3d": third, "2d": second}, NAMES), ClipSettings(pairs=4), "0:0")
    assert clip["features"].shape == (4, 8)
    assert clip["features"].dtype == torch.float32
    assert clip["frames"].shape == (0, 224, 224, 3)
    assert clip["narration_mask"].tolist() == [True] * 4
    assert len(set(clip["narrations"])) == 4
    assert (clip["video_id"], clip["start"], clip["end"]) == ("site:v", 0, 9)
    for text, found in zip(clip["narrations"], clip["features"].numpy(), strict=True):
        place = NAMES.index(text)
        for part, rows in ((found[:3], second), (found[3:], third)):
            wanted = rows[place].astype(np.float64)
            assert part == pytest.approx(wanted / np.sqrt((wanted**2).sum()), abs=1e-6)


def test_what_is_drawn_hangs_on_the_seed_and_the_key_alone() -> None:
    sample, settings = raw({"2d": rows_of(6, 3)}, NAMES), ClipSettings(pairs=3)
    first, again = (make_clip(sample, settings, "1:0") for _ in range(2))
    assert first["narrations"] == again["narrations"]
    assert torch.equal(first["features"], again["features"])
    drawn = {tuple(make_clip(sample, settings, f"1:{epoch}")["narrations"]) for epoch in range(40)}
    assert len(drawn) > 20
    assert {name for names in drawn for name in names} == {*NAMES}


def test_a_video_with_few_narrations_gives_them_several_times() -> None:
    clip = make_clip(raw({"2d": rows_of(2, 3)}, NAMES[:2]), ClipSettings(), "0:0")
    assert clip["features"].shape == (64, 3)
    counts = [clip["narrations"].count(name) for name in NAMES[:2]]
    assert sum(counts) == 64
    assert min(counts) > 15


def test_each_narration_is_drawn_as_often_as_any_other() -> None:
    for there, wanted in ((6, 3), (6, 10)):
        times = np.bincount(
            np.concatenate([drawn_pairs(str(seed), there, wanted) for seed in range(2000)]), minlength=there
        )
        expected = 2000 * wanted / there
        assert np.abs(times - expected).max() < 5 * np.sqrt(expected)


def test_a_row_of_zeros_stays_one() -> None:
    clip = make_clip(raw({"2d": np.zeros((1, 3), np.float16)}, NAMES[:1]), ClipSettings(pairs=1), "0")
    assert clip["features"].tolist() == [[0, 0, 0]]


def test_broken_features_are_a_corrupt_sample() -> None:
    whole = raw({"2d": rows_of(6, 3)}, NAMES)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    infinite = npy(np.full((6, 3), np.inf, np.float16))
    for broken in (b"no array", whole.members["2d.npy"][:-4], pickled.getvalue(), infinite, npy(rows_of(5, 3))):
        with pytest.raises(CorruptObject, match="site_v"):
            make_clip(RawSample("site_v", {"2d.npy": broken}, whole.facts), ClipSettings(), "0")


def test_pooling_against_a_naive_oracle() -> None:
    generator = np.random.default_rng(7)
    for fps in (1.0, 1.5, 0.7, 10.0):
        rows = rows_of(int(20 * fps), 4, seed=int(10 * fps))
        starts = generator.uniform(0, 19, 30)
        windows = [
            (float(start), float(start + length))
            for start, length in zip(starts, generator.uniform(0, 12, 30), strict=True)
        ]
        for (start, end), found in zip(windows, max_pooled(rows, fps, windows), strict=True):
            inside = [row for i, row in enumerate(rows) if i / fps < end and (i + 1) / fps > start]
            assert found.tolist() == np.max(inside or [rows[-1]], axis=0).tolist()


def test_a_window_that_ends_where_a_row_begins_does_not_reach_into_it() -> None:
    rows = np.arange(12, dtype=np.float16)[:, None]
    windows = [(2.0, 4.0), (2.0, 4.01), (1.99, 4.0), (0.0, 8.0), (7.9, 30.0), (50.0, 60.0)]
    assert max_pooled(rows, 1.5, windows)[:, 0].tolist() == [5, 6, 5, 11, 11, 11]
    assert max_pooled(rows, 1.5, [(3.0, 3.0)])[:, 0].tolist() == [4]


def test_an_array_comes_back_as_it_was_written() -> None:
    rows = rows_of(5, 7)
    assert npy(rows) == npy(rows.copy())
    assert read_rows(npy(rows), "a").tolist() == rows.tolist()
