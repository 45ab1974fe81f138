"""What a speech model's figures say of the text it makes, and what the filters of align make of them.

    python benchmarks/junk_text.py FILE...

Prints a line a file: the share of its words that are junk, and the extremes of the figures over its sentences.
The table in docs/alignment.md was made with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from faster_whisper import decode_audio

from align.quality import JUNK, Context, QualitySettings, is_junk, judge
from align.sentences import Sentence, SentenceSettings, sentences
from align.text import words_in
from ingest.transcribe import Listener, TranscribeSettings
from sayso.errors import Skip

CONTEXT = Context(QualitySettings())


def figures(said: list[Sentence]) -> str:
    """The figures of a file's sentences of two words or more, as cells of a table."""
    longer = [each for each in said if len(words_in(each.text)) > 1]
    total = sum(len(words_in(each.text)) for each in said)
    junk = sum(len(words_in(each.text)) for each in said if judge(each, CONTEXT, JUNK))
    confidences = [each.confidence or 0.0 for each in longer]
    no_speech = [each.no_speech or 0.0 for each in longer]
    compressions = [each.compression or 0.0 for each in longer]
    verdict = "junk" if is_junk(said, CONTEXT) else "used"
    return (
        f"| {total} | {min(confidences):.2f} to {max(confidences):.2f} | {max(no_speech):.2f} "
        f"| {max(compressions):.1f} | {junk / total:.0%} | {verdict} |"
    )


def main(paths: list[str]) -> None:
    """Listen to each file and print its line."""
    listener = Listener(TranscribeSettings(device="cpu"))
    print("| file | words | confidence | most no-speech | most compression | junk words | text is |")
    print("|---|---|---|---|---|---|---|")
    for path in map(Path, paths):
        try:
            transcript = listener.listen(decode_audio(str(path)), "benchmark:1")
        except Skip as skip:
            print(f"| {path.name} | 0 | | | | | {skip.reason} |")
            continue
        print(f"| {path.name} {figures(sentences(transcript.spans, SentenceSettings()))}")


if __name__ == "__main__":
    main(sys.argv[1:])
