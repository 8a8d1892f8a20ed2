"""What one request may hold: each count, size and range once, for clients over HTTP and for callers in Python.

Lists are bounded so that no request keeps the others waiting. The bounds leave room for agents, which send hundreds of messages,
a hundred tools and more than a dozen stop strings.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_MESSAGES = 8192
"""Of one conversation."""
MAX_CONTENT_PARTS = 1024
"""Of one message."""
MAX_TOOLS = 128
MAX_TOOL_CALLS = 512
"""Of one message."""
MAX_CONVERSATION_TOOL_CALLS = 8192
"""Of all messages of a conversation."""
MAX_ITEMS = 16_384
"""Of one conversation of /v1/responses; a call and its output are two items."""
MAX_DOCUMENTS = 1024
MAX_SUBJECT_CHARACTERS = 32_768
"""Of the question of search-qa and the topic of lesson-pack."""
MAX_PROMPTS = 2048
"""Texts of one request, each counted `n` or `best_of` times."""
MAX_TOKEN_IDS = 2**18
"""Of one prompt, and of /detokenize."""
MAX_EMBEDDING_TOKENS = 300_000
"""Of all inputs of one request for embeddings together, as at OpenAI."""
MAX_STOP_STRINGS = 64
MAX_STOP_CHARACTERS = 1024
"""Of one stop string."""
MAX_STOP_TOKEN_IDS = 1024
MAX_BAD_WORDS = 256
MAX_BAD_WORD_CHARACTERS = 128
"""Of one word."""
MAX_LOGIT_BIAS = 8192
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_LOGPROB_ENTRIES = 2**20
"""Choices times tokens times log-probabilities of a token, which are `top_logprobs` and the sampled one."""
MAX_GUIDED_CHOICES = 8192
MAX_METADATA = 16
MAX_METADATA_KEY_CHARACTERS = 64
MAX_METADATA_VALUE_CHARACTERS = 512
MAX_JSON_VALUES = 1_000_000
"""Of one body."""
MAX_JSON_OBJECTS = 250_000
"""Texts, lists and objects of one body: they take ten times as long to decode as numbers."""
MAX_JSON_DEPTH = 100
"""Lists and objects inside each other, in a body and in the arguments of a call."""

MaxTokens = Annotated[int, Meta(ge=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
TopK = Annotated[int, Meta(ge=-1)]
MinP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=10)]
# msgspec compares with 64 signed bits only. `core.ranges` reads the upper bound, which JSON schema has a word for.
Seed = Annotated[int, Meta(ge=-(2**63), extra_json_schema={"maximum": 2**64 - 1})]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
TopLogprobs = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARACTERS)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
"""Added to a logit."""
TokenId = Annotated[int, Meta(ge=0)]
BadWord = Annotated[str, Meta(min_length=1, max_length=MAX_BAD_WORD_CHARACTERS)]
