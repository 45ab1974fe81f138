"""The site's captions, written from the truth in the formats that big sites give out.

A person's captions are WebVTT sentences with the marks that people put in (`[Music]`, `ANNA:`). Automatic captions are
lower-case words without punctuation in lines that roll: a new line pushes the one before up, and both stay on the
screen. They come as json3 (events with word offsets) and as WebVTT with inline word times, where every line is
repeated in the cue after it.
"""

import json
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from demo.truth import VideoTruth, Word

WORDS_A_LINE = 7
LINE_BREAK_PAUSE = 1.5  # a pause this long ends a line of automatic captions
LINE_STAYS = 3.5  # a line that nothing follows stays this long after its last word began
MUSIC_PAUSE = 4.0  # a person marks a pause this long as music
NAME_EVERY = 4  # a person writes the speaker's name before every fourth sentence
ROLL = 0.010  # automatic captions roll 10 ms before the next line begins

Line = tuple[float, float, list[Word]]  # start, end and words of one line of automatic captions


def human_vtt(truth: VideoTruth) -> str:
    """Return a person's captions as WebVTT: one cue a sentence, names before some, music where nobody speaks."""
    cues: list[tuple[float, float, str]] = []
    heard_until = 0.0
    for index, said in enumerate(truth.said):
        if said.start - heard_until >= MUSIC_PAUSE or (index == 0 and said.start >= 0.5):
            cues.append((heard_until, said.start, "[Music]"))
        name = f"{truth.narrator.upper()}: " if index % NAME_EVERY == 0 else ""
        cues.append((said.start, said.end, "\n".join(textwrap.wrap(name + said.text, 42))))
        heard_until = max(heard_until, said.end)
    return _webvtt(f"{_stamp(start)} --> {_stamp(end)}\n{_escape(text)}" for start, end, text in cues)


def automatic_json3(truth: VideoTruth) -> str:
    """Return automatic captions as json3: a window event, then for each line its words and the newline before it.

    A line's event lasts until the line after it ends, since both are on the screen; events therefore overlap.
    """
    lines = list(_lines(truth))
    events: list[dict[str, object]] = [
        {"tStartMs": 0, "dDurationMs": round(truth.duration * 1000), "id": 1, "wpWinPosId": 1, "wsWinStyleId": 1}
    ]
    for index, (start, end, words) in enumerate(lines):
        if index:
            events.append(_newline(start, end))
        last_seen = lines[index + 1][1] if index + 1 < len(lines) else end
        events.append(
            {
                "tStartMs": round(start * 1000),
                "dDurationMs": round((last_seen - start) * 1000),
                "wWinId": 1,
                "segs": [_segment(word, start, first=word is words[0]) for word in words],
            }
        )
    head = {
        "wireMagic": "pb3",
        "pens": [{}],
        "wsWinStyles": [{}, {"mhModeHint": 2, "juJustifCode": 0, "sdScrollDir": 3}],
        "wpWinPositions": [{}, {"apPoint": 6, "ahHorPos": 20, "avVerPos": 100, "rcRows": 2, "ccCols": 40}],
    }
    return json.dumps({**head, "events": events}, indent=1)


def automatic_vtt(truth: VideoTruth) -> str:
    """Return automatic captions as rolling WebVTT: a cue that adds a line with word times, then 10 ms of it alone."""
    return _webvtt(_rolling_cues(list(_lines(truth))), head="WEBVTT\nKind: captions\nLanguage: en")


def _rolling_cues(lines: list[Line]) -> Iterator[str]:
    place = " align:start position:0%"
    above = " "
    for index, (start, end, words) in enumerate(lines):
        text = " ".join(_heard(word) for word in words)
        timed = _heard(words[0]) + "".join(f"<{_stamp(word.start)}><c> {_heard(word)}</c>" for word in words[1:])
        yield f"{_stamp(start)} --> {_stamp(end)}{place}\n{above}\n{timed}"
        rolls_on = index + 1 < len(lines) and lines[index + 1][0] - end <= 2 * ROLL
        above = text if rolls_on else " "
        yield f"{_stamp(end)} --> {_stamp(end + ROLL)}{place}\n{above}\n "


def _lines(truth: VideoTruth) -> Iterator[Line]:
    """Yield the lines of the automatic captions: a few words each, ended early by a pause."""
    words = [word for said in truth.said for word in said.words if _heard(word)]
    lines: list[list[Word]] = []
    for word in words:
        if not lines or len(lines[-1]) == WORDS_A_LINE or word.start - lines[-1][-1].end >= LINE_BREAK_PAUSE:
            lines.append([])
        lines[-1].append(word)
    nexts = [after[0].start - ROLL for _, after in pairwise(lines)]
    for line, rolls_at in zip(lines, [*nexts, truth.duration - ROLL], strict=False):
        yield line[0].start, max(line[0].start + ROLL, min(rolls_at, line[-1].start + LINE_STAYS)), line


def _segment(word: Word, line_start: float, *, first: bool) -> dict[str, object]:
    if first:
        return {"utf8": _heard(word), "acAsrConf": 0}
    return {"utf8": f" {_heard(word)}", "tOffsetMs": round((word.start - line_start) * 1000), "acAsrConf": 0}


def _newline(start: float, end: float) -> dict[str, object]:
    start_ms = round((start - ROLL) * 1000)
    return {
        "tStartMs": start_ms,
        "dDurationMs": round(end * 1000) - start_ms,
        "wWinId": 1,
        "aAppend": 1,
        "segs": [{"utf8": "\n"}],
    }


def _heard(word: Word) -> str:
    """Return the word as a recogniser without punctuation writes it."""
    return re.sub(r"[^\w'\-]", "", word.text).strip("'-").lower()


def _webvtt(cues: Iterator[str], *, head: str = "WEBVTT") -> str:
    return "\n\n".join([head, *cues]) + "\n"


def _stamp(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{milliseconds:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
