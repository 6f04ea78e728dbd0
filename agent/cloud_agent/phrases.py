"""What automatic mail says in its subject and text, by language: patterns for `gate`.

Each is linear in the text's length, since whoever writes a mail writes its text. In the tables each
phrase is a regular expression; " / " or a line's end stands between two of them.
"""

from __future__ import annotations

import re


def _any(phrases: str) -> str:
    """One group of alternatives out of a table of phrases."""
    return (
        "(?:" + "|".join(phrase for line in phrases.strip().splitlines() for phrase in line.strip().split(" / ")) + ")"
    )


def _pattern(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | flags)


# -- whose words -------------------------------------------------------------------------------------------------------

# An answer, or a forwarded mail: its subject is somebody else's.
ANSWER = _pattern(
    r"\s?"
    + _any("""
        re / fw / fwd / aw / antw / wg / sv / vs / vb / vl / odp / pd / r / rif / i / ref / res / rv / enc / rép / tr
        doorst / ynt / ilt / atb / vá / 回复 / 回覆 / 答复 / 答覆 / 转发 / 轉寄 / 返信 / 回信 / 転送
    """)
    + r"\s{0,9}(?:\[\d{1,4}\]|\(\d{1,4}\))?\s{0,9}[:：]"
)
QUOTED_LINE = _pattern(r"^[ \t]*>[^\n]*$", re.MULTILINE)
# From here on a text is somebody else's.
FORWARDED = _pattern(
    r"^[ \t>*_-]{0,20}"
    + _any("""
        Begin forwarded message / Forwarded message / Original Message
        Ursprüngliche Nachricht / Weitergeleitete Nachricht / Message transféré / Message d'origine
        Mensaje reenviado / Mensaje original / Messaggio inoltrato / Messaggio originale / Doorgestuurd bericht
        Mensagem encaminhada / Wiadomość przekazana / Vidarebefordrat meddelande / 転送 / 转发的邮件
    """)
    + r"\b",
    re.MULTILINE,
)

# The head of a mail that is quoted without marks, as Outlook does: `From:` and, within two lines, `Sent:`.
QUOTED_HEAD = _pattern(
    r"^[ \t*]{0,4}"
    + _any("""
        From / Von / De / Da / Van / Fra / Från / Od / Lähettäjä / Feladó / Kimden / От / Від / 发件人 / 寄件者 / 差出人
    """)
    + r"[ \t*]{0,4}[:：][^\n]{1,300}\n(?:[^\n]{1,300}\n){0,2}?[ \t*]{0,4}"
    + _any("""
        Sent / Date / Gesendet / Datum / Envoyé / Enviado(?: el)? / Fecha / Inviato / Data / Verzonden / Skickat / Sendt
        Wysłano / Odesláno / Lähetetty / Elküldve / Gönderildi / Отправлено / Дата / 发送时间 / 寄件日期 / 送信日時
    """)
    + r"[ \t*]{0,4}[:：]",
    re.MULTILINE,
)
# The line above a mail that is quoted without marks.
QUOTED_BELOW = _pattern(
    r"^[ \t*]{0,4}(?:On|Am|Le|El|Il|Op|Em|W dniu|Den|Dne)\b[^\n]{5,250}"
    r"\b(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|napisał\(?a?\)?|skrev|napsal\(?a?\)?)"
    r"[^\n]{0,120}[:：][ \t]*$",
    re.MULTILINE,
)

# -- subjects ----------------------------------------------------------------------------------------------------------

