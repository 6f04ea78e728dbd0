"""The gate before any call to the model: which mail was written by a machine, and which needs a person. Pure.

RFC 3834 §2 says what an automatic responder must not answer. One header is not enough (of 629 real bounces and
auto-replies only 45 % have Auto-Submitted), so many signals stand side by side, each with its reason. What somebody
wrote by hand is never to be skipped: a signal that a person's mail may carry too skips nothing alone, and where the
signals contradict each other, a person decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from cloud_agent import phrases
from cloud_agent.mail import Mail, addresses, bare_addresses

Verdict = Literal["draft", "skip", "review"]
# answered: an answer, bounce or report that some program made. automatic: sent by a program, for whatever reason.
# mailing: one text for many. list: a list that people write to. calendar: what calendars send each other.
# code: a login code or a password link. self: the owner's own. marked: a spam filter said so. transport: sent through
# a mail service, as shops, newsletters and help desks do; it says nothing alone.
Kind = Literal["answered", "automatic", "mailing", "list", "calendar", "code", "self", "marked", "transport"]

SEARCHED = 20_000  # characters at a text's head, and at its tail
WORD = 120  # characters of a local part that are looked at: RFC 5321 allows 64
NAMED = 4  # signals named in a reason


@dataclass(frozen=True)
class Signal:
    """One observation. `strong` ones decide alone; of the others it takes two of different `source`."""

    kind: Kind
    text: str
    strong: bool = False
    source: Literal["header", "sender", "subject", "text", "footer"] = "header"


@dataclass(frozen=True)
class Gate:
    """The verdict, one sentence for the owner, and every signal that was seen."""

    verdict: Verdict
    reason: str = ""
    signals: tuple[Signal, ...] = ()


def judge(mail: Mail, own: Collection[str] = ()) -> Gate:
    """Decide whether a mail gets a draft, is skipped as automatic, or goes to a person for review.

    `own` are the owner's addresses. The first row that fits decides; "two weak" are two of different sources.

    | signals                                                                | verdict
    | from one of the owner's own addresses                                  | review
    | calendar: an answer to an invitation                                   | skip
    | calendar: anything else                                                | review
    | answered: one strong, or two weak (but see `_is_asked`)                | skip
    | automatic or mailing, one strong, contradicted (see `_contradiction`)  | review
    | automatic, one strong                                                  | skip
    | mailing, one strong, and the mail of no list that people write to      | skip
    | a login code, complete                                                 | skip
    | a list                                                                 | review
    | two weak, contradicted, or of its words alone, which ask something     | review
    | two weak                                                               | skip
    | one weak, transport aside (but see `_says_little`)                     | review
    | to its own sender                                                      | review
    | none                                                                   | draft
    """
    look = _Look(mail)
    signals = tuple(dict.fromkeys(_signals(look, own)))

    def seen(*kinds: Kind, strong: bool | None = None) -> list[Signal]:
        return [one for one in signals if one.kind in kinds and strong in (None, one.strong)]

    def gate(verdict: Verdict, why: str, deciding: list[Signal]) -> Gate:
        named = ", ".join(one.text for one in deciding[:NAMED])
        more = f" and {len(deciding) - NAMED} more" if len(deciding) > NAMED else ""
        return Gate(verdict, f"{why}: {named}{more}", signals)

    against = _contradiction(look)
    answered = seen("answered")
    if seen("self", strong=True):
        return gate("review", "whether to answer it is a person's decision", seen("self"))
    if calendar := seen("calendar"):
        if any(one.strong for one in calendar):
            return gate("skip", "automatic mail", calendar)
        return gate("review", "a calendar's mail, to be decided there", calendar)
    if seen("answered", strong=True) or (_sources(answered) > 1 and not _is_asked(answered, look)):
        return gate("skip", "automatic mail", [*answered, *seen("automatic", strong=True)])
    decisive = seen("automatic", strong=True)
    lists = seen("list")
    mailing = [] if lists else seen("mailing", strong=True)
    if (decisive or mailing) and against:
        return gate("review", f"it looks automatic, but {against}", [*decisive, *mailing])
    if decisive:
        return gate("skip", "automatic mail", decisive)
    if mailing:
        return gate("skip", "a mailing", [*mailing, *seen("mailing", strong=False)])
    if code := seen("code", strong=True):
        return gate("skip", "automatic mail", code)
    if lists:
        if look.sender_is_bulk:
            return gate("skip", "a mailing", [*seen("mailing"), *lists])
        return gate("review", "mail of a list: whether to answer it is a person's decision", lists)
    weak = seen("answered", "automatic", "mailing", "code", "marked", strong=False)
    together = [*weak, *seen("transport")]
    if weak and _sources(together) > 1:
        if not against and _is_asked(weak, look):
            against = "it asks something"
        if against:
            return gate("review", f"it looks automatic, but {against}", together)
        return gate("skip", "a mailing" if seen("mailing") else "automatic mail", together)
    if weak and not _says_little(weak, look, against):
        return gate("review", "perhaps automatic mail", weak)
    if same := seen("self"):
        return gate("review", "whether to answer it is a person's decision", same)
    return Gate("draft", "", signals)


def reads(name: str) -> bool:
    """Whether a header field is looked at here: who keeps a mail without its whole header keeps these."""
    return name in _READ or name.startswith("list_") or _AUTO_HEADER.fullmatch(name) is not None


def _sources(signals: list[Signal]) -> int:
    return len({one.source for one in signals})


def _is_asked(weak: list[Signal], look: _Look) -> bool:
    """Whether the mail asks something, and only its words speak for a machine: people write below a notice's subject,
    quote notices, and sign with a way out of their newsletter."""
    by_words = all(one.source in ("subject", "text", "footer") or one.text == _OWN_SUBJECT for one in weak)
    return by_words and bool(phrases.ASKS.search(look.text))


def _says_little(weak: list[Signal], look: _Look, against: str) -> bool:
    """Whether these weak signals of one source are no reason to doubt that a person wrote.

    The sender's name says little where answers go to somebody else, and people write under a notice's subject too.
    """
    if all(one.source == "sender" for one in weak):
        return bool(against)
    notice = all(one.source == "subject" and one.kind == "automatic" for one in weak)
    return notice and bool(phrases.ASKS.search(look.text))


# -- what is looked at -------------------------------------------------------------------------------------------------

_COMMENT = re.compile(r"\([^()]*\)")  # RFC 5322 §3.2.2

_NO_REPLY = re.compile(
    r"(^|[._+-])(no|do-?not|dont|non?|ne)[._-]?(reply|respond|responder|answer|pas-repondre)s?($|\W|\d|_)", re.I
)
_DAEMON = re.compile(r"mailer[-._]?daemon|bounces?|auto-?(reply|responder|confirm|answer)", re.I)
_POSTMASTER = re.compile(
    r"postmaster|mail[-._ ]?delivery[-._ ]?(sub)?system|maildaemon|abuse-?report|feedback-?loop", re.I
)
_DAEMON_NAME = re.compile(
    r"mail(er)? ?delivery (sub)?system|mail delivery service|mailer-daemon|postmaster|the post office"
    r"|mail administrator|internet mail delivery|mail system",
    re.I,
)
_PERHAPS_DAEMON = re.compile(r"bounces?[._+-].*|owner-.*|.{1,120}-(request|bounces?)", re.I)  # or feature-request@
_BULK_SENDER = re.compile(
    r"(?:e?-?news(?:letters?|flash|mail)?|marketing|promo(?:tion)?s?|offers?|deals|mailings?|campaigns?|digest"
    r"|[a-z.]{1,30}[._-](?:newsletters?|newsflash|mailing|digest|offers))",
    re.I,
)
_MACHINE_SENDER = re.compile(
    r"(?:notif(?:y|ications?|ier)|alerts?|robot|bot|cron|daemon|automat(?:ed|ic)|auto|mailer|system|root|www-data|nagios)"
    r"(?:[+._-][^@]*)?",
    re.I,
)
_LIST_SENDER = re.compile(r"owner-.{1,60}|.{1,60}-(?:owner|bounces?|admin)(?:[+=-].*)?", re.I)
_LEAVE = re.compile(r"(?:leave|unsubscribe|remove|optout)[+._-].*|unsubscribe", re.I)
_RETURNS = re.compile(
    r"(?:bounces?|returns?|errors?|verp|msprvs1)[+._=-]|.{0,80}@(?:bounces?|returns?|em\d*|mailer)[.-]", re.I
)


class _Look:
    """The parts of a mail that the signals look at, each prepared once."""

    def __init__(self, mail: Mail) -> None:
        self.mail = mail
        self.sender = self._word(mail.sender)
        named = addresses(mail.sender)
        self.sender_address = named[0][1].lower() if named else ""
        self.sender_name = named[0][0] if named else mail.sender
        reply = addresses(self.field("reply_to"))
        self.reply_addresses = bare_addresses(self.field("reply_to"))
        self.recipients = bare_addresses(self.field("to"), self.field("cc"))
        self.reply = reply[0][1].rpartition("@")[0].lower() if reply else ""
        self.subject = mail.subject
        self.is_answer = bool(phrases.ANSWER.match(mail.subject))
        self.return_path = self.field("return_path").strip("<> ").lower()
        self.text = _own_words(mail.content.text)

    @staticmethod
    def _word(header: str) -> str:
        """The local part of an address; a daemon may name itself without any domain."""
        found = addresses(header)
        word = found[0][1].rpartition("@")[0] if found else header.strip("<> \"'")
        return word[:WORD].lower()

    def field(self, name: str) -> str:
        return self.mail.fields.get(name, "").strip()

    def token(self, name: str) -> str:
        """The first word of a structured field: without comments and parameters."""
        words = _COMMENT.sub(" ", self.field(name)).split(";")[0].split()
        return words[0].strip("\"',")[:WORD].lower() if words else ""

    @property
    def takes_no_replies(self) -> bool:
        return bool(_NO_REPLY.search(self.sender)) and (not self.reply or bool(_NO_REPLY.search(self.reply)))

    @property
    def sender_is_bulk(self) -> bool:
        return bool(_BULK_SENDER.fullmatch(self.sender))

    @property
    def human_reply_to(self) -> str:
        """Another address than the sender's to which answers go, as a form on a website sets it; or nothing."""
        others = self.reply_addresses - {self.sender_address}
        machine = (
            _NO_REPLY.search,
            _DAEMON.fullmatch,
            _POSTMASTER.search,
            _BULK_SENDER.fullmatch,
            _RETURNS.match,
            _LEAVE.fullmatch,
        )
        for address in sorted(others):
            word = address.rpartition("@")[0]
            if not any(test(word) for test in machine) and not _MACHINE_SENDER.fullmatch(word):
                return address[:WORD]
        return ""


