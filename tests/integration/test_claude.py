"""The real SDK against a stand-in of the Messages API, over HTTP."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from cloud_agent.claude import (
    DEADLINE_SECONDS,
    LONGEST_RETRY_AFTER,
    Claude,
    Refused,
    TryLater,
    Unanswerable,
)
from cloud_agent.mail import Mail
from cloud_agent.request import SCHEMA, Earlier, Task, cacheable, worst_case

from tests.helpers import HANDBOOK, MODEL
from tests.standins import messages_api
from tests.standins.messages_api import Answer, Json, MessagesAPI, error, message, page

MAIL = Mail("x", {"from": "ann@example.org", "subject": "Hi"}, "Could you call me?")
TASK = Task(MAIL, HANDBOOK)
GOOD = {"decision": "reply", "reason": "r", "body": "Dear Ann", "confidence": "low", "missing_facts": ["when"]}


@pytest.fixture
def api() -> Iterator[MessagesAPI]:
    with messages_api.running() as server:
        yield server


class Sleeps(list[float]):
    """Keeps what it was asked to wait; `stopping` is what a stop in the wait would return."""

    stopping = False

    def __call__(self, seconds: float) -> bool:
        self.append(seconds)
        return self.stopping


def claude(url: str, sleeps: Sleeps | None = None, deadline: float = DEADLINE_SECONDS) -> Claude:
    return Claude("test-key", MODEL, url, sleep=sleeps if sleeps is not None else Sleeps(), deadline=deadline)


def later(api: MessagesAPI, task: Task = TASK, **settings: float) -> TryLater:
    with pytest.raises(TryLater) as caught:
        claude(api.url, **settings).draft(task)
    return caught.value


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_a_reply_behind_a_thinking_block(api: MessagesAPI) -> None:
    answer = claude(api.url).draft(TASK)
    assert answer.reply is not None
    assert "thank you for your message" in answer.reply.body
    assert answer.model == MODEL
    request = api.requests[0]
    assert answer.usage.input == len(json.dumps([request["system"], request["messages"]], ensure_ascii=False)) // 4
    assert answer.usage.output > 5
    assert HANDBOOK.strip() in request["system"]
    assert "tools" not in request
    assert request["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


def test_the_conversation_comes_with_the_mail(api: MessagesAPI) -> None:
    earlier = (Earlier("mail", "ann@example.org", "2026-02-01", "Hello?"), Earlier("draft", "us", "", "Hello Ann."))
    claude(api.url).draft(Task(MAIL, HANDBOOK, earlier))
    (sent,) = api.requests[0]["messages"]
    assert sent["role"] == "user"
    assert [sent["content"].index(text) for text in ("Hello?", "Hello Ann.", "Could you call me?")] == sorted(
        sent["content"].index(text) for text in ("Hello?", "Hello Ann.", "Could you call me?")
    )


def test_a_cached_prefix_is_written_once_and_read_then(api: MessagesAPI) -> None:
    now = [0.0]
    api.clock = lambda: now[0]
    task = Task(MAIL, HANDBOOK + "More of it. " * 400, cache=True)
    assert cacheable(task.handbook, MODEL)
    asked = claude(api.url)
    first, second = asked.draft(task).usage, asked.draft(Task(MAIL, task.handbook, cache=True)).usage
    assert first.cache_write > 1024
    assert (second.cache_write, second.cache_read) == (0, first.cache_write)
    assert second.input == first.input
    now[0] = 301.0
    assert asked.draft(task).usage == first
    assert asked.draft(Task(MAIL, task.handbook + "!", cache=True)).usage.cache_read == 0
    assert asked.draft(Task(MAIL, task.handbook)).usage.cache_read == 0  # not marked


def test_the_worst_case_bounds_what_a_call_uses(api: MessagesAPI) -> None:
    for cache in (False, True):
        task = Task(MAIL, HANDBOOK + "More. " * 900, (Earlier("mail", "a", "b", "c" * 3000),), cache)
        used, worst = claude(api.url).draft(task).usage, worst_case(task)
        assert used.prompt < worst.prompt
        assert used.output < worst.output
        assert bool(used.cache_write) == bool(worst.cache_write) == cache


def test_our_key_wins_over_the_sdks_own_variables(api: MessagesAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "of-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    assert claude(api.url).client.auth_headers == {"Authorization": "Bearer test-key"}
    assert claude(api.url).draft(TASK).reply is not None


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(api: MessagesAPI) -> None:
    for key in ("schlüssel-geheim", "geheim\nx"):
        with pytest.raises(Refused, match="CLAUDE_API_KEY") as caught:
            Claude(key, MODEL, api.url).draft(TASK)
        assert "geheim" not in str(caught.value)


# -- what comes back with status 200 -----------------------------------------------------------------------------------


def test_several_text_blocks_and_cached_tokens(api: MessagesAPI) -> None:
    text = json.dumps(GOOD)

    def split(request: Json) -> Answer:
        made = message(request, text)
        made.body["content"] = [
            *made.body["content"][:1],
            {"type": "text", "text": text[:20]},
            {"type": "text", "text": text[20:]},
        ]
        made.body["usage"] |= {"cache_creation_input_tokens": 7, "cache_read_input_tokens": 9}
        return made

    api.behaviour = split
    answer = claude(api.url).draft(TASK)
    assert answer.reply is not None
    assert (answer.usage.cache_write, answer.usage.cache_read) == (7, 9)


@pytest.mark.parametrize("decision", ["review", "notify"])
def test_a_decision_without_a_text(api: MessagesAPI, decision: str) -> None:
    api.behaviour = lambda request: message(request, json.dumps(GOOD | {"decision": decision, "body": ""}))
    answer = claude(api.url).draft(TASK)
    assert answer.reply is not None
    assert answer.reply.decision == decision


@pytest.mark.parametrize(
    ("text", "stop_reason", "fault"),
    [
        (json.dumps(GOOD)[:30], "max_tokens", "cut off"),
        (json.dumps(GOOD), "max_tokens", "cut off"),
        (json.dumps(GOOD), "model_context_window_exceeded", "cut off"),
        ("", "refusal", "refused"),
        ("", "end_turn", "no text"),
        ("I will not", "end_turn", "agreed form"),
        (json.dumps(GOOD | {"to": "evil@x.org"}), "end_turn", "agreed form"),
        (json.dumps(GOOD | {"decision": "send"}), "end_turn", "agreed form"),
        (json.dumps(GOOD | {"body": " \n"}), "end_turn", "no text"),
        (json.dumps(GOOD | {"reason": "\ud83d"}), "end_turn", "agreed form"),
        ("[" * 100_000, "end_turn", "agreed form"),
    ],
)
def test_an_answer_that_is_no_reply_still_has_its_usage(
    api: MessagesAPI, text: str, stop_reason: str, fault: str
) -> None:
    api.behaviour = lambda request: message(request, text, stop_reason=stop_reason)
    answer = claude(api.url).draft(TASK)
    assert answer.reply is None
    assert fault in answer.fault
    assert answer.usage.input > 0
    assert answer.usage.output > 0


def test_thinking_alone_is_no_reply(api: MessagesAPI) -> None:
    api.behaviour = messages_api.thinking_only
    answer = claude(api.url).draft(TASK)
    assert answer.reply is None
    assert "cut off" in answer.fault
    assert answer.usage.output > 0


@pytest.mark.parametrize(
    "odd",
    [
        {"content": None},
        {"content": "text"},
        {"content": [None, 7, {"type": "text"}, {"type": "text", "text": None}]},
        {"model": None},
        {"model": ["x"]},
        {"stop_reason": 7},
        {"usage": {"input_tokens": 5, "output_tokens": None}},
    ],
)
def test_odd_answers_with_usage_are_recorded(api: MessagesAPI, odd: Json) -> None:
    def behave(request: Json) -> Answer:
        made = message(request, "x")
        made.body |= odd
        return made

    api.behaviour = behave
    answer = claude(api.url).draft(TASK)
    assert answer.reply is None
    assert answer.usage.input > 0
    assert answer.model == MODEL


@pytest.mark.parametrize(
    ("body", "may_be_paid"),
    [
        (b'{"id": "msg', True),  # cut off, with a content-length that is right: by a proxy
        (b"", True),
        (b"\xff\xfe\x00garbage", True),
        (b"[" * 200_000, True),
        (b'{"usage": {"input_tokens": ' + b"9" * 5000 + b"}}", True),
        (b"[]", False),
        (b"{}", False),
        (b'"text"', False),
        (b'{"usage": {}, "content": null}', False),
        (b'{"usage": {"input_tokens": "many"}}', False),
        (b'{"usage": {"input_tokens": -1}}', False),
        (b'{"usage": {"input_tokens": 1e999}}', False),
    ],
)
def test_a_body_that_is_not_the_apis(api: MessagesAPI, body: bytes, may_be_paid: bool) -> None:
    """The mail waits, and no exception of another type stops the pass."""
    api.behaviour = lambda request: Answer(200, {}, raw=body)
    assert later(api).sent is may_be_paid


def test_a_page_of_a_proxy_is_no_answer(api: MessagesAPI) -> None:
    api.behaviour = lambda request: page()
    assert not later(api).sent
    assert later(api).overload
    api.behaviour = lambda request: page(status=302)
    assert not later(api).sent
    api.behaviour = lambda request: page(status=400)
    assert "proxy" in str(later(api))


def test_a_redirect_is_not_followed(api: MessagesAPI) -> None:
    """A mail goes to the host that the owner named."""
    with messages_api.running() as other:
        api.behaviour = lambda request: Answer(307, {}, {"location": f"{other.url}/v1/messages"})
        later(api)
        assert other.requests == []


def test_a_gzipped_answer_is_read_and_a_bomb_is_not(api: MessagesAPI) -> None:
    def zipped(request: Json) -> Answer:
        made = message(request, json.dumps(GOOD))
        made.raw = gzip.compress(json.dumps(made.body).encode())
        made.headers["content-encoding"] = "gzip"
        return made

    api.behaviour = zipped
    assert claude(api.url).draft(TASK).reply is not None
    api.behaviour = lambda request: Answer(200, {}, {"content-encoding": "gzip"}, raw=gzip.compress(b" " * 100_000_000))
    assert "longer than" in str(later(api))
    api.behaviour = lambda request: Answer(200, {}, {"content-encoding": "gzip"}, raw=b"no gzip")
    assert later(api).sent
    api.behaviour = lambda request: Answer(200, {}, raw=b" " * 5_000_000)
    assert "longer than" in str(later(api))
    api.behaviour = lambda request: Answer(500, {}, raw=b" " * 5_000_000)
    assert "longer than" in str(later(api))


# -- errors that pass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
        (529, "overloaded_error"),
        (408, "timeout_error"),
        (409, "conflict_error"),
    ],
)
def test_later(api: MessagesAPI, status: int, kind: str) -> None:
    api.behaviour = lambda request: error(status, kind, "not now")
    sleeps = Sleeps()
    with pytest.raises(TryLater, match="not now") as caught:
        claude(api.url, sleeps).draft(TASK)
    assert not caught.value.sent
    assert caught.value.overload is (status in (429, 503, 529))
    assert sleeps == [1.0, 2.0]
    assert len(api.requests) == 3


@pytest.mark.parametrize("status", [502, 504, 524])
def test_a_gateway_that_gave_up_may_have_cost_money(api: MessagesAPI, status: int) -> None:
    api.behaviour = lambda request: page("<html>Bad gateway</html>", status)
    assert later(api).sent
    assert len(api.requests) == 1


def test_a_huge_retry_after_is_not_honoured(api: MessagesAPI) -> None:
    """The SDK alone would wait a day. Nothing waits here: the orchestrator is told."""
    api.behaviour = lambda request: error(429, "rate_limit_error", "slow down", {"retry-after": "86400"})
    sleeps = Sleeps()
    with pytest.raises(TryLater) as caught:
        claude(api.url, sleeps).draft(TASK)
    assert sleeps == []
    assert len(api.requests) == 1
    assert caught.value.retry_after == LONGEST_RETRY_AFTER


def test_a_short_retry_after_is_honoured(api: MessagesAPI) -> None:
    api.behaviour = lambda request: error(429, "rate_limit_error", "slow down", {"retry-after": "7"})
    sleeps = Sleeps()
    with pytest.raises(TryLater) as caught:
        claude(api.url, sleeps).draft(TASK)
    assert sleeps == [7.0, 7.0]
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2026 07:28:00 GMT", "nan", "-5", ""])
def test_any_retry_after_header(api: MessagesAPI, header: str) -> None:
    api.behaviour = lambda request: error(429, "rate_limit_error", "slow down", {"retry-after": header})
    sleeps = Sleeps()
    with pytest.raises(TryLater) as caught:
        claude(api.url, sleeps).draft(TASK)
    assert sleeps == [1.0, 2.0]
    assert caught.value.retry_after == 0.0


def test_it_recovers_within_one_call(api: MessagesAPI) -> None:
    answers = [error(529, "overloaded_error", "busy")]
    api.behaviour = lambda request: answers.pop() if answers else messages_api.draft_for(request)
    assert claude(api.url).draft(TASK).reply is not None
    assert len(api.requests) == 2


def test_a_stop_between_two_tries_ends_the_call(api: MessagesAPI) -> None:
    api.behaviour = lambda request: error(529, "overloaded_error", "busy")
    sleeps = Sleeps()
    sleeps.stopping = True
    with pytest.raises(TryLater, match="stop"):
        claude(api.url, sleeps).draft(TASK)
    assert len(api.requests) == 1


# -- errors that a person must mend, or that are the mail's -----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "words", "mend"),
    [
        (401, "authentication_error", "invalid key", "CLAUDE_API_KEY"),
        (403, "permission_error", "not allowed", "CLAUDE_API_KEY"),
        (402, "billing_error", "no money", "add credit"),
        (400, "billing_error", "no money", "add credit"),
        (400, "invalid_request_error", "Your credit balance is too low to access the Claude API.", "add credit"),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", "raise the spend limit"),
        (429, "rate_limit_error", "This workspace has reached its spend limit", "raise the spend limit"),
        (404, "not_found_error", "model: x", "CLAUDE_MODEL"),
        (400, "invalid_request_error", "This organization has been disabled.", "console"),
        (400, "invalid_request_error", "'claude-x' is a model that does not support output_config", "CLAUDE_MODEL"),
        (400, "invalid_request_error", "max_tokens: 8192 > 4096, the maximum of this model", "CLAUDE_MODEL"),
    ],
)
def test_refused_at_once_with_its_mend(api: MessagesAPI, status: int, kind: str, words: str, mend: str) -> None:
    api.behaviour = lambda request: error(status, kind, words)
    with pytest.raises(Refused, match=mend) as caught:
        claude(api.url).draft(TASK)
    assert words in str(caught.value)
    assert "test-key" not in str(caught.value)
    assert len(api.requests) == 1


def test_the_tiers_spend_limit_is_refused_although_it_is_a_429(api: MessagesAPI) -> None:
    api.behaviour = lambda request: messages_api.spend_limit()
    with pytest.raises(Refused, match="spend limit"):
        claude(api.url).draft(TASK)
    assert len(api.requests) == 1


def test_a_wrong_path_is_refused(api: MessagesAPI) -> None:
    with pytest.raises(Refused, match="CLAUDE_BASE_URL"):
        claude(f"{api.url}/elsewhere").draft(TASK)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, "invalid_request_error", "prompt is too long: 1200000 tokens > 1000000 maximum for this model"),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000"),
        (400, "invalid_request_error", "Output blocked by content filtering policy"),
        (400, "invalid_request_error", "messages.0: something odd"),
        (422, "invalid_request_error", "odd"),
        (413, "request_too_large", "Request exceeds the maximum size"),
    ],
)
def test_a_mail_that_the_api_does_not_take(api: MessagesAPI, status: int, kind: str, words: str) -> None:
    api.behaviour = lambda request: error(status, kind, words)
    with pytest.raises(Unanswerable, match=str(status)):
        claude(api.url).draft(TASK)
    assert len(api.requests) == 1


# -- the network -------------------------------------------------------------------------------------------------------


def test_connection_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        sleeps = Sleeps()
        with pytest.raises(TryLater, match="refused") as caught:
            claude(url, sleeps).draft(TASK)
    assert sleeps == [1.0, 2.0]
    assert not caught.value.sent
    assert caught.value.overload


def test_a_connection_cut_in_the_answer_may_have_cost_money(api: MessagesAPI) -> None:
    def cut(request: Json) -> Answer:
        made = messages_api.draft_for(request)
        made.cut = 40
        return made

    api.behaviour = cut
    error = later(api)
    assert error.sent
    assert not error.overload  # it might be this mail that breaks it
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_server_that_dribbles_bytes_is_left(api: MessagesAPI, status: int, from_the_start: bool) -> None:
    """One byte in 0.05 s would take minutes, and no timeout between two bytes would ever end it."""
    api.behaviour = lambda request: Answer(status, {"filler": "x" * 2000}, dribble=0.05, from_the_start=from_the_start)
    began = time.monotonic()
    error = later(api, deadline=0.4)
    assert time.monotonic() - began < 3
    assert error.sent
    assert "no answer within 0.4 s" in str(error)


def test_each_call_of_a_client_has_its_deadline(api: MessagesAPI) -> None:
    """Also one that comes after others: no connection is kept that the timer would not know."""
    asked = claude(api.url, deadline=0.4)
    for _ in range(2):
        asked.draft(TASK)
    api.behaviour = lambda request: Answer(200, {"filler": "x" * 2000}, dribble=0.05)
    for _ in range(2):
        with pytest.raises(TryLater, match=r"no answer within 0\.4 s"):
            asked.draft(TASK)
    api.behaviour = messages_api.draft_for
    assert asked.draft(TASK).reply is not None


def test_a_silent_server_is_left(api: MessagesAPI) -> None:
    api.behaviour = lambda request: Answer(200, {}, delay=3.0)
    began = time.monotonic()
    assert later(api, deadline=0.3).sent
    assert time.monotonic() - began < 2


def test_the_deadline_covers_all_tries_and_pauses(api: MessagesAPI) -> None:
    api.behaviour = lambda request: error(529, "overloaded_error", "busy")
    assert "busy" in str(later(api, deadline=0.9))  # no pause of a second fits in
    assert len(api.requests) == 1


def test_no_timer_outlives_its_call(api: MessagesAPI) -> None:
    asked = claude(api.url)
    for _ in range(3):
        asked.draft(TASK)
    time.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_calls_side_by_side_end_by_themselves(api: MessagesAPI) -> None:
    """One that hangs is ended, and the others are answered."""
    api.behaviour = lambda request: (
        Answer(200, {}, delay=2.0) if "hang" in str(request["messages"]) else messages_api.draft_for(request)
    )
    asked = claude(api.url, deadline=0.5)
    ended: list[str] = []

    def draft(body: str) -> None:
        try:
            asked.draft(Task(Mail("x", {"from": "a@b.org"}, body), ""))
            ended.append("answered")
        except TryLater:
            ended.append("left")

    threads = [threading.Thread(target=draft, args=(body,)) for body in ("hang", "a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted(ended) == ["answered"] * 3 + ["left"]