# What programs write before, or instead of, the subject of a mail they answer. No person begins a subject with these,
# unless to ask about them.
AUTO_REPLY = _pattern(
    r"[\W_]{0,3}"
    + _any("""
        (?:automatic|automated|auto)[ -]?(?:reply|response|respons|answer) / autoreply
        automatische (?:antwort|beantwortung) / abwesenheitsnotiz / automatisch antwoord / afwezigheidsbericht
        r[ée]ponse automatique / respuesta autom[áa]tica / autorespuesta / risposta automatica
        resposta autom[áàa]tica / răspuns automat / odpowiedź automatyczna / automatyczna odpowiedź / autoodpowiedź
        automatická odpov[eě][ďd] / автоматический ответ / автоответ / автоматична відповідь / автоматичен отговор
        autosvar / automatiskt? svar / automaattinen vastaus / automatikus válasz / otomatik yanıt / αυτόματη απάντηση
        自動応答 / 自動返信 / 自动回复 / 自動回覆 / 自動回复 / 자동 ?회신 / 자동 ?응답
    """)
    + r"[\W_]{0,6}?(?:$|[:：\]】>]| - | re\b)"
)
# A person may write these as well.
AWAY = _pattern(
    r"[\W_]{0,3}(?:"
    + _any("""
        out[ -]of[ -](?:the[ -])?office / .{1,30} is out of the office / away (?:from|until)
        nicht im büro / absente? du bureau / fuera de (?:la )?oficina / fuori (?:ufficio|sede) / niet aanwezig
        fora do escritório / poza biurem / ute av kontoret / mimo kancel / вне офиса / нет на рабочем
        不在通知 / 不在のお知らせ / 부재중
    """)
    + r"|(?:on )?(?:vacation|holiday|leave)(?: (?:reply|notice|message))?\s*(?:$|[:：]|until)|"
    + _any("""
        autoresponder / im urlaub / abwesen(?:d|heit) / absence / message d'absence / en congés? / ausente / ausencia
        assenza / in ferie / afwezig(?:heid)? / ausência / de férias / nieobecność / nieobecn[ay] / urlop
        frånvaro / frånvarande / fravær / poissa / отпуск / 休假 / 外出
    """)
    + r"\s*(?:$|[:：(!-]|\d|bis\b|vom\b|du\b|jusqu|hasta|fino|tot\b|até\b|do\b|t\.? ?o\.? ?m|fram))"
)
DELIVERY_REPORT = _pattern(
    r"[\W_]{0,3}"
    + _any("""
        undeliver(?:ed|able) / un?delivery / failure notice / failed delivery / returned (?:mail|to sender)
        delivery (?:status|failure|report|notification|error|has failed|incomplete|delayed)
        mail delivery (?:failed|failure|problem|status) / mail system error / email delivery error / postmaster notify
        message (?:delivery|status|undeliverable|not delivered) / notice: mail delivery / warning: (?:message|could not)
        unzustellbar / nicht zustellbar / zustellung / onbestelbaar / kan inte levereras / kunne ikke leveres
        non remis / échec de (?:la )?(?:remise|livraison) / no se puede entregar / no entregado
        impossibile recapitare / mancato recapito / mancata consegna
        não entregue / falha na entrega / não é possível entregar
        niedostarczon / nie można dostarczyć / zwrot wiadomości / недоставлен / не удается доставить
        配信不能 / 配達できません / 送信できません / 未送达 / 无法投递 / 退信 / 傳遞失敗 / 系统退信
        (?:read|lu|gelesen|leído|letto|lido|przeczytane|läst|开封|已读)\\s*[:：]
    """)
)
NOTICE_SUBJECT = _pattern(
    r"\b"
    + _any(r"""
        (?:your|the) (?:[\w.'-]{1,30} ){0,3}(?:receipt|invoice|statement|order|booking|reservation|payment|ticket)\b
        (?:your|the) (?:[\w.'-]{1,30} ){0,3}subscription\b / has been (?:charged|shipped|dispatched|credited)
        (?:order|booking|payment|registration|shipping|delivery) (?:confirmation|confirmed|received)
        has (?:been )?charged [^\n]{0,60}[$€£¥] ?\d / (?:charged your [^\n]{0,40}|received |you sent )[$€£¥] ?\d
        password (?:reset|changed) / reset your password / verify your (?:e-?mail|account) / new sign-in
        confirm your (?:e-?mail|account|registration|subscription) / unsubscribe confirmation
        (?:security|login|sign-in|verification) (?:alert|code|notice)
        ihre (?:bestellung|rechnung|buchung|zahlung) / bestellbestätigung / buchungsbestätigung / versandbestätigung
        (?:votre|vos) (?:commande|facture|réservation) / confirmation de (?:commande|réservation|paiement)
        tu (?:pedido|factura|reserva|recibo) / confirmación de (?:pedido|reserva|pago) / seu pedido
        conferma (?:d'ordine|ordine) / il tuo ordine / bevestiging van / orderbevestiging / potwierdzenie zamówienia
    """)
)
CODE_SUBJECT = _pattern(
    r"\b"
    + _any("""
        code / passcode / otp / pin / verif / log-?in / sign-?in / password / passwort / kennwort / mot de passe
        contraseña / clave / código / senha / codice / wachtwoord / hasło / lösenord / kod
    """)
)
CALENDAR_ANSWER = _pattern(
    _any("""
        accepted / declined / tentative(?:ly accepted)? / zugesagt / abgesagt / mit vorbehalt / vorläufig
        accepté / refusé / provisoire / aceptad[oa] / rechazado / provisional / accettato / rifiutato / provvisorio
        geaccepteerd / geweigerd / voorlopig / aceit[eo] / recusado / zaakceptowano / odrzucono / godkänt / avböjt
        承諾 / 辞退 / 已接受 / 已拒绝
    """)
    + r"\s*[:：]"
)

