"""The settings of one agent, read from `.env.cloud`, and everything that can be wrong with them.

The file wins over the process environment, so that what was checked is what runs.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from cloud_agent.alerting import settings as alerting
from cloud_agent.kept import Keep
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
class OAuth:
    """How access tokens are had for a refresh token (RFC 6749 §6)."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)  # "" for a public client
    refresh_token: str = field(repr=False)
    scope: str  # "": as granted


@dataclass(frozen=True)
class ImapBox:
    """A folder of an IMAP account. `tls`: implicit, starttls, or none, which only loopback may have."""

    host: str
    port: int
    tls: str
    ca_file: Path | None
    user: str
    password: str = field(repr=False)  # "" with oauth
    oauth: OAuth | None
    folder: str


@dataclass(frozen=True)
class GmailBox:
    """A label of a Gmail account, over Gmail's API: its IMAP has no read-only permission."""

    api_url: str
    ca_file: Path | None
    user: str
    oauth: OAuth
    label: str


@dataclass(frozen=True)
class MaildirBox:
    """A Maildir that something else fills."""

    path: Path


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
    mailbox: ImapBox | GmailBox | MaildirBox | None = None  # what `watch` reads
    watch_interval_seconds: float = 60.0
    watch_since_days: float = 0.0
    keep: Keep | None = None  # None: of a message nothing but its mail is kept
    alerts: alerting.Alerts | None = None  # None: the owner is told by the Dashboard alone

    @property
    def secrets(self) -> list[str]:
        """The credentials that are settings, which must never be committed."""
        oauth = self.mailbox.oauth if isinstance(self.mailbox, ImapBox | GmailBox) else None
        found = [
            self.claude_api_key,
            *(_as_written(self.mailbox.password) if isinstance(self.mailbox, ImapBox) else ()),
            *((oauth.refresh_token, oauth.client_secret) if oauth is not None else ()),
            *(self.alerts.secrets if self.alerts is not None else ()),
        ]
        return [secret for secret in found if secret]

    def __repr__(self) -> str:
        return f"Config(vault_path={str(self.vault_path)!r}, agent_name={self.agent_name!r})"  # never a secret


def _as_written(password: str) -> list[str]:
    """A password, and how Google shows its app passwords, and how people copy those: with and without spaces."""
    joined = "".join(password.split())
    by_four = " ".join(joined[begin : begin + 4] for begin in range(0, 16, 4))
    return list(dict.fromkeys((password, joined, *([by_four] if re.fullmatch(r"[a-z]{16}", joined) else []))))


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
    reader = Reader(values, problems)
    vault_text = reader.required("VAULT_PATH", "set it to the folder of the vault")
    remote = reader.required("GIT_REMOTE_URL", "set it to the vault's remote, e.g. git@github.com:you/vault.git")
    if remote is not None and not alerting.can_be_split(remote):
        problems.append("GIT_REMOTE_URL is no URL that can be read: write its password percent-encoded, or correct it")
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
    state = _state(reader, vault)
    base_url = reader.text("CLAUDE_BASE_URL", "")
    if base_url and not re.match(r"https?://[^/\s]", base_url):
        problems.append("CLAUDE_BASE_URL is no http(s) URL: e.g. CLAUDE_BASE_URL=https://gateway.example.org")
    draft_interval = reader.number("DRAFT_INTERVAL_SECONDS", 300, 1)
    sync_interval = reader.number("SYNC_INTERVAL_SECONDS", 60, 1)
    concurrency = int(reader.number("DRAFT_CONCURRENCY", 4, 1))
    mailbox, keep = _mailbox(reader), _keep(reader, vault)
    watch_interval = reader.number("WATCH_INTERVAL_SECONDS", 60, 1)
    since_days = reader.number("WATCH_SINCE_DAYS", 0, 0, 20_000)  # Gmail counts from 1970
    budget_day, budget_week = reader.budget("BUDGET_USD_PER_DAY"), reader.budget("BUDGET_USD_PER_WEEK")
    owner_addresses = reader.addresses("OWNER_ADDRESSES")
    alerts = alerting.read(reader, owner_addresses)
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
        owner_addresses=owner_addresses,
        alerts=alerts,
        mailbox=mailbox,
        watch_interval_seconds=watch_interval,
        watch_since_days=since_days,
        keep=keep,
    )
    return config, problems


