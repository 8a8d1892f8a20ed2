"""A tokenizer in the manner of SentencePiece with byte fallback, as Llama 2, Mistral, Phi-3 and Gemma have it."""

from __future__ import annotations

import string
import sys
import unicodedata

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

_SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def make_byte_fallback_tokenizer(template: str = "<s> $A") -> PreTrainedTokenizerFast:
    """Latin letters, signs and a few words have tokens; every other character is bytes. template: what is around a text."""
    letters = ["\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    merges = [
        ("\u2581", "h"),
        ("\u2581h", "e"),
        ("l", "l"),
        ("\u2581he", "ll"),
        ("\u2581hell", "o"),
        ("\u2581", "a"),
        ("e", "r"),
        ("i", "n"),
    ]
    entries = [*_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(
        models.BPE({entry: index for index, entry in enumerate(entries)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIALS])
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def one_of_each_block() -> list[str]:
    """An assigned character of each column of the code charts; Unicode's blocks consist of whole columns of 16 code points."""
    columns = (map(chr, range(start, start + 16)) for start in range(0, sys.maxunicode, 16))
    found = (next((char for char in column if unicodedata.category(char) not in ("Cn", "Cs", "Co", "Cc")), None) for column in columns)
    return [char for char in found if char is not None]
