"""Which module may know which: the shape of the house, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
SOURCES = sorted(APP.rglob("*.py"))
PURE = [
    *sorted((APP / "contracts").glob("*.py")),
    APP / "rewrite" / "guard.py",
    APP / "rewrite" / "deadline.py",
    APP / "rewrite" / "judge.py",
    *(APP / "http" / name for name in ("trace.py", "rate.py", "client.py")),
    *(APP / "signals" / name for name in ("records.py", "stages.py", "typical.py")),
    *sorted((APP / "signals" / "adapters").glob("*.py")),
    *(
        APP / "console" / f"{name}.py"
        for name in (
            "acts",
            "examples",
            "gate_report",
            "growth",
            "lineage",
            "quantiles",
            "rollout_view",
            "words",
        )
    ),
    *(APP / "rollout" / f"{name}.py" for name in ("assignment", "plan", "statistics", "evidence", "verdict")),
]
NEVER_IN_APP = {"training", "torch", "transformers", "accelerate", "datasets", "tests"}
NEVER_IN_PURE = {
    *("app.settings", "app.telemetry", "app.main", "app.http", "app.registry"),
    *(
        "asyncio",
        "http",
        "httpx",
        "io",
        "logging",
        "os",
        "pathlib",
        "pydantic_settings",
        "requests",
        "shutil",
    ),
    *("socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib"),
}


def imported(path: Path) -> set[str]:
    """Every module named by an import statement anywhere in the file, type checking included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def hits(names: set[str], forbidden: set[str]) -> set[str]:
    return {name for name in names if any(name == bad or name.startswith(f"{bad}.") for bad in forbidden)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_answers_requests_knows_nothing_of_training(path: Path) -> None:
    assert not hits(imported(path), NEVER_IN_APP)


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_modules_import_no_io_settings_or_logging(path: Path) -> None:
    names = imported(path)
    own = "app.http" if path.parent.name == "http" else None
    assert not hits(names, NEVER_IN_PURE - {own})
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "eval", "exec"}


def modules_after(statement: str) -> set[str]:
    """What a fresh interpreter has imported after `statement`."""
    code = f"import sys\ntry:\n {statement}\nexcept SystemExit: pass\nprint('\\n' + '\\n'.join(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(output.stdout.splitlines())


def test_what_an_extra_brings_is_loaded_by_those_who_ask_for_it() -> None:
    """`pip install corewrite` has none of it, and serves."""
    loaded = modules_after("import app.main, app.cli, app.commands.rollout, app.commands.checkpoints")
    assert "fastapi" in loaded
    extras = {"sqlalchemy", "alembic", "psycopg", "redis", "httpx", "ray", "s3fs", "cryptography"}
    assert not loaded & {*extras, "opentelemetry.sdk"}
    assert "jinja2" not in loaded  # nor what only people's pages need, until an app is made


def test_help_imports_nothing_heavy() -> None:
    loaded = modules_after("from app.cli import main; main(['serve', '--help'])")
    assert not loaded & {
        "fastapi",
        "pydantic",
        "uvicorn",
        "onnxruntime",
        "numpy",
        "asyncio",
        "importlib.metadata",
        "torch",
    }


def test_the_serving_set_holds_no_training_library() -> None:
    loaded = modules_after("import app.main, app.http.server, app.engines.embedded, app.registry.checkpoint")
    assert not loaded & NEVER_IN_APP


def test_no_module_is_called_utils_and_none_is_too_long() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc"}]
    assert not [path for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
