"""What ends a text: tokens and strings, and which of them are part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mm_gateway.core import GenerationConfig
from mm_gateway.runtime.tokens.token_text import TokenText


@dataclass(frozen=True, slots=True)
class Ends:
    """The same for all choices of a request.

    Attributes:
        tokens: end the text. strings: the same, as text. own: those of the tokens that are the model's, and end a thought too.
        shown: those of the strings that are part of the text.
        shows_token: the token that ends the text is part of it, where it has a text.
        names: special tokens that the request named as strings. With `shows_token` their names are shown, though the text leaves other
            special tokens out.
        asked: tokens that the request named and the model would not have ended with.
    """

    tokens: frozenset[int]
    strings: tuple[str, ...] = ()
    shown: frozenset[str] = frozenset()
    shows_token: bool = False
    names: Mapping[int, str] = field(default_factory=dict)
    asked: frozenset[int] = frozenset()
    own: frozenset[int] = frozenset()


def ends_of(
    config: GenerationConfig, text: TokenText, *, own: frozenset[int], of_template: Sequence[str], follows_grammar: bool = False
) -> Ends:
    """own: the model's end-of-sequence tokens, with one of which a grammar ends. of_template: strings that end a turn of its chat
    template."""
    # The text leaves special tokens out, so that one that is to end it has to be found among the tokens.
    names = {token: stop for stop in config.stop if (token := text.special_token(stop)) is not None}
    own = frozenset() if config.ignore_eos and not follows_grammar else own
    return Ends(
        tokens=own | names.keys() | frozenset(config.stop_token_ids),
        strings=(*config.stop, *(stop for stop in of_template if stop not in config.stop)),
        shown=frozenset(config.stop) if config.include_stop_str_in_output else frozenset(),
        shows_token=config.include_stop_str_in_output,
        names=names,
        asked=frozenset(config.stop_token_ids) - own,
        own=own,
    )
