"""Preference data for the demo: written from templates here, so that no download is needed.

Rows have the format ``ranked``, in four subsets named as those of the paper's HH-RLHF and about as large
relative to one another. The English is simple and its vocabulary closed, so that a model of one or two
million parameters learns to write it within minutes. Nobody rated the answers: their scores follow rules.

A score is the sum of

====  ===================================================================
+2    names the task that was asked for (harmful requests: declines it)
+1    for each step of advice (harmful requests: for the alternative)
+1    gives a reason
+0.5  is polite
-1    says a sentence twice
-2    answers another question
-3    goes along with a harmful request
====  ===================================================================

plus a seeded jitter of less than 0.1, which no rule is smaller than. A row has 2 to 4 answers of different
kinds, best first by score. Row i depends on the seed and i alone: fewer rows are a prefix of more.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUBSETS = {
    "harmless-base": 42_536,
    "helpful-base": 43_835,
    "helpful-online": 22_002,
    "helpful-rejection-sampled": 52_420,
}
"""Subset -> its number of samples in the paper (Table 1), here a weight."""


class Task(NamedTuple):
    """Something that a user wants to do, with what a good answer needs."""

    action: str
    steps: tuple[str, str, str]
    reason: str


class Harm(NamedTuple):
    """Something that a user should not be helped with."""

    action: str
    reason: str
    alternative: str


class Answer(NamedTuple):
    """An answer and the points that the rules give it."""

    text: str
    points: float


_BASE = (
    Task("bake bread", ("mix the flour with warm water", "let the dough rest for an hour",
                        "bake it until the top is brown"), "the rest makes the bread soft"),
    Task("cook rice", ("wash the rice in cold water", "use two cups of water for one cup of rice",
                       "keep the lid on while it cooks"), "the steam cooks the rice through"),
    Task("make tea", ("boil fresh water", "warm the pot before you use it",
                      "let the leaves stand for three minutes"),
         "fresh water keeps the taste clear"),
    Task("clean a window", ("wipe away the dust first", "use warm water with a little soap",
                            "dry the glass with a soft cloth"), "a soft cloth leaves no marks"),
    Task("grow tomatoes", ("put the plants in a sunny place", "water them early in the day",
                           "tie the stems to a stick"), "the sun makes the fruit sweet"),
    Task("wash a wool shirt", ("use cold water", "add a little mild soap", "dry it flat on a towel"),
         "hot water makes wool small"),
    Task("paint a wall", ("clean the wall first", "cover the floor with old paper",
                          "paint from the top down"),
         "a clean wall holds the paint well"),
    Task("fix a bike", ("turn the bike over", "check the chain and the tires", "put oil on the chain"),
         "a clean chain moves easily"),
    Task("make soup", ("cut the vegetables small", "cook the onions in oil first", "add salt at the end"),
         "the onions give the soup its taste"),
    Task("store apples", ("keep only the good apples", "put them in a cool room",
                          "leave some space between them"),
         "one bad apple spoils the rest"),
    Task("plant a tree", ("dig a wide hole", "loosen the roots with your hands", "water the tree every week"),
         "loose roots find water fast"),
    Task("clean a pan", ("fill the pan with warm water", "wait for ten minutes", "wipe it with a soft brush"),
         "warm water loosens the food"),
)  # fmt: skip

_ONLINE = (
    Task("learn new words", ("write five words on small cards", "read them aloud every morning",
                             "use each word in a sentence"), "we remember words that we use"),
    Task("write a letter", ("say why you write in the first line", "keep your sentences short",
                            "read it once before you send it"), "short sentences are easy to read"),
    Task("prepare for a test", ("make a plan for each day", "solve old tests", "sleep well the night before"),
         "a rested mind works better"),
    Task("give a talk", ("choose three main points", "practice in front of a friend", "speak slowly"),
         "people remember only a few points"),
    Task("save money", ("write down what you spend", "set a limit for each week",
                        "put some money away first"),
         "you only save what you can see"),
    Task("find a job", ("write a clear list of your skills", "ask people you know",
                        "send a short letter to each company"), "many jobs are found through friends"),
    Task("read more books", ("keep a book near your bed", "read ten pages every evening",
                             "stop reading books that bore you"), "small habits last longer"),
    Task("take good notes", ("write the main idea first", "use your own words",
                             "read the notes on the same day"),
         "your own words are easy to remember"),
    Task("learn the piano", ("practice for twenty minutes every day", "play with one hand first",
                             "count the beat aloud"), "short practice every day works best"),
    Task("plan a week", ("list all your tasks", "do the hard task first", "leave one evening free"),
         "free time gives you new strength"),
    Task("work in a team", ("listen before you speak", "agree on who does what", "meet once a week"),
         "clear tasks prevent trouble"),
    Task("back up my files", ("copy the files to a second disk", "do it every week",
                              "test one copy now and then"),
         "a copy that was never tested may fail"),
)  # fmt: skip

_SAMPLED = (
    Task("pack for a trip", ("make a list", "roll your clothes", "put heavy things at the bottom"),
         "rolled clothes need less space"),
    Task("sleep better", ("go to bed at the same time", "keep the room dark and cool",
                          "put your phone away an hour before"), "the body likes a fixed time"),
    Task("start running", ("walk for five minutes first", "run slowly at the start", "rest every second day"),
         "the body needs time to grow strong"),
    Task("train a dog", ("use short words", "give a treat at once", "practice a little every day"),
         "a dog learns from quick rewards"),
    Task("take good photos", ("keep the sun behind you", "hold the camera with both hands",
                              "go close to the subject"),
         "good light makes a good photo"),
    Task("make new friends", ("join a club near you", "ask people about their day", "meet again soon"),
         "people like those who listen"),
    Task("visit a museum", ("come early in the morning", "choose two rooms that you like",
                            "take a break after an hour"),
         "too many rooms make you tired"),
    Task("swim well", ("breathe out under water", "keep your legs straight", "take one lesson a week"),
         "calm breathing saves strength"),
    Task("eat more vegetables", ("put vegetables on half of the plate", "try one new kind each week",
                                 "keep cut carrots in the fridge"), "we eat what is easy to reach"),
    Task("camp in the woods", ("look at the weather first", "put the tent on flat ground",
                               "keep food away from the tent"), "flat ground stays dry"),
    Task("learn to dance", ("listen to the beat", "learn one step at a time", "practice with a friend"),
         "the feet follow what the ear knows"),
    Task("choose a gift", ("think of what the person likes", "set a price", "add a short note"),
         "a note shows that you care"),
)  # fmt: skip

_HARMS = (
    Harm("read the messages of my sister", "it breaks her trust", "ask her to talk with you"),
    Harm("steal a bike", "it hurts the owner", "borrow a bike from a friend"),
    Harm("copy the answers in a test", "it is not fair to the others", "study with a friend"),
    Harm("break into a house", "it is a crime", "call the owner and ask"),
    Harm("spread a lie about my neighbor", "lies hurt people", "tell your neighbor what bothers you"),
    Harm("scare a child", "the child would be hurt", "tell the child a funny story"),
    Harm("sell a broken car as new", "the buyer could be hurt", "tell the buyer the truth"),
    Harm("follow a stranger home", "it frightens people", "say hello in a safe place"),
    Harm("send a mean note to my teacher", "mean words hurt", "write down calmly what went wrong"),
    Harm("drive home after drinking", "someone could die", "take a bus or a taxi"),
    Harm("damage the car of my boss", "it is a crime", "speak with your boss about the problem"),
    Harm("laugh at a boy in my class", "it makes him feel alone", "invite him to sit with you"),
    Harm("guess the password of a friend", "it is private", "ask your friend for help"),
    Harm("hide a letter from my mother", "the letter is hers", "give her the letter and talk"),
    Harm("poison the plants next door", "it kills living things", "ask for a fence between the gardens"),
    Harm("take money from the shop where I work", "it is theft", "ask for more hours"),
)  # fmt: skip

_TASKS = {"helpful-base": _BASE, "helpful-online": _ONLINE, "helpful-rejection-sampled": _SAMPLED}

_QUESTIONS = (
    "How do I {action}?",
    "How can I {action}?",
    "I want to {action}. What should I do?",
    "Can you tell me how to {action}?",
    "What is the best way to {action}?",
    "Please help me to {action}.",
    "I have to {action}. Where do I start?",
    "Do you know how to {action}?",
)
_SETTINGS = (
    "",
    "I live in a small town. ",
    "I have little time. ",
    "I am new at this. ",
    "It is late in the evening. ",
    "My friend asked me about this. ",
    "I have tried once before. ",
    "I am at home today. ",
    "It is a rainy day. ",
    "I am a student. ",
    "I talked about this with my brother. ",
    "I have thought about this all week. ",
)
_WISHES = (
    "",
    " Keep it short.",
    " I need an answer today.",
    " Thank you.",
    " Be honest.",
    " Use simple words.",
)

_POLITE = (
    "I am glad to help.",
    "That is a good question.",
    "Thank you for asking.",
    "Of course, I can help.",
)
_KIND_NO = ("I am sorry.", "I understand that you are upset.", "Thank you for telling me.")
_CURT = ("I do not know.", "Look it up.", "It depends.", "Just try it.", "No idea.", "Whatever you like.")
_COMPLY = ("Sure, go ahead.", "Yes, nobody will notice.", "Do it at night.", "Good idea, have fun.")


def generate(samples: int, seed: int) -> Iterator[dict[str, Any]]:
    """``samples`` rows of format ``ranked``: ``id``, ``subset``, ``prompt``, ``responses`` best first.

    A prompt is a string, in ``helpful-online`` a list of messages (an earlier question, its answer, and the
    question to be answered). Each response is ``{"text", "score"}``.
    """
    for index in range(samples):
        rng = random.Random(f"{seed}:{index}")
        subset = rng.choices(tuple(SUBSETS), weights=tuple(SUBSETS.values()))[0]
        row = _harmless(rng) if subset == "harmless-base" else _helpful(subset, rng)
        yield {"id": f"demo-{index:06d}", "subset": subset, **row}


def without_scores(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same rows with responses as plain strings, best first: data that only people ranked."""
    for row in rows:
        yield {**row, "responses": [response["text"] for response in row["responses"]]}


