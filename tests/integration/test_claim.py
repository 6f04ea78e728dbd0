"""Agents that share a vault, `CLAIM=yes`: whatever comes in between, one draft a mail, and no mail lost."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_agent import claim, status
from cloud_agent.backoff import Backoff
from cloud_agent.claude import TryLater
from cloud_agent.drafting import MAX_TRIES
from cloud_agent.mail import Mail
from cloud_agent.state import utc_now
from cloud_agent.sync import Syncer
from cloud_agent.vault import PENDING
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from tests import gitkit
from tests.helpers import MAIL_FOLDERS, Clock, Desk, Killed, KillingOS, mail_text, reply
from tests.standins import messages_api

X, DRAFT_X = "EMAIL_x.md", "EMAIL_DRAFT_x.md"


class Agent(Desk):
    """A desk in a clone of its own, with the sync loop's step."""

    def __init__(self, root: Path, name: str, clock: Clock, **settings: Any) -> None:
        settings = {"agent_name": name, "git_remote_url": str(root / "remote.git"), "claim": True} | settings
        super().__init__(root / name, **settings)
        self.name = name
        self.clock = clock
        self.cycles = itertools.count(1)
        self.drafter.behave = self._answer
        self.restart()

    def _answer(self, mail: Mail) -> Any:
        return reply(f"Dear Ann, reply-{self.name}-{len(self.drafter.calls)} is yours")

    def sync(self) -> None:
        outcome = Syncer(self.config, self.state, self.clock, sleep=lambda seconds: None).cycle()
        assert outcome.result == "ok", outcome.message
        self.state.beat("sync", next(self.cycles), self.clock(), self.clock(), "ok")

    @property
    def own(self) -> str:
        return f"In_Progress/{self.name}"


class Team:
    """A bare remote, agents, and the owner's clone."""

    def __init__(self, root: Path, *names: str) -> None:
        self.root = root
        self.clock = Clock()
        gitkit.git(root, "init", "-q", "--bare", "--initial-branch=main", str(root / "remote.git"))
        self.agents = [Agent(root, name, self.clock) for name in names]
        self.local = Agent(root, "local", self.clock)
        self.local.write(".gitignore", ".cloud-agent-*\n")  # as in every vault: what a kill leaves
        for side in (*self.agents, self.local):
            side.sync()
        self.level()

    def level(self) -> None:
        """Everybody syncs until all have the same."""
        for _ in range(3):
            for side in (*self.agents, self.local):
                if not self._is_level():
                    side.sync()
        assert self._is_level()

    def settle(self) -> None:
        """Everybody works on until nothing is left to do."""
        for _ in range(6):
            self.level()
            for agent in self.agents:
                agent.run()
            if self._is_level():
                return
        raise AssertionError("there is always something left to do")

    def _is_level(self) -> bool:
        sides = [side.vault for side in (*self.agents, self.local)]
        refs = [(side, "HEAD") for side in sides]
        tips = {gitkit.git(folder, "rev-parse", ref) for folder, ref in [*refs, (self.root / "remote.git", "main")]}
        return len(tips) == 1 and not any(gitkit.git(side, "status", "--porcelain") for side in sides)

    def remote_files(self) -> dict[str, str]:
        return gitkit.tree(self.root / "remote.git", "main")

    def places(self, token: str) -> list[str]:
        """Where a mail stands on the remote."""
        return [
            path
            for path, text in self.remote_files().items()
            if token in text and "draft_id" not in text and Path(path).name.startswith("EMAIL_")
        ]

    def drafts(self) -> list[str]:
        return [path for path, text in self.remote_files().items() if "draft_id" in text]

    def held_elsewhere(self, agent: Agent, email_id: str) -> bool:
        """Whether the agent has a draft of this mail that the others may not know of."""
        return any(agent.fields(path)["email_id"] == email_id for path in agent.drafts())


