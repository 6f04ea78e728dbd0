"""What is known of models: the data file and what is read from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from importlib import resources
from pathlib import Path

import pytest
from cloud_agent import cli, models, usage
from cloud_agent.config import DEFAULT_MODEL
from cloud_agent.mail import Mail
from cloud_agent.request import PROMPT_VERSION, Earlier, Task, worst_case
from cloud_agent.usage import Usage

TODAY = date(2026, 11, 23)
DATA = json.loads(resources.files("cloud_agent").joinpath("models.json").read_text("utf-8"))


@pytest.mark.parametrize("model", sorted(DATA["models"]))
def test_each_price_has_its_day_and_its_source(model: str) -> None:
    entries = DATA["models"][model]["prices"]
    assert [entry["from"] for entry in entries] == sorted(entry["from"] for entry in entries)
    for entry in entries:
        date.fromisoformat(entry["from"])
        assert entry["source"].startswith("platform.claude.com/docs/")
        assert 0 < entry["cache_read"] < entry["input"] < entry["cache_write"] < entry["output"]


def test_the_default_model_is_known_and_stays() -> None:
    assert models.price(DEFAULT_MODEL, TODAY) is not None
    assert models.warnings(DEFAULT_MODEL, True, TODAY) == []


def test_a_price_changes_on_its_day() -> None:
    before, after = (models.price("claude-sonnet-5-5", date(2026, 10, day)) for day in (6, 7))
    assert before is not None
    assert after is not None
    assert (before.cache_read, after.cache_read) == (0.2, 0.1)


def test_a_long_prompt_is_dearer_where_the_model_has_two_bands() -> None:
    bands = [models.price("claude-haiku-5-5", TODAY, tokens) for tokens in (100_000, 100_001)]
    assert [band.input for band in bands if band] == [0.1, 0.5]
    assert models.price("claude-sonnet-5-5", TODAY, 900_000) == models.price("claude-sonnet-5-5", TODAY)


def test_a_snapshot_is_its_alias_and_another_name_is_nothing() -> None:
    assert models.price("claude-haiku-4-5-20251001", TODAY) == models.price("claude-haiku-4-5", TODAY)
    assert models.price("claude-nobody", TODAY) is None
    assert models.price("", TODAY) is None
    assert models.cache_minimum("claude-nobody") == 1024
    assert models.cache_minimum("claude-haiku-4-5-20251001") == 4096


@pytest.mark.parametrize(
    ("today", "words"),
    [
        (date(2026, 9, 30), ""),
        (date(2026, 10, 1), "in 60 days"),
        (date(2026, 11, 29), "in 1 day:"),
        (date(2026, 11, 30), "today"),
        (date(2026, 12, 1), "was retired on 2026-11-30"),
    ],
)
def test_a_retirement_is_told_sixty_days_before(today: date, words: str) -> None:
    for model in ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"):
        said = models.retirement(model, today)
        assert words in said
        assert bool(said) == bool(words)
    assert models.retirement("claude-sonnet-5-5", today) == ""


def test_the_retirements_are_those_of_the_sdk() -> None:
    """Copied, because `check` must not load the SDK: it takes a second and 60 MB."""
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    def day(text: str) -> str:  # "June 15th, 2026"
        month, number, year = text.replace(",", "").split()
        return datetime.strptime(f"{month} {number[:-2]} {year}", "%B %d %Y").date().isoformat()

    assert {model: day(text) for model, text in DEPRECATED_MODELS.items()} == DATA["retirement"]


def test_a_model_without_a_price_is_told() -> None:
    (said,) = models.warnings("claude-nobody", False, TODAY)
    assert "unpriced" in said
    (said,) = models.warnings("claude-nobody", True, TODAY)
    assert "nothing is drafted" in said


def test_the_figures_of_the_docs_are_those_of_the_file() -> None:
    text = (Path(__file__).parents[2] / "docs/models.md").read_text("utf-8")
    plain, cached = Usage(input=5000, output=1200), Usage(input=1900, cache_read=3100, output=1200)
    worst = worst_case(Task(Mail("x", {}, "x" * 1500), "h" * 4000, (Earlier("mail", "", "", "y" * 2000),)))
    rows = re.findall(r"^\| `(claude-[a-z0-9-]+)` \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-1"]
    for model, *figures in rows:
        dollars = [usage.cost(model, used, TODAY) or 0.0 for used in (plain, cached, worst)]
        assert figures[:2] == [f"{amount:.4f}" for amount in dollars[:2]], model
        assert float(figures[2]) == pytest.approx(dollars[2], rel=0.05), model
    assert f"`{DEFAULT_MODEL}` unless you set another" in text
    assert PROMPT_VERSION in text


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "vault").mkdir()
    path = tmp_path / ".env.cloud"
    path.write_text(f"VAULT_PATH={tmp_path}/vault\nGIT_REMOTE_URL=x\nCLAUDE_API_KEY=k\n")
    path.chmod(0o600)
    monkeypatch.setattr(cli, "utc_now", lambda: datetime(2026, 11, 23, tzinfo=UTC))
    return path


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ("", ""),
        ("CLAUDE_MODEL=claude-sonnet-4-5", "retires on 2026-11-30, in 7 days"),
        ("CLAUDE_MODEL=claude-nobody", "logged as `unpriced`"),
        ("CLAUDE_MODEL=claude-nobody\nBUDGET_USD_PER_DAY=1", "nothing is drafted"),
    ],
)
def test_check_warns_of_the_model(env_file: Path, capsys: pytest.CaptureFixture[str], more: str, warning: str) -> None:
    env_file.write_text(env_file.read_text() + more + "\n")
    assert cli.main(["--env-file", str(env_file), "check"]) == 0
    out = capsys.readouterr().out
    assert warning in out
    assert ("warning:" in out) == bool(warning)


def test_check_does_not_load_the_sdk() -> None:
    loaded = "import sys, cloud_agent.cli, cloud_agent.models; print('anthropic' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
