"""The settings of one agent, read from `.env.cloud`, and everything that can be wrong with them.

The file wins over the process environment, so that what was checked is what runs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from cloud_agent.mail import bare_addresses
from cloud_agent.vault import LOCAL

DEFAULT_MODEL = "claude-sonnet-5-5"  # the reason, and what a mail costs: docs/models.md

# Whatever could send or pay. The ten names that DESIGN §4 lists, and their kin: the name of a service that sends,
# posts or pays, together with a word for a credential. IMAP_* is absent on purpose: reading mail is no sending.
FORBIDDEN_NAMES = (
    "SMTP_PASSWORD",
    "WHATSAPP_SESSION_PATH",
    "LINKEDIN_ACCESS_TOKEN",
    "ODOO_PASSWORD",
    "BANK_API_TOKEN",
    "PAYMENT_API_KEY",
    "FACEBOOK_ACCESS_TOKEN",
    "INSTAGRAM_ACCESS_TOKEN",
    "TWITTER_ACCESS_TOKEN",
    "TWITTER_ACCESS_SECRET",
)
_SENDING_SERVICES = frozenset(
    "SENDGRID MAILGUN MAILJET MAILCHIMP MANDRILL POSTMARK SPARKPOST BREVO RESEND SES WHATSAPP SIGNAL TWILIO VONAGE"
    " LINKEDIN FACEBOOK FB META INSTAGRAM IG TWITTER X TIKTOK TELEGRAM SLACK DISCORD ODOO BANK BANKING PAYMENT PAYMENTS"
    " STRIPE PAYPAL BRAINTREE ADYEN SQUARE REVOLUT PLAID WISE GMAIL OUTLOOK EXCHANGE".split()
)
# Nothing of these is needed by who cannot send: not even a host or a user name.
_SENDING_ONLY = ("SMTP", "SENDMAIL")
_CREDENTIAL_WORDS = frozenset(
    "PASSWORD PASSWD PASS PASSPHRASE PWD TOKEN BEARER OAUTH SECRET KEY APIKEY SESSION CREDENTIAL CREDENTIALS AUTH"
    " COOKIE COOKIES SESSIONID WEBHOOK DSN PIN PW SK LOGIN".split()
)
# MAIL_PASSWORD sends; MAIL_KEY_FIELD need not.
_MAIL_WORDS = frozenset(("MAIL", "EMAIL"))
_PASSWORD_WORDS = frozenset(("PASSWORD", "PASSWD", "PASS", "PASSPHRASE", "PWD", "PW", "TOKEN", "SECRET"))
# Files that hold a credential which can send: a Gmail or Outlook token, a WhatsApp session, a netrc.
_GLUED = frozenset(f"{service}{word}" for service in _SENDING_SERVICES for word in _CREDENTIAL_WORDS)
_FORBIDDEN_FILES = re.compile(
    r"(credentials?|token|client_secret[^/]*)\.(json|pickle)|\.?msmtprc|\.?esmtprc|odoo\.(conf|rc)"
    r"|whatsapp[-_.]?session.*|\.?wwebjs_auth|auth_info(_baileys)?|cookies\.json|storage_?state\.json",
    re.IGNORECASE,
)


class ConfigError(Exception):
    """The configuration cannot be used. `problems` says each fault with its mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Config:
    """Valid settings. Paths are absolute; intervals are seconds; budgets are US dollars or None."""

    vault_path: Path
    git_remote_url: str
    claude_api_key: str
    claude_model: str
    claude_base_url: str | None
    draft_interval_seconds: float
    draft_concurrency: int
    sync_interval_seconds: float
    git_branch: str
    git_ssh_key_path: Path | None
    agent_name: str
    state_path: Path
    budget_usd_per_day: float | None
    budget_usd_per_week: float | None
    claim: bool = False
    owner_addresses: frozenset[str] = frozenset()  # lower case

    def __repr__(self) -> str:
        return f"Config(vault_path={str(self.vault_path)!r}, agent_name={self.agent_name!r})"  # never a secret


def env_file_path(option: str | None, environ: Mapping[str, str]) -> Path:
    """`--env-file`, else `./.env.cloud` where there is one, else `$CLOUD_AGENT_ENV_FILE`."""
    if option is not None:
        return Path(option)
    here = Path(".env.cloud")
    named = environ.get("CLOUD_AGENT_ENV_FILE")
    return Path(named) if named and not here.exists() else here


