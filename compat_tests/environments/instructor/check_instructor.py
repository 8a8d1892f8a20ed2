"""instructor as a client of a gateway: each of its modes, lists and unions, partial streams, asking again, its hooks."""

# Its libraries are in an environment of its own.
# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
from enum import Enum
from typing import Annotated, Any, Literal

import instructor
import openai
import pytest
from instructor import Mode
from instructor.core import InstructorRetryException
from pydantic import AfterValidator, BaseModel, Field

ADDRESS = f"{os.environ['GATEWAY']}/v1"
CHAT_MODES = [Mode.TOOLS, Mode.JSON, Mode.JSON_SCHEMA]
RESPONSES_MODES = [Mode.RESPONSES_TOOLS]
# tiny-chat obeys a schema; with Mode.JSON alone it would have to know by itself what to write.
SERVED = [("mock", mode) for mode in (*CHAT_MODES, *RESPONSES_MODES)] + [("tiny-chat", Mode.TOOLS), ("tiny-chat", Mode.JSON_SCHEMA)]


class Role(str, Enum):  # noqa: UP042 - as in their documentation
    ADMIN = "admin"
    GUEST = "guest"


class Address(BaseModel):
    city: str = Field(max_length=12)
    zip_code: str = Field(pattern=r"^\d{5}$")


class User(BaseModel):
    """A user."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=130)
    role: Literal["admin", "guest"]
    address: Address


class Search(BaseModel):
    """A search on the web."""

    kind: Literal["web"]
    query: str = Field(max_length=12)


class Lookup(BaseModel):
    """A look into a table."""

    kind: Literal["table"]
    row: int = Field(ge=0, le=9)


class Action(BaseModel):
    """What to do."""

    step: Search | Lookup


def content(answer: BaseModel) -> dict[str, Any]:
    """Objects of one model are of a class of their own per request, so never equal."""
    return answer.model_dump()


def asked(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_retries": 0, "temperature": 0} | fields


def client(mode: Mode = Mode.TOOLS) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=ADDRESS, api_key="none", max_retries=0, timeout=120), mode=mode)


def async_client(mode: Mode = Mode.TOOLS) -> instructor.AsyncInstructor:
    return instructor.from_openai(openai.AsyncOpenAI(base_url=ADDRESS, api_key="none", max_retries=0, timeout=120), mode=mode)


@pytest.mark.parametrize(("model", "mode"), SERVED)
def test_every_mode_gives_an_object_of_the_model(model: str, mode: Mode) -> None:
    if model == "mock" and mode is Mode.JSON:
        pytest.skip("the mock writes any JSON where no schema is sent")
    user = client(mode).create(model=model, response_model=User, **asked("Jason is 25, a guest from Wien, 12345."))
    assert isinstance(user, User) and isinstance(user.address, Address)


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA])
async def test_an_async_client_gives_the_same(mode: Mode) -> None:
    user = await async_client(mode).create(model="mock", response_model=User, **asked("Jason is 25."))
    assert content(user) == content(client(mode).create(model="mock", response_model=User, **asked("Jason is 25.")))


@pytest.mark.parametrize("model", ["mock", "tiny-chat"])
def test_an_object_comes_with_the_completion_it_was_read_from(model: str) -> None:
    user, completion = client().create_with_completion(model=model, response_model=User, **asked("Jason is 25."))
    assert completion.model == model and completion.usage.total_tokens > 0
    assert json.loads(completion.choices[0].message.tool_calls[0].function.arguments) == content(user)


def test_partial_objects_grow_to_the_whole_one() -> None:
    found = list(client().create_partial(model="mock", response_model=User, **asked("Jason is 25.")))
    assert len(found) > 1
    assert content(found[-1]) == content(client().create(model="mock", response_model=User, **asked("Jason is 25.")))


@pytest.mark.parametrize("model", ["mock", "tiny-chat"])
def test_a_list_comes_object_after_object(model: str) -> None:
    class Digit(BaseModel):
        value: int = Field(ge=0, le=9)

    class Digits(BaseModel):
        values: list[Digit] = Field(min_length=2, max_length=3)

    assert len(client(Mode.JSON_SCHEMA).create(model=model, response_model=Digits, **asked("Three digits.")).values) in (2, 3)
    if model == "mock":
        assert all(isinstance(each, Digit) for each in client().create_iterable(model=model, response_model=Digit, **asked("Digits.")))


@pytest.mark.parametrize("answer", [Action, int, bool, Literal["spam", "ham"], Role, list[int]])
@pytest.mark.parametrize("model", ["mock", "tiny-chat"])
def test_unions_and_simple_types_are_wrapped_and_come_back(model: str, answer: Any) -> None:
    made = client().create(model=model, response_model=answer, max_tokens=200, **asked("What is it?"))
    assert made is not None


def test_an_object_that_its_validator_refuses_is_asked_for_again_with_the_error() -> None:
    tries: list[str] = []

    def refuse_first(name: str) -> str:
        tries.append(name)
        if len(tries) == 1:
            raise ValueError("names are written in capitals")
        return name

    class Named(BaseModel):
        name: Annotated[str, AfterValidator(refuse_first)]

    sent: list[Any] = []
    asking = client()
    asking.on("completion:kwargs", lambda **fields: sent.append(fields))
    assert asking.create(model="mock", response_model=Named, **asked("Name?", max_retries=2)).name == tries[-1]
    assert len(sent) == 2 and "names are written in capitals" in str(sent[1]["messages"])


def test_what_never_fits_ends_in_its_exception() -> None:
    class Never(BaseModel):
        name: Annotated[str, AfterValidator(lambda _: (_ for _ in ()).throw(ValueError("no")))]

    with pytest.raises(InstructorRetryException, match="no"):
        client().create(model="mock", response_model=Never, **asked("Name?", max_retries=1))


def test_errors_of_the_server_reach_the_hook_and_the_caller() -> None:
    found: list[Exception] = []
    asking = client()
    asking.on("completion:error", found.append)
    with pytest.raises(Exception, match=r"no such model|does not exist|not found|nothing"):
        asking.create(model="nothing", response_model=User, **asked("Hello"))
    assert found


def test_a_request_without_a_model_of_answers_passes_unchanged() -> None:
    completion = client().create(model="mock", response_model=None, **asked("Hello"))
    assert completion.choices[0].message.content
