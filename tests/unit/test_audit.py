"""The chain of records: whatever a kill or the sync's merge does it holds, and whatever else is done to it shows."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloud_agent import audit, credentials
from cloud_agent.journal import MAX_FIELD, Journal
from cloud_agent.state import State
from cloud_agent.vault import Vault
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import Clock, Killed, KillingOS

FEBRUARY, MARCH, APRIL = (f"Logs/Cloud/audit-2026-{month}.jsonl" for month in ("02", "03", "04"))
OLD = b'{"timestamp": "2026-02-01T00:00:00Z", "actor": "%s", "action_type": "x", "target": "x", "parameters": {}}\n'


class Side:
    """One machine: its vault, its state folder, its clock and its journal."""

    def __init__(self, root: Path, agent: str = "cloud", vault: Path | None = None) -> None:
        self.root = vault or root / "vault"
        self.root.mkdir(parents=True, exist_ok=True)
        self.vault = Vault(self.root, agent)
        self.state = State(root / f"state-{agent}")
        self.agent = agent
        self.clock = Clock()
        self.restart()

    def restart(self) -> None:
        self.journal = Journal(self.vault, self.agent, "audit", self.clock, self.state)

    def forget(self) -> None:
        """The state folder is deleted, and the process starts anew."""
        for file in self.state.folder.iterdir():
            file.unlink()
        self.restart()

    def record(self, *targets: object) -> None:
        for target in targets:
            self.journal.record("mail_moved", str(target), to="In_Progress/cloud/EMAIL_x.md")

    def read(self, path: str = FEBRUARY) -> list[bytes]:
        return (self.root / path).read_bytes().splitlines(keepends=True)

    def write(self, *lines: bytes, path: str = FEBRUARY) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(b"".join(lines))

    def targets(self, path: str = FEBRUARY) -> list[str]:
        return [json.loads(line)["target"] for line in self.read(path)]

    def fault(self, *, state: bool = True) -> str:
        return audit.verify(self.vault, self.state if state else None, self.clock()).fault

    def entries(self) -> int:
        return audit.verify(self.vault, self.state, self.clock()).entries


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


@pytest.fixture
def three(side: Side) -> Side:
    side.record("a", "b", "c")
    return side


# -- what is written ---------------------------------------------------------------------------------------------------


def test_a_record_has_the_hackathons_fields(side: Side) -> None:
    side.journal.record("mail_moved", "x", to="Done/Email/EMAIL_x.md")
    side.journal.record("draft_decided", "x", approval_status="approved", approved_by="local", draft="d")
    side.journal.record("sync_failed", "offline", result="failure", message="m")
    moved, decided, failed = map(json.loads, side.read())
    assert list(moved) == [
        *("timestamp", "action_type", "actor", "target", "parameters", "approval_status", "approved_by", "result"),
        *("prev", "hash"),
    ]
    assert moved["timestamp"] == "2026-02-16T12:00:00Z"
    assert (moved["actor"], moved["action_type"], moved["target"]) == ("cloud", "mail_moved", "x")
    assert moved["parameters"] == {"to": "Done/Email/EMAIL_x.md"}
    assert [(line["result"], line["approval_status"], line["approved_by"]) for line in (moved, decided, failed)] == [
        ("success", "", ""),
        ("success", "approved", "local"),
        ("failure", "", ""),
    ]
    assert (moved["prev"], decided["prev"], failed["prev"]) == ("", moved["hash"], decided["hash"])


def test_anybody_can_check_a_line(three: Side) -> None:
    """As docs/audit.md says: `jq -cj 'del(.hash)' | sha256sum`."""
    for line in three.read():
        record = json.loads(line)
        digest = record.pop("hash")
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == digest


@given(st.text(max_size=50), st.dictionaries(st.sampled_from(["to", "reason", "hash", "prev"]), st.text(), max_size=3))
def test_whatever_is_recorded_is_one_sound_line(target: str, parameters: dict[str, str]) -> None:
    record = {"actor": "cloud", "target": target, "parameters": parameters, "result": "success"}
    content, digest = audit.seal(record, "ab" * 32)
    assert content.count(b"\n") == 1
    assert audit.parse(content) == ("cloud", "ab" * 32, digest, True)
    assert audit.parse(content.replace(b"\n", b"\r\n")) == ("cloud", "ab" * 32, digest, True)


def test_words_of_a_mail_stay_short_and_are_text(side: Side) -> None:
    side.journal.record("x", "\ud800" + "s" * 100_000, reason='","prev":"","hash":"' + "r" * 100_000 + "\u2028\n")
    (line,) = side.read()
    record = json.loads(line)
    assert (len(record["target"]), len(record["parameters"]["reason"])) == (MAX_FIELD, MAX_FIELD)
    assert side.fault() == ""


def test_hashes_do_not_look_like_keys(side: Side) -> None:
    for number in range(300):
        side.record(number)
    assert credentials.found(b"".join(side.read())) is None


# -- what does no harm -------------------------------------------------------------------------------------------------


def test_nothing_was_recorded(side: Side) -> None:
    assert audit.verify(side.vault, side.state, side.clock()) == audit.Audit(0, "")


def test_the_chain_goes_on_after_a_restart_without_state_and_over_months(three: Side) -> None:
    three.restart()
    three.record("d")
    three.forget()
    three.clock.advance(days=20)
    three.record("e")
    three.forget()
    three.record("f")
    three.clock.advance(days=-20)  # a clock that is set back
    three.record("g")
    three.forget()
    three.record("h")
    assert (three.targets(), three.targets(MARCH)) == (["a", "b", "c", "d", "g", "h"], ["e", "f"])
    assert (three.fault(), three.entries()) == ("", 8)
    assert {json.loads(line)["prev"] for line in three.read() + three.read(MARCH)} >= {""}


def test_two_processes_write_one_chain(three: Side) -> None:
    """`draft --once` by hand between two passes of the loop."""
    by_hand = Journal(three.vault, "cloud", "audit", three.clock, three.state)
    for number in range(3):
        by_hand.record("x", f"by hand {number}")
        three.record(number)
    assert (three.fault(), three.entries()) == ("", 9)


def test_each_log_has_its_own_chain(three: Side) -> None:
    sync = Journal(three.vault, "cloud", "sync", three.clock, three.state)
    sync.record("sync_failed", "offline", result="failure")
    sync.record("sync_recovered", "sync")
    three.record("d")
    assert (three.fault(), three.entries()) == ("", 6)
    path = three.root / "Logs/Cloud/sync-2026-02.jsonl"
    assert json.loads(path.read_bytes().splitlines()[0])["prev"] == ""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    assert "sync-2026-02.jsonl: the first lines of cloud are missing" in three.fault()


@pytest.mark.parametrize("seed", range(5))
def test_lines_in_any_order_and_of_two_agents(tmp_path: Path, seed: int) -> None:
    one = Side(tmp_path)
    other = Side(tmp_path, "cloud-2", one.root)
    for number in range(20):
        one.record(number)
        other.record(number)
    lines = one.read()
    random.Random(seed).shuffle(lines)  # noqa: S311
    one.write(*lines)
    assert (one.fault(), other.fault(), one.entries()) == ("", "", 40)
    for side in (one, other):
        side.restart()
        side.record("next")
        side.forget()
        side.record("and after")
    assert (one.fault(), one.entries()) == ("", 44)


def test_windows_line_ends_and_blank_lines(three: Side) -> None:
    three.write(*(line.replace(b"\n", b"\r\n\r\n") for line in three.read()))
    three.record("d")
    assert three.fault() == ""


@pytest.mark.parametrize("cut", [1, 2, 30, -1])
def test_a_torn_line_is_ended_and_passed_over(three: Side, cut: int) -> None:
    """A power loss: the state folder, written later, does not know of the line."""
    whole, digest = audit.seal({"actor": "cloud", "target": "torn"}, three.state.head("audit", "cloud"))
    three.write(*three.read(), whole[:cut])
    assert three.fault() == ""
    three.restart()
    three.record("d", "e")
    assert three.fault() == ""
    line = json.loads(three.read()[-2])
    assert line["target"] == "d"
    assert (line["prev"] == digest) == (cut == -1), "the line was whole but for its end"
    three.forget()
    three.record("f")
    assert three.fault() == ""


def test_torn_bytes_where_a_line_was_are_damage(three: Side) -> None:
    lines = three.read()
    three.write(lines[0], lines[1][:50] + b"\n", lines[2])
    assert "line 3 does not follow: the line before it was removed or changed" in three.fault()
    assert three.fault(state=False)


def test_a_disk_that_is_full_half_way(three: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(KillingOS):
        written = 0

        def __getattr__(self, name: str) -> Any:
            real = super().__getattr__(name)
            if name != "write":
                return real

            def write(descriptor: int, content: bytes) -> Any:
                self.written += 1
                if self.written > 1:
                    raise OSError(28, "No space left on device")
                return real(descriptor, content[:40])

            return write

    with FullDisk(None), pytest.raises(OSError, match="No space"):
        three.record("lost")
    assert three.fault() == ""
    three.record("d")
    assert (three.fault(), three.entries()) == ("", 4)


def test_a_state_folder_that_cannot_be_written_holds_nothing_up(
    three: Side, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(State, "keep_head", fails)
        three.record("d", "e")
    assert "cannot be kept" in caplog.text
    three.restart()
    three.record("f")
    assert (three.fault(), three.entries()) == ("", 6)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"cloud": 5}', '{"cloud": {"hash": 5, "month": [], "first": {"2026-02": 5}}}']
)
def test_a_broken_memory_is_none(three: Side, content: str) -> None:
    (three.state.folder / "head-audit.json").write_text(content)
    assert three.fault() == ""
    three.restart()
    three.record("d")
    assert three.fault() == ""


def test_lines_of_the_version_before(side: Side) -> None:
    side.write(OLD % b"cloud", OLD % b"cloud", OLD % b"cloud-2")
    side.record("a", "b")
    side.write(*side.read(), OLD % b"cloud-2")  # that agent has not been upgraded yet
    assert (side.fault(), side.entries()) == ("", 6)
    assert json.loads(side.read()[3])["prev"] == ""


def test_what_the_owner_cleaned_up_is_not_missed(three: Side) -> None:
    three.clock.advance(days=25)
    three.record("d", "e")
    three.clock.advance(days=25)
    three.record("f")
    (three.root / FEBRUARY).unlink()
    assert (three.fault(), three.fault(state=False)) == ("", "")
    (three.root / MARCH).unlink()
    assert (three.fault(), three.fault(state=False)) == ("", "")
    three.restart()
    three.record("g")
    assert (three.fault(), three.entries()) == ("", 2)
    # nothing was recorded for long: the month of the last line goes too
    three.clock.advance(days=60)
    (three.root / APRIL).unlink()
    assert "the last lines of cloud are missing" in three.fault()
    three.clock.advance(days=90)
    assert three.fault() == ""
    three.record("h")
    assert three.fault() == ""


def test_a_machine_that_was_set_up_anew_begins_a_chain(tmp_path: Path, three: Side) -> None:
    """It could not sync yet: it had nothing to follow."""
    new = Side(tmp_path / "new")
    new.record("n")
    new.write(*three.read(), *new.read())
    assert new.fault() == ""
    new.record("m")
    new.forget()
    new.record("l")
    assert (new.fault(), new.entries()) == ("", 6)


# -- tampering ---------------------------------------------------------------------------------------------------------


FIELDS = ("timestamp", "action_type", "actor", "target", "approval_status", "approved_by", "result", "prev")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_changed_field(three: Side, name: str, number: int) -> None:
    lines = three.read()
    line = json.loads(lines[number - 1])
    line[name] = "cd" * 32 if name == "prev" else f"{line[name]}x"
    lines[number - 1] = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    three.write(*lines)
    assert f"{FEBRUARY}: line {number} was changed after it was written" in three.fault(state=False)
    assert "docs/audit.md" in three.fault()
    assert f"git log -p -- {FEBRUARY}" in three.fault()


def test_a_changed_line_with_its_hash_made_anew(three: Side) -> None:
    lines = three.read()
    line = json.loads(lines[1])
    prev = line.pop("prev")
    del line["hash"]
    lines[1], _ = audit.seal({**line, "target": "x"}, prev)
    three.write(*lines)
    assert "line 3 does not follow" in three.fault(state=False)


def test_a_line_that_is_laid_out_anew(three: Side) -> None:
    first, *rest = three.read()
    three.write(json.dumps(json.loads(first)).encode() + b"\n", *rest)
    assert "line 1 was changed" in three.fault(state=False)


@pytest.mark.parametrize("number", [2, 1])
def test_a_removed_line(three: Side, number: int) -> None:
    lines = three.read()
    del lines[number - 1]
    three.write(*lines)
    assert "missing" in three.fault() or "does not follow" in three.fault()
    assert (three.fault(state=False) == "") == (number == 1), "the first may have been cleaned up"


def test_a_cut_tail(three: Side) -> None:
    lines = three.read()
    three.write(*lines[:2])
    assert f"{FEBRUARY}: the last lines of cloud are missing" in three.fault()
    assert three.fault(state=False) == ""
    three.record("d")
    assert "line 3 does not follow" in three.fault(state=False), "the hole stays to be seen"
    three.restart()
    three.record("e")
    assert three.fault()


def test_the_whole_log_is_gone(three: Side) -> None:
    (three.root / FEBRUARY).unlink()
    assert "the last lines of cloud are missing" in three.fault()


def test_a_removed_month_in_the_middle(three: Side) -> None:
    for _ in range(2):
        three.clock.advance(days=25)
        three.record("x", "y")
    (three.root / MARCH).unlink()
    assert f"{APRIL}: line 1 does not follow" in three.fault(state=False)


def test_an_inserted_line(three: Side) -> None:
    lines = three.read()
    known = json.loads(lines[0])["hash"]
    three.write(*lines, audit.seal({"actor": "cloud", "target": "forged"}, known)[0])
    assert "follows a line that another one follows: it was inserted, or two machines write as cloud" in three.fault()
    three.write(*lines, lines[1])
    assert "stands twice" in three.fault(state=False)
    three.write(*lines, lines[0])
    assert "stands twice" in three.fault(state=False)
    three.write(*lines, lines[2])
    assert "stands twice" in three.fault(state=False)


@pytest.mark.parametrize("line", [OLD % b"cloud", b'{"action_type":"x"}\n', b'{"actor":5}\n'])
def test_a_line_without_a_hash_below_one_with_it(three: Side, line: bytes) -> None:
    three.write(*three.read(), line)
    assert f"{FEBRUARY}: line 4 has no hash" in three.fault(state=False)
    three.clock.advance(days=20)
    three.write(line, path=MARCH)
    assert "1 more" in three.fault(state=False)


def test_the_first_chained_lines_are_gone_and_older_ones_are_not(side: Side) -> None:
    side.write(OLD % b"cloud")
    side.record("a", "b")
    lines = side.read()
    side.write(lines[0], lines[2])
    assert "line 2 does not follow" in side.fault(state=False)


def test_another_agents_lines_do_not_hide_a_hole(tmp_path: Path) -> None:
    one = Side(tmp_path)
    other = Side(tmp_path, "cloud-2", one.root)
    for number in range(4):
        one.record(number)
        other.record(number)
    lines = one.read()
    one.write(*lines[:3], *lines[4:])
    assert "line 6 does not follow" not in one.fault(state=False)
    assert "line 5 does not follow" in one.fault(state=False)


@pytest.mark.parametrize(
    "junk", [b"[" * 100_000 + b"\n", b'{"a":' * 100_000 + b"\n", b"9" * 5000 + b"\n", b"\xff\xfe\n", b"\0\n", b"null\n"]
)
def test_junk_is_passed_over(three: Side, junk: bytes) -> None:
    three.write(junk, *three.read(), junk)
    assert three.fault() == ""
    three.forget()
    three.record("d")
    assert three.fault() == ""


def test_a_line_without_end(three: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LONGEST", 1000)
    monkeypatch.setattr(audit, "BLOCK", 64)
    three.write(*three.read(), b"x" * 5000)
    assert three.fault() == ""
    three.record("d")
    three.restart()
    three.record("e")
    assert (three.fault(), three.entries()) == ("", 5)


def test_what_cannot_be_read_is_a_fault(three: Side) -> None:
    (three.root / MARCH).mkdir()
    assert "the record cannot be read" in three.fault()
    for forget in (False, True):
        if forget:
            three.forget()
        three.record("d")  # it holds nothing up


def test_a_link_in_the_place_of_a_log_is_not_followed(three: Side, tmp_path: Path) -> None:
    (three.root / FEBRUARY).rename(tmp_path / "elsewhere")
    (three.root / FEBRUARY).symlink_to(tmp_path / "elsewhere")
    assert "cannot be read" in three.fault()
    with pytest.raises(OSError, match="symbolic"):
        three.record("d")
    assert len((tmp_path / "elsewhere").read_bytes().splitlines()) == 3


def test_a_line_that_is_put_at_the_end_is_not_followed(three: Side) -> None:
    lines = three.read()
    forged = lines[2].replace(json.loads(lines[1])["hash"].encode(), json.loads(lines[2])["hash"].encode())
    three.write(*lines, forged.replace(forged[-10:-4], b"abcdef"))
    three.restart()
    three.record("d")
    assert json.loads(three.read()[-1])["prev"] == json.loads(lines[2])["hash"]
    assert "line 4 was changed" in three.fault()


def test_memory_does_not_grow_with_the_log(side: Side) -> None:
    def peak(lines: int) -> int:
        digest, content = "", []
        for number in range(lines):
            line, digest = audit.seal({"actor": "cloud", "target": f"{number}" * 20}, digest)
            content.append(line)
        side.write(*content)
        del content
        tracemalloc.start()
        assert audit.verify(side.vault) == audit.Audit(lines, "")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(4000) < 1.5 * peak(400) + 50_000


def test_a_record_reads_the_end_alone(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(500):
        side.record(number)
    parsed: list[bytes] = []
    real = audit.parse
    monkeypatch.setattr(audit, "parse", lambda raw: (parsed.append(raw), real(raw))[1])
    side.record("next")
    side.restart()
    side.record("after a restart")
    assert len(parsed) == 2


# -- anything at all ---------------------------------------------------------------------------------------------------


def union(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> list[bytes]:
    """As merge.union: all lines of both, each once; where they clash, one side after the other."""
    common = [line for line in ours if line in theirs and line in base]
    first, second = sorted([line for line in side if line not in common] for side in (ours, theirs))
    return list(dict.fromkeys([*common, *first, *second]))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["record", "record", "kill", "restart", "forget", "sync", "month", "back"]),
        st.integers(0, 1),
        st.integers(0, 20),
    ),
    max_size=25,
)


def sides_after(root: Path, steps: list[tuple[str, int, int]]) -> list[Side]:
    """Two agents with a clone each; `sync` joins one's logs with the other's."""
    sides = [Side(root / agent, agent) for agent in ("cloud", "cloud-2")]
    base: dict[str, list[bytes]] = {}
    for number, (step, who, pick) in enumerate(steps):
        side = sides[who]
        if step == "record":
            side.record(f"{number}")
        elif step == "kill":
            was = {file: file.read_bytes() for file in side.root.rglob("*.jsonl")}
            try:
                with KillingOS(pick % 5):
                    side.record(f"{number} killed")
            except Killed:
                side.restart()
                for file in side.root.rglob("*.jsonl"):
                    content = file.read_bytes()
                    if pick > 10 and content != was.get(file, b""):  # and not all of it reached the disk
                        file.write_bytes(content[: -min(pick, len(content) - len(was.get(file, b"")))])
        elif step == "restart":
            side.restart()
        elif step == "forget":
            side.forget()
        elif step == "month":
            side.clock.advance(days=30)
        elif step == "back":
            side.clock.advance(days=-30)
        else:
            join(sides, base)
    join(sides, base)
    return sides


def join(sides: list[Side], base: dict[str, list[bytes]]) -> None:
    paths = {f"Logs/Cloud/{file.name}" for side in sides for file in (side.root / "Logs/Cloud").glob("*.jsonl")}
    for path in sorted(paths):
        ours, theirs = (
            [line if line.endswith(b"\n") else line + b"\n" for line in side.read(path)]
            if (side.root / path).exists()
            else []
            for side in sides
        )
        base[path] = union(base.get(path, []), ours, theirs)
        for side in sides:
            side.write(*base[path], path=path)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_the_chains_hold(tmp_path_factory: pytest.TempPathFactory, steps: Any) -> None:
    sides = sides_after(tmp_path_factory.mktemp("sides"), steps)
    recorded = sum(step == "record" for step, _, _ in steps)
    for side in sides:
        found = audit.verify(side.vault, side.state, side.clock())
        assert found.fault == ""
        assert found.entries >= recorded
        side.record("one more")
        assert side.fault() == ""


EDITS: dict[str, Callable[[bytes, int], bytes]] = {
    "a bit": lambda line, at: line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :],
    "a byte less": lambda line, at: line[:at] + line[at + 1 :],
    "a byte more": lambda line, at: line[:at] + b"0" + line[at:],
    "a space": lambda line, at: line[:at] + b" " + line[at:],
    "cut in two": lambda line, at: line[:at] + b"\n" + line[at:],
    "no line": lambda line, at: b"",
    "cut": lambda line, at: line[:at] + b"\n",
}


@settings(max_examples=150, deadline=None)
@given(STEPS.map(lambda steps: [step for step in steps if step[0] not in ("forget", "back")]), st.data())
def test_any_edit_of_a_hashed_line_is_found(tmp_path_factory: pytest.TempPathFactory, steps: Any, data: Any) -> None:
    """With what the state folder remembers of one's own lines, and a clock that knows its month."""
    root = tmp_path_factory.mktemp("sides")
    side, _ = sides_after(root, [("record", 0, 0), *steps])
    lines = list(hashed(side))
    path, number = data.draw(st.sampled_from(lines))
    content = side.read(path)
    line = content[number]
    at = data.draw(st.integers(0, len(line) - 2))
    content[number] = EDITS[data.draw(st.sampled_from(sorted(EDITS)))](line, at)
    if content[number].strip() == line.strip():
        return  # a space or a line break before the line: nothing of it changed
    side.write(*content, path=path)
    assert side.fault()


def hashed(side: Side) -> Iterator[tuple[str, int]]:
    """The lines of the side's own up to the one that its state folder saw last."""
    places = {}
    for file in (side.root / "Logs/Cloud").glob("audit-*.jsonl"):
        path = f"Logs/Cloud/{file.name}"
        for number, raw in enumerate(side.read(path)):
            line = audit.parse(raw)
            if line is not None and line.actor == "cloud":
                places[line.hash] = line.prev, (path, number)
    digest = side.state.head("audit", "cloud")
    while digest:
        digest, place = places[digest]
        yield place


def test_the_clock_of_a_line_is_that_of_its_file(side: Side) -> None:
    """A month that ends between two looks at the clock."""
    times = iter([datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)])
    journal = Journal(side.vault, "cloud", "audit", lambda: next(times))
    journal.record("x", "last")
    assert json.loads(side.read()[0])["timestamp"] == "2026-02-28T23:59:59Z"
