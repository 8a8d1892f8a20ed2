"""Sums, differences, products and comparisons of small numbers."""

from __future__ import annotations

from tools.train_tiny_chat.corpus.conversation import Example, chat
from tools.train_tiny_chat.corpus.draw import Draw

# fmt: off
_ASK = {
    "+": ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}=?", "(How much is|Calculate|Compute) {a} plus {b}(?|)", "(Add|Sum) {a} and {b}.", "What does {a} plus {b} make?", "{a} plus {b}?", "What is the sum of {a} and {b}?", "(How much are|What are) {a} and {b} together?", "(Tell me|Give me|I need) {a} plus {b}.", "I have {a} and get {b} more. How (many|much) (have I|is that)?"],
    "-": ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}=?", "(How much is|Calculate|Compute) {a} minus {b}(?|)", "Subtract {b} from {a}.", "What remains of {a} without {b}?", "{a} minus {b}?", "What is {a} less {b}?", "(What is the difference between|Difference of) {a} and {b}?", "(What is left|How much is left) when {b} is taken away from {a}?", "Take {b} (away |)from {a}."],
    "*": ["What is {a} * {b}?", "{a} * {b}", "{a}*{b}=?", "(How much is|Calculate|Compute) {a} times {b}(?|)", "Multiply {a} (by|and) {b}.", "What does {a} times {b} make?", "{a} times {b}?", "What is the product of {a} and {b}?", "What is {a} x {b}?", "(Tell me|Give me|I need) {a} times {b}."],
}
_ASK_ZH = {
    "+": ["{a}加{b}(等于|是)多少？", "{a} + {b}", "{a}+{b}=？", "(计算|算一下){a}加{b}。", "{a}加{b}？", "{a}与{b}的和是多少？", "{a}和{b}(加起来|加在一起|一共)是多少？", "求{a}和{b}的和。", "{a}与{b}相加得多少？", "把{a}和{b}加起来。"],
    "-": ["{a}减{b}(等于|是)多少？", "{a} - {b}", "{a}-{b}=？", "(计算|算一下){a}减{b}。", "{a}减{b}？", "{a}与{b}的差是多少？", "{a}和{b}(相差|差)多少？", "求{a}和{b}的差。", "从{a}里减去{b}(还剩|剩下|得)多少？", "{a}比{b}多多少？"],
    "*": ["{a}乘(以|){b}(等于|是)多少？", "{a} * {b}", "{a}×{b}=？", "(计算|算一下){a}乘{b}。", "{a}乘{b}？", "{a}与{b}的积是多少？", "{a}和{b}相乘(是|得)多少？", "求{a}和{b}的积。", "{b}个{a}是多少？", "把{a}和{b}乘起来。"],
}
# fmt: on


def operands(draw: Draw, sign: str) -> tuple[int, int]:
    """Pairs of one kind in eight are held out."""
    while True:
        high = draw.one([10, 10, 20, 20, 50])
        a, b = (draw.number(0, 10), draw.number(0, 10)) if sign == "*" else (draw.number(0, high), draw.number(0, high))
        if sign == "-" and b > a:
            a, b = b, a
        if draw.allows(f"{a}{sign}{b}"):
            return a, b


def result(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def sum_task(draw: Draw) -> tuple[str, str]:
    """A question and its answer."""
    sign = draw.one("++--*")
    a, b = operands(draw, sign)
    zh = draw.chance(0.3)
    question = draw.wording((_ASK_ZH if zh else _ASK)[sign]).replace("{a}", str(a)).replace("{b}", str(b))
    written = {"*": "×"}.get(sign, sign)
    return question, f"{a} {written} {b} = {result(a, sign, b)}" + ("。" if zh else ".")


def compare_task(draw: Draw) -> tuple[str, str]:
    a, b = draw.number(0, 200), draw.number(0, 200)
    if a == b:
        b += 1
    if draw.chance(0.3):
        return draw.wording(["{a}和{b}哪个(更大|大)？", "{a}大还是{b}大？", "比较{a}和{b}。"]).replace("{a}", str(a)).replace(
            "{b}", str(b)
        ), f"{max(a, b)}更大。"
    question = draw.wording(
        [
            "Which is (larger|bigger|greater), {a} or {b}?",
            "Is {a} or {b} (larger|bigger)?",
            "Compare {a} and {b}.",
            "What is more, {a} or {b}?",
        ]
    )
    return question.replace("{a}", str(a)).replace("{b}", str(b)), f"{max(a, b)} is larger."


def count_task(draw: Draw) -> tuple[str, str]:
    first = draw.number(1, 30)
    last = first + draw.number(2, 9)
    numbers = ", ".join(str(n) for n in range(first, last + 1))
    if draw.chance(0.3):
        return draw.wording(["从{a}数到{b}。", "请从{a}数到{b}。"]).replace("{a}", str(first)).replace("{b}", str(last)), numbers.replace(
            ", ", "、"
        ) + "。"
    return draw.wording(["Count from {a} to {b}.", "(List|Name|Write) the numbers from {a} to {b}."]).replace("{a}", str(first)).replace(
        "{b}", str(last)
    ), numbers + "."


def sample(draw: Draw) -> Example:
    turns: list[str] = []
    for _ in range(draw.one([1, 1, 2, 3, 5, 7])):
        turns += draw.one([sum_task] * 6 + [compare_task, count_task])(draw)
    return chat("arithmetic", *turns)
