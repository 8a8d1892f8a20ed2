"""Writes the reference pages of docs/ from the code: the settings, the fields of the API, the tool formats.

`python -m tools.reference_pages`, or `make docs`. The pages are committed, because they are also read in the repository and by
search-qa from the wheel, where nothing generates them; tests/test_documentation.py fails when they are behind the code.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mm_gateway.api.app import create_app
from mm_gateway.api.description.document import document
from mm_gateway.api.description.words import in_words
from mm_gateway.catalog import build_catalog
from mm_gateway.chat_templates.tool_formats.formats import TOOL_FORMATS
from mm_gateway.configuration.group_settings import GroupMember, GroupRouting
from mm_gateway.configuration.model_config import ModelConfig
from mm_gateway.configuration.settings import Settings
from mm_gateway.configuration.words import description, range_in_words, type_in_words
from mm_gateway.core import Message, ToolCall
from mm_gateway.protocol.fields import POLICY
from mm_gateway.runtime.checkpoints.gguf.kept_blocks import KEPT
from mm_gateway.runtime.checkpoints.packed_linear import kernel_block_bytes
from mm_gateway.runtime.checkpoints.quantized.formats import FORMATS
from tests.support.families import REFUSED, SERVED
from tests.support.gguf_checkpoint import ARCHITECTURES as STORED_AS
from tests.support.gguf_rows import KINDS, configurations, proofs_of_architecture, proofs_of_kind
from tests.support.quantized.rows import ROWS

DOCS = Path(__file__).parent.parent / "docs"
_GENERATED = "<!-- Made from the code by `make docs`; changes here are lost. -->"
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def pages() -> dict[str, str]:
    """Name of the file in docs/ -> its text."""
    return {
        "configuration-reference.md": configuration_reference(),
        "api-fields.md": api_fields(),
        "tool-formats.md": tool_formats(),
        "models.md": models(),
    }


def models() -> str:
    """The page with its tables of what tests prove, each between two comments."""
    page = _with_section((DOCS / "models.md").read_text(encoding="utf-8"), "architectures", _architectures())
    page = _with_section(page, "gguf architectures", _gguf_architectures())
    page = _with_section(page, "gguf blocks", _gguf_blocks())
    return _with_section(page, "variants", _variants())


def _with_section(page: str, name: str, table: str) -> str:
    before, begins, rest = page.partition(f": {name} -->\n")
    _, ends, after = rest.partition(f"<!-- end: {name} -->")
    if not (begins and ends):
        raise ValueError(f"the page has no section {name}")
    return f"{before}{begins}\n{table}\n\n{ends}{after}"


def _architectures() -> str:
    """Of transformers: those whose texts are exact, and those that are refused."""
    rows = [(f"`{family.architecture}`", "exact", family.notes) for family in SERVED]
    rows.append(("`QWenLMHeadModel` (Qwen v1)", "exact", "as the same network as Qwen2: no remote code, whatever `trust_remote_code` says"))
    rows += [(f"`{family.architecture}`", "refused", family.notes) for family in REFUSED]
    return _table(("architecture (`config.json`)", "on the engine", "notes"), rows)


def _variants() -> str:
    """Of quantized checkpoints: which are read, how they are held, and what was proved."""
    rows = []
    for row in ROWS:
        packages = ", ".join(f"`{package}`" for package in FORMATS[row.format].packages)
        proved = ", ".join(row.proofs.values()) + (f" ({'; '.join(row.families)})" if row.families else "")
        on_cuda = f"as stored, by {packages}" if row.on_cuda == "packed" else row.on_cuda
        rows.append((f"`{row.format}`", row.variant, row.held, proved, on_cuda))
    return _table(("`quantization`", "variant", "layers on a CPU", "proved on a CPU", "meant to be on CUDA"), rows)


def _gguf_architectures() -> str:
    """Of GGUF files: which are read, as what, and what was proved."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, config in configurations(480).items():
        said = MODEL_ARCH_NAMES[STORED_AS[config.model_type]]
        proved = ", ".join(proofs_of_architecture(name).values())
        key = (f"`{said}`", f"`{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]}`", proved)
        found.setdefault(key, []).extend(name.split(", ")[1:])
    rows = [
        (said, as_class, proved + (f" ({'; '.join(special)} too)" if special else ""))
        for (said, as_class, proved), special in found.items()
    ]
    return _table(("architecture in the file", "read as", "proved on a CPU"), rows)


def _gguf_blocks() -> str:
    """Of GGUF files: which blocks are read, how they are held, and what was proved."""
    rows = []
    for kind in KINDS:
        items, size = GGML_QUANT_SIZES[kind]
        stored, kept = 8 * size / items, KEPT.get(kind)
        held = 8 * kernel_block_bytes(kept.bits, fine=kept.fine) if kept is not None else max(stored, 16)
        names = f"blocks of {kept.bits} bits" if kept is not None else f"{held:g} bits"
        rows.append((f"`{kind.name}`", f"{stored:.3g}", f"{held:.3g}", names, ", ".join(proofs_of_kind(kind).values())))
    return _table(("blocks", "bits a weight in the file", "in memory", "held as", "proved on a CPU"), rows)


