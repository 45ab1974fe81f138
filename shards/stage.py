"""The stage `shard`: one planned shard -> its tar and index; before the first the plan, after the last the manifest.

proxies (each opened once) -> clips in a scratch file ┐
pictures of documents                                 ┤
features of videos, pooled                            ┴-> tar in the plan's order -> read back -> published
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from sayso.errors import CorruptObject, Permanent
from sayso.root import Root
from sayso.rows import Media, Plan, PlannedSample, Row, Shard, StoredObject
from sayso.stage import Stage
from sayso.storage import hash_file, no_space_named
from shards.cut import Clip, Proxy, SoundTrack, Source
from shards.manifest import publish_manifest
from shards.plan import plan_export
from shards.settings import ShardSettings
from shards.verify import problems_of_tar
from shards.write import (
    Sample,
    index_tar,
    sample_of,
    sample_of_document,
    sample_of_features,
    write_index,
    write_tar,
)

# Pictures are small, and a remote store answers each after a while. Features of a video may be some ten megabytes.
_READERS = 8
_DOCUMENTS_AHEAD = 32
_VIDEOS_AHEAD = 4


def _objects_of(sample: PlannedSample) -> Sequence[StoredObject]:
    """What a sample is made of that is not cut from a proxy: pictures of a document, or features."""
    return sample.images or sample.features or ()


class MakeShards(Stage[Plan, Shard]):
    """Make the tar and the index of each planned shard of an export. Made again, they have the same bytes."""

    name: ClassVar[str] = "shard"
    reads: ClassVar[type[Row]] = Plan
    writes: ClassVar[type[Row]] = Shard
    # Which videos are copies, and which lie in a shard together, is said of all of them at once.
    whole: ClassVar[bool] = True

    def __init__(self, root: Root, settings: ShardSettings) -> None:
        """`settings` name the export that is planned and made; other exports of the root are left alone."""
        super().__init__(root)
        self.settings = settings

    def begin(self) -> None:
        """Plan what is not planned yet. Killed at any moment it leaves nothing half done: see plan_export."""
        plan_export(self.root, self.settings)

    def end(self) -> None:
        """Publish the export's manifest, if it has shards.

        Readers take one object of it, written whole and last; a run that is killed before it leaves them the manifest
        of fewer shards, and the next one writes this.
        """
        if self.root.table(Shard).read(["shard"], export=self.settings.export).num_rows:
            publish_manifest(self.root, self.settings.export)

    def input_keys(self) -> pa.StringArray:
        """The keys of the export's planned shards."""
        keys = super().input_keys()
        return keys.filter(pc.starts_with(keys, f"{self.settings.export}/"))

    def inputs(self, keys: Collection[str]) -> Iterator[Plan]:
        """The planned shards with these keys, as far as they are of the export."""
        prefix = f"{self.settings.export}/"
        shards = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
        return self.root.table(Plan).rows(export=self.settings.export, shard=shards)

    def time_limit(self, row: Plan) -> float:
        """Two minutes, and half a second a sample, or an object that it is made of."""
        return 120.0 + 0.5 * sum(max(1, len(_objects_of(sample))) for sample in row.samples)

    def video_seconds(self, row: Plan, made: Sequence[Shard]) -> float:
        """Seconds of video in the windows."""
        return sum(sample.end - sample.start for sample in row.samples)

    def __call__(self, row: Plan) -> Sequence[Shard]:
        """Make, check and publish one shard.

        Raises Permanent("corrupt_proxy") where a proxy is missing, is not what its row says or cannot be cut,
        Permanent("corrupt_picture") where a document's picture is missing or is not what its row said,
        Permanent("corrupt_features") of the same of features, and Permanent("no_media") where a video has no row in
        table media any more.
        """
        with tempfile.TemporaryDirectory(prefix="sayso-") as name, no_space_named(name):
            folder = Path(name)
            tar, index = folder / "shard.tar", folder / "index.parquet"
            of_objects = row.kind in ("image", "document", "features")
            write_tar(self._of_objects(row) if of_objects else self._samples(row, folder / "clips"), tar)
            read_back = index_tar(tar)
            self._check(row, tar, read_back)
            write_index(read_back, index)
            return [self._publish(row, tar, index, read_back)]

    def _of_objects(self, row: Plan) -> Iterator[Sample]:
        """The samples that are made of objects as they are stored, in the plan's order."""
        kind = row.kind or "document"
        features = kind == "features"
        corrupt, ahead = ("corrupt_features", _VIDEOS_AHEAD) if features else ("corrupt_picture", _DOCUMENTS_AHEAD)
        with ThreadPoolExecutor(_READERS) as readers:
            for first in range(0, len(row.samples), ahead):
                some = row.samples[first : first + ahead]
                read = readers.map(partial(self._object, corrupt), [o for sample in some for o in _objects_of(sample)])
                for sample in some:
                    objects = list(islice(read, len(_objects_of(sample))))
                    yield self._of_features(sample, objects) if features else sample_of_document(sample, objects, kind)

    def _of_features(self, sample: PlannedSample, streams: Sequence[bytes]) -> Sample:
        try:
            return sample_of_features(sample, streams)
        except CorruptObject as error:
            raise Permanent("corrupt_features", str(error)) from None

    def _object(self, corrupt: str, stored: StoredObject) -> bytes:
        try:
            data = self.root.storage.read(stored.key)
        except FileNotFoundError:
            raise Permanent(corrupt, f"{stored.key}: missing") from None
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise Permanent(corrupt, f"{stored.key}: not the bytes that its row says")
        return data

    def _samples(self, row: Plan, scratch: Path) -> Iterator[Sample]:
        """The samples in the plan's order. Clips are cut video by video, so that each proxy is fetched once."""
        extension = "m4a" if row.kind == "audio" else "mp4"
        places: dict[str, tuple[int, int, Clip]] = {}
        with scratch.open("wb") as file:
            for sample, clip in self._clips(row):
                places[sample.key] = (file.tell(), len(clip.data), Clip(b"", clip.start, clip.end))
                file.write(clip.data)
        with scratch.open("rb") as file:
            for sample in row.samples:
                offset, size, clip = places[sample.key]
                file.seek(offset)
                yield sample_of(sample, Clip(file.read(size), clip.start, clip.end), extension)
        scratch.unlink()

    def _clips(self, row: Plan) -> Iterator[tuple[PlannedSample, Clip]]:
        by_video: dict[str, list[PlannedSample]] = defaultdict(list)
        for sample in row.samples:
            by_video[sample.video_id].append(sample)
        media = {found.video_id: found for found in self.root.table(Media).rows(video_id=by_video)}
        for video_id, samples in by_video.items():
            if video_id not in media:
                raise Permanent("no_media", f"{row.shard}: {video_id} is planned but not in table media")
            cutter: type[Source] = SoundTrack if row.kind == "audio" else Proxy
            yield from self._cut(media[video_id], sorted(samples, key=lambda sample: sample.start), cutter)

    def _cut(
        self, media: Media, samples: list[PlannedSample], cutter: type[Source]
    ) -> Iterator[tuple[PlannedSample, Clip]]:
        with ExitStack() as opened:
            try:
                path = opened.enter_context(self.root.storage.local(media.key))
            except FileNotFoundError:
                raise Permanent("corrupt_proxy", f"{media.key}: missing") from None
            # Hashed here and not by Storage.check, so that a remote proxy is read once.
            if hash_file(path) != (media.sha256, media.bytes):
                raise Permanent("corrupt_proxy", f"{media.key}: not the bytes that its row says")
            try:
                proxy = cutter(path)
                opened.enter_context(proxy)
                for sample in samples:
                    yield sample, proxy.cut(sample.start, sample.end)
            except CorruptObject as error:
                raise Permanent("corrupt_proxy", f"{media.key}: {error}") from None

    def _check(self, row: Plan, tar: Path, index: pa.Table) -> None:
        """A shard that is not whole must not be published: what was written is read back and its media opened."""
        if index["key"].to_pylist() != [sample.key for sample in row.samples]:
            raise CorruptObject(f"{row.shard}: written with other samples than planned")
        problems = problems_of_tar(tar, index)
        if problems:
            raise CorruptObject(f"{row.shard}: {problems[0]}")

    def _publish(self, row: Plan, tar: Path, index: Path, read_back: pa.Table) -> Shard:
        prefix = f"shards/{row.export}/{row.shard}"
        stored_tar = self.root.storage.put_file(tar, f"{prefix}.tar")
        stored_index = self.root.storage.put_file(index, f"{prefix}.index.parquet")
        seconds = pc.sum(pc.subtract(read_back["clip_end"], read_back["clip_start"])).as_py()
        return Shard(
            export=row.export,
            shard=row.shard,
            split=row.split,
            version=row.version,
            key=stored_tar.key,
            sha256=stored_tar.sha256,
            bytes=stored_tar.bytes,
            index_key=stored_index.key,
            index_sha256=stored_index.sha256,
            index_bytes=stored_index.bytes,
            samples=read_back.num_rows,
            seconds=round(seconds, 3),
            video_ids=sorted(set(read_back["video_id"].to_pylist())),
        )
