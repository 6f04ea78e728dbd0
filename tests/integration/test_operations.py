"""The commands of docs/operations.md, taken from its code blocks and run, so that runbook and program stay together."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from cloud_agent import git as agent_git

from tests.gitkit import PERSON, PLAIN, Side, World, git, push_as_person

RUNBOOK = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()


def section(heading: str) -> str:
    parts = re.split(r"(?m)^## ", RUNBOOK)
    (found,) = [part for part in parts if part.startswith(f"{heading}\n")]
    return found


def blocks(heading: str) -> list[str]:
    found = re.findall(r"(?ms)^( *)```\n(.*?)^ *```$", section(heading))
    return [textwrap.dedent(text) for _, text in found]


def by_hand(folder: Path, commands: str) -> str:
    """Commands as a person pastes them; the first that fails ends it."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=folder, env=PERSON, check=False, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def count(folder: Path, ref: str = "HEAD") -> int:
    return int(git(folder, "rev-list", "--count", ref))


# -- failures ----------------------------------------------------------------------------------------------------------


def test_every_kind_of_failure_has_its_row() -> None:
    rows = set(re.findall(r"(?m)^\| `([a-z ]+)` \|", section("When it does not sync")))
    kinds = {kind for _, kind, _ in (*agent_git._LOCAL_KINDS, *agent_git._REMOTE_KINDS)}
    assert kinds | {"git"} <= rows
    assert rows - kinds <= {"git", "broken", "vault"}, "a row for a kind that there is not"


def test_links_inside_the_runbook_lead_somewhere() -> None:
    headings = re.findall(r"(?m)^#+ (.+)$", RUNBOOK)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors


# -- a shorter history -------------------------------------------------------------------------------------------------


@pytest.fixture
def old_vault(world: World) -> World:
    """A vault with some history, two loops (Cloud's and the laptop's) and a third, plain clone."""
    for number in range(4):
        world.cloud.write("Inbox/day.md", f"cloud {number}\n")
        world.cloud.synced()
        push_as_person(world, {"note.md": f"local {number}\n"})
    world.converge()
    git(world.root, "clone", "-q", str(world.remote), "plain")
    return world


def test_shorter_history(old_vault: World) -> None:
    """The quoted commands; the loops go over to the new history, and what they had not synced yet is kept."""
    world, plain = old_vault, old_vault.root / "plain"
    before = world.remote_files()
    shorten, reclaim = blocks("Make the history shorter")
    by_hand(plain, shorten)
    assert count(world.remote, "main") == 1
    assert world.remote_files() == before
    (bundle,) = world.root.glob("vault-history-*.bundle")
    assert count(plain, "main") == 1
    git(world.root, "clone", "-q", "-b", "main", str(bundle), "old")
    assert count(world.root / "old") > 8
    # written while the loops were stopped, on both sides
    world.cloud.write("Inbox/new.md", "not yet synced, on Cloud\n")
    world.cloud.write("Inbox/day.md", "edited, not yet synced\n")
    (world.cloud.vault / "Company_Handbook.md").unlink()
    world.local.write("Notes/new.md", "not yet synced, on the laptop\n")
    files = world.converge()
    expected = dict(before)
    del expected["Company_Handbook.md"]
    expected |= {
        "Inbox/new.md": "not yet synced, on Cloud\n",
        "Inbox/day.md": "edited, not yet synced\n",
        "Notes/new.md": "not yet synced, on the laptop\n",
    }
    told = {path: text for path, text in files.items() if path != "Dashboard.md" and not path.startswith("Logs/")}
    del expected["Dashboard.md"]
    assert told == expected
    assert count(world.remote, "main") <= 6, "a loop brought the old history back"
    assert not [path for path in files if ".conflict-" in path]
    # and the space comes back
    for side in (world.cloud, world.local):
        by_hand(side.vault, reclaim)
        assert side.git("for-each-ref", "refs/cloud-agent/kept") == ""
        assert "cloud 1" not in side.git("log", "--all", "--reflog", "-p")
        side.synced()
    world.converge()


def test_shorter_history_with_a_commit_that_was_not_pushed(old_vault: World) -> None:
    """A loop that was stopped between its commit and its push: the commit comes on top."""
    world = old_vault
    world.cloud.set_remote(str(world.root / "away.git"))
    world.cloud.write("Inbox/unpushed.md", "committed, not pushed\n")
    assert world.cloud.sync().result == "later"
    world.cloud.set_remote(str(world.remote))
    by_hand(world.root / "plain", blocks("Make the history shorter")[0])
    world.cloud.synced()  # and it says that it works again, which is a commit of the next cycle
    files = world.converge()
    assert files["Inbox/unpushed.md"] == "committed, not pushed\n"
    assert count(world.remote, "main") <= 5
    assert not [path for path in files if ".conflict-" in path]


