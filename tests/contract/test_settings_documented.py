from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.reference import settings_page
from app.settings import Settings

DOC = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_code_says() -> None:
    assert DOC.read_text(encoding="utf-8") == settings_page(), (
        "run: python -m app.reference settings > docs/settings.md"
    )


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_means_and_why(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")
    assert len(re.findall(r"[.:;]", description)) >= 2, "meaning and unit, then why this default"


@pytest.mark.parametrize(
    "name", [name for name in Settings.model_fields if name.endswith(("_ms", "_s", "_bytes"))]
)
def test_units_of_the_name_are_told(name: str) -> None:
    unit = {"_ms": "Millisecond", "_s": "Second", "_bytes": "Bytes"}[name[name.rindex("_") :]]
    description = Settings.model_fields[name].description
    assert unit.lower() in description.lower() or "As REWRITE_" in description


def test_settings_are_frozen_and_refuse_unknown_names() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1
    with pytest.raises(ValidationError):
        Settings(prot=1)


def test_environment_beats_default_and_argument_beats_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().port == 8080
    monkeypatch.setenv("REWRITE_PORT", "9000")
    assert Settings().port == 9000
    assert Settings(port=1).port == 1


def test_batches_may_not_take_every_place() -> None:
    with pytest.raises(ValidationError, match="REWRITE_MAX_INFLIGHT"):
        Settings(max_inflight=4, batch_concurrency=5)


def test_the_log_key_is_not_shown() -> None:
    assert "s3cret" not in repr(Settings(log_hash_key="s3cret"))


def test_a_misspelt_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWRITE_DEADLNE_MS", "100")
    with pytest.raises(ValidationError, match=r"REWRITE_DEADLNE_MS is no setting.*REWRITE_DEADLINE_MS"):
        Settings()


def test_variables_of_other_programs_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWRITER_HOME", "elsewhere")
    assert Settings().port == 8080
