"""The pages that list every setting, every metric and every log field, written from their declarations.

python -m app.reference settings > docs/settings.md
python -m app.reference metrics > docs/metrics.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from app.settings import Settings
from app.telemetry import LOG_FIELDS, METRICS
from app.tracing.declared import SPANS

PACKAGE = Path(__file__).parent


def settings_page() -> str:
    """The text of `docs/settings.md`: one table row per setting, those of app/settings.py first."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by `python -m app.reference settings`; edit app/settings.py. -->",
        "",
        "Precedence, highest first: command-line option, environment variable, default.",
        "",
        "| Environment variable | Default | Meaning, unit, why |",
        "|---|---|---|",
    ]
    inherited = [name for name in Settings.model_fields if name not in Settings.__annotations__]
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: item[0] in inherited):
        default = field.default
        if default is None:
            shown = "unset"
        elif isinstance(default, Path) and default.is_relative_to(PACKAGE):
            shown = f"`{default.relative_to(PACKAGE.parent).as_posix()}`"
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        lines.append(f"| `REWRITE_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """The text of `docs/metrics.md`: every metric, every log field and every span."""
    lines = [
        "# Metrics, log fields and spans",
        "",
        "<!-- Written by `python -m app.reference metrics`; edit app/telemetry.py, app/tracing. -->",
        "",
        "`GET /metrics` gives these and the usual `process_*` ones.",
        "",
        "| Metric | Type | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for spec in METRICS:
        labels = "; ".join(
            f"`{label}`: {values if isinstance(values, str) else ', '.join(values)}"
            for label, values in spec.labels.items()
        )
        lines.append(f"| `{spec.name}` | {spec.kind} | {labels or 'none'} | {spec.help} |")
    lines += [
        "",
        "## Log fields",
        "",
        "One JSON object per line on standard output. Absent means it does not apply.",
        "",
        "| Field | Meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in LOG_FIELDS.items()),
        "",
        "## Spans",
        "",
        "Sent to `REWRITE_TRACES` for requests whose `traceparent` says sampled, and a share of those",
        "without one (`REWRITE_TRACES_RATIO`). What does not apply is absent, a phase that took no time too.",
        "",
        "| Span | Kind | Child of | Meaning | Attributes |",
        "|---|---|---|---|---|",
        *(
            f"| `{spec.name}` | {spec.kind} | {spec.parent} | {spec.help} | "
            f"{'; '.join(f'`{name}`: {meaning}' for name, meaning in spec.attributes.items()) or 'none'} |"
            for spec in SPANS
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write({"settings": settings_page, "metrics": metrics_page}[sys.argv[1]]())
