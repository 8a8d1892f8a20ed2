"""Stands in for packages that vLLM's tests import and that are not here: a name of theirs is a class that takes anything, or one of `REAL`.

Tests of vLLM's own code are not run, so nearly all of these names are only types in signatures.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from collections.abc import Collection
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace, new_class
from typing import Any

PACKAGES = {"vllm", "anthropic", "fastapi", "starlette", "lm_eval", "mteb", "openai_harmony", "outlines_core", "rapidfuzz", "tblib"}


class _AnyType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)

    def __iter__(cls) -> Any:
        return iter(())

    def __or__(cls, other: object) -> Any:
        return cls

    def __ror__(cls, other: object) -> Any:
        return cls

    def __getitem__(cls, item: object) -> Any:
        return cls


class Anything(metaclass=_AnyType):
    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return Anything()


def _stand_in(name: str) -> type:
    return new_class(name, (Exception if name.endswith(("Error", "Exception")) else Anything,))


class Validated(SimpleNamespace):
    """In place of a reply's pydantic model: its fields as attributes."""

    @classmethod
    def model_validate(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return cls(**{name: cls.model_validate(item) for name, item in value.items()})
        return [cls.model_validate(item) for item in value] if isinstance(value, list) else value

    def model_dump(self, exclude: Collection[str] = (), **_: object) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items() if name not in exclude}


class ValidatedEmbeddings(Validated):
    """Of vLLM's fields those that OpenAI's reply does not have get vLLM's defaults, as its own model gives them to a reply without them."""

    @classmethod
    def model_validate(cls, value: Any) -> Any:
        usage = {"completion_tokens": 0, **value.get("usage", {})}
        return Validated.model_validate({"id": "embd-", "created": 0, **value, "usage": usage})


def _plain(value: Any) -> Any:
    if isinstance(value, Validated):
        return value.model_dump()
    return [_plain(item) for item in value] if isinstance(value, list) else value


class _Platform:
    """No accelerator of any kind."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_kwargs: name in ("is_cpu", "is_unspecified")


def _get_tokenizer(tokenizer_name: str, *_args: object, **_kwargs: object) -> Any:
    from compat_tests.others.vllm_suite.harness import tokenizer_of

    return tokenizer_of(tokenizer_name)


def _model_config(model: str, **_: object) -> Any:
    from compat_tests.others.vllm_suite.harness import tokenizer_of

    return SimpleNamespace(get_vocab_size=lambda: len(tokenizer_of(model)))


def _hub() -> Any:
    return SimpleNamespace(snapshot_download=lambda *_args, **_kwargs: tempfile.gettempdir())


REAL: dict[str, dict[str, Any]] = {
    "vllm": {"envs": SimpleNamespace(VLLM_USE_RUST_FRONTEND=False)},
    "vllm.config": {"ModelConfig": _model_config},
    "vllm.model_executor.model_loader.weight_utils": {"download_weights_from_hf": lambda *_args, **_kwargs: "downloaded"},
    "vllm.platforms": {"current_platform": _Platform()},
    "vllm.tokenizers": {"get_tokenizer": _get_tokenizer},
    "vllm.transformers_utils.repo_utils": {"hf_api": _hub},
    "vllm.utils.serial_utils": {"EMBED_DTYPES": {"float32": None}, "ENDIANNESS": ["native"]},
    "vllm.version": {"__version__": importlib.metadata.version("mm_gateway")},
    "vllm.entrypoints.pooling.embed.protocol": {"EmbeddingResponse": ValidatedEmbeddings},
    "vllm.entrypoints.pooling.pooling.protocol": {"PoolingResponse": Validated},
}


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _stand_in(name)
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname.split(".")[0] not in PACKAGES:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(REAL.get(module.__name__, {}))


def install() -> None:
    import base64

    sys.modules.setdefault("pybase64", base64)
    sys.meta_path.insert(0, _Finder())