def _state(reader: Reader, vault: Path | None) -> Path:
    state = reader.path("STATE_PATH") or (vault.parent / "state" if vault is not None else Path("state").absolute())
    if vault is not None and state.is_relative_to(vault):
        reader.problems.append("STATE_PATH lies inside the vault: put it beside the vault, it must not be synced")
    elif not _could_write(state):
        reader.problems.append("STATE_PATH cannot be written by this user: give the folder to the agent's user")
    return state


def _keep(reader: Reader, vault: Path | None) -> Keep | None:
    most = reader.number("INTAKE_KEEP_MB", 1000, 1)
    folder = reader.path("INTAKE_KEEP_PATH")
    if folder is None:
        return None
    if vault is not None and folder.resolve().is_relative_to(vault.resolve()):
        reader.problems.append("INTAKE_KEEP_PATH lies inside the vault: put it elsewhere, it must not be synced")
    elif not _could_write(folder):
        reader.problems.append("INTAKE_KEEP_PATH cannot be written by this user: give the folder to the agent's user")
    return Keep(folder, int(most * 1_000_000))


# Token endpoints, and the scope that is asked for, from the providers' documentation (2026-11): "Choose Gmail API
# scopes"; "Authenticate an IMAP, POP or SMTP connection using OAuth". IMAP.AccessAsUser.All reads and changes mail; to
# send takes SMTP.Send. Google is asked for no scope: its answer then names all that the token may (oauth.py looks).
GMAIL_API_URL = "https://gmail.googleapis.com"
_GOOGLE = ("https://oauth2.googleapis.com/token", "")
_MICROSOFT = (
    "https://login.microsoftonline.com/common/oauth2/v2.0/token",
    "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
)
_GMAIL_HOSTS = ("imap.gmail.com", "imap.googlemail.com")
_MICROSOFT_HOSTS = ("outlook.office365.com", "outlook.office.com", "imap-mail.outlook.com")


def _mailbox(reader: Reader) -> ImapBox | GmailBox | MaildirBox | None:
    """The mailbox that `watch` reads, None where none is configured; what is wrong with it becomes a problem."""
    problems = reader.problems
    maildir, host = reader.path("MAILDIR_PATH"), reader.text("IMAP_HOST", "")
    if maildir is not None and host:
        problems.append("IMAP_HOST and MAILDIR_PATH are both set: one agent watches one mailbox, remove one of them")
        return None
    if not host:
        # A credential that nothing uses is one too many, and the guards of sync do not know it.
        mend = "remove it" if maildir is not None else "set it to the name of your mail server"
        for name in ("IMAP_USER", "IMAP_PASSWORD", "IMAP_OAUTH_REFRESH_TOKEN", "IMAP_OAUTH_CLIENT_SECRET"):
            if reader.text(name, ""):
                problems.append(f"{name} is set, and IMAP_HOST is not: {mend}")
    if maildir is not None:
        if not all((maildir / name).is_dir() for name in ("new", "cur")):
            problems.append("MAILDIR_PATH names no Maildir (a folder with new/ and cur/): correct the path")
        return MaildirBox(maildir)
    if not host:
        return None
    if not re.fullmatch(r"[\w.-]+|[0-9a-fA-F:]+", host):
        problems.append("IMAP_HOST is no server's name alone: without scheme and port, e.g. IMAP_HOST=imap.example.org")
    user = reader.required("IMAP_USER", "set it to the name that you log in with, mostly the address") or ""
    password = reader.values.get("IMAP_PASSWORD", "")
    ca_file = reader.path("IMAP_CA_FILE")
    if ca_file is not None and not ca_file.is_file():
        problems.append("IMAP_CA_FILE names no file: put the server's CA certificate (PEM) there, or correct the path")
    elif ca_file is not None and not _holds_certificates(ca_file):
        problems.append("IMAP_CA_FILE holds no certificate that can be read: put the server's CA there, as PEM")
    folder = reader.text("IMAP_FOLDER", "INBOX")
    oauth = _oauth(reader, host)
    if password and oauth is not None:
        problems.append("IMAP_PASSWORD and IMAP_OAUTH_REFRESH_TOKEN are both set: remove the password")
    elif not password and oauth is None:
        problems.append("neither IMAP_PASSWORD nor IMAP_OAUTH_REFRESH_TOKEN is set: docs/mailbox.md says which")
    api_url = reader.text("GMAIL_API_URL", GMAIL_API_URL if host.lower() in _GMAIL_HOSTS else "")
    if oauth is not None and api_url:
        if not _is_safe_url(api_url):
            problems.append(f"GMAIL_API_URL is no https URL: e.g. GMAIL_API_URL={GMAIL_API_URL}")
        return GmailBox(api_url.rstrip("/"), ca_file, user, oauth, folder)
    port = int(reader.number("IMAP_PORT", 993, 1, 65535))
    tls = reader.text("IMAP_TLS", "starttls" if port == 143 else "implicit").lower()
    if tls not in ("implicit", "starttls", "none"):
        problems.append("IMAP_TLS is none of implicit, starttls, none: leave it out, the port says which")
    elif tls == "none" and not _is_loopback(host):
        problems.append("IMAP_TLS=none would send mail and password in plain text: it is for this machine alone")
    return ImapBox(host, port, tls, ca_file, user, password, oauth, folder)