def configuration_reference() -> str:
    parts = [
        "# Configuration reference",
        _GENERATED,
        "Every key of the two files, with its default, what it may be, and what it means; how they are used is in\n"
        "[Configure mm_gateway](configuration.md). A key whose name ends in `_bytes` is a number of bytes, or a text such as `2GiB`.\n"
        "`null` is written as such, or left out.",
        "## models.yaml: an entry of `models`",
        "Beside the entries the file may say `default_model`: the name of the entry that answers on the command line and in workflows\n"
        "where none is named; and `allow`: patterns of hub models that requests may name without an entry, such as `Qwen/*`.",
        _settings_table(ModelConfig),
        "### `members` of a group",
        _settings_table(GroupMember),
        "### `routing` of a group",
        _settings_table(GroupRouting),
    ]
    for section in Settings.__struct_fields__:
        settings = getattr(Settings(), section)
        if isinstance(settings, msgspec.Struct):
            variable = f"`MM_GATEWAY_{section.upper()}_<KEY>`"
            parts += [f"## gateway.yaml: `{section}`", f"From the environment: {variable}.", _settings_table(type(settings))]
    return "\n\n".join(parts) + "\n"


def tool_formats() -> str:
    call = ToolCall("call00001", "get_weather", '{"city": "Ems", "days": 3}')
    rows: list[tuple[str, ...]] = []
    for form in TOOL_FORMATS.values():
        turns, begun = form.flatten([Message("assistant", "", tool_calls=(call,))], ())
        written = (turns[0].content if turns else begun).replace("\n", "⏎")
        source = f"[source]({form.source})" if form.source.startswith("http") and " " not in form.source else form.source
        rows.append((f"`{form.name}`", form.families, f"<code>{html.escape(written)}</code>", source))
    parts = [
        "# Tool formats",
        _GENERATED,
        "How a model is told of tools and calls them is its `tool_format`. It is found from the checkpoint: by transformers'\n"
        "`response_template` where it has one, which is made to read a call, else by its own chat template, which is made to write one.\n"
        "`tool_format` in models.yaml says it where neither shows it. `/v1/models` and `mm-gateway show NAME` tell what was found.",
        "A grammar holds what the model writes to the format and to each function's schema, from the moment a call begins, whether it may\n"
        "call or must: names and arguments are right by construction. Formats with JSON arguments follow the whole schema. Those that\n"
        "write arguments one by one follow names, order, which ones are required, types, lists of values, and lengths, patterns and\n"
        "formats of strings; JSON values within them follow their schema. Python's literals follow types, lists of values, bounds,\n"
        "lengths, items and properties. What of a schema a format does not hold arguments to is named in the header\n"
        "`x-mm-gateway-ignored`; where the tool is `strict` it is refused.",
        "A checkpoint's template that writes tools in none of these ways is refused with tools, unless `tool_format` names one that fits.",
        _table(("`tool_format`", "models trained on it", "a call (⏎: line end)", "described"), rows),
    ]
    return "\n\n".join(parts) + "\n"


def _settings_table(struct: type[msgspec.Struct]) -> str:
    hints = get_type_hints(struct, include_extras=True)
    rows: list[tuple[str, ...]] = []
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        default = "required" if field.default is msgspec.NODEFAULT else _in_yaml(field.name, field.default)
        if field.default_factory is dict:
            default = "`{}`"
        rows.append((f"`{field.name}`", default, range_in_words(hint) or type_in_words(hint), description(hint)))
    return _table(("key", "default", "allowed", "meaning"), rows)


def _in_yaml(name: str, value: object) -> str:
    """A default as gateway.yaml shows it."""
    if name.endswith("_bytes") and isinstance(value, int):
        value = next((f"{value // size}{unit}" for size, unit in _SIZES if value and value % size == 0), value)
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, msgspec.Struct):
        return "`{}`"
    if value is None or isinstance(value, bool):
        return f"`{words[value]}`"
    return "`[]`" if value == () else f"`{value:.15g}`" if isinstance(value, float) else f"`{value}`"


def api_fields() -> str:
    settings = Settings(models={"mock": ModelConfig(model_name="mock", backend="mock")})
    described = document(create_app(settings, build_catalog(settings)).routes)
    schemas: Mapping[str, Any] = described["components"]["schemas"]
    parts = [
        "# Fields of the API",
        _GENERATED,
        "Every field that a body may have, by endpoint. A field that is not listed is an error that names it. `Extension` marks fields\n"
        "that OpenAI's own API does not have. Every field has one policy: `served`; `harmless`, which is accepted and changes nothing in\n"
        "the reply; `not served`, which is an error that names the field, unless its value asks for nothing, such as `null`.\n"
        "A running gateway serves the whole description, replies included, as a page at `/schema` and as OpenAPI 3.1\n"
        "at `/schema/openapi.json`.",
    ]
    nested: list[str] = []
    first: dict[str, str] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            for body in content.values():
                struct = body["schema"]["$ref"].rpartition("/")[2]
                name = f"{method.upper()} {path}"
                same = f"The same fields as `{first[struct]}`." if struct in first else _fields_table(struct, schemas, nested)
                first.setdefault(struct, name)
                parts += [f"## {name}", operation["summary"] + ".", same]
    parts.append("## Objects in these fields")
    for struct in nested:  # grows while it is read: objects hold objects
        if schemas[struct].get("properties"):
            parts += [f"### {struct}", _fields_table(struct, schemas, nested)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fields_table(struct: str, schemas: Mapping[str, Any], nested: list[str]) -> str:
    schema = schemas[struct]
    required = schema.get("required", [])
    rows: list[tuple[str, ...]] = []
    for name, field in sorted(schema["properties"].items(), key=lambda item: item[0] not in required):
        value = in_words(field, nested) + (", required" if name in required else "")
        rows.append((f"`{name}`", field.get(POLICY, "served"), value, field.get("description", "")))
    return _table(("field", "policy", "value", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
