"""The tokenizer that a GGUF file's metadata stands for: byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`)."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mm_gateway.runtime.checkpoints.gguf.header import GgufHeader
from mm_gateway.runtime.checkpoints.gguf.pre_tokenizers import BEGINS_TEXTS, PRE_TOKENIZERS, WHOLE_WORDS

# Kinds of tokens, as llama.cpp numbers them.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
# Tokens that end a turn, whatever kind the file gives them (llama.cpp overrides it too).
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>")


def tokenizer_of(header: GgufHeader) -> PreTrainedTokenizerFast:
    """The tokenizer with its special tokens and its chat template.

    Raises:
        ValueError: a kind of vocabulary, or a way to cut text, that is not read from GGUF.
    """
    metadata = header.metadata
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    model = metadata.get("tokenizer.ggml.model")
    if model == "gpt2":
        tokenizer = _byte_level(header, tokens)
    elif model == "llama":
        tokenizer = _sentencepiece(header, tokens)
    else:
        raise ValueError(f"{header.file.name} has a vocabulary of the kind {model}, which is not read from GGUF (gpt2 and llama are)")
    _add_tokens(tokenizer, tokens, metadata.get("tokenizer.ggml.token_type") or [])
    special = {
        name: tokens[number] for key, name in _SPECIAL.items() if (number := metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None
    }
    _add_ends_of_text(tokenizer, header, special)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        wrapped.chat_template = template
    return wrapped


def _byte_level(header: GgufHeader, tokens: list[str]) -> Tokenizer:
    pre = str(header.metadata.get("tokenizer.ggml.pre", "gpt-2"))
    if pre not in PRE_TOKENIZERS:
        raise ValueError(f"{header.file.name} cuts its text by the rules of {pre}, which are not known here")
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(tokens), merges=_merges(header), ignore_merges=pre in WHOLE_WORDS, fuse_unk=False))
    splits: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(expression), behavior="isolated") for expression in PRE_TOKENIZERS[pre]
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(header: GgufHeader, tokens: list[str]) -> Tokenizer:
    metadata = header.metadata
    vocabulary = _vocabulary(tokens)
    merges = _merges(header) if "tokenizer.ggml.merges" in metadata else _merges_by_score(tokens, metadata["tokenizer.ggml.scores"])
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token=tokens[unknown] if unknown is not None else None
        )
    )
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    steps: list[decoders.Decoder] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _vocabulary(tokens: list[str]) -> dict[str, int]:
    vocabulary: dict[str, int] = {}
    for index, token in enumerate(tokens):
        vocabulary.setdefault(token, index)  # a text that stands twice is found by its first id, as llama.cpp does
    return vocabulary


def _merges(header: GgufHeader) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for merge in header.metadata["tokenizer.ggml.merges"]:
        # The blank between the halves is never the first character, which may itself be one.
        left, _, right = merge[1:].partition(" ")
        found.append((merge[0] + left, right))
    return found


def _merges_by_score(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """The merges that SentencePiece would try, best score first: every token that is made of two others."""
    known = set(tokens)
    found: list[tuple[float, int, str, str]] = []
    for index, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                found.append((-score, index, left, right))
    found.sort(key=lambda entry: entry[:2])
    return [(left, right) for _, _, left, right in found]


def _add_tokens(tokenizer: Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    """Tokens that are found whole in a text: special ones, and words that were added to the vocabulary."""
    for token, kind in zip(tokens, kinds, strict=False):
        if kind == _CONTROL or token in _ENDS:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])


def _add_ends_of_text(tokenizer: Tokenizer, header: GgufHeader, special: dict[str, str]) -> None:
    """The tokens that every text begins and ends with, as the file says, else as llama.cpp does for its kind of vocabulary."""
    metadata = header.metadata
    begins = metadata.get("tokenizer.ggml.model") == "llama" or metadata.get("tokenizer.ggml.pre") in BEGINS_TEXTS
    before = special.get("bos_token") if metadata.get("tokenizer.ggml.add_bos_token", begins) else None
    after = special.get("eos_token") if metadata.get("tokenizer.ggml.add_eos_token", False) else None
    pieces: list[Any] = [*([before] if before else []), "$A", *([after] if after else [])]
    if len(pieces) == 1:
        return
    ids = [(token, tokenizer.token_to_id(token)) for token in (before, after) if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces), pair=" ".join([*pieces, *([before] if before else []), "$B:1"]), special_tokens=ids
    )