def write_jsonl(path: Path, samples: int, seed: int) -> None:
    """Write :func:`generate`'s rows to a file, one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in generate(samples, seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _helpful(subset: str, rng: random.Random) -> dict[str, Any]:
    task, other = rng.sample(_TASKS[subset], 2)
    answers = [
        _full_answer(task, rng),
        _steps_answer(task, rng),
        _brief_answer(task, rng),
        _repeating_answer(task, rng),
        _off_topic_answer(other, rng),
        Answer(rng.choice(_CURT), 0.0),
    ]
    question = _ask(task.action, rng)
    if subset != "helpful-online":
        return {"prompt": question, "responses": _rank(answers, rng)}
    earlier = rng.choice([known for known in _TASKS[subset] if known not in (task, other)])
    messages = [
        {"role": "user", "content": _ask(earlier.action, rng)},
        {"role": "assistant", "content": _full_answer(earlier, rng).text},
        {"role": "user", "content": question},
    ]
    return {"prompt": messages, "responses": _rank(answers, rng)}


def _harmless(rng: random.Random) -> dict[str, Any]:
    harm = rng.choice(_HARMS)
    decline = f"I will not help you to {_yours(harm.action)}"
    because = f"{decline}, because {harm.reason}."
    alternative = f"You could {harm.alternative}."
    answers = [
        Answer(f"{rng.choice(_KIND_NO)} {because} {alternative}", 4.5),
        Answer(f"{because} {alternative}", 4.0),
        Answer(because, 3.0),
        Answer(f"{decline}.", 2.0),
        Answer(f"{decline}. {decline}.", 1.0),
        Answer(rng.choice(_CURT), 0.0),
        Answer(rng.choice(_COMPLY), -3.0),
    ]
    return {"prompt": _ask(harm.action, rng), "responses": _rank(answers, rng)}


def _ask(action: str, rng: random.Random) -> str:
    return rng.choice(_SETTINGS) + rng.choice(_QUESTIONS).format(action=action) + rng.choice(_WISHES)


def _yours(action: str) -> str:
    """The user's words turned to the user: "my files" becomes "your files"."""
    turned = {"my": "your", "I": "you", "me": "you"}
    return " ".join(turned.get(word, word) for word in action.split())


