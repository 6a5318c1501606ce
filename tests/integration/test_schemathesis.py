"""Schemathesis over the OpenAPI document, against the running server: seeded, bounded, every check it has.

What it reports is the contract between document and server: status codes, shapes and media types that the
document does not know, valid data refused, invalid data accepted, anything of status 500.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

import schemathesis
from fakes import FakeCheckpoint, FakeEngine
from hypothesis import HealthCheck, Phase, settings
from pydantic import SecretStr
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)

from app.main import create_app
from app.settings import Settings

EXAMPLES, EXAMPLES_WITH_STORE = 400, 100

schema = schemathesis.openapi.from_dict(
    create_app(Settings(relevance="none"), engine=FakeEngine(), checkpoint=FakeCheckpoint()).openapi()
)


with_store = schemathesis.openapi.from_dict(
    create_app(
        Settings(relevance="none", rollouts=SecretStr("sqlite://"), admin_token=SecretStr("secret")),
        engine=FakeEngine(),
        checkpoint=FakeCheckpoint(),
    ).openapi()
).include(path_regex="^/v1/(events|admin)")


def repeats_an_id(body: Any) -> bool:
    """Whether two candidates have the same id, which no JSON Schema can forbid."""
    candidates = body.get("candidates") if isinstance(body, dict) else None
    if not isinstance(candidates, list):
        return False
    ids = [str(candidate.get("id")) for candidate in candidates if isinstance(candidate, dict)]
    return len(set(ids)) < len(ids)


bounded = partial(
    settings,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@schema.parametrize()
@bounded(max_examples=EXAMPLES)
def test_the_server_is_what_its_document_says(case: Any, url: str) -> None:
    # An invalid item of a batch is answered in its place, by design: the whole is 200 then.
    excluded = [negative_data_rejection] if case.path.endswith("/batch") else []
    if repeats_an_id(case.body):
        excluded.append(positive_data_acceptance)
    response = case.call_and_validate(base_url=url, excluded_checks=excluded, timeout=10)
    assert response.headers["traceparent"]


@with_store.parametrize()
@bounded(max_examples=EXAMPLES_WITH_STORE)
def test_so_is_one_with_rollouts(case: Any, url_with_store: str) -> None:
    # An invalid event is told in its place, and loses none of the others; what an order may do is a matter of
    # what came before: each is refused with a reason that the document knows.
    excluded = [negative_data_rejection] if case.path == "/v1/events" else [positive_data_acceptance]
    headers = {"authorization": "Bearer secret"}
    response = case.call(base_url=url_with_store, headers=headers, timeout=10)
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # refused before it is looked into
        excluded = [*excluded, negative_data_rejection]
    case.validate_response(response, excluded_checks=[*excluded, ignored_auth])
