"""Zero-shot text-to-video retrieval: find the clip that a text was said or written about among all clips.

A clip's embedding is the mean over its windows, a score the dot product of raw embeddings, as MIL-NCE is evaluated
(Miech et al., CVPR 2020, appendix). Figures stand beside what guessing would give.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sayso.caches import is_url
from sayso.errors import ConfigError, CorruptObject, InputError
from sayso.root import Root
from shards.reader import ClipReader, ReaderSettings
from train.evaluate.clips import usable
from train.evaluate.embed import Embedder
from train.evaluate.metrics import RetrievalMetrics, chance, retrieval_metrics
from train.evaluate.pairs import Pair, read_pairs
from train.evaluate.sight import Progress, Seen, counted, seen_in_export, seen_in_root, sight_of
from train.evaluate.videos import Found, videos_in_root
from train.mirror import fetch_model
from train.weights import load_model


class RetrievalResult(RetrievalMetrics):
    """R@K in %, median rank, what guessing gives, and what they rest on."""

    candidates: int
    of: int
    """Clips that were asked about; others have no video here, or begin behind its end."""
    optimistic: RetrievalMetrics
    """The same with ties counted as won."""
    chance: RetrievalMetrics
    videos: Found
    missing: dict[str, str]
    """Videos that were asked for and are not there, and why."""
    windows: int
    model: str
    step: int

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return self.model_dump(mode="json")


def evaluate_retrieval(
    checkpoint: str | Path,
    root: str,
    *,
    pairs: Path | None = None,
    export: str | None = None,
    split: str = "test",
    windows: int = 10,
    device: str = "auto",
    progress: Progress = lambda done, total: None,
) -> RetrievalResult:
    """Evaluate a run's or a model's folder or URL on the pairs of a CSV, or on the split of an export of a root.

    Videos of the CSV that the root does not have are counted in `videos`; the figures rest on those it has. Of an
    export each distinct anchor narration is one candidate. `progress(done, total)` is called for every clip, or
    sample of an export.
    Raises ModelNotFound, InputError, RootError for what the user can mend, CorruptObject for broken media.
    """
    if (pairs is None) == (export is None):
        raise ConfigError("give either a CSV of pairs or the name of an export to evaluate on")
    folder = fetch_model(checkpoint)
    embedder = Embedder(load_model(folder), device)
    sight = sight_of(embedder, published=False)
    opened = Root(root).open()
    if pairs is not None:
        asked = read_pairs(pairs)
        there = sight.fit(videos_in_root((pair.video_id for pair in asked), opened))
        videos, missing, number = there.found, dict(there.missing), len(asked)
        kept = usable(asked, there)
        if not kept:
            raise InputError(f"{pairs}: none of its {videos.of} videos are in {root} ({there.why_not})")
        seen = seen_in_root(kept, there, sight, windows=windows)
        found, video = embed_clips(counted(seen, len(kept), progress))
    else:
        # How clips were brought and decoded where the model was trained (its cache, its decoder) is not asked here.
        every_clip = ReaderSettings(per_video=False)
        reader = ClipReader(f"{opened.url}/shards/{export}", split=split, settings=every_clip, seed=0)
        seen = seen_in_export(reader, sight, windows=windows, progress=progress)
        found, video = first_of_each_text(*embed_clips(seen))
        if reader.broken:  # in training another sample takes a broken one's place; here it would take its text away
            raise CorruptObject(f"{opened.url}/shards/{export}: {reader.broken} broken samples; run `sayso verify`")
        of_videos = len({pair.video_id for pair in found})
        videos, missing, number = Found(found=of_videos, of=of_videos), {}, len(found)
    scores = embedder.texts([pair.text for pair in found]) @ video.T
    return RetrievalResult(
        **retrieval_metrics(scores).model_dump(),
        candidates=len(found),
        of=number,
        optimistic=retrieval_metrics(scores, ties="won"),
        chance=chance(len(found)),
        videos=videos,
        missing=missing,
        windows=sight.looks(windows),
        model=str(checkpoint if is_url(checkpoint) else folder),
        step=embedder.trained.card.step,
    )


def embed_clips(seen: Iterable[Seen]) -> tuple[list[Pair], Tensor]:
    """The pairs, and the embeddings (N, D) of their clips: the mean over what a clip is seen through."""
    pairs, embeddings = [], []
    for pair, looks in seen:
        pairs.append(pair)
        embeddings.append(looks.mean(dim=0))
    return pairs, torch.stack(embeddings)


def first_of_each_text(pairs: list[Pair], embeddings: Tensor) -> tuple[list[Pair], Tensor]:
    """Of the pairs with the same text only the first by video and time: otherwise several clips would be right."""
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i].video_id, pairs[i].start))
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(pairs[index].text, index)
    kept = list(first.values())
    return [pairs[index] for index in kept], embeddings[kept]
