"""One sequence between thought and answer: what its tokens belong to, when a thought is closed for it, and where its grammar begins.

A grammar is for the answer alone. Until a thought has begun or it is clear that none will, what may come next is what the grammar allows
or what opens a thought; within the thought it is anything but an end of the text; behind it the grammar begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from mm_gateway.chat_templates.reasoning_formats.format import Piece, ReasoningFormat, State, ThoughtPlan
from mm_gateway.runtime.sampling.structured_output import Allowed, CompiledGrammar, GrammarState
from mm_gateway.runtime.tokens.token_text import TokenText

TOOLS = "tools"
"""`Grammar.param` of the grammar of calls, which are written around any text."""
_MAX_BLANKS = 2
"""Tokens of white space that a model may write between its thought and an answer by a grammar."""


class ThoughtTokens:
    """A format in one model's tokens.

    Attributes:
        marks: special tokens that are read as text, with their names.
    """

    def __init__(self, form: ReasoningFormat, text: TokenText) -> None:
        def encode(literal: str) -> tuple[int, ...]:
            return tuple(text.encode(literal, add_special_tokens=False)) if literal else ()

        self.encode: Callable[[str], tuple[int, ...]] = encode
        self.opening = encode(form.opening)
        self.forced = encode(form.forced)
        self.turn = encode(form.turn)
        self.closing = encode(form.closing + form.turn)
        self.answer_opening = encode(form.answer_opening)
        named = ((text.special_token(name), name) for name in form.marks)
        self.marks: Mapping[int, str] = {token: name for token, name in named if token is not None}
        self.blanks = frozenset(ids[0] for blank in ("\n", "\n\n", " ") if len(ids := encode(blank)) == 1)


class Thinking:
    """Where one sequence is. Engine's thread.

    Args:
        tokens: the plan's format in the model's tokens. grammar: what the answer has to follow.

    Attributes:
        tokens_spent: of thoughts, with what opens and closes them.
        param: the field that the grammar came in.
    """

    def __init__(self, plan: ThoughtPlan, tokens: ThoughtTokens, grammar: CompiledGrammar | None) -> None:
        self._plan = plan
        self._tokens = tokens
        self._grammar = grammar
        self._of_tools = grammar is not None and grammar.param == TOOLS
        self.param = grammar.param if grammar is not None else ""
        self._reader = plan.format.new_reader(plan.state)
        self._forced: deque[int] = deque()
        self.tokens_spent = 0
        self._thought = 0  # tokens since the opening, over all thoughts
        self._undecided = 0  # tokens of which it is not known yet what they are
        self._blanks = 0
        # The grammar's state for what was written so far, were it the answer; None: it is none, or there is no grammar.
        self._state: GrammarState | None = None
        self._written: list[int] = []  # of what may become an opening

    @property
    def in_thought(self) -> bool:
        return self._reader.state == "thought"

    @property
    def is_forced(self) -> bool:
        """Whether the next token is settled."""
        return bool(self._forced)

    def begin(self) -> None:
        """Before anything else, in the engine's thread, which alone copies grammars."""
        state, channels = self._reader.state, bool(self._plan.format.turn)
        if state == "thought" and self._is_spent:
            self._forced.extend(self._tokens.closing if channels and self._of_tools else self._tokens.forced)
        elif state == "undecided" and self._is_spent and channels and not self._of_tools:
            self._forced.extend(self._tokens.answer_opening)
        elif state == "answer" or (state == "undecided" and (self._of_tools or not channels)):
            self._restart()

    def allowed(self) -> Allowed | None:
        """What may come next; None: anything."""
        if self._forced:
            return Allowed(None, (self._forced[0],))
        match self._reader.state:
            case "undecided" if self._grammar is not None:
                openings = self._openings()
                return Allowed(self._state, openings) if openings or self._state is not None else None
            case "between" if self._state is not None:
                return Allowed(self._state, tuple(self._tokens.blanks) if self._blanks < _MAX_BLANKS else ())
            case "answer" if self._state is not None:
                return Allowed(self._state)
            case _:
                return None

    def count_accepted(self, tokens: list[int]) -> int:
        """How many of some tokens may come one after the other, as far as it can be said; 0 where what may come next is about to change."""
        now = self.allowed()
        if now is None:
            return len(tokens)
        return now.state.count_accepted(tokens) if now.state is not None and not now.besides else 0

    def advance(self, token: int) -> None:
        """A token was sampled; `read` follows with its text, unless it ends the reply. Errors are those of GrammarState.advance."""
        if self._forced:
            self._forced.popleft()
            return
        state = self._state
        match self._reader.state:
            case "undecided" if self._grammar is not None:
                opens = token in self._openings()
                self._written.append(token)
                if state is not None and opens and not state.accepts(token):
                    self._state = None
                elif state is not None:
                    state.advance(token)
            case "between" if state is not None:
                blank = token in self._tokens.blanks and self._blanks < _MAX_BLANKS
                if blank and (self._of_tools or not state.accepts(token)):
                    self._blanks += 1
                    return
                state.advance(token)
                if not self._of_tools:
                    self._reader.begin_answer()
            case "answer" if state is not None:
                state.advance(token)
            case _:
                pass

    def mark(self, token: int) -> str:
        """The name of a special token that is to be read as text; "": it is none."""
        form, name = self._plan.format, self._tokens.marks.get(token, "")
        expected = {"undecided": form.opening, "thought": form.closing}.get(self._reader.state)
        return name if form.turn or name == expected else ""

    def read(self, text: str) -> list[Piece]:
        """What became certain with the text of one token."""
        before = self._reader.state
        pieces = self._reader.feed(text)
        after = self._reader.state
        self._count(before, after, pieces)
        if before == "thought":
            self._thought += 1
            if after != "thought":
                self._close(pieces)
        elif after == "thought":
            self._state, self._written = None, []
        elif before == "undecided" and after == "answer" and pieces and pieces[0].part == "mark" and not self._of_tools:
            self._restart()  # the grammar begins behind the header of the answer
        if after == "thought" and self._is_spent and not self._forced and not self._is_closing:
            self._forced.extend(self._tokens.closing if self._plan.format.turn and self._of_tools else self._tokens.forced)
        return pieces

    def end(self, text: str) -> list[Piece]:
        """What is left with the last text, once no more can come."""
        return [*self._reader.feed(text), *self._reader.end()]

    @property
    def _is_spent(self) -> bool:
        return self._plan.budget is not None and self._thought >= self._plan.budget

    @property
    def _is_closing(self) -> bool:
        """Whether the model may be closing the thought by itself, in several tokens."""
        over = self._thought - (self._plan.budget or 0)
        return over < len(self._tokens.closing) and self._reader.is_closing

    def _openings(self) -> tuple[int, ...]:
        """Next tokens of what may open a thought, or an answer that has a header of its own."""
        ways = [] if self._is_spent else [self._tokens.opening]
        if self._tokens.answer_opening and not self._of_tools:
            ways.append(self._tokens.answer_opening)
        size = len(self._written)
        return tuple({way[size] for way in ways if len(way) > size and list(way[:size]) == self._written})

    def _close(self, pieces: list[Piece]) -> None:
        """The thought has ended."""
        self._written, self._blanks = [], 0
        channels = bool(self._plan.format.turn)
        if self._of_tools or not channels:
            self._restart()
        if channels and self._grammar is not None and not self._forced:
            self._forced.extend(self._tokens.turn)
        # The token that closed it may hold the beginning of the answer. What is none by the grammar belongs to the closing.
        rest = "".join(piece.text for piece in pieces if piece.part == "answer")
        if rest and self._state is not None and not self._takes(self._tokens.encode(rest)):
            self._restart()
            pieces[:] = [Piece("mark", piece.text) if piece.part == "answer" else piece for piece in pieces]

    def _takes(self, tokens: tuple[int, ...]) -> bool:
        """Advances the grammar; False where it does not allow one of them."""
        for token in tokens:
            if self._state is None or not self._state.accepts(token):
                return False
            self._state.advance(token)
        return True

    def _restart(self) -> None:
        self._state = self._grammar.new_state() if self._grammar is not None else None

    def _count(self, before: State, after: State, pieces: list[Piece]) -> None:
        if after == "undecided" and not pieces:
            self._undecided += 1
            return
        if before != "answer" and not (pieces and all(piece.part == "answer" for piece in pieces)):
            self.tokens_spent += 1 + self._undecided
        self._undecided = 0
