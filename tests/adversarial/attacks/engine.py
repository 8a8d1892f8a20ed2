"""What a model that answers has to bear: tight memory, echo, cancels, many who wait, loads and unloads."""

from __future__ import annotations

import asyncio

from tests.adversarial.attack import CHAT, COMPLETIONS, OK, SERVED_OR_REFUSED, Attack, Json, Target, asking, chat, posting

STREAM = {"stream": True}


async def _shared_prefix(target: Target) -> list[int]:
    """Room for one context: a conversation that is kept idle, then one that shares less than half of it."""
    beginning = "The same beginning of twenty and more words, said again and again, so that it is worth keeping for those who come. "
    statuses = []
    for i in range(4):
        statuses.append(await target.post(CHAT, chat(beginning + f"word{i} " * 90, "tight", max_tokens=4)))
        statuses += await target.posts(CHAT, [chat(beginning + f"other{i}{j} " * 60, "tight", max_tokens=16) for j in range(4)])
    return statuses


async def _preempted_echo(target: Target) -> list[int]:
    """More at a time than fits, so that some lose their place while prompts are scored and while they decode."""
    prompts = [f"{i} is a number, and so is the next one, of which more is said here. " * (2 + i % 4) for i in range(16)]
    bodies = [
        {
            "model": "tight",
            "prompt": prompt,
            "max_tokens": 60,
            "echo": True,
            "logprobs": 2,
            "n": 1 + i % 2,
            "temperature": 1.0,
            "ignore_eos": True,
        }
        for i, prompt in enumerate(prompts)
    ]
    return await target.posts(COMPLETIONS, bodies)


async def _everything_at_once(target: Target) -> list[int]:
    """Grammars, choices, penalties, log-probabilities, hang-ups, in too little memory."""
    bodies: list[Json] = []
    for i in range(24):
        body = chat(f"Question {i}: " + "word " * (i * 7 % 120), "tight", max_tokens=8 + i * 5 % 80, n=1 + i % 3, seed=i, temperature=1.5)
        match i % 4:
            case 0:
                body |= {"guided_regex": "[0-9 ]{40,60}"}
            case 1:
                body |= {"logprobs": True, "top_logprobs": 20, "presence_penalty": 2}
            case 2:
                body |= {"response_format": {"type": "json_object"}, "stream": True}
            case _:
                body |= {"logit_bias": {str(j): 3 for j in range(300)}, "stop": ["the", "."]}
        bodies.append(body)
    hang_ups = [target.hang_up(CHAT, body | STREAM, after_bytes=200) for body in bodies[::3]]
    statuses, _ = await asyncio.gather(target.posts(CHAT, bodies), asyncio.gather(*hang_ups))
    return statuses


async def _cancels(target: Target) -> list[int]:
    story = asking("Tell me a story", max_tokens=500, ignore_eos=True)
    for _ in range(4):
        hang_ups = [target.hang_up(CHAT, story | STREAM, after_bytes=300) for _ in range(15)]
        hang_ups += [target.hang_up(CHAT, story, after_s=0.05 * i) for i in range(15)]
        await asyncio.gather(*hang_ups)
    return [await target.post(CHAT, asking())]


async def _cancelled_choices(target: Target) -> list[int]:
    many = {"model": "tiny-chat", "prompt": "Once", "max_tokens": 400, "ignore_eos": True}
    await asyncio.gather(
        *(target.hang_up(COMPLETIONS, many | {"n": 128}, after_s=1.0) for _ in range(3)),
        *(target.hang_up(COMPLETIONS, many | {"best_of": 128}, after_s=1.0) for _ in range(3)),
    )
    return [await target.post(CHAT, asking())]


async def _waiting_on_a_prefix(target: Target) -> list[int]:
    """A thousand that begin alike, and room to run for 64."""
    beginning = "All of us begin with the very same words, and there are many of them. " * 30
    return await target.posts(CHAT, [asking(beginning + str(i), max_tokens=2) for i in range(1000)])