def _own_words(text: str) -> str:
    """What the sender wrote himself: without quoted lines and what was forwarded; of a long text, head and tail."""
    if len(text) > 2 * SEARCHED:
        text = f"{text[:SEARCHED]}\n{text[-SEARCHED:]}"
    for begin in (phrases.FORWARDED, phrases.QUOTED_HEAD, phrases.QUOTED_BELOW):
        if match := begin.search(text):
            text = text[: match.start()]
    return phrases.QUOTED_LINE.sub("", text)


def _signals(look: _Look, own: Collection[str]) -> Iterator[Signal]:
    yield from _of_headers(look)
    yield from _of_calendar(look)
    yield from _of_lists(look)
    yield from _of_sender(look, own)
    if not look.is_answer:
        yield from _of_subject(look)
    yield from _of_text(look)


# -- headers -----------------------------------------------------------------------------------------------------------

_REPORTS = {
    "delivery-status": "a delivery report (RFC 3464)",
    "disposition-notification": "a read receipt (RFC 8098)",
    "feedback-report": "an abuse report (RFC 5965)",
    "tlsrpt": "a report about mail transport (RFC 8460)",
}
_AUTO_HEADER = re.compile(r"x_(?:mail_)?auto_?(?:reply|respond|responder|response|reply_from|generated)(?:_.*)?")
# What mail services add; as a kind of transport they say nothing alone, because help desks and web forms use them too.
_SERVICE_HEADERS = (
    "feedback_id x_sg_eid x_sg_id x_mailgun_sid x_mandrill_user x_mj_mid x_mailjet_campaign x_ses_outgoing"
    " x_ses_message_tags x_pm_message_id x_msys_api x_smtpapi x_sib_id x_roving_id x_sfmc_stack x_binding x_hs_cid"
    " x_report_abuse x_report_abuse_to x_csa_complaints errors_to x_msg_eid x_klaviyo_message_id"
).split()
_CAMPAIGN_HEADERS = (
    "x_campaign x_campaign_id x_campaignid x_mc_user x_rpcampaign x_mktmailid x_elqsiteid x_newsletter x_mailingid"
    " x_mailing_id x_cmail_gid list_unsubscribe_post x_phplist_version x_acymailing x_mailer_mailing_id"
).split()
_CAMPAIGN_MAILER = re.compile(
    r"mailchimp|constant contact|campaign ?monitor|exacttarget|marketo|eloqua|klaviyo|cleverreach|rapidmail|phplist"
    r"|mailerlite|sendinblue|brevo|acymailing|inxmail|newsletter|lyris|listrak|episerver|optivo|emarsys",
    re.I,
)


