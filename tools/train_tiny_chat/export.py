"""Writes the trained network as a checkpoint in Hugging Face's format, in float16, with ChatML as its template."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mm_gateway.chat_templates.templates import BUILT_IN


def export(network: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Overwrites the files of the folder, not its README. The network is in float16 afterwards."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=network.config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = BUILT_IN["chatml"].source
    end, pad = fast.eos_token_id, fast.pad_token_id
    assert isinstance(end, int) and isinstance(pad, int)
    network.config.bos_token_id, network.config.eos_token_id, network.config.pad_token_id = None, end, pad
    network.generation_config.update(
        do_sample=True, temperature=0.3, top_p=0.9, bos_token_id=None, eos_token_id=[end, pad], pad_token_id=pad
    )
    network.half().save_pretrained(folder)
    fast.save_pretrained(folder)
