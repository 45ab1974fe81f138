"""Manifests of pictures with texts: every layout becomes a text with places and pictures; bad rows are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.discover import DiscoverSettings
from ingest.documents import discover_documents, record_pages
from ingest.sites import SiteSettings
from ingest.sources.manifests import LeftOut
from sayso.errors import InputError
from sayso.ids import safe
from sayso.root import Root
from sayso.rows import Page

WEB = "https://pictures.example"


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def taken(*paths: Path, **settings: Any) -> tuple[list[Page], LeftOut]:
    left_out = LeftOut()
    found = list(discover_documents(list(map(str, paths)), left_out, DiscoverSettings(**settings)))
    return found, left_out


def test_a_table_of_captions_gives_captioned_pictures(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text(
        'URL,Caption,language,license,task\n'
        f'{WEB}/a.jpg,"a bowl, with soup",en,CC-BY,make soup\n'
        "pics/b c.png,an <image> of a boat,,,\n"
    )  # fmt: skip
    (first, second), left_out = taken(path, language="de")
    assert (first.text, first.images) == ("<image>a bowl, with soup", [f"{WEB}/a.jpg"])
    assert (first.language, first.licence, first.task_id) == ("en", "CC-BY", safe("make soup"))
    assert second.text == "<image>an   of a boat", "what stands in a caption is no place"
    assert second.images == [(tmp_path / "pics" / "b c.png").as_uri()]
    assert second.language == "de"
    assert not left_out.counts


@pytest.mark.parametrize("order", ["caption first", "url first"])
def test_the_published_conceptual_captions_have_no_header(tmp_path: Path, order: str) -> None:
    cells = ['a "quoted" dog', f"{WEB}/1.jpg"]
    row = "\t".join(cells if order == "caption first" else cells[::-1])
    (tmp_path / "train.tsv").write_text(f"{row}\n{row.replace('dog', 'cat')}\n")
    found, _ = taken(tmp_path / "train.tsv")
    assert [page.text for page in found] == ['<image>a "quoted" dog', '<image>a "quoted" cat']
    assert [page.images for page in found] == [[f"{WEB}/1.jpg"]] * 2


def test_lists_of_pictures_are_sequences_or_stand_at_their_places(tmp_path: Path) -> None:
    rows = [
        {"images": [f"{WEB}/1.jpg", f"{WEB}/2.jpg"], "text": "fold, then turn", "id": "boat 1"},
        {"images": [f"{WEB}/1.jpg", f"{WEB}/2.jpg"], "text": "fold <image> turn <image> done"},
    ]
    found, _ = taken(lines(tmp_path / "pages.jsonl", rows))
    assert [page.text for page in found] == ["<image><image>fold, then turn", "fold <image> turn <image> done"]
    assert found[0].document_id == f"document:{safe('boat 1')}"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pages.parquet")
    again, _ = taken(tmp_path / "pages.parquet")
    assert [(page.text, page.images, page.document_id) for page in again] == [
        (page.text, page.images, page.document_id) for page in found
    ]


def test_a_folder_of_manifests_gives_all_of_them_whatever_the_case_of_their_columns(tmp_path: Path) -> None:
    for part in range(3):
        rows = [{"URL": f"{WEB}/{part}.jpg", "TEXT": f"words {part}", "NSFW": "UNLIKELY"}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"part-{part}.parquet")
    (tmp_path / "readme.txt").write_text("not one")
    found, _ = taken(tmp_path)
    assert [page.text for page in found] == [f"<image>words {part}" for part in range(3)]


def test_the_published_interleaved_layouts_are_known(tmp_path: Path) -> None:
    obelics = {"images": [None, f"{WEB}/1.jpg", None, f"{WEB}/2.jpg"], "texts": ["First.", None, "Then.", None]}
    mmc4 = {
        "url": "https://page.example/",
        "text_list": ["One.", "Two.", "Three."],
        "image_info": [
            {"raw_url": f"{WEB}/c.jpg", "matched_text_index": 2, "matched_sim": 0.3},
            {"raw_url": f"{WEB}/a.jpg", "matched_text_index": 0, "matched_sim": 0.3},
        ],
        "similarity_matrix": [[0.1]],
    }
    found, left_out = taken(lines(tmp_path / "pages.jsonl", [obelics, mmc4]))
    assert [page.text for page in found] == [
        "First.\n\n<image>\n\nThen.\n\n<image>",
        "<image>One. Two. <image>Three.",
    ]
    assert [page.images for page in found] == [
        [f"{WEB}/1.jpg", f"{WEB}/2.jpg"],
        [f"{WEB}/a.jpg", f"{WEB}/c.jpg"],
    ]
    assert not left_out.counts


BAD: list[tuple[Any, str]] = [
    ({"images": [f"{WEB}/1.jpg"], "text": "<image> and <image>"}, "places"),
    ({"images": [f"{WEB}/1.jpg"], "texts": ["a", "b"]}, "places"),
    ({"text_list": ["a"], "image_info": [{"raw_url": f"{WEB}/1.jpg", "matched_text_index": 7}]}, "places"),
    ({"images": [], "text": "nothing to see"}, "no_images"),
    ({"images": [3], "text": "a number"}, "no_images"),
    ({"images": f"{WEB}/1.jpg", "text": "no list"}, "not_a_list"),
    ({"url": f"{WEB}/1.jpg", "caption": " "}, "no_text"),
    ({"url": None, "caption": "words"}, "no_images"),
    ({"url": "ftp://pictures.example/1.jpg", "caption": "words"}, "bad_url"),
    ({"url": "http://127.0.0.1/1.jpg", "caption": "words"}, "private_address"),
    ({"url": f"{WEB}/1.jpg", "caption": "half \ud83d"}, "no_text"),
    ({"image": {"bytes": "abc", "path": None}, "caption": "words"}, "no_text"),
    ("{", "not_a_row"),
    ([1, 2], "not_a_row"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_row_that_cannot_be_used_is_counted_and_the_rest_is_taken(tmp_path: Path, row: Any, reason: str) -> None:
    good = {"url": f"{WEB}/1.jpg", "caption": "good"}
    path = lines(tmp_path / "pages.jsonl", [good, row, {**good, "caption": "better"}])
    found, left_out = taken(path)
    assert [page.text for page in found] == ["<image>good", "<image>better"]
    assert left_out.counts == {reason: 1}
    (example,) = left_out.examples
    assert example.startswith(f"{path}, line 2: ")
    with pytest.raises(InputError, match="no row can be used"):
        taken(lines(tmp_path / "bad.jsonl", [row]))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "x.csv",
            "link,title\nhttps://a.example/,x\n",
            r"no known columns \(found: link, title\); give url and caption",
        ),
        ("x.csv", "", "holds no rows"),
        ("x.jsonl", "", "holds no rows"),
        ("x.jsonl", b"\xff\xfe", "not UTF-8"),
        ("x.parquet", "junk", "not a Parquet file"),
        ("x.txt", "https://a.example/1.jpg\n", "no manifest by its name"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, name: str, text: str | bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=says) as caught:
        taken(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_there_is_named_before_any_is_read(tmp_path: Path) -> None:
    good = lines(tmp_path / "a.jsonl", [{"url": f"{WEB}/1.jpg", "caption": "good"}])
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        next(discover_documents([str(good), str(tmp_path / "gone.csv")], LeftOut()))


def test_ids_stay_when_the_folder_moves_and_change_with_what_is_in_it(tmp_path: Path) -> None:
    found = []
    for name, data in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(data)
        pages, _ = taken(lines(tmp_path / name / "m.jsonl", [{"image": "1.jpg", "text": "words"}]))
        found.append(pages[0].document_id)
    assert found[0] == found[1] != found[2]


def test_recording_adds_what_is_new(root: Root, tmp_path: Path) -> None:
    rows = [{"url": f"{WEB}/{number}.jpg", "caption": "words"} for number in range(5)]
    given = str(lines(tmp_path / "pages.jsonl", [*rows[:3], rows[0]]))
    first = record_pages(root, discover_documents([given], LeftOut()))
    assert (first.new, first.known) == (3, 1)
    given = str(lines(tmp_path / "pages.jsonl", rows))
    again = record_pages(root, discover_documents([given], LeftOut()))
    assert (again.new, again.known) == (2, 3)
    assert sorted(page.images[0] for page in root.table(Page).rows()) == [row["url"] for row in rows]


def test_killed_between_two_commits_of_documents(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"url": f"{WEB}/{number}.jpg", "caption": "words"} for number in range(25)]
    given = str(lines(tmp_path / "pages.jsonl", rows))
    monkeypatch.setattr("ingest.documents._COMMIT_ROWS", 10)

    def killed() -> Iterator[Page]:
        yield from islice(discover_documents([given], LeftOut()), 15)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_pages(root, killed())
    assert len(root.table(Page).keys()) == 10
    again = record_pages(root, discover_documents([given], LeftOut()))
    assert (again.new, again.known) == (15, 10)
    assert sorted(page.images[0] for page in root.table(Page).rows()) == sorted(row["url"] for row in rows)


def test_the_limit_is_kept(tmp_path: Path) -> None:
    rows = [{"url": f"{WEB}/{number}.jpg", "caption": "words"} for number in range(5)]
    assert len(taken(lines(tmp_path / "pages.jsonl", rows), limit=2)[0]) == 2


def test_private_addresses_may_be_allowed(tmp_path: Path) -> None:
    path = lines(tmp_path / "pages.jsonl", [{"url": "http://127.0.0.1/1.jpg", "caption": "words"}])
    found = list(discover_documents([str(path)], LeftOut(), sites=SiteSettings(allow_private=True)))
    assert found[0].images == ["http://127.0.0.1/1.jpg"]
