import json
import re
from itertools import pairwise

import pysubs2

from align.captions.parse import parse
from demo.site import captions
from demo.truth import Said, VideoTruth, Word

SENTENCES = [
    (6.0, "First, I wash the carrots & peel them: all of the big ones."),
    (12.0, "Don't hurry!"),
    (13.0, "Then we cut them."),
]


def truth() -> VideoTruth:
    said = []
    for start, text in SENTENCES:
        words = [
            Word(start=start + 0.3 * place, end=start + 0.3 * place + 0.25, text=word)
            for place, word in enumerate(text.split())
        ]
        said.append(Said(start=start, end=words[-1].end, text=text, words=words, step=None))
    return VideoTruth(
        id="abcdefghijk",
        title="t",
        task="t",
        duration=20.0,
        narrator="Anna",
        uploader="u",
        upload_date="20240101",
        view_count=1,
        said=said,
        seen=[],
        sounds=[],
        boxes=[],
    )


HEARD = "first i wash the carrots peel them all of the big ones don't hurry then we cut them"


def test_a_persons_captions_hold_the_sentences_music_and_names() -> None:
    subtitles = pysubs2.SSAFile.from_string(captions.human_vtt(truth()), format_="vtt")
    texts = [event.plaintext.replace("\n", " ").replace("&amp;", "&") for event in subtitles]
    assert texts == ["[Music]", "ANNA: " + SENTENCES[0][1], SENTENCES[1][1], SENTENCES[2][1]]
    assert [event.start for event in subtitles] == [0, 6000, 12000, 13000]


def test_automatic_words_are_lower_case_without_marks_at_their_times() -> None:
    found = {}
    for event in json.loads(captions.automatic_json3(truth()))["events"]:
        for segment in event.get("segs", []):
            if word := segment["utf8"].strip():
                found[event["tStartMs"] + segment.get("tOffsetMs", 0)] = word
    words = [word for said in truth().said for word in said.words if word.text != "&"]
    assert list(found.values()) == HEARD.split()
    assert list(found) == [round(word.start * 1000) for word in words]


def test_json3_lines_roll() -> None:
    """A line lasts until the next one ends, and each but the first is pushed up by a newline that is appended."""
    window, *events = json.loads(captions.automatic_json3(truth()))["events"]
    assert "segs" not in window
    lines = [event for event in events if not event.get("aAppend")]
    newlines = [event for event in events if event.get("aAppend")]
    assert len(newlines) == len(lines) - 1
    assert all(event["segs"] == [{"utf8": "\n"}] for event in newlines)
    for (one, after), newline in zip(pairwise(lines), newlines, strict=True):
        assert newline["tStartMs"] == after["tStartMs"] - 10
        assert one["tStartMs"] + one["dDurationMs"] == newline["tStartMs"] + newline["dDurationMs"]


def test_rolling_webvtt_repeats_each_line_and_times_its_words() -> None:
    text = captions.automatic_vtt(truth())
    blocks = text.strip().split("\n\n")[1:]
    assert len(blocks) % 2 == 0
    times = re.findall(r"(\d\d:\d\d:\d\d\.\d{3}) --> (\d\d:\d\d:\d\d\.\d{3})", text)
    assert all(start < end for start, end in times)
    assert all(end <= start for (_, end), (start, _) in pairwise(times))
    spoken = " ".join(re.sub(r"<[^>]*>", "", block.split("\n")[2]) for block in blocks[::2])
    assert spoken.split() == HEARD.split()
    assert "<00:00:06.300><c> i</c>" in text
    first, second = blocks[1].split("\n")[1], blocks[2].split("\n")[1]
    assert first == second == "first i wash the carrots peel them"


def test_our_own_readers_understand_them() -> None:
    written = (captions.human_vtt(truth()), captions.automatic_vtt(truth()))
    decoded = [parse(text.encode(), "vtt") for text in written]
    decoded.append(parse(captions.automatic_json3(truth()).encode(), "json3"))
    texts = [" ".join(span.text for span in spans if span.kind == "speech") for spans in decoded]
    assert texts == [" ".join(text for _, text in SENTENCES), HEARD, HEARD]


def test_stamps_carry_over() -> None:
    assert captions._stamp(3599.9996) == "01:00:00.000"