def load(env_file: Path, environ: Mapping[str, str]) -> Config:
    """Read and check the settings. Raises ConfigError with every problem, names only, never a value."""
    config, problems = inspect(env_file, environ)
    if config is None or problems:
        raise ConfigError(problems)
    return config


def inspect(env_file: Path, environ: Mapping[str, str]) -> tuple[Config | None, list[str]]:
    """Return the settings (None where they cannot be built) and all problems, each with its mend."""
    try:
        in_file = dict(_read_env(env_file)) if env_file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{env_file} cannot be read ({error}): make it a text file that this user may read"]
    problems: list[str] = []
    if in_file is None:
        problems.append(f"{env_file} is not there: make it (README, Settings), or name another with --env-file")
    for source, names in ((str(env_file), in_file or {}), ("the process environment", environ)):
        problems += [
            f"{name} is set in {source}, and it is a credential that could send or pay: remove it, Cloud only drafts"
            for name in names
            if is_forbidden(name)
        ]

    values = {**environ, **{name: value for name, value in (in_file or {}).items() if value is not None}}
    reader = _Reader(values, problems)
    vault_text = reader.required("VAULT_PATH", "set it to the folder of the vault")
    remote = reader.required("GIT_REMOTE_URL", "set it to the vault's remote, e.g. git@github.com:you/vault.git")
    api_key = reader.required("CLAUDE_API_KEY", "set it to an API key of the Claude console")
    vault = Path(vault_text).expanduser().absolute() if vault_text else None
    if vault is not None:
        if not vault.is_dir():
            problems.append("VAULT_PATH names no folder: clone the vault there, or correct the path")
        elif not os.access(vault, os.R_OK | os.W_OK | os.X_OK):
            problems.append("VAULT_PATH is not writable by this user: give the folder to the agent's user")
        else:
            problems += forbidden_files(vault, env_file)
    key_path = reader.path("GIT_SSH_KEY_PATH")
    if key_path is not None and not key_path.is_file():
        problems.append("GIT_SSH_KEY_PATH names no file: make the deploy key, or correct the path")
    agent_name = reader.text("AGENT_NAME", "cloud")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", agent_name):
        problems.append("AGENT_NAME is not a short name of lower-case letters, digits and '-': e.g. AGENT_NAME=cloud")
    claim = reader.flag("CLAIM")
    if claim and agent_name == LOCAL:
        problems.append("CLAIM=yes is for agents, and AGENT_NAME=local is the owner: e.g. AGENT_NAME=cloud-2")
    branch = reader.text("GIT_BRANCH", "main")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", branch):
        problems.append("GIT_BRANCH is not a branch name: e.g. GIT_BRANCH=main")
    state = reader.path("STATE_PATH") or (vault.parent / "state" if vault is not None else Path("state").absolute())
    if vault is not None and state.is_relative_to(vault):
        problems.append("STATE_PATH lies inside the vault: put it beside the vault, it must not be synced")
    elif not _could_write(state):
        problems.append("STATE_PATH cannot be written by this user: give the folder to the agent's user")
    base_url = reader.text("CLAUDE_BASE_URL", "")
    if base_url and not re.match(r"https?://[^/\s]", base_url):
        problems.append("CLAUDE_BASE_URL is no http(s) URL: e.g. CLAUDE_BASE_URL=https://gateway.example.org")
    draft_interval = reader.number("DRAFT_INTERVAL_SECONDS", 300, 1)
    sync_interval = reader.number("SYNC_INTERVAL_SECONDS", 60, 1)
    concurrency = int(reader.number("DRAFT_CONCURRENCY", 4, 1))
    budget_day, budget_week = reader.budget("BUDGET_USD_PER_DAY"), reader.budget("BUDGET_USD_PER_WEEK")
    if vault is None or remote is None or api_key is None:
        return None, problems
    config = Config(
        vault_path=vault,
        git_remote_url=remote,
        claude_api_key=api_key,
        claude_model=reader.text("CLAUDE_MODEL", DEFAULT_MODEL),
        claude_base_url=base_url or None,
        git_branch=branch,
        git_ssh_key_path=key_path,
        agent_name=agent_name,
        state_path=state,
        draft_interval_seconds=draft_interval,
        draft_concurrency=concurrency,
        sync_interval_seconds=sync_interval,
        budget_usd_per_day=budget_day,
        budget_usd_per_week=budget_week,
        claim=claim,
        owner_addresses=reader.addresses("OWNER_ADDRESSES"),
    )
    return config, problems