_LIST_SOFTWARE = "x_mailing_list mailing_list x_beenthere x_mailman_version x_google_group_id x_list".split()
_READ = frozenset(
    "from subject to cc reply_to sender return_path in_reply_to references content_type content_class delivered_to"
    " auto_submitted precedence x_precedence x_auto_response_suppress x_envelope_from x_original_return_path"
    " x_failed_recipients x_apple_action x_cron_env x_mailer x_spam_flag x_spam_status resent_from".split()
).union(_SERVICE_HEADERS, _CAMPAIGN_HEADERS, _LIST_SOFTWARE)


def _of_headers(look: _Look) -> Iterator[Signal]:
    field, token = look.field, look.token

    submitted = token("auto_submitted")
    if submitted and submitted != "no":
        # auto-replied answers some mail; anything else was sent by a program, perhaps in a person's name.
        kind: Kind = "answered" if submitted == "auto-replied" else "automatic"
        yield Signal(kind, f"Auto-Submitted is {submitted!r} (RFC 3834)", True)
    envelope_from = field("x_envelope_from") or field("x_original_return_path")
    if "<>" in (field("return_path").replace(" ", ""), envelope_from.replace(" ", "")):
        yield Signal("answered", "its return path is empty, as a bounce's (RFC 3834)", True)
    elif look.return_path.split("@")[0] == "mailer-daemon":
        yield Signal("answered", "its return path is a mail server's (MAILER-DAEMON)", True)

    content_type = field("content_type").lower()
    media = content_type.split(";")[0].strip()
    if media == "multipart/report" or media in ("message/" + name for name in _REPORTS):
        report = next((words for name, words in _REPORTS.items() if name in content_type), "a report (RFC 6522)")
        yield Signal("answered", report, True)
    if field("x_failed_recipients"):
        yield Signal("answered", "X-Failed-Recipients names who did not get a mail", True)
    if field("x_apple_action").upper() == "VACATION":
        yield Signal("answered", "X-Apple-Action is 'VACATION'", True)
    if "autoresponder" in field("delivered_to").lower():
        yield Signal("answered", "it was delivered through an autoresponder", True)
    for name in look.mail.fields:
        # Also X-Autogenerated: Forward, Redirect or Group, which pass on what a person wrote.
        said = token(name) if _AUTO_HEADER.fullmatch(name) and name != "x_auto_response_suppress" else ""
        if said and said not in ("no", "none", "false", "0", "forward", "redirect", "group"):
            yield Signal("answered", f"it has {_spelled(name)}", True)

    suppress = set(re.findall(r"[a-z]+", field("x_auto_response_suppress").lower()))
    if {"all", "oof", "autoreply"} & suppress:  # DR and RN are about receipts alone
        yield Signal("automatic", "the sender asks for no automatic answer (X-Auto-Response-Suppress)", True)
    for name in ("precedence", "x_precedence"):
        value = token(name).replace("-", "_")
        if value == "auto_reply":
            yield Signal("answered", f"{_spelled(name)} is {value!r}", True)
        elif value in ("bulk", "junk"):
            yield Signal("mailing", f"{_spelled(name)} is {value!r} (RFC 3834)", True)
    if field("x_cron_env"):
        yield Signal("automatic", "it has X-Cron-Env", True)

    if field("list_unsubscribe"):
        yield Signal("mailing", "it has List-Unsubscribe (RFC 2369)", True)
    if campaign := next((name for name in _CAMPAIGN_HEADERS if field(name)), ""):
        yield Signal("mailing", f"it has {_spelled(campaign)}")
    if mailer := _CAMPAIGN_MAILER.search(field("x_mailer")):
        yield Signal("mailing", f"it was sent with {mailer[0]}")
    if service := next((name for name in _SERVICE_HEADERS if field(name)), ""):
        yield Signal("transport", f"it has {_spelled(service)}")
    elif _RETURNS.match(look.return_path):
        yield Signal("transport", "its return path counts bounces")

    if token("x_spam_flag").startswith("yes") or token("x_spam_status").startswith("yes"):
        yield Signal("marked", "a spam filter marked it")


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


