"""Plans a world: which task a video shows, which steps of it, who says what and when it is seen.

Speech comes first: the sentences of a video follow one another with pauses; every step then begins up to `offset`
seconds before or after its own first sentence. Sentences about nothing that is seen are spread between them.
All randomness comes from `random.Random(text)` with texts made of the seed, so a plan is a function of its settings.
"""

import base64
import datetime
import hashlib
import random
from collections.abc import Set
from dataclasses import dataclass

from demo.look import look_of
from demo.motion import sound_span
from demo.objects import SHADES
from demo.settings import WorldSettings
from demo.speech import clips
from demo.truth import FPS, Said, Seen, Sound, VideoTruth, Word
from demo.vocabulary import (
    ACTORS,
    FAREWELLS,
    GREETINGS,
    NARRATORS,
    TASKS,
    describe,
    split_step,
    step_sentences,
    unseen_sentences,
)

SECONDS_A_STEP = 7.2
LEAD, PAUSE, TAIL = 0.8, 0.3, 0.8  # least silence before, between and after the sentences
SILENT_STEP = 2.5  # how long the narrator stays silent for a step that is not told
LEAST_APART, LONGEST_STEP = 3.7, 11.0  # from the beginning of a step to that of the next; a step at most
BETWEEN = (0.2, 0.6)  # between the end of a step and the beginning of the next
TITLES = ("How to {}", "{} with me", "{}, step by step", "The easy way to {}", "Watch me {}")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence of the script (or, without text, a silent step) before it has its time."""

    text: str
    step: int | None
    opens: bool = False  # whether its step begins near it


def plan_videos(settings: WorldSettings) -> list[VideoTruth]:
    """Plan every video of a world; boxes are left empty (see demo.world.plan_world).

    What the last quarter of the videos shows is also shown in the first three quarters, so that these can be trained
    on and the last quarter held out.
    """
    trained = settings.videos - settings.videos // 4
    tasks = _task_order(settings)
    truths = [_plan_video(settings, index, tasks[index], None) for index in range(trained)]
    covered = frozenset(f"{seen.action} {seen.object}" for truth in truths for seen in truth.seen)
    truths += [_plan_video(settings, index, tasks[index], covered) for index in range(trained, settings.videos)]
    return truths


def video_id(seed: int, index: int) -> str:
    """An id of 11 characters [A-Za-z0-9_-], as big sites have."""
    digest = hashlib.sha256(f"demo world {seed}, video {index}".encode()).digest()
    return base64.urlsafe_b64encode(digest)[:11].decode()


def _task_order(settings: WorldSettings) -> list[str]:
    """Every task once, in random order, and again, until there are enough."""
    draw = random.Random(f"{settings.seed}/tasks")
    order: list[str] = []
    while len(order) < settings.videos:
        order += draw.sample(sorted(TASKS), len(TASKS))
    return order[: settings.videos]


def _plan_video(settings: WorldSettings, index: int, task: str, allowed: Set[str] | None) -> VideoTruth:
    draw = random.Random(f"{settings.seed}/{index}/plan")
    name = video_id(settings.seed, index)
    narrator, actor = draw.choice(NARRATORS), draw.choice(ACTORS)
    target = draw.uniform(settings.min_duration, settings.max_duration)
    steps = _choose_steps(draw, task, round(target / SECONDS_A_STEP), allowed)
    script = _write_script(draw, steps, settings.noise)
    while len(steps) > 1 and _least_duration(script, narrator) > settings.max_duration:
        steps = steps[:-1]
        script = _write_script(draw, steps, settings.noise)
    while len(script) > 1 and _least_duration(script, narrator) > settings.max_duration:
        script.pop(next((k for k, line in enumerate(script) if not line.opens), len(script) - 1))
    duration = round(max(target, _least_duration(script, narrator) + 0.04) * FPS) / FPS
    starts = _time_lines(draw, script, narrator, duration)
    seen = _place_steps(draw, steps, script, starts, duration, actor, settings.offset)
    pace = look_of(name).pace
    published = datetime.date(2024, 1, 1) + datetime.timedelta(days=draw.randrange(700))
    title = draw.choice(TITLES).format(task)
    return VideoTruth(
        id=name,
        title=title[0].upper() + title[1:],
        task=task,
        duration=duration,
        narrator=narrator,
        uploader=f"{narrator}'s workshop",
        upload_date=published.strftime("%Y%m%d"),
        view_count=draw.randrange(200, 2_000_000),
        said=[_say(line, narrator, start) for line, start in zip(script, starts, strict=True) if line.text],
        seen=seen,
        sounds=[_hear(one, pace) for one in seen],
        boxes=[],
    )


def _choose_steps(draw: random.Random, task: str, count: int, allowed: Set[str] | None) -> list[str]:
    """Some steps of a task: some missing, and in a quarter of the videos two neighbours swapped."""
    possible = [step for step in TASKS[task] if allowed is None or step in allowed] or list(TASKS[task])
    count = max(1, min(count, len(possible)))
    steps = [possible[k] for k in sorted(draw.sample(range(len(possible)), count))]
    if count > 1 and draw.random() < 0.25:
        k = draw.randrange(count - 1)
        steps[k], steps[k + 1] = steps[k + 1], steps[k]
    return steps


def _write_script(draw: random.Random, steps: list[str], noise: float) -> list[Line]:
    """About two sentences a step, a share `noise` of them about nothing that is seen."""
    total = 2 * len(steps)
    unseen = round(noise * total)
    told = draw.sample(range(len(steps)), min(total - unseen, len(steps)))
    again = draw.sample(range(len(steps)), total - unseen - len(told))
    talk = _small_talk(draw, unseen)
    blocks: list[list[Line]] = []
    for k, step in enumerate(steps):
        first, second = draw.sample(step_sentences(step), 2)
        blocks.append([Line(text=first if k in told else "", step=k, opens=True)])
        if k in again:
            blocks[-1].append(Line(text=second, step=k))
    turns = draw.sample(range(len(steps)), len(steps))
    for k, text in enumerate(talk[1:-1] if unseen > 1 else []):
        block = blocks[turns[k % len(steps)]]
        block.insert(draw.randrange(1, len(block) + 1), Line(text=text, step=None))
    opening = [Line(text=text, step=None) for text in talk[:1]]
    closing = [Line(text=text, step=None) for text in talk[1:][-1:]]
    return opening + [line for block in blocks for line in block] + closing


def _small_talk(draw: random.Random, count: int) -> list[str]:
    """Sentences about nothing that is seen: a greeting first, a farewell last, no sentence twice if possible."""
    if count < 2:
        return [draw.choice(GREETINGS)][:count]
    pool = unseen_sentences()
    middle = draw.sample(pool, min(count - 2, len(pool)))
    return [draw.choice(GREETINGS), *middle, draw.choice(FAREWELLS)]


def _length(line: Line, narrator: str) -> float:
    return clips()[narrator, line.text].duration if line.text else SILENT_STEP


def _pauses(script: list[Line], narrator: str) -> list[float]:
    """The least silence after each line: so long that steps can begin LEAST_APART from each other."""
    pauses: list[float] = []
    since_opening = 0.0
    for line, following in zip(script, [*script[1:], None], strict=True):
        since_opening = (0.0 if line.opens else since_opening) + _length(line, narrator)
        least = TAIL if following is None else PAUSE
        if following is None or following.opens:
            least = max(least, LEAST_APART - since_opening)
        pauses.append(least)
        since_opening += least
    return pauses


def _least_duration(script: list[Line], narrator: str) -> float:
    return LEAD + sum(_length(line, narrator) for line in script) + sum(_pauses(script, narrator))


def _time_lines(draw: random.Random, script: list[Line], narrator: str, duration: float) -> list[float]:
    """When each line begins: what the least pauses leave of the duration goes to random longer ones."""
    spare = duration - _least_duration(script, narrator)
    weights = [draw.uniform(0.2, 1.0) for _ in range(len(script) + 1)]
    starts, now = [], LEAD
    for line, pause, weight in zip(script, _pauses(script, narrator), weights, strict=False):
        now += spare * weight / sum(weights)
        starts.append(round(now, 3))
        now += _length(line, narrator) + pause
    return starts


def _place_steps(
    draw: random.Random,
    steps: list[str],
    script: list[Line],
    starts: list[float],
    duration: float,
    actor: str,
    offset: float,
) -> list[Seen]:
    """When each step is seen: it begins within `offset` of the line that opens it and lasts until near the next."""
    begins: list[float] = []
    for line, start in zip(script, starts, strict=True):
        if line.opens:
            earliest = begins[-1] + LEAST_APART if begins else 0.4
            begins.append(max(start - draw.uniform(-offset, offset), earliest))
    latest = duration - 0.2
    for k in reversed(range(len(begins))):
        begins[k] = latest = min(begins[k], latest - LEAST_APART + 0.2)
    seen: list[Seen] = []
    for k, (step, begin) in enumerate(zip(steps, begins, strict=True)):
        last_line = max(start for line, start in zip(script, starts, strict=True) if line.step == k)
        after = begins[k + 1] - draw.uniform(*BETWEEN) if k + 1 < len(begins) else duration - 0.2
        end = min(after, max(begin + LONGEST_STEP, last_line))
        action, thing = split_step(step)
        colour = draw.choice(list(SHADES[thing]))
        who = actor if draw.random() < 0.8 else ACTORS[1 - ACTORS.index(actor)]
        seen.append(
            Seen(start=round(begin, 3), end=round(end, 3), step=k, action=action, object=thing, colour=colour,
                 actor=who, description=describe(step))
        )  # fmt: skip
    return seen


def _say(line: Line, narrator: str, start: float) -> Said:
    clip = clips()[narrator, line.text]
    words = [
        Word(start=round(start + word.start, 3), end=round(start + word.end, 3), text=word.text) for word in clip.words
    ]
    return Said(start=start, end=round(start + clip.duration, 3), text=line.text, words=words, step=line.step)


def _hear(seen: Seen, pace: float) -> Sound:
    start, end = sound_span(seen, pace)
    return Sound(start=round(start, 3), end=round(end, 3), action=seen.action)
