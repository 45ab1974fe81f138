"""Zero-shot text-to-video retrieval: find the clip that a text was said or written about among all clips.

A clip's embedding is the mean over its windows, a score the dot product of raw embeddings, as MIL-NCE is evaluated
(Miech et al., CVPR 2020, appendix). Figures stand beside what guessing would give.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sayso.errors import ConfigError, InputError
from sayso.root import Root
from shards.reader import ClipReader
from train.data import frames_to_device
from train.evaluate.clips import Seen, clips_in_export, clips_in_root, videos_in_root
from train.evaluate.metrics import RetrievalMetrics, chance, retrieval_metrics
from train.evaluate.pairs import Pair, read_pairs
from train.run import latest_model
from train.weights import Trained, load_model

Progress = Callable[[int, int], None]
TEXTS_AT_ONCE = 1024


class Found(BaseModel):
    """How many of the videos that were asked for are there."""

    model_config = ConfigDict(frozen=True)

    found: int
    of: int


class RetrievalResult(RetrievalMetrics):
    """R@K in %, median rank, what guessing gives, and what they rest on."""

    candidates: int
    chance: RetrievalMetrics
    videos: Found
    windows: int
    model: str
    step: int

    def to_json(self) -> dict[str, Any]:
        """As a mapping of plain values."""
        return self.model_dump(mode="json")


def evaluate_retrieval(
    checkpoint: Path,
    root: str,
    *,
    pairs: Path | None = None,
    export: str | None = None,
    split: str = "test",
    windows: int = 10,
    device: str = "auto",
    progress: Progress | None = None,
) -> RetrievalResult:
    """Evaluate a run's folder or a model's folder on the pairs of a CSV, or on the split of an export of a root.

    Videos of the CSV that the root does not have are counted in `videos`; the figures rest on those it has. Of an
    export each distinct anchor narration is one candidate. `progress(done, total)` is called for every clip.
    Raises ModelNotFound, InputError, RootError for what the user can mend, CorruptObject for broken media.
    """
    if (pairs is None) == (export is None):
        raise ConfigError("give either a CSV of pairs or the name of an export to evaluate on")
    folder = latest_model(checkpoint)
    trained, place = load_model(folder), _device(device)
    trained.model.to(place)
    opened = Root(root).open()
    if pairs is not None:
        asked = read_pairs(pairs)
        media = videos_in_root(asked, opened)
        videos = Found(found=len(media), of=len({pair.video_id for pair in asked}))
        if not media:
            raise InputError(f"{pairs}: none of its {videos.of} videos are in {root}")
        total = sum(pair.video_id in media for pair in asked)
        seen = clips_in_root(asked, media, opened, trained.card.clips, windows=windows)
        found, video = embed_clips(trained, seen, place, total, progress)
    else:
        every_clip = trained.card.clips.model_copy(update={"per_video": False})
        reader = ClipReader(f"{opened.url}/shards/{export}", split=split, settings=every_clip, seed=0)
        seen = clips_in_export(reader, every_clip, windows=windows)
        found, video = embed_clips(trained, seen, place, reader.samples, progress)
        found, video = first_of_each_text(found, video)
        number = len({pair.video_id for pair in found})
        videos = Found(found=number, of=number)
    scores = embed_texts(trained, [pair.text for pair in found], place) @ video.T
    return RetrievalResult(
        **retrieval_metrics(scores).model_dump(),
        candidates=len(found),
        chance=chance(len(found)),
        videos=videos,
        windows=windows,
        model=str(folder),
        step=trained.card.step,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@torch.inference_mode()
def embed_clips(
    trained: Trained, seen: Iterable[Seen], device: torch.device, total: int, progress: Progress | None = None
) -> tuple[list[Pair], Tensor]:
    """The pairs, and the embeddings (N, D) of their clips: the mean over a clip's windows."""
    pairs, embeddings = [], []
    for pair, windows in seen:
        pairs.append(pair)
        embeddings.append(trained.model.video(frames_to_device(windows, device))["embedding"].mean(dim=0).cpu())
        if progress:
            progress(len(pairs), total)
    return pairs, torch.stack(embeddings)


@torch.inference_mode()
def embed_texts(trained: Trained, texts: Sequence[str], device: torch.device) -> Tensor:
    """The embeddings (N, D) of sentences."""
    tokens = torch.split(trained.vocabulary.encode(texts), TEXTS_AT_ONCE)
    return torch.cat([trained.model.text(part.to(device)).cpu() for part in tokens])


def first_of_each_text(pairs: list[Pair], embeddings: Tensor) -> tuple[list[Pair], Tensor]:
    """Of the pairs with the same text only the first by video and time: otherwise several clips would be right."""
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i].video_id, pairs[i].start))
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(pairs[index].text, index)
    kept = list(first.values())
    return [pairs[index] for index in kept], embeddings[kept]