_SPELLINGS = {"id": "ID", "beenthere": "BeenThere", "mc": "MC", "sg": "SG", "ses": "SES", "eid": "EID"}


def _spelled(name: str) -> str:
    """A field's name as headers are written: `x_failed_recipients` as `X-Failed-Recipients`."""
    return "-".join(_SPELLINGS.get(part, part.capitalize()) for part in name[:60].split("_"))


# -- calendar ----------------------------------------------------------------------------------------------------------

_CALENDAR_SENDER = re.compile(r"calendar-(?:notification|server|invite)s?", re.I)


def _of_calendar(look: _Look) -> Iterator[Signal]:
    content_type = look.field("content_type").lower()
    method = re.search(r"method=\"?([a-z]{1,20})", content_type)
    by_calendar = (
        content_type.startswith("text/calendar")
        or "calendarmessage" in look.field("content_class").lower()
        or any(_CALENDAR_SENDER.fullmatch(look._word(one)) for one in (look.field("sender"), look.mail.sender) if one)
    )
    if not by_calendar:
        return
    if (method and method[1] in ("reply", "refresh")) or phrases.CALENDAR_ANSWER.match(look.subject):
        yield Signal("calendar", "a calendar's answer to an invitation (RFC 5546)", True)
    else:
        yield Signal("calendar", f"an invitation or a change of one{f' ({method[1]})' if method else ''} (RFC 5546)")