@pytest.fixture
def pair(tmp_path: Path) -> Team:
    return Team(tmp_path, "cloud", "cloud-2")


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        (["In_Progress/b/EMAIL_x.md"], True),
        (["In_Progress/b/EMAIL_x.md", "In_Progress/a/EMAIL_y.md"], True),
        ([], False),
        (["In_Progress/a/EMAIL_x.md"], False),
        (["In_Progress/b/EMAIL_x.md", "In_Progress/a/EMAIL_x.md"], False),
        (["In_Progress/b/EMAIL_x.md", "In_Progress/local/EMAIL_x.md"], False),
        (["In_Progress/bb/EMAIL_x.md"], False),
    ],
)
def test_a_claim_is_proven_when_the_remote_has_it_in_our_folder_alone(remote: list[str], expected: bool) -> None:
    found = claim.proven(["In_Progress/b/EMAIL_x.md"], remote, "In_Progress/b")
    assert found == ({"In_Progress/b/EMAIL_x.md"} if expected else set())


def test_a_mail_is_claimed_and_drafted_once_the_remote_has_it(pair: Team) -> None:
    agent = pair.agents[1]
    before = agent.put().read_bytes()
    report = agent.run()
    assert (report.result, report.claimed, report.drafted) == ("later", 1, 0)
    assert "no sync loop is running" in report.message
    assert (agent.vault / agent.own / X).read_bytes() == before  # a move, and nothing else
    assert agent.drafter.calls == []
    agent.sync()
    report = agent.run()
    assert (report.result, report.drafted) == ("ok", 1)
    assert agent.drafts() == [f"{PENDING}/{DRAFT_X}"]
    fields = agent.fields(f"{agent.own}/{X}")
    assert (fields["decision"], fields["drafted_as"]) == ("reply", "EMAIL_DRAFT_x")
    assert agent.names("Inbox") == []
    assert agent.read("Dashboard.md").count("[[EMAIL_DRAFT_x]]") == 1
    agent.move(f"{PENDING}/{DRAFT_X}", f"Approved/Email/{DRAFT_X}")
    agent.run()
    assert agent.names("Done/Email") == [X]
    assert agent.names(agent.own) == []
    assert len(agent.drafter.calls) == 1


def test_a_claim_is_a_rename_to_git(pair: Team) -> None:
    """Two of them are one file renamed to two places, which a join can tell from two files."""
    agent = pair.agents[1]
    agent.write("Inbox/EMAIL_from a script.md", mail_text("x"))
    agent.sync()
    agent.run()
    agent.sync()
    renames = gitkit.git(agent.vault, "log", "-1", "--format=", "--name-status", "-M100%", "--diff-filter=R", "HEAD")
    assert renames == f"R100\tInbox/EMAIL_from a script.md\t{agent.own}/{X}"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("known", [True, False], ids=["synced before", "taken in on both sides"])
@pytest.mark.parametrize("order", ["abAaBb", "abABba", "abABAabBA", "abABAbaAB", "aAbaBb"])
def test_two_agents_claim_one_mail(pair: Team, first: int, known: bool, order: str) -> None:
    """`order`: a and b are passes of the two, A and B their sync cycles."""
    a, b = pair.agents[first], pair.agents[1 - first]
    a.put("x", "token-1")
    if known:
        pair.level()
    else:
        b.put("x", "token-1")
    steps = {"a": a.run, "b": b.run, "A": a.sync, "B": b.sync}
    for step in order:
        steps[step]()
    pair.settle()
    assert pair.drafts() == [f"{PENDING}/{DRAFT_X}"]
    (place,) = pair.places("token-1")
    assert place in (f"{a.own}/{X}", f"{b.own}/{X}")
    assert len(a.drafter.calls) + len(b.drafter.calls) == 1
    if "Aa" in order[:4]:  # it had drafted before the other pushed
        assert len(a.drafter.calls) == 1


def test_two_files_of_one_id_claimed_by_two_agents(pair: Team) -> None:
    a, b = pair.agents
    a.write("Inbox/EMAIL_a.md", mail_text("x", "token-1"))
    b.write("Inbox/EMAIL_b.md", mail_text("x", "token-2"))
    a.run()
    b.run()
    pair.settle()
    assert len(pair.drafts()) == 1
    assert {Path(place).parts[0] for token in ("token-1", "token-2") for place in pair.places(token)} == {
        "In_Progress",
        "Needs_Action",
    }


