"""What people do in the demo world: actions, objects, tasks with an order of steps, and what narrators say.

Every sentence that a narrator can say is listed here and was spoken once by `demo.make_speech`.
"""

from dataclasses import dataclass

NARRATORS = ("Nora", "Otto")
ACTORS = ("Ada", "Ben")


@dataclass(frozen=True, kw_only=True)
class Action:
    """A kind of action: its words, and the sentences that tell of it while it is seen."""

    past: str
    sentences: tuple[str, str, str, str]


ACTIONS: dict[str, Action] = {
    "cut": Action(
        past="cut",
        sentences=(
            "Now we cut the {} into small pieces.",
            "Cut the {} with a sharp knife.",
            "Next I cut the {} into thin slices.",
            "I always cut the {} slowly, so watch your fingers.",
        ),
    ),
    "peel": Action(
        past="peeled",
        sentences=(
            "Now we peel the {} from end to end.",
            "Peel the {} and throw the skin away.",
            "Next I peel the {} with this little peeler.",
            "When you peel the {}, keep the strips thin.",
        ),
    ),
    "wash": Action(
        past="washed",
        sentences=(
            "Now we wash the {} under cold water.",
            "Wash the {} until it is really clean.",
            "Next I wash the {} with a soft sponge.",
            "You should wash the {} well on every side.",
        ),
    ),
    "pour": Action(
        past="poured",
        sentences=(
            "Now we pour the {} into the bowl.",
            "Pour the {} slowly and do not spill it.",
            "Next I pour the {} in one long stream.",
            "Take your time and pour the {} gently.",
        ),
    ),
    "stir": Action(
        past="stirred",
        sentences=(
            "Now we stir the {} with a wooden spoon.",
            "Stir the {} round and round.",
            "Next I stir the {} until it is smooth.",
            "Keep the spoon moving and stir the {} all the time.",
        ),
    ),
    "fold": Action(
        past="folded",
        sentences=(
            "Now we fold the {} in half.",
            "Fold the {} over and line up the edges.",
            "Next I fold the {} from right to left.",
            "Take one side and fold the {} over the other.",
        ),
    ),
    "roll": Action(
        past="rolled",
        sentences=(
            "Now we roll the {} until it is flat.",
            "Roll the {} with the rolling pin.",
            "Next I roll the {} from side to side.",
            "Use both hands and roll the {} nice and even.",
        ),
    ),
    "press": Action(
        past="pressed",
        sentences=(
            "Now we press the {} down firmly.",
            "Press the {} with all your weight.",
            "Next I press the {} and hold it for a moment.",
            "Push straight down and press the {} again.",
        ),
    ),
    "hammer": Action(
        past="hammered",
        sentences=(
            "Now we hammer the {} in three places.",
            "Hammer the {} with short hard hits.",
            "Next I hammer the {} right in the middle.",
            "Watch your thumb when you hammer the {}.",
        ),
    ),
    "tighten": Action(
        past="tightened",
        sentences=(
            "Now we tighten the {} with a wrench.",
            "Tighten the {} until nothing moves.",
            "Next I tighten the {} half a turn at a time.",
            "Turn the wrench to the right and tighten the {}.",
        ),
    ),
    "paint": Action(
        past="painted",
        sentences=(
            "Now we paint the {} from top to bottom.",
            "Paint the {} with a wide brush.",
            "Next I paint the {} in a bright new color.",
            "Dip the brush and paint the {} with slow strokes.",
        ),
    ),
    "shake": Action(
        past="shook",
        sentences=(
            "Now we shake the {} up and down.",
            "Shake the {} as hard as you can.",
            "Next I shake the {} for a few seconds.",
            "Hold on tight and shake the {} again.",
        ),
    ),
}

OBJECTS = (
    "carrot",
    "onion",
    "potato",
    "soup",
    "dough",
    "milk",
    "shirt",
    "paper",
    "door",
    "chair",
    "wheel",
    "box",
)