async def _beyond_every_queue(target: Target) -> list[int]:
    return await target.posts(CHAT, [asking(f"{i}", max_tokens=1) for i in range(1500)])


async def _pin_use_unpin(target: Target) -> list[int]:
    """`brief` has a TTL of half a second, which must count again."""
    statuses = [
        await target.admin("brief", "pin"),
        await target.post(CHAT, chat(model="brief", max_tokens=2)),
        await target.admin("brief", "unpin"),
    ]
    async with asyncio.timeout(20):
        while (await target.client.get("/v1/models/brief")).json()["state"] in ("ready", "loading"):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.2)
    return statuses


async def _load_and_unload(target: Target) -> list[int]:
    actions = ["load", "unload", "pin", "unpin"] * 6
    done, statuses = await asyncio.gather(
        asyncio.gather(*(target.admin("brief", action) for action in actions)),
        target.posts(CHAT, [chat(model="brief", max_tokens=20) for _ in range(12)]),
    )
    return [*done, *statuses, await target.admin("brief", "unpin")]


async def _unload_under_streams(target: Target) -> list[int]:
    hang_ups = [target.hang_up(CHAT, chat(model="brief", max_tokens=300, ignore_eos=True, stream=True), after_bytes=2000) for _ in range(8)]
    statuses, *_ = await asyncio.gather(asyncio.gather(*(target.admin("brief", "unload") for _ in range(8))), *hang_ups)
    return [*statuses, await target.post(CHAT, chat(model="brief", max_tokens=2))]


async def _strange_admin(target: Target) -> list[int]:
    names = ["nobody", "mock", "tiny-chat%00", "../../etc", "a" * 5000, "%F0%9F%98%80", "mm-orch/search-qa", "tiny-chat/load"]
    return [await target.admin(name, action) for name in names for action in ("load", "unpin", "explode")]


ENGINE = (
    Attack("H1 room for one context, and beginnings in common", _shared_prefix, OK, limit_s=120),
    Attack("H2, H3 echo with log-probabilities, preempted", _preempted_echo, OK, limit_s=180, quick=True),
    Attack("H1 to H3 everything at once in room for one context", _everything_at_once, OK, limit_s=180),
    Attack("H9 pinned, used, unpinned: the TTL counts again", _pin_use_unpin, OK, quick=True),
    Attack("S9 1,000 wait on one beginning", _waiting_on_a_prefix, OK | {429}, limit_s=300, pause_s=20),
    Attack("S9 1,500 chats at a time", _beyond_every_queue, OK | {429}, limit_s=300, pause_s=20),
    posting(
        "S10 penalties of 128 choices",
        lambda: asking(n=128, presence_penalty=1, frequency_penalty=1, repetition_penalty=1.5, max_tokens=30),
        OK,
        limit_s=120,
    ),
    posting("S11 a template of loops in loops", lambda: chat(model="loops", max_tokens=2), quick=True),
    posting("S11 a template that fills memory", lambda: chat(model="wide", max_tokens=2), quick=True),
    posting("S11 a template that calls itself", lambda: chat(model="deep", max_tokens=2)),
    posting("S11 a template that counts to a power", lambda: chat(model="power", max_tokens=2)),
    posting("S11 a template that doubles a text", lambda: chat(model="doubling", max_tokens=2)),
    Attack("cancels: 120 hang up", _cancels, OK, limit_s=120, quick=True),
    Attack("cancels: 768 choices hang up", _cancelled_choices, OK, limit_s=120),
    Attack("admin: loads, unloads and pins at a time", _load_and_unload, SERVED_OR_REFUSED | {503}, limit_s=180),
    Attack("admin: unloaded under streams", _unload_under_streams, SERVED_OR_REFUSED | {503}, limit_s=180),
    Attack("admin: names of nobody", _strange_admin, frozenset({400, 404, 200}), quick=True),
)