def test_both_agents_file_a_mailing(pair: Team) -> None:
    pair.local.put("x", "token-1", precedence="bulk")
    pair.local.put("y", "token-2", list_id="<x.y>")
    pair.level()
    for agent in pair.agents:
        agent.run()
    pair.settle()
    assert pair.places("token-1") == [f"Done/Skipped/{X}"]
    assert pair.places("token-2") == ["Needs_Action/Email/EMAIL_y.md"]


def test_a_person_takes_a_claimed_mail_back(pair: Team) -> None:
    a, b = pair.agents
    a.put("x", "token-1")
    a.run()
    a.sync()
    pair.local.sync()
    pair.local.move(f"{a.own}/{X}", f"Inbox/{X}")
    pair.local.sync()
    b.sync()
    b.run()
    b.sync()
    assert b.run().drafted == 1
    pair.settle()
    assert pair.places("token-1") == [f"{b.own}/{X}"]
    assert a.drafter.calls == []


def test_an_agent_that_comes_back_asks_before_it_drafts(pair: Team) -> None:
    """Its claim was proven when it died; meanwhile a person released the mail, and the other agent drafted it."""
    a, b = pair.agents
    a.put("x", "token-1")
    a.run()
    a.sync()
    pair.clock.advance(hours=2)
    for side in (pair.local, b):
        side.sync()
    pair.local.move(f"{a.own}/{X}", f"Inbox/{X}")
    pair.local.sync()
    b.sync()
    b.run()
    b.sync()
    b.run()
    b.sync()
    a.restart()
    assert a.run().result == "later"
    assert a.drafter.calls == []
    pair.settle()
    assert len(pair.drafts()) == 1
    assert a.drafter.calls == []


def test_what_another_agent_holds_for_long_is_told_until_it_is_gone(pair: Team) -> None:
    a, b = pair.agents
    a.put("x")
    a.run()
    a.sync()
    b.sync()
    b.put("x")  # taken in once more
    b.run()
    assert b.names("Inbox") == []
    assert b.state.alerts() == {}
    held = b.vault / a.own / X
    os.utime(held, (time.time() - 4000,) * 2)
    b.run()
    b.run()
    (alert,) = b.state.alerts().values()
    assert alert["message"] == (
        f"{a.own}/{X} has been claimed by cloud for more than an hour and has no draft: "
        "if cloud is not running any more, move the file back to Inbox/"
    )
    assert b.read("Dashboard.md").count("has been claimed by") == 1
    assert held.exists()
    assert b.drafter.calls == []
    assert a.state.alerts() == {}
    a.run()  # it lives
    a.sync()
    b.sync()
    b.run()
    assert b.state.alerts() == {}


def test_an_agent_that_cannot_draft_does_not_gather_mail(pair: Team) -> None:
    a, b = pair.agents

    def down(mail: Mail) -> Any:
        raise TryLater("529: overloaded")

    a.drafter.behave = down
    a.put("first")
    a.run()
    a.sync()
    a.run()
    a.put("second")
    a.run()
    assert a.names("Inbox") == ["EMAIL_second.md"]
    pair.level()
    b.run()
    b.sync()
    assert b.run().drafted == 1
    a.drafter.behave = a._answer
    a.orchestrator.backoff = Backoff()  # the pause is over
    pair.settle()
    assert sorted(Path(path).name for path in pair.drafts()) == ["EMAIL_DRAFT_first.md", "EMAIL_DRAFT_second.md"]
    assert len(b.drafter.calls) == 1


def test_a_mail_that_never_gets_an_answer_holds_up_none_in_the_inbox(pair: Team) -> None:
    """Whether it is the mail's fault, another one tells: one is claimed for that."""
    agent = pair.agents[0]

    def behave(mail: Mail) -> Any:
        if mail.email_id == "bad":
            raise TryLater("500: internal error", sent=True)
        return agent._answer(mail)

    agent.drafter.behave = behave
    agent.put("bad")
    agent.run()
    agent.sync()
    agent.run()
    agent.put("good")
    for _ in range(MAX_TRIES):
        agent.clock.advance(minutes=5)
        agent.run()
        agent.sync()
    agent.clock.advance(minutes=5)
    assert agent.run().drafted == 1
    assert agent.names("Inbox") == []