# -- lists -------------------------------------------------------------------------------------------------------------


def _of_lists(look: _Look) -> Iterator[Signal]:
    """Lists that people write to. What is sent one way (a newsletter has a List-Id too) is a mailing."""
    field = look.field
    post = field("list_post").lower()
    if "mailto:" in post:
        yield Signal("list", "it has List-Post (RFC 2369)")
    if software := next((name for name in _LIST_SOFTWARE if field(name)), ""):
        yield Signal("list", f"it has {_spelled(software)}")
    for name in ("sender", "return_path"):
        address = look._word(field(name)) if name == "sender" else look.return_path.rpartition("@")[0]
        if address != look.sender and _LIST_SENDER.fullmatch(address):
            yield Signal("list", f"{_spelled(name)} is a list's")
            break
    if look.token("precedence") in ("bulk", "junk") and not field("list_unsubscribe"):
        passed_on = addresses(field("sender"))
        if passed_on and _domain(passed_on[0][1]) != _domain(look.sender_address):
            yield Signal("list", f"{passed_on[0][1][:WORD]} passed it on")
    if look.token("precedence") == "list":
        yield Signal("list", "Precedence is 'list'")
    if field("precedence") and look.human_reply_to and look.reply_addresses <= look.recipients:
        yield Signal("list", "answers go to the address that it was sent to")
    # A List-Id alone is no proof: newsletters carry it too. Those have a bulk Precedence or List-Unsubscribe.
    one_way = look.token("precedence") in ("bulk", "junk") or bool(field("list_unsubscribe"))
    if not one_way and (
        name := next((name for name in look.mail.fields if name.startswith("list_") and field(name)), "")
    ):
        yield Signal("list", f"it has {_spelled(name)} (RFC 2919)")


# -- the sender --------------------------------------------------------------------------------------------------------