def _oauth(reader: Reader, host: str) -> OAuth | None:
    token = reader.text("IMAP_OAUTH_REFRESH_TOKEN", "")
    if not token:
        return None
    known = {**dict.fromkeys(_GMAIL_HOSTS, _GOOGLE), **dict.fromkeys(_MICROSOFT_HOSTS, _MICROSOFT)}
    default_url, default_scope = known.get(host.lower(), ("", ""))
    client = reader.required("IMAP_OAUTH_CLIENT_ID", "set it to the client that the refresh token was made for") or ""
    url = reader.text("IMAP_OAUTH_TOKEN_URL", default_url)
    if not _is_safe_url(url):
        wrong = "is no https URL" if url else "is not set, and not known for IMAP_HOST"
        reader.problems.append(f"IMAP_OAUTH_TOKEN_URL {wrong}: set it to your provider's token endpoint")
    scope = reader.text("IMAP_OAUTH_SCOPE", default_scope)
    return OAuth(url, client, reader.text("IMAP_OAUTH_CLIENT_SECRET", ""), token, scope)


def _holds_certificates(path: Path) -> bool:
    import ssl  # memory that no other setting needs

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # SSLError is one
        return False
    return True


def _is_safe_url(url: str) -> bool:
    """https, or http to this machine: tokens go there."""
    if not alerting.can_be_split(url):
        return False
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def mailbox_warnings(settings: Config) -> list[str]:
    """What the mailbox's credential could do besides reading, or is no use for."""
    box = settings.mailbox
    if isinstance(box, ImapBox) and box.password:
        if box.host.lower() in _MICROSOFT_HOSTS:
            return ["Microsoft takes no IMAP_PASSWORD any more, an app password neither: use OAuth (docs/mailbox.md)"]
        return [
            "IMAP_PASSWORD can also send at most providers: use OAuth, or a mailbox that only receives"
            " (docs/security.md, The mailbox)"
        ]
    return []


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


class Reader:
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

    def number(self, name: str, default: float, least: float, most: float = sys.float_info.max) -> float:
        text = self.values.get(name, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            bound = f"of at least {least:g}" if most == sys.float_info.max else f"from {least:g} to {most:g}"
            self.problems.append(f"{name} is not a number {bound}: e.g. {name}={default:g}")
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