def warnings(env_file: Path) -> list[str]:
    """What is worth mending but stops nothing."""
    try:
        mode = stat.S_IMODE(env_file.stat().st_mode)
    except OSError:
        return []
    if mode & 0o077:
        return [f"{env_file} may be read by others (mode {mode:04o}): chmod 600 {env_file}"]
    return []


def is_forbidden(name: str) -> bool:
    """Whether a variable of this name could hold a credential that sends or pays, in any case, prefix or suffix."""
    upper = name.upper()
    squeezed = re.sub(r"[^A-Z0-9]", "", upper)
    if any(known.replace("_", "") in squeezed for known in FORBIDDEN_NAMES):
        return True
    # camelCase falls apart into words too: smtpPass; and SMTP2 is SMTP
    parts = re.split(r"[^A-Z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper())
    words = {part.rstrip("0123456789") for part in parts}
    return bool(
        any(word.startswith(service) for word in words for service in _SENDING_ONLY)
        or (words & _SENDING_SERVICES and words & _CREDENTIAL_WORDS)
        or (words & _MAIL_WORDS and words & _PASSWORD_WORDS)
        or words & _GLUED
    )


def forbidden_files(vault: Path, env_file: Path) -> list[str]:
    """Credentials as files, in the vault's top folder and beside it; other env files are read for names."""
    problems = []
    for folder in (vault, vault.parent):
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name.endswith(".md"):
                continue  # a note about a password is no password; what is in it, the guards before a commit look at
            stem = entry.name.split(".")[0] or entry.name
            if _FORBIDDEN_FILES.fullmatch(entry.name) or is_forbidden(entry.name) or is_forbidden(stem):
                problems.append(f"{entry.path} looks like a credential that could send or pay: remove it from here")
                continue
            if entry.name == ".env.cloud" or _same_file(Path(entry.path), env_file) or not entry.is_file():
                continue  # the settings themselves, or those that a deployment is about to replace
            if entry.name.startswith(".env") or entry.name.endswith(".env"):
                problems += [
                    f"{name} is set in {entry.path}, and it is a credential that could send or pay: remove it"
                    for name in _names_in(Path(entry.path))
                    if is_forbidden(name)
                ]
    return problems


def _read_env(path: Path) -> dict[str, str | None]:
    # interpolate=False: a `$` in a key or URL is a `$`. A BOM is no part of the first name.
    return dotenv_values(path, interpolate=False, encoding="utf-8-sig")


def _names_in(path: Path) -> list[str]:
    try:
        return list(_read_env(path))
    except (OSError, UnicodeDecodeError):
        return []


def _could_write(folder: Path) -> bool:
    """Whether this user may make and use a folder there."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _same_file(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


class _Reader:
    """Reads single values and notes what is wrong with them."""

    def __init__(self, values: Mapping[str, str], problems: list[str]) -> None:
        self.values = values
        self.problems = problems

    def text(self, name: str, default: str) -> str:
        return self.values.get(name, "").strip() or default

    def required(self, name: str, mend: str) -> str | None:
        value = self.values.get(name, "").strip()
        if not value:
            self.problems.append(f"{name} is not set: {mend}")
            return None
        return value

    def path(self, name: str) -> Path | None:
        value = self.values.get(name, "").strip()
        return Path(value).expanduser().absolute() if value else None

    def number(self, name: str, default: float, least: float) -> float:
        text = self.values.get(name, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf"):
            self.problems.append(f"{name} is not a number of at least {least:g}: e.g. {name}={default:g}")
            return default
        return value

    def addresses(self, name: str) -> frozenset[str]:
        text = self.values.get(name, "")
        found = frozenset(bare_addresses(text))
        if len(found) < len({part.strip().lower() for part in text.split(",") if part.strip()}):
            self.problems.append(f"{name} is no list of addresses: e.g. {name}=you@example.org,me@example.com")
        return found

    def flag(self, name: str) -> bool:
        text = self.values.get(name, "").strip().lower()
        if text not in ("", "yes", "no", "true", "false", "1", "0"):
            self.problems.append(f"{name} is neither yes nor no: e.g. {name}=yes")
        return text in ("yes", "true", "1")

    def budget(self, name: str) -> float | None:
        return self.number(name, 0, 0) if self.values.get(name, "").strip() else None