def test_plain_clone_follows_a_shorter_history(old_vault: World) -> None:
    world = old_vault
    git(world.root, "clone", "-q", str(world.remote), "another")
    by_hand(world.root / "plain", blocks("Make the history shorter")[0])
    follow = re.search(r"Another clone: `([^`]+)`", section("Make the history shorter"))
    assert follow
    by_hand(world.root / "another", follow[1])
    assert count(world.root / "another") == 1


def test_a_secret_is_gone_from_everywhere(old_vault: World) -> None:
    """Pushed by hand; then the steps, in their order."""
    world, plain = old_vault, old_vault.root / "plain"
    secret = "sk-ant-" + "api03-" + "y" * 40
    push_as_person(world, {"Notes/keys.md": f"mine: {secret}\n"})
    world.converge()
    push_as_person(world, {"Notes/keys.md": "mine: see the password manager\n"})
    world.converge()
    shorten, reclaim = blocks("Make the history shorter")
    by_hand(plain, shorten)
    for bundle in world.root.glob("*.bundle"):
        bundle.unlink()
    world.converge()
    check = re.search(r"To check, in any clone: `([^`]+)`", section("Really remove something from the history"))
    assert check
    for folder in (plain, world.cloud.vault, world.local.vault):
        assert secret in git(folder, "cat-file", "--batch", "--batch-all-objects"), "nothing to remove: no test"
        by_hand(folder, reclaim)
        assert secret not in git(folder, "cat-file", "--batch", "--batch-all-objects")
        assert by_hand(folder, check[1].replace("THE-KEY", secret)) == ""
    world.converge()


# -- the loop on the laptop --------------------------------------------------------------------------------------------


def test_settings_of_the_laptop(world: World) -> None:
    """The quoted `.env.local`, with the placeholders filled in; the agent's checks and one cycle."""
    home = world.root / "home"
    folder = home / "personal-ai"
    (folder / "state").mkdir(parents=True)
    git(world.root, "clone", "-q", str(world.remote), str(folder / "vault"))
    (settings,) = [text for text in blocks("The loop on the laptop") if text.startswith("VAULT_PATH=")]
    settings = settings.replace("git@github.com:YOU/YOUR-VAULT.git", str(world.remote))
    assert "YOU" not in settings
    env_file = folder / ".env.local"
    env_file.write_text(settings)
    env_file.chmod(0o600)
    command = world.local.command()[0]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, "--env-file", str(env_file), *arguments], cwd=home, check=False, capture_output=True, text=True,
            env={**PLAIN, "HOME": str(home)}, timeout=60,
        )  # fmt: skip

    checked = run("check")
    assert (checked.returncode, checked.stdout.count("warning")) == (0, 0), checked.stdout
    (folder / "vault/from the laptop.md").write_text("x\n")
    assert run("sync", "--once").returncode == 0
    assert world.remote_files()["from the laptop.md"] == "x\n"
    assert git(world.remote, "log", "-1", "--format=%an %s", "main").startswith("Local Agent Local: ")
    assert os.listdir(folder / "state")


def test_unit_of_the_laptop(tmp_path: Path) -> None:
    """systemd takes the quoted unit, with the paths of this machine."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd here")
    (unit,) = [text for text in blocks("The loop on the laptop") if text.startswith("[Unit]")]
    program = re.search(r"(?m)^ExecStart=(\S+) ", unit)
    assert program
    file = tmp_path / "vault-sync.service"
    file.write_text(unit.replace(program[1], shutil.which("true") or "/bin/true"))
    done = subprocess.run([verify, "verify", str(file)], check=False, capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if "vault-sync" in line]
    assert said == []


# -- a mass deletion ---------------------------------------------------------------------------------------------------


def test_both_ways_out_of_a_mass_deletion(world: World) -> None:
    allow, restore = (line.partition("#")[0].split() for line in blocks("A mass deletion")[0].splitlines())
    side: Side = world.cloud
    for number in range(20):
        side.write(f"Notes/{number}.md", "x\n")
    side.synced()
    for path in side.vault.glob("Notes/*.md"):
        path.unlink()
    assert side.synced().held
    by_hand(side.vault, " ".join(restore))
    assert side.synced().held == {}
    assert (side.vault / "Notes/3.md").exists()
    for path in side.vault.glob("Notes/*.md"):
        path.unlink()
    assert side.synced().held
    assert allow[0] == "agent"
    assert side.run(*allow[1:]).returncode == 0
    assert "Notes/3.md" not in world.remote_files()
    assert side.state.alerts() == {}