def test_without_claims_a_mail_in_our_own_folder_is_drafted(desk: Desk) -> None:
    """`CLAIM` was yes before, or a person laid it there."""
    desk.write(f"In_Progress/cloud/{X}", mail_text("x"))
    assert desk.run().drafted == 1
    assert desk.names("In_Progress/cloud") == [X]
    assert desk.fields(f"In_Progress/cloud/{X}")["drafted_as"] == "EMAIL_DRAFT_x"
    before = desk.files()
    desk.run()
    assert desk.files() == before


@pytest.mark.parametrize(("claims", "processes"), [(False, 0), (True, 1)])
def test_the_single_agent_pays_nothing(
    pair: Team, monkeypatch: pytest.MonkeyPatch, claims: bool, processes: int
) -> None:
    """No git process in a pass, no cycle asked for. With claims: one, where there is something to draft."""
    agent = pair.agents[0]
    agent.config = agent.config.__class__(**{**vars(agent.config), "claim": claims})
    agent.restart()
    agent.put()
    agent.run()
    agent.sync()
    agent.put("y")
    started: list[object] = []
    real = subprocess.Popen.__init__

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        started.append(arguments)
        real(self, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", start)
    monkeypatch.setattr(os, "kill", lambda *arguments: started.append(arguments))
    agent.run()
    assert len(started) == processes
    agent.sync()
    agent.run()
    started.clear()
    agent.run()
    assert started == []


def test_the_sync_loop_is_asked_and_waited_for(pair: Team, command: list[str]) -> None:
    """One pass claims, has the loop push, and drafts: the loop's interval is an hour."""
    agent = pair.agents[0]
    env_file = agent.root / ".env.cloud"
    env_file.write_text(
        f"VAULT_PATH={agent.vault}\nGIT_REMOTE_URL={agent.config.git_remote_url}\nCLAUDE_API_KEY=some-test-key\n"
        f"CLAIM=yes\nSYNC_INTERVAL_SECONDS=3600\n"
    )
    env_file.chmod(0o600)
    agent.clock = utc_now  # type: ignore[assignment]  # the loop's clock
    agent.restart()
    loop = subprocess.Popen([*command, "--env-file", str(env_file), "sync"], env=gitkit.PLAIN, cwd=agent.root)
    try:
        while agent.state.read_beat("sync").get("pid") != loop.pid:
            assert loop.poll() is None
            time.sleep(0.05)
        for number in range(3):
            agent.put(f"m{number}")
        report = agent.run()
        assert (report.result, report.claimed, report.drafted) == ("ok", 3, 3)
    finally:
        loop.terminate()
        assert loop.wait(20) == 0


def test_a_stop_ends_the_wait(pair: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = pair.agents[0]
    agent.put()

    def ask(state: object) -> str:
        threading.Timer(0.2, agent.stop.set).start()
        return ""

    monkeypatch.setattr(status, "ask_for_cycle", ask)
    began = time.monotonic()
    assert agent.run().result == "later"
    assert time.monotonic() - began < 10
    assert agent.drafter.calls == []


@pytest.fixture
def api() -> Iterator[messages_api.MessagesAPI]:
    with messages_api.running() as server:
        yield server


def test_by_command_without_a_loop(tmp_path: Path, command: list[str], api: messages_api.MessagesAPI) -> None:
    """`draft --once` claims and says what is missing; after `sync --once` it drafts."""
    team = Team(tmp_path, "cloud", "cloud-2")
    team.local.put("x", "Could you call me?")
    team.level()

    def run(agent: Agent, *arguments: str) -> subprocess.CompletedProcess[str]:
        env_file = agent.root / ".env.cloud"
        env_file.write_text(
            f"VAULT_PATH={agent.vault}\nGIT_REMOTE_URL={agent.config.git_remote_url}\nCLAUDE_API_KEY=some-test-key\n"
            f"CLAIM=yes\nAGENT_NAME={agent.name}\nCLAUDE_BASE_URL={api.url}\n"
        )
        env_file.chmod(0o600)
        where = [*command, "--env-file", str(env_file), *arguments]
        return subprocess.run(where, env=gitkit.PLAIN, cwd=agent.root, capture_output=True, text=True, timeout=60)

    for agent in team.agents:
        ended = run(agent, "draft", "--once")
        assert ended.returncode == 75
        assert "1 mail claimed and not yet confirmed by the remote: no sync loop is running" in ended.stderr
    for agent in (*team.agents, team.agents[0]):
        assert run(agent, "sync", "--once").returncode == 0
    ended = [run(agent, "draft", "--once").returncode for agent in team.agents]
    for agent in (*team.agents, team.agents[0]):
        assert run(agent, "sync", "--once").returncode == 0
        assert run(agent, "draft", "--once").returncode in (0, 75)
        assert run(agent, "sync", "--once").returncode == 0
    assert team.drafts() == [f"{PENDING}/{DRAFT_X}"]
    assert len(team.places("email_id: x")) == 1


def run_killed(agent: Agent, kill_at: int) -> bool:
    """One pass that dies before its Nth change of the disk; True when it came to its end all the same."""
    try:
        with KillingOS(kill_at):
            agent.run()
    except Killed:
        agent.restart()
        return False
    return True


@pytest.mark.parametrize("scene", ["claim", "draft"])
def test_killed_and_synced_half_done(tmp_path: Path, scene: str) -> None:
    """Before each change of the disk; the other agent sees what is left, and works on."""
    team = Team(tmp_path, "cloud", "cloud-2")
    a, b = team.agents
    for kill_at in range(60):
        email_id, token = f"x{kill_at}", f"token-{kill_at}-"
        a.put(email_id, token)
        team.level()
        if scene == "draft":
            a.run()
            a.sync()
        ended = run_killed(a, kill_at)
        a.sync()
        b.sync()
        b.run()
        team.settle()
        (place,) = team.places(token)
        assert place == f"{a.own}/EMAIL_{email_id}.md" or (scene == "claim" and place.startswith(b.own))
        assert "drafted_as: " in team.remote_files()[place]
        assert [path for path in team.drafts() if path.endswith(f"_{email_id}.md")] == [
            f"{PENDING}/EMAIL_DRAFT_{email_id}.md"
        ]
        if ended:
            return
    raise AssertionError("it never came to an end")


class Office(RuleBasedStateMachine):
    """Two agents and the owner, each in a clone; passes are killed, and everybody syncs when he likes."""

    ids = Bundle("ids")
    sides = st.sampled_from([0, 1, 2])
    workers = st.sampled_from([0, 1])

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.team = Team(self.root, "cloud", "cloud-2")
        self.agents = self.team.agents
        self.local = self.team.local
        self.everybody = [*self.agents, self.local]
        self.mails: dict[str, tuple[str, str]] = {}  # token -> email_id, kind
        self.calls: dict[str, set[str]] = {}  # email_id -> which call made its drafts, wherever they were seen
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    def check(self) -> None:
        everything = [side.files() for side in self.everybody]
        for files in everything:
            for content in files.values():
                if b"draft_id" in content:
                    call = next(word for word in content.decode().split() if word.startswith("reply-"))
                    email_id = next(line for line in content.decode().splitlines() if line.startswith("email_id: "))
                    self.calls.setdefault(email_id, set()).add(call)
        for email_id, calls in self.calls.items():
            assert len(calls) == 1, f"{email_id} was drafted twice: {calls}"
        remote = [text.encode() for text in self.team.remote_files().values()]
        for token in self.mails:
            assert any(
                token.encode() in content and b"draft_id" not in content
                for content in itertools.chain(*(files.values() for files in everything), remote)
            ), f"{token} is lost"

    # -- mails -----------------------------------------------------------------------------------------------------

    @rule(
        target=ids,
        side=sides,
        kind=st.sampled_from(["plain", "plain", "plain", "bulk"]),
        count=st.integers(1, 3),
        known=st.booleans(),
    )
    def mails_arrive(self, side: int, kind: str, count: int, known: bool) -> Any:
        made = []
        for _ in range(count):
            self.count += 1
            email_id, token = f"m{self.count}", f"token-{self.count}-"
            self.mails[token] = (email_id, kind)
            header = {"precedence": "bulk"} if kind == "bulk" else {}
            text = mail_text(email_id, token, **header)
            self.everybody[side].write(f"Inbox/EMAIL_in{self.count}.md", text)
            made.append((email_id, text))
        if known:
            self.team.level()
        return multiple(*made)

    @rule(mail=ids, side=sides)
    def the_same_mail_is_taken_in_again(self, mail: tuple[str, str], side: int) -> None:
        self.count += 1
        self.everybody[side].write(f"Inbox/EMAIL_again{self.count}.md", mail[1])

    # -- the owner -------------------------------------------------------------------------------------------------

    @rule(data=st.data(), to=st.sampled_from(["Approved/Email", "Rejected/Email", f"{PENDING}/later"]))
    def a_draft_is_moved(self, data: st.DataObject, to: str) -> None:
        drafts = [path for path in self.local.drafts() if path.startswith("Pending_Approval")]
        if drafts:
            source = data.draw(st.sampled_from(drafts))
            self.local.move(source, f"{to}/{Path(source).name}")

    @rule(data=st.data())
    def a_skipped_mail_is_put_back(self, data: st.DataObject) -> None:
        if lying := self.local.names("Done/Skipped"):
            self.count += 1
            self.local.move(f"Done/Skipped/{data.draw(st.sampled_from(lying))}", f"Inbox/EMAIL_back{self.count}.md")

    @rule(data=st.data())
    def a_mail_of_an_agent_that_is_down_is_put_back(self, data: st.DataObject) -> None:
        """It has been down for hours, and had not drafted it: a draft that it could not push would be a second one."""
        self.team.clock.advance(hours=2)
        self.local.sync()
        held = [
            (agent, f"{agent.own}/{name}")
            for agent in self.agents
            for name in self.local.names(agent.own)
            if "drafted_as" not in (fields := self.local.fields(f"{agent.own}/{name}"))
            and not any(self.team.held_elsewhere(side, fields["email_id"]) for side in self.everybody)
        ]
        if held:
            self.count += 1
            self.local.move(data.draw(st.sampled_from(held))[1], f"Inbox/EMAIL_back{self.count}.md")
            self.local.sync()

    # -- the machines ----------------------------------------------------------------------------------------------

    @rule(side=sides)
    def one_syncs(self, side: int) -> None:
        self.everybody[side].sync()
        self.check()

    @rule(steps=st.lists(st.tuples(workers, st.sampled_from(["pass", "sync"])), min_size=1, max_size=6))
    def the_agents_work(self, steps: list[tuple[int, str]]) -> None:
        for worker, step in steps:
            self.team.clock.advance(minutes=1)
            if step == "sync":
                self.agents[worker].sync()
            else:
                assert self.agents[worker].run().result in ("ok", "later")
        self.check()

    @rule(worker=workers, kill_at=st.integers(0, 40))
    def a_pass_is_killed(self, worker: int, kill_at: int) -> None:
        run_killed(self.agents[worker], kill_at)
        self.check()

    @rule()
    def all_is_done_in_the_end(self) -> None:
        self.team.settle()
        self.check()
        for agent in self.agents:
            assert agent.names("Inbox") == []
        files = self.team.remote_files()
        folders = (*MAIL_FOLDERS, *(agent.own for agent in self.agents))
        for token, (email_id, kind) in self.mails.items():
            places = [
                path
                for path, text in files.items()
                if path.rpartition("/")[0] in folders and token in text and "draft_id" not in text
            ]
            assert len(places) == 1, f"{token} stands in {places}"
            assert kind == "bulk" or f"email_id: {email_id}" in self.calls, f"{email_id} has no draft: {places}"


Office.TestCase.settings = settings(
    max_examples=int(os.environ.get("CLAIM_EXAMPLES", "10")),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="CLAIM_EXAMPLES" not in os.environ,
    phases=[Phase.explicit, Phase.generate],
)
TestOffice = Office.TestCase
