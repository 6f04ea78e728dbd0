#!/usr/bin/python
"""Module that registers a deploy key with GitHub. It runs where Ansible does; the token goes nowhere else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import urllib.error

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: deploy_key_at_github
short_description: A deploy key in the settings of a GitHub repository
description:
  - Sees to it that a key is registered with write access, or not at all. A key of ours that may only read is replaced,
    for GitHub does not change one. Other keys are never touched.
  - Waits when GitHub asks to, within reason, and tries again when it is out of order.
options:
  api_url:
    description: Address of the API, C(https://api.github.com) or that of a GitHub Enterprise server.
    type: str
    required: true
  token:
    description: A token with the permission "Administration, read and write" for the repository.
    type: str
    required: true
  repository:
    description: C(owner/name).
    type: str
    required: true
  title:
    description: The key's name in the settings.
    type: str
  key:
    description: Type and key, without a comment. Without one, as in a dry run on a virgin machine, nothing is done.
    type: str
    required: true
  ours:
    description: Other public keys that may bear the same title, because the same machine made them.
    type: list
    elements: str
    default: []
  state:
    description: Whether the key is to be there.
    type: str
    choices: [present, absent]
    default: present
"""

RETURN = r"""
done: {description: What was done, in words., type: list, returned: always}
"""

TRIES = 4
LONGEST_WAIT = 120  # seconds; a longer one is told instead
DEADLINE = 30  # seconds, for one request