def _full_answer(task: Task, rng: random.Random) -> Answer:
    first, second = _two_steps(task, rng)
    text = f"{rng.choice(_POLITE)} To {_yours(task.action)}, {first}. Then {second}, because {task.reason}."
    return Answer(text, 5.5)


def _steps_answer(task: Task, rng: random.Random) -> Answer:
    first, second = _two_steps(task, rng)
    return Answer(f"To {_yours(task.action)}, {first}. Then {second}.", 4.0)


def _brief_answer(task: Task, rng: random.Random) -> Answer:
    return Answer(f"To {_yours(task.action)}, {rng.choice(task.steps)}.", 3.0)


def _repeating_answer(task: Task, rng: random.Random) -> Answer:
    sentence = f"To {_yours(task.action)}, {rng.choice(task.steps)}."
    return Answer(f"{sentence} {sentence}", 2.0)


def _off_topic_answer(other: Task, rng: random.Random) -> Answer:
    first, second = _two_steps(other, rng)
    sentence = f"You should {first}. Then {second}, because {other.reason}."
    return Answer(sentence, 1.0)


def _two_steps(task: Task, rng: random.Random) -> tuple[str, str]:
    """Two of the three steps, in the order in which they are done."""
    first, second = sorted(rng.sample(range(3), 2))
    return task.steps[first], task.steps[second]


def _rank(answers: list[Answer], rng: random.Random) -> list[dict[str, Any]]:
    """2 to 4 of the answers with their scores, best first."""
    chosen = rng.sample(answers, rng.randint(2, 4))
    scored = [
        {"text": answer.text, "score": round(answer.points + rng.uniform(-0.09, 0.09), 3)}
        for answer in chosen
    ]
    return sorted(scored, key=lambda response: -response["score"])


def main() -> None:
    """``python -m deft_client.demo_data FILE``: write the demo's data to a file."""
    parser = argparse.ArgumentParser(prog="python -m deft_client.demo_data", description=main.__doc__)
    parser.add_argument("file", type=Path, help="JSONL file to write")
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--seed", type=int, default=42)
    parsed = parser.parse_args()
    write_jsonl(parsed.file, parsed.samples, parsed.seed)


if __name__ == "__main__":
    main()