# -- texts -------------------------------------------------------------------------------------------------------------

_UNSUBSCRIBE = _any(r"""
    unsubscribe / opt[ -]out / abbestellen / abmelden / austragen / désabonner / désinscrire / désinscription
    dar(?:se|te) de baja / date de baja / cancelar (?:la |su |tu )?(?:suscripción|assinatura|inscrição)
    cancella(?:rti|rsi|ti) / disiscri\w{1,8} / afmelden / uitschrijven / wypisa\w{1,5} / rezygnuj
    avregistrera / avsluta prenumeration / afmeld / meld deg av / отписаться
    退订 / 取消订阅 / 取消訂閱 / 配信停止 / 登録解除 / 수신거부
""")
_CLICK = r"\b(?:click|klick|cliqu|haga clic|clicca)"
# A way out of a mailing, and not somebody's wish to be taken off one: a line or a link of its own, or a how-to.
WAY_OUT = _pattern(
    rf"^[ \t|*_\[(•·-]{{0,8}}{_UNSUBSCRIBE}\b[^\n?]{{0,24}}(?:$|\]\(|\(?<?https?:|\|)"
    rf"|{_UNSUBSCRIBE}[ \t\])]{{0,3}}[(<\[ ]{{1,3}}(?:https?:|mailto:)"
    rf"|{_UNSUBSCRIBE}[^\n.?]{{0,40}}{_CLICK}|{_CLICK}\w{{0,6}}[^\n.?]{{0,60}}{_UNSUBSCRIBE}"
    r"|\bto (?:unsubscribe|opt[ -]out|be removed|stop receiving|remove yourself)\b[^\n?]{0,80}"
    r"\b(?:click|visit|reply|send|follow|go to|http|mailto|link|here)"
    r"|(?:do not|don't|no longer) (?:want|wish) to receive[^\n?]{0,60}\b(?:click|visit|reply|send|unsubscribe|http)",
    re.MULTILINE,
)
NOTICE = _pattern(
    r"\b"
    + _any(r"""
        this is an? (?:automated|automatic|automatically generated|system[- ]generated)
        this (?:e-?mail|message|mail) (?:was|is|has been) (?:automatically|auto-?)[ -]?(?:generated|sent|created)
        this (?:e-?mail|message) was created automatically / do not (?:reply|respond) to this (?:e-?mail|message|mail)
        replies to this (?:e-?mail|message) (?:are|will) not / you(?:'re| are) receiving (?:this|these|notifications)
        you (?:have )?received this (?:e-?mail|message|mail) because
        manage your (?:e-?mail |notification )?preferences
        (?:update|change) your (?:e-?mail|notification) (?:preferences|settings)
        view (?:this (?:e-?mail )?)?(?:in|online in) (?:your |a )?browser / (?:e-?mail|message) was sent to \S{1,80}@
        diese (?:e-?mail|nachricht) wurde automatisch / bitte antworten sie nicht auf diese / sie erhalten diese
        (?:ceci est|cet e-?mail est) un (?:message|e-?mail) automatique / merci de ne pas répondre / vous recevez ce
        este (?:es un )?(?:correo|mensaje) (?:electrónico )?(?:es |ha sido |fue )?(?:generado )?automátic
        no responda a este / recibe este (?:correo|mensaje) / mensagem automática / não responda a est
        questo messaggio è stato generato automaticamente / non rispondere a questa
        deze e-?mail is automatisch / niet (?:te )?(?:antwoorden|beantwoorden) op deze
        wiadomość (?:została )?(?:wygenerowana )?automatycznie / prosimy nie odpowiadać
        detta (?:är ett automatiskt|meddelande har skickats automatiskt) / svara inte på detta
    """)
    + r"|このメールは(?:自動|送信専用)|自動送信|此邮件(?:由系统|为系统)自动|请勿(?:直接)?回复"
)
# A number of which only the end is shown.
MASKED_NUMBER = _pattern(
    r"\b(?:card|account|karte|konto|carte|compte|tarjeta|cuenta|conto|cartão)\b[^\n]{0,12}[•*·xX]{2,8}[ -]?\d{4}\b"
)
ACKNOWLEDGED = _pattern(
    r"\b"
    + _any(r"""
        we(?: have|'ve) received your (?:e-?mail|message|request|enquiry|inquiry|ticket)
        wir haben ihre (?:anfrage|nachricht|e-?mail) erhalten / nous avons bien reçu votre
        hemos recibido (?:su|tu) (?:mensaje|correo|solicitud|consulta) / abbiamo ricevuto la (?:sua|tua)
        wij hebben (?:uw|je) [^\n]{0,20}ontvangen / recebemos (?:a )?sua
    """)
)
FAILED_DELIVERY = _pattern(
    _any(r"""
        could not be delivered / delivery (?:to the following|failed|has failed) / undeliverable / delivery problems
        unable to deliver / could not deliver / not able to deliver / failed permanently / permanent (?:fatal )?error
        returned to (?:you|sender) / user unknown / unknown user / no such user / mailbox (?:is )?full
        mail(?:box)? quota / recipients? (?:address )?rejected / following address(?:es|\(es\))? (?:had|failed)
        konnte nicht zugestellt / n'a pas pu être (?:remis|livré) / no se (?:ha podido|pudo) entregar
        non è stato possibile
    """)
)
# Case counts: a code is written in capitals.
CODE = re.compile(r"(?<![\w.,/-])(?:\d{4,8}|\d{3}[ -]\d{3}|[A-Z0-9]{2,4}-[A-Z0-9]{3,6})(?![\w/-])")
CODE_LINK = _pattern(r"https?://[^\s)>\]]{0,300}(?:reset|verify|confirm|token|activate|magic|recover)")
CODE_TEXT = _pattern(
    _any(r"""
        if (?:you|this) (?:did not|didn't|have not|haven't|was not|wasn't)[^\n.]{0,20}(?:request|make|ask|initiat|you)
        do not share (?:this|it|your) / never share
        (?:expires|valid|gültig|valable|válido|geldig)[^\n.]{0,30}\d{1,3} ?(?:min|hour|stunden|heures|horas|uur)
        falls sie (?:dies|das|den)[^\n.]{0,40}nicht / si vous n'(?:avez|êtes)[^\n.]{0,30}(?:demand|origine)
        si (?:no|usted no|tú no)[^\n.]{0,20}solicit / se non (?:hai|ha) richiest / als (?:u|je) dit niet
    """)
)

# -- what a person, or a help desk's program, writes -------------------------------------------------------------------

ABOVE_THIS_LINE = _pattern(
    r"(?:type|write|reply|respond|answer|antwort)[^\n]{0,40}\b(?:above|over|oberhalb|über) (?:this|the|dieser)"
    r" (?:line|linie|zeile)"
    r"|répondre au-dessus de cette ligne|escriba (?:su respuesta )?(?:por )?encima de esta línea"
)
ASKS = _pattern(r"\w[ \t]?[?？](?:\s|$)")
GREETS = _pattern(
    r"\A\W{0,20}"
    + _any("""
        hi / hello / hey / dear / good (?:morning|day|afternoon) / hallo / guten tag / liebe / sehr geehrte / moin
        bonjour / salut / cher / chère / hola / buenos / estimad / ciao / buongiorno / gentile / beste / geachte
        olá / oi / bom dia / prezad / cześć / dzień dobry / szanown / hej / お世話 / こんにちは / 您好 / 你好
    """)
    + r"\b"
)
SAYS_I = re.compile(r"\b(?:I|ich|je|j'|yo|io|eu|ik|jag|jeg|я)\b")