def _of_sender(look: _Look, own: Collection[str]) -> Iterator[Signal]:
    sender = look.sender
    if look.sender_address and look.sender_address in {address.strip().lower() for address in own}:
        yield Signal("self", f"it comes from the owner's own address {look.sender_address}", True, "sender")
    if look.recipients == {look.sender_address} and not look.reply_addresses - look.recipients:
        yield Signal("self", "it is addressed to its own sender", False, "sender")

    if _DAEMON.fullmatch(sender):
        yield Signal("answered", f"the sender is {sender}", True, "sender")
    elif _POSTMASTER.search(sender) or _DAEMON_NAME.search(look.sender_name):
        yield Signal("answered", f"the sender is {sender or look.sender_name}", False, "sender")
    elif look.takes_no_replies:
        yield Signal("automatic", f"the sender takes no replies ({sender})", True, "sender")
    elif _PERHAPS_DAEMON.fullmatch(sender):
        yield Signal("automatic", f"the sender is {sender} (RFC 3834 §2)", False, "sender")
    elif look.sender_is_bulk:
        yield Signal("mailing", f"the sender is {sender}", False, "sender")
    elif _MACHINE_SENDER.fullmatch(sender):
        yield Signal("automatic", f"the sender is {sender}", False, "sender")


# -- the subject -------------------------------------------------------------------------------------------------------


_OWN_SUBJECT = "it answers a mail under a subject of its own"


def _of_subject(look: _Look) -> Iterator[Signal]:
    subject = look.subject[:300]
    if phrases.AUTO_REPLY.match(subject):
        yield Signal("answered", "its subject is an automatic reply's", not phrases.ASKS.search(look.text), "subject")
    elif phrases.AWAY.match(subject):
        yield Signal("answered", "its subject is an absence note's", False, "subject")
        if look.field("in_reply_to") or look.field("references"):
            # A person's answer would begin with Re:.
            yield Signal("answered", _OWN_SUBJECT, False, "header")
    elif phrases.DELIVERY_REPORT.match(subject):
        yield Signal("answered", "its subject is a delivery report's", False, "subject")
    elif phrases.NOTICE_SUBJECT.search(subject):
        yield Signal("automatic", "its subject is a notice's", False, "subject")


# -- the text ----------------------------------------------------------------------------------------------------------

CODE_MAIL = 2_500  # characters: a mail that brings a code is short


def _of_text(look: _Look) -> Iterator[Signal]:
    text = look.text
    if phrases.WAY_OUT.search(text):
        yield Signal("mailing", "its text says how to unsubscribe", False, "footer")
    if phrases.NOTICE.search(text):
        yield Signal("automatic", "its text says that it is a notice", False, "text")
    if phrases.MASKED_NUMBER.search(text) and not look.is_answer:
        yield Signal("automatic", "its text is a bank's notice", False, "text")
    if phrases.ACKNOWLEDGED.search(text) and not phrases.ASKS.search(text):
        yield Signal("automatic", "its text only says that something was received", False, "text")
    if (_POSTMASTER.search(look.sender) or _DAEMON_NAME.search(look.sender_name)) and phrases.FAILED_DELIVERY.search(
        text
    ):
        yield Signal("answered", "its text reports a failed delivery", False, "text")
    if look.is_answer or len(text) > CODE_MAIL or not phrases.CODE_SUBJECT.search(look.subject):
        return
    brings = (phrases.CODE.search(text) and "a login code") or (
        phrases.CODE_LINK.search(text) and "a password or login link"
    )
    if brings and phrases.CODE_TEXT.search(text):
        # Who asks about a code says I, and who sends one does not.
        asked = phrases.ASKS.search(text) and phrases.SAYS_I.search(text)
        yield Signal("code", f"it brings {brings}", not asked, "text")


# -- what speaks against it --------------------------------------------------------------------------------------------


def _contradiction(look: _Look) -> str:
    """What speaks for a person behind a mail that looks automatic; nothing where nothing does.

    A form on a website, a help desk and a mailbox's rule send a person's words through a program.
    """
    if phrases.ABOVE_THIS_LINE.search(look.text):
        return "its text asks to be answered"
    if look.field("resent_from"):
        return "a rule of some mailbox passed it on"
    if phrases.WAY_OUT.search(look.text) or phrases.NOTICE.search(look.text):
        return ""
    if look.human_reply_to and (phrases.ASKS.search(look.text) or phrases.GREETS.match(look.text)):
        return f"answers go to {look.human_reply_to} and the text is personal"
    answers = look.is_answer and (look.field("in_reply_to") or look.field("references"))
    return "it answers a mail under that mail's subject" if answers and not look.takes_no_replies else ""