# A task is its steps in their usual order, each "action object".
TASKS: dict[str, tuple[str, ...]] = {
    "make carrot soup": (
        "wash carrot",
        "peel carrot",
        "cut carrot",
        "peel onion",
        "cut onion",
        "pour milk",
        "stir soup",
        "pour soup",
    ),
    "make potato dumplings": (
        "wash potato",
        "peel potato",
        "cut potato",
        "press potato",
        "stir dough",
        "roll dough",
        "stir soup",
        "pour soup",
    ),
    "bake bread": (
        "shake milk",
        "pour milk",
        "stir dough",
        "press dough",
        "fold dough",
        "roll dough",
        "cut dough",
    ),
    "pack a shirt": (
        "wash shirt",
        "shake shirt",
        "press shirt",
        "fold shirt",
        "roll shirt",
        "fold paper",
        "shake box",
    ),
    "repair a chair": (
        "wash chair",
        "hammer chair",
        "tighten chair",
        "hammer door",
        "tighten door",
        "paint door",
        "paint chair",
    ),
    "restore a wagon": (
        "wash door",
        "hammer door",
        "paint door",
        "wash wheel",
        "hammer wheel",
        "tighten wheel",
        "paint wheel",
    ),
    "make a gift box": (
        "cut paper",
        "press paper",
        "fold paper",
        "roll paper",
        "hammer box",
        "paint box",
        "shake box",
    ),
    "cook onion stew": (
        "peel onion",
        "wash onion",
        "cut onion",
        "peel carrot",
        "cut potato",
        "shake milk",
        "stir soup",
        "pour soup",
    ),
}

STEPS: tuple[str, ...] = tuple(sorted({step for steps in TASKS.values() for step in steps}))

# Said but not seen: other times and other places.
ELSEWHERE = (
    "Earlier today I {past} the {object} at home.",
    "Last week my sister {past} the {object} for me.",
    "In another video we {past} the {object} together.",
    "Yesterday somebody {past} the {object} all morning.",
)

CHATTER = (
    "Hello and welcome back to my channel.",
    "Hi everyone, it is good to see you again.",
    "Good morning, and thank you for being here.",
    "Please subscribe to my channel.",
    "My grandmother taught me this many years ago.",
    "I really love doing this on a rainy day.",
    "Let me know in the comments what you think.",
    "This is one of my favorite parts.",
    "Do not worry if it is not perfect.",
    "It took me a long time to learn this.",
    "My neighbors ask me about it every summer.",
    "Believe me, this is easier than it looks.",
    "The weather outside is wonderful today.",
    "I bought these things at the market last week.",
    "My kids always want to help me with this.",
    "Many people have asked me about this.",
    "You can find the full list below the video.",
    "Sometimes I listen to music while I work.",
    "This is how we did it when I was young.",
    "I think that looks really nice already.",
    "We still have a lot to do today.",
    "Thank you to everyone who sent me a message.",
    "A friend of mine does it in another way.",
    "You only need a few simple things for this.",
    "I made a big mistake the first time.",
    "Somebody wrote that they tried it last winter.",
    "That is the secret of the whole thing.",
    "I have done this more than a hundred times.",
    "My dog is sleeping under the table.",
    "It is almost time for lunch.",
    "Do you remember the last video?",
    "I like to take my time with these things.",
    "There is a train going by, I am sorry for the noise.",
    "We will have guests this evening.",
    "I learned this from a book in the library.",
    "If you have a question, just ask me.",
    "My uncle gave me this table.",
    "Some people say that you should wait a day.",
    "I am so happy with how this is going.",
    "Remember to take a break from time to time.",
    "The next video will be about my garden.",
    "My phone is ringing, but I will not answer it.",
    "Maybe you know a better way to do it.",
    "I always feel happy when I do this.",
    "It smells like spring in here.",
    "That was the hardest part of the job.",
    "Good things take a little patience.",
    "I will show you everything from the beginning.",
    "That is all for today, see you next time.",
    "Thank you for watching and goodbye.",
)
GREETINGS, FAREWELLS = CHATTER[:3], CHATTER[-2:]


def split_step(step: str) -> tuple[str, str]:
    """The action and the object of a step, e.g. ("cut", "carrot")."""
    action, thing = step.split()
    return action, thing


def describe(step: str) -> str:
    """The description of a step as a person would search for it, e.g. "cut the carrot"."""
    action, thing = split_step(step)
    return f"{action} the {thing}"


def step_sentences(step: str) -> tuple[str, ...]:
    """The sentences that tell of a step while it is seen."""
    action, thing = split_step(step)
    return tuple(sentence.format(thing) for sentence in ACTIONS[action].sentences)


def elsewhere_sentence(step: str) -> str:
    """A sentence that mentions a step which happened at another time or place."""
    action, thing = split_step(step)
    template = ELSEWHERE[STEPS.index(step) % len(ELSEWHERE)]
    return template.format(past=ACTIONS[action].past, object=thing)


def unseen_sentences() -> tuple[str, ...]:
    """All sentences that are said but not seen, greetings and farewells left out."""
    small_talk = CHATTER[len(GREETINGS) : -len(FAREWELLS)]
    return small_talk + tuple(elsewhere_sentence(step) for step in STEPS)


def all_sentences() -> tuple[str, ...]:
    """Every sentence that a narrator can say, in a fixed order."""
    seen = tuple(sentence for step in STEPS for sentence in step_sentences(step))
    return seen + tuple(elsewhere_sentence(step) for step in STEPS) + CHATTER
