"""python -m tools.train_tiny_chat: the commands that make the built-in model, in order, and the one that judges any model."""

from __future__ import annotations

from pathlib import Path

import click

BUILT_IN = Path("mm_gateway/builtin_models/tiny_chat")
_FOLDER = click.option("--folder", type=click.Path(path_type=Path), default=Path("build/tiny-chat"), show_default=True, help="The run.")


@click.group(help=__doc__, context_settings={"show_default": True})
def cli() -> None:
    pass


@cli.command(help="Show examples of the corpus.")
@click.option("--skill", help="Only this skill.")
@click.option("--count", default=5)
def corpus(skill: str | None, count: int) -> None:
    import itertools

    from tools.train_tiny_chat.corpus import examples

    for example in itertools.islice((example for example in examples(1) if skill in (None, example.skill)), count):
        turns = [f"{message.role}: {message.content}{message.tool_calls or ''}" for message in example.messages]
        click.echo("\n".join([f"--- {example.skill}", *(turns or [example.text])]))


@cli.command(help="Write the facts about the gateway as docs/questions.*.md, for people and for search-qa.")
def questions() -> None:
    from tools.train_tiny_chat.facts import DOCS, document

    for language in ("en", "zh"):
        (DOCS / f"questions.{language}.md").write_text(document(language), encoding="utf-8")


@cli.command(help="Train the tokenizer (seconds), then the network; goes on from what the folder has.")
@_FOLDER
@click.option("--tokens", default=90_000_000, help="Tokens of the whole run.")
@click.option("--device", default="cpu", help="cpu, cuda or cuda:N.")
def train(folder: Path, tokens: int, device: str) -> None:
    from tools.train_tiny_chat.tokenizer import train_tokenizer
    from tools.train_tiny_chat.train import Plan, Trainer

    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer(folder / "tokenizer.json")
    Trainer(folder, Plan(tokens=tokens), device).run()


@cli.command(help="Write the folder's checkpoint in Hugging Face's format, where the gateway finds it.")
@_FOLDER
@click.option("--to", "target", type=click.Path(path_type=Path), default=BUILT_IN)
def export(folder: Path, target: Path) -> None:
    from tokenizers import Tokenizer

    from tools.train_tiny_chat.export import export as write
    from tools.train_tiny_chat.train import Plan, Trainer

    write(Trainer(folder, Plan()).network, Tokenizer.from_file(str(folder / "tokenizer.json")), target)


@cli.command(help="Ask a model the held-out questions, and print what is right.")
@click.option("--model", default=str(BUILT_IN), help="The folder of a checkpoint, or a name in config/models.yaml.")
@click.option("--skill", default="", help="Only skills whose name begins so.")
@click.option("--every", default=1, help="Of each skill only every n-th question, for a model that takes long.")
@click.option("--wrong", default=0, help="Show so many wrong answers of each skill.")
def evaluate(model: str, skill: str, every: int, wrong: int) -> None:
    from tools.train_tiny_chat.cases import all_cases
    from tools.train_tiny_chat.evaluate import evaluate as run
    from tools.train_tiny_chat.evaluate import table

    cases = [case for case in all_cases() if case.skill.startswith(skill)]
    by_skill = [[case for case in cases if case.skill == name] for name in dict.fromkeys(case.skill for case in cases)]
    scores = run(model, [case for asked in by_skill for case in asked[::every]])
    click.echo(table(scores))
    for name, score in scores.items():
        for question, answer in score.wrong[:wrong]:
            click.echo(f"--- {name}\n{question}\n=> {answer}")


if __name__ == "__main__":
    cli()
