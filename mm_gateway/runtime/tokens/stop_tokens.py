"""Which tokens end a text, from what a checkpoint's files say; every source counts, because checkpoints differ in which they fill."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def stop_token_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *texts: str) -> frozenset[int]:
    """End-of-sequence ids of generation_config, config and tokenizer, and the ids of `texts` where the vocabulary has them as one token."""
    found: set[int] = set()
    for holder in (model.generation_config, model.config, tokenizer):
        source = getattr(holder, "eos_token_id", None)
        found.update(entry for entry in (source if isinstance(source, (list, tuple)) else [source]) if isinstance(entry, int))
    # Qwen v1's own name for the same; longer ones end a text as a sequence, which the chat template's stops cover.
    for words in getattr(model.generation_config, "stop_words_ids", None) or ():
        if isinstance(words, list) and len(words) == 1:
            found.add(int(words[0]))
    vocabulary = tokenizer.get_vocab()
    found.update(vocabulary[text] for text in texts if text in vocabulary)
    return frozenset(found)
