"""python -m tools.train_tiny_chat: the commands that make the built-in model, in order."""

from __future__ import annotations

from pathlib import Path

import click

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/tiny-chat"),
    show_default=True,
    help="Where the run is kept.",
)


@click.group(help=__doc__)
def cli() -> None:
    pass


@cli.command(help="Show examples of the corpus.")
@click.option("--skill", help="Only this skill.")
@click.option("--count", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True)
def corpus(skill: str | None, count: int, seed: int) -> None:
    from tools.train_tiny_chat.corpus.conversation import PlainText
    from tools.train_tiny_chat.corpus.mixture import examples

    for example in examples(seed):
        if skill is not None and example.skill != skill:
            continue
        click.echo(f"--- {example.skill}")
        for line in (
            [example.text] if isinstance(example, PlainText) else [f"{m.role}: {m.content}{m.tool_calls or ''}" for m in example.messages]
        ):
            click.echo(line)
        count -= 1
        if count == 0:
            return


@cli.command(help="Write the facts about the gateway as docs/questions.en.md and docs/questions.zh.md, for people and for search-qa.")
def questions() -> None:
    from tools.train_tiny_chat.corpus.questions import DOCUMENTS, questions_and_answers

    for language, path in DOCUMENTS.items():
        path.write_text(questions_and_answers(language), encoding="utf-8")
        click.echo(path)


@cli.command(help="Train the tokenizer on the corpus: seconds.")
@_FOLDER
def tokenizer(folder: Path) -> None:
    from tools.train_tiny_chat.tokenizer import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    trained = train_tokenizer(folder / "tokenizer.json")
    click.echo(f"{folder / 'tokenizer.json'}: {trained.get_vocab_size()} tokens")


@cli.command(help="Train the network, going on from the folder's checkpoint where there is one; under torchrun with several processes.")
@_FOLDER
@click.option("--tokens", default=90_000_000, show_default=True, help="Tokens of the whole run.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--seed", default=1, show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True, help="torch.compile; needs a C++ compiler on a CPU.")
def train(folder: Path, tokens: int, device: str, threads: int, seed: int, compiled: bool) -> None:
    import torch
    import torch.distributed as dist

    from tools.train_tiny_chat.train import Plan, Trainer

    if dist.is_torchelastic_launched():
        dist.init_process_group()
    torch.set_num_threads(threads)
    Trainer(folder, Plan(tokens=tokens, seed=seed, compiled=compiled), device).run()


@cli.command(help="Write the folder's checkpoint in Hugging Face's format, where the gateway finds it.")
@_FOLDER
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("mm_gateway/builtin_models/tiny_chat"),
    show_default=True,
)
def export(folder: Path, target: Path) -> None:
    import torch

    from tools.train_tiny_chat.export import export as write
    from tools.train_tiny_chat.network import Shape

    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    write(state["network"], Shape(), folder / "tokenizer.json", target)
    click.echo(f"{target}: {(target / 'model.safetensors').stat().st_size / 1e6:.1f} MB after {state['tokens'] / 1e6:.1f} M tokens")


@cli.command(help="Ask the held-out questions through the gateway's engine, and print what is right.")
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("mm_gateway/builtin_models/tiny_chat"),
    show_default=True,
)
@click.option("--size", default=150, show_default=True, help="Of the sets that are generated.")
@click.option("--wrong", default=0, show_default=True, help="Show so many wrong answers of each skill.")
@click.option("--skill", help="Only skills whose name begins so.")
@click.option("--temperature", default=0.0, show_default=True)
def evaluate(model: Path, size: int, wrong: int, skill: str | None, temperature: float) -> None:
    from tools.train_tiny_chat.cases import all_cases
    from tools.train_tiny_chat.evaluate import evaluate as run
    from tools.train_tiny_chat.evaluate import table

    scores = run(model, [case for case in all_cases(size) if case.skill.startswith(skill or "")], temperature=temperature)
    click.echo(table(scores))
    for name, score in scores.items():
        for question, answer in score.wrong[:wrong]:
            click.echo(f"--- {name}\n{question}\n=> {answer}")


if __name__ == "__main__":
    cli()