class Refused(Exception):
    """GitHub's answer is an error; `status` is 0 where there was none."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GitHub:
    """The deploy keys of one repository."""

    def __init__(self, api_url: str, token: str, repository: str) -> None:
        self.api_url = api_url.rstrip("/")
        self.keys_url = f"{self.api_url}/repos/{repository}/keys"
        self.token = token

    def list(self) -> list[dict]:
        keys: list[dict] = []
        url: str | None = f"{self.keys_url}?per_page=100"
        while url:
            page, headers = self._call("GET", url)
            keys += page
            url = next_page(headers.get("Link", ""))
            if url and not url.startswith(f"{self.api_url}/"):  # the token goes along
                raise Refused(0, f"the next page of the keys is said to be at {url}, which is another place")
        return keys

    def add(self, title: str, key: str) -> None:
        self._call("POST", self.keys_url, {"title": title, "key": key, "read_only": False})

    def remove(self, number: int) -> None:
        try:
            self._call("DELETE", f"{self.keys_url}/{number}")
        except Refused as refused:
            if refused.status != 404:  # somebody was faster, or our first try had worked
                raise

    def _call(self, method: str, url: str, body: dict | None = None) -> tuple:
        for left in reversed(range(TRIES)):
            try:
                return self._try(method, url, body)
            except urllib.error.HTTPError as error:
                answer = error.read()
                wait = pause(error.code, error.headers, time.time(), TRIES - left)
                message = said(answer, error.reason)
                if wait is None or wait > LONGEST_WAIT or left == 0:
                    if wait is not None and error.code in (403, 429):
                        message += f" (it wants {wait:.0f} seconds of patience)"
                    raise Refused(error.code, message) from None
            except OSError as error:
                wait = 2.0 ** (TRIES - left)
                if left == 0:
                    raise Refused(0, f"no answer: {getattr(error, 'reason', error)}") from None
            time.sleep(wait)
        raise AssertionError

    def _try(self, method: str, url: str, body: dict | None) -> tuple:
        answer = open_url(
            url,
            method=method,
            data=None if body is None else json.dumps(body),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "User-Agent": "personal-ai-employee",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            timeout=DEADLINE,
            follow_redirects="none",  # a repository that was renamed is to be named anew, and the token stays here
        )
        content = answer.read()
        if answer.status >= 300:
            raise urllib.error.HTTPError(url, answer.status, "the repository was renamed", answer.headers, None)
        try:
            return (json.loads(content) if content else None), answer.headers
        except ValueError:
            raise Refused(0, "an answer that is no JSON, so it is not GitHub that answers there") from None


def next_page(link: str) -> str | None:
    """The address of the next page, from the header Link (RFC 8288)."""
    found = re.search(r'<([^>]+)>;[^,]*rel="next"', link)
    return found[1] if found else None


def pause(status: int, headers: dict, now: float, attempt: int) -> float | None:
    """Seconds after which to ask again; None where asking again changes nothing. `attempt` counts from 1.

    https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api: 403 or 429, with Retry-After or with
    no request remaining until x-ratelimit-reset.
    """
    if status in (403, 429):
        after, reset = headers.get("Retry-After") or "", headers.get("X-RateLimit-Reset") or ""
        if after.isdecimal():
            return float(after)
        if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
            return max(1.0, float(reset) - now)
        return 60.0 if status == 429 else None
    return 2.0**attempt if status >= 500 else None


def said(content: bytes, otherwise: str) -> str:
    """What an error's body says, in one line."""
    try:
        body = json.loads(content)
        details = [error.get("message", "") for error in body.get("errors", []) if isinstance(error, dict)]
        return ": ".join(filter(None, [body["message"], *details]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return str(otherwise)


def fingerprint(public: str) -> str:
    """As `ssh-keygen -l` and GitHub's pages print it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def same_title(keys: list[dict], title: str, ours: list[str]) -> list[str]:
    """The keys of this title that somebody else registered, each in words."""
    return [
        f"id {key['id']}, {fingerprint(key['key'])}, added {key.get('created_at')} by {key.get('added_by')},"
        f" last used {key.get('last_used') or 'never'}"
        for key in keys
        if key["title"] == title and key["key"] not in ours
    ]


def mend(status: int, message: str, repository: str) -> str:
    """What to do about GitHub's refusal."""
    if status == 422 and "already in use" in message:
        return (
            "This key is registered somewhere else: as a deploy key of another repository, or as a person's own."
            " GitHub lets a key open one door. Mend: remove it there, or make a new one with rotate_keys.yml"
        )
    if status in (301, 302, 307, 308):
        return "Mend: the repository has another name now; set agent_git_remote_url to it"
    if status == 401:
        fault = "Mend: the token is wrong, was revoked or has expired"
    elif status == 404:
        fault = f"Mend: correct agent_git_remote_url if there is no {repository}; else this token does not see it"
    elif status == 403 and "rate limit" not in message and "patience" not in message:
        fault = "Mend: the token may not do this"
    else:
        return "Mend: run this again later; https://www.githubstatus.com says whether GitHub is out of order"
    return (
        f'{fault}. Make a fine-grained one with "Administration: read and write" for {repository} alone at '
        "https://github.com/settings/personal-access-tokens/new and set deploy_key_github_token, or leave that empty"
        " and register the key by hand"
    )


def reconcile(github: GitHub, given: dict, check: bool) -> list[str]:
    """Bring GitHub in step; returns what was done, in words. Raises Refused, and ValueError for a foreign key."""
    done: list[str] = []
    keys = github.list()
    mine = [key for key in keys if key["key"] == given["key"]]
    if given["state"] == "absent":
        for key in mine:
            done.append(f"removed key {key['id']} ({fingerprint(key['key'])})")
            if not check:
                github.remove(key["id"])
        return done
    if any(not key["read_only"] for key in mine):
        return done
    foreign = [] if mine else same_title(keys, given["title"], [given["key"], *given["ours"]])
    if foreign:
        raise ValueError("; ".join(foreign))
    for key in mine:
        done.append(f"removed key {key['id']}, which could only read")
        if not check:
            github.remove(key["id"])
    done.append(f'added {fingerprint(given["key"])} as "{given["title"]}", with write access')
    if not check:
        try:
            github.add(given["title"], given["key"])
        except Refused as refused:
            # The answer to a first try that had worked may have been lost on its way.
            if "already in use" not in str(refused) or all(key["key"] != given["key"] for key in github.list()):
                raise
    return done


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "api_url": {"type": "str", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "repository": {"type": "str", "required": True},
            "title": {"type": "str"},
            "key": {"type": "str", "required": True, "no_log": False},
            "ours": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["title"])],
        supports_check_mode=True,
    )
    given = module.params
    if not given["key"]:
        module.exit_json(changed=False, done=[])
    github = GitHub(given["api_url"], given["token"], given["repository"])
    try:
        done = reconcile(github, given, module.check_mode)
    except Refused as refused:
        answered = f"answered {refused.status}: {refused}" if refused.status else f"gave {refused}"
        what_to_do = mend(refused.status, str(refused), given["repository"])
        module.fail_json(msg=f"{github.keys_url} {answered}. {what_to_do}.")
    except ValueError as foreign:
        module.fail_json(
            msg=f'{given["repository"]} has a deploy key "{given["title"]}" that this machine did not make: {foreign}.'
            " It is not touched. Mend: if its machine is gone, delete it at"
            f" https://github.com/{given['repository']}/settings/keys; if not, set deploy_key_title to another name."
            " Then run this again."
        )
    module.exit_json(changed=bool(done), done=done)


if __name__ == "__main__":
    main()
