"""What a benchmark asks a server: how many clients, and request bodies that are the same in every run; knows nothing of sockets."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import msgspec

Endpoint = Literal["chat", "completions"]

# Common words that the usual byte-level vocabularies hold as one token each, space included.
_TEXT = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what all were
we when your can said there use an each which she do how their if will up other about out many then them these so some her would
make like him into time has look two more write go see number no way could people my than first water been call who now find long
down day did get come made may part over new sound take only little work know place year live me back give most very after thing
our just name good sentence man think say great where help through much before line right too mean old any same tell boy follow
came want show also around form three small set put end does another well large must big even such because turn here why ask went
men read need land different home us move try kind hand picture again change off play spell air away animal house point page
letter mother answer found study still learn should world
"""
WORDS = tuple(_TEXT.split())


@dataclass(frozen=True)
class Workload:
    """A closed loop: each client sends its next request when the last one is answered.

    Attributes:
        clients: requests in flight. requests: in all, beside `warmup` requests that are not measured.
        prompt_tokens: words of each prompt; a word is one token in common vocabularies, what the server counted is reported.
        output_tokens: asked for as `max_tokens`.
        shared_prefix: words at the start that all prompts have in common; the rest is each one's own.
        seed: of the prompts; another seed gives prompts that no earlier run has left in a server's prefix cache.
        ignore_eos: send that extension, so that outputs have full length with any model.
    """

    clients: int = 16
    requests: int = 64
    prompt_tokens: int = 64
    output_tokens: int = 64
    shared_prefix: int = 0
    seed: int = 0
    endpoint: Endpoint = "completions"
    ignore_eos: bool = False
    warmup: int = 2

    def __post_init__(self) -> None:
        if min(self.clients, self.requests, self.prompt_tokens, self.output_tokens) < 1 or self.warmup < 0:
            raise ValueError("clients, requests, prompt and output tokens are at least 1, warmup at least 0")
        if not 0 <= self.shared_prefix <= self.prompt_tokens:
            raise ValueError(f"the shared prefix is between 0 and prompt_tokens ({self.prompt_tokens}), got {self.shared_prefix}")

    @property
    def path(self) -> str:
        return "/chat/completions" if self.endpoint == "chat" else "/completions"

    def prompt(self, index: int) -> str:
        """The text of request `index`; negative indices are the warm-up's."""
        shared = random.Random(f"{self.seed}/shared").choices(WORDS, k=self.shared_prefix)
        own = random.Random(f"{self.seed}/{index}").choices(WORDS, k=self.prompt_tokens - self.shared_prefix)
        return " " + " ".join(shared + own)

    def body(self, index: int, model: str) -> bytes:
        """The request as JSON: greedy and streamed, with usage."""
        body: dict[str, object] = {
            "model": model,
            "max_tokens": self.output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": self.prompt(index)}]
        else:
            body["prompt"] = self.prompt(index)
        if self.ignore_eos:
            body["ignore_eos"] = True
        return msgspec.json.encode(body)
