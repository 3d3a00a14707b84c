"""Secrets in text that nobody parsed: prose, logs, code, command lines, broken JSON (pure).

Works on UTF-8 bytes. A name that stands for a secret is found, then what follows it is read the way a person would:
an operator and a value (`password = "x"`, `X-Api-Key: x`, `&token=x`, `<secret>x</secret>`), a flag and its argument
(`--token x`), a pair (`"name": "X-Api-Key", "value": "x"`), or words (`the password is x`). Every pattern here is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.redaction.detect.automata import compile_bytes, finder
from audit.redaction.detect.budget import Effort
from audit.redaction.detect.context.prose import nearby, read_prose, said_before
from audit.redaction.detect.context.spans import merge
from audit.redaction.detect.context.syntax import by_place
from audit.redaction.detect.context.tables import in_columns
from audit.redaction.detect.context.values import read_value
from audit.redaction.detect.heuristics import TOKEN, WORDS_NOT_VALUES, accepts, looks_like_our_token
from audit.redaction.detect.matching import SecretPlace, search_forms
from audit.redaction.detect.names import NOTHING, Name, judge
from audit.redaction.detect.randomness import looks_random

__all__ = ("SHORT_NAMES", "TRIGGERS", "after_name", "find")

# Letters that every name of a secret has in it. `judge` has the last word on the whole name.
TRIGGERS = (
    "passw|passphrase|passcode|passkey|pwd|psswd|passwort|kennwort|motdepasse|contrasen|contraseñ|wachtwoord|salasana|losenord|"
    "lösenord|adgangskode|senha|haslo|hasło|heslo|parola|secret|token|key|credential|creds|authorization|authcode|auth(?:\\b|_|-|[0-9]|code|header|data|string|value|info|basic|cookie|pass)|bearer|cookie|session|sessid|"
    "csrf|xsrf|jwt|jws|otp|mnemonic|pepper|netrc|pgpass|htpasswd|dockerconfig|"
    "recoverycode|backupcode|seedphrase|recoveryphrase|2fa|securitycode|verificationcode|onetimecode|twofactorcode|mfacode|"
    "cvv|cvc|psk|pincode|userpin|cardpin|pass|ssn|socialsecurity|signature|salt|nonce|hmac|ticket|assertion|samlresponse|"
    "invite|activationcode|credential|voucher|seed|"
    "парол|секрет|токен|密码|密碼|口令|秘密|令牌|パスワード|暗証|비밀번호|암호|كلمة|סיסמה|रहस्य|मधु"
)
SHORT_NAMES = r"(?:\b|_|-)(?:pin|pw|psw|sas|pem|sig|sid|pat|mac)(?:\b|_|-)|(?-i:Pin|Pw|Sas|Pem|Sig|Sid|Pat)\b"
_FIRST_WORDS = (
    r"(?:\b(?:api|access|private|secret|client|auth|authentication|encryption|signing|shared|account|storage|subscription|master|"
    r"license|service|app|application|admin|bot|bearer|session|refresh|personal|deploy|webhook|root|security|recovery|"
    r"verification|ssh|one[ \-]time|two[ \-]factor|backup|seed|pin|card|user|csrf|consumer|oauth|aws)[ \t]+){0,3}"
)
_NAME = compile_bytes(
    rf"{_FIRST_WORDS}(?:[A-Za-z0-9_.$\-\x{{80}}-\x{{ff}}]*(?:{TRIGGERS})[A-Za-z0-9_.\-\x{{80}}-\x{{ff}}]*|"
    rf"[A-Za-z0-9_.$\-]*(?:{SHORT_NAMES})|(?:recovery|backup|verification|security|one[ \-]time|activation)[ \t]+codes?\b|"
    r"(?:seed|recovery)[ \t]+phrase\b|connection[ \t]+string)",
    case_sensitive=False,
)
_find_name = finder(_NAME)
_AFTER = re.compile(
    rb"(?P<close>(?:\\{0,16}[\"'`])?[\])]?\??)"
    rb"(?P<space>(?:[ \t\r\n]|\\{1,8}[rnt]){0,64})"
    rb"(?P<op>=>|:=|===?|=|:(?!:[A-Za-z])|->|\xe2\x86\x92|%3[aAdD]|%253[aAdD])"
    rb"(?P<more>(?:[ \t\r\n]|\\{1,8}[rnt]|\+(?=[^ ])|%20){0,64})"
)
_XML = re.compile(rb"(?:[ \t][^<>]{0,512})?>(?P<value>(?:<!\[CDATA\[)?[^<]{1,16384}+)(?=</|\Z)")
_PAIR = re.compile(
    rb"(?P<q>\\{0,16}[\"'])(?P<between>\s{0,64}[,:]\s{0,64}(?:(?P=q)(?:[Tt]ype|[Ee]nabled|[Ss]ecret|[Ss]ensitive|[Dd]escription|[Rr]equired)(?P=q)\s{0,8}:\s{0,8}"
    rb"(?:(?P=q)[^\"'\\]{0,200}(?P=q)|[a-z]{1,8})\s{0,8},\s{0,8})?"
    rb"(?P=q)(?:[Vv]alue|[Vv]al|[Cc]ontent|[Dd]efault|VALUE|[Tt]ext|[Dd]ata|stringValue|string_value)(?P=q)\s{0,64}:\s{0,64})"
)
_PAIR_BEFORE = re.compile(
    rb"(?P<q>\\{0,16}[\"'])(?:[Vv]alue|[Vv]al|[Cc]ontent|[Dd]efault|VALUE)(?P=q)\s{0,16}:\s{0,16}(?P=q)(?P<value>[^\"']{1,2048}?)(?P=q)\s{0,16},\s{0,16}"
    rb"(?P=q)(?:[Nn]ame|[Kk]ey|[Hh]eader|[Ff]ield|NAME|KEY)(?P=q)\s{0,16}:\s{0,16}(?P=q)\Z"
)
_NEXT_ITEM = re.compile(rb"(?P<q>\\{0,16}[\"'])\s{0,64},\s{0,64}(?=\\{0,16}[\"'])")
_ENV_LINE = re.compile(rb"(?:^|[\r\n])[ \t]{0,16}(?:export[ \t]{1,8}|set[ \t]{1,8}|ENV[ \t]{1,8}|-e[ \t]{1,8})?\Z")
_ENV_NAME = re.compile(rb"[A-Z][A-Z0-9_]{1,80}\Z")


def find(text: bytes, *, cut: bool = False, effort: Effort | None = None) -> list[SecretPlace]:
    """Find the secrets in a text, in order and apart from each other. `cut`: the text may end within one. Raises TooDear."""
    effort = effort or Effort(len(text))
    found = list(search_forms(text, effort))
    found += _by_name(text, cut, effort)
    found += by_place(text)
    found += in_columns(text)
    if cut:
        found += _unfinished(text)
    return merge(text, found)


def _by_name(text: bytes, cut: bool, effort: Effort) -> list[SecretPlace]:
    found: list[SecretPlace] = []
    spoken: list[int] = []  # where a sentence speaks of a secret
    position, size = 0, len(text)
    while position < size:
        ((start, end),) = _find_name(text, position, size)
        if end < 0:
            break
        position = max(end, position + 1)
        effort.spend(_A_NAME)
        if end - start > 512 or end == start:
            continue
        if text[start - 10 : start] == b"[REDACTED:" and (token := TOKEN.match(text, start - 10)):
            position = token.end()
            continue
        if _within_random(text, start, end):
            continue  # the letters of a name, but in the middle of base64
        name = judge(text[start:end].decode("utf-8", "replace"))
        if name is NOTHING or b"---" in text[start + 2 : end + 3]:
            continue
        one = after_name(text, start, end, name, cut, effort)
        if one is not None:
            found.append(one)
            if one.start >= end:
                position = max(position, one.end)  # what is masked is not read for names
        else:
            spoken.append(end)
    if spoken:
        found += nearby(text, spoken)
    return found


# What is read around each name, whatever stands there.
_A_NAME = 64
_RUN_BEFORE = re.compile(rb"[A-Za-z0-9+/=]{0,64}\Z")
_RUN_AFTER = re.compile(rb"[A-Za-z0-9+/=]{0,64}")


def _within_random(text: bytes, start: int, end: int) -> bool:
    if end - start > 20 and looks_random(text[start:end], least=20):
        return True
    if text[start - 1 : start] not in _JOINS and text[end : end + 1] not in _JOINS:
        return False
    before = _RUN_BEFORE.search(text, max(0, start - 64), start)
    after = _RUN_AFTER.match(text, end)
    run = (before[0] if before else b"") + text[start:end] + (after[0] if after else b"")
    return len(run) > max(32, 2 * (end - start)) and looks_random(run, False, 32)


_JOINS = (b"+", b"/")


def after_name(text: bytes, start: int, end: int, name: Name, cut: bool, effort: Effort) -> SecretPlace | None:
    """Say what a name at text[start:end] makes a secret."""
    while end > start and text[end - 1 : end] in (b".", b"-"):
        end -= 1
    match = _AFTER.match(text, end)
    if match and (match["close"] or b"\n" not in match["space"]):
        found = _operand(text, start, match, name, cut, effort)
        if found or match["op"] != b":":
            return found
    if text[start - 1 : start] in (b"<", b":") and (xml := _XML.match(text, end)):
        effort.spend(len(xml[0]))
        value = xml["value"].strip()
        closed = xml.end() < len(text) or cut or b" " not in value
        if value and closed and not looks_like_our_token(value) and accepts(name, value):
            return SecretPlace(*xml.span("value"), name.kind)
        return None
    if (yaml := _YAML_PAIR.match(text, end)) and _YAML_NAME.search(text, max(0, start - 40), start):
        return read_value(text, yaml.end(), name, cut, effort, quoted_name=True)
    if text[end : end + 1] in _QUOTES_AND_BACKSLASH:
        if pair := _PAIR.match(text, end):
            return read_value(text, pair.end(), name, cut, effort, quoted_name=True)
        if b":" in text[max(0, start - 40) : start] and (
            before := _PAIR_BEFORE.search(text, max(0, start - 600), start)
        ):
            effort.spend(600)
            return SecretPlace(*before.span("value"), name.kind) if accepts(name, before["value"]) else None
        written = text[start:end]
        if (part := _PART.match(text, end)) and _FORM_DATA.search(text, max(0, start - 120), start):
            return (
                None
                if looks_like_our_token(part["value"]) or not accepts(name, part["value"])
                else SecretPlace(*part.span("value"), name.kind)
            )
        if (two := _TWO.match(text, end)) and _OPENED.search(text, max(0, start - 24), start):
            value = two["value"]
            if accepts(name, value) and not value.istitle() and value.lower() not in WORDS_NOT_VALUES:
                return SecretPlace(*two.span("value"), name.kind)
        header = (
            _CALLED.search(text, max(0, start - 48), start)
            or b"-" in written
            or written.lower() in (b"authorization", b"cookie")
        )
        if header and (item := _NEXT_ITEM.match(text, end)):
            if text[item.end() : item.end() + 2].lstrip(b"\\\"'`")[:1] == b"-":
                return None
            return read_value(text, item.end(), name, cut, effort, quoted_name=True)
    if text[start : start + 1] == b"-" and text[start : start + 3] != b"---":
        flag = _BLANKS.match(text, end)
        if flag and text[flag.end() : flag.end() + 1] not in (b"-", b"", b"|", b">", b"<", b"&"):
            return read_value(text, flag.end(), name, cut, effort, quoted_name=True)
    return read_prose(text, end, name, effort) or said_before(text, start, name)


_YAML_PAIR = re.compile(
    rb"[\"']?[ \t]{0,16}(?:\r?\n|\\{1,8}n)[ \t]{0,64}[\"']?(?:value|val|content|default|Value)[\"']?:[ \t]{1,16}"
)
_YAML_NAME = re.compile(rb"(?:name|key|header|Name|Key)[\"']?:[ \t]{1,16}[\"']?\Z")
_CALLED = re.compile(
    rb"(?:define|[Ss]et|put|add|append|setdefault|header|environ|config|store|save)[A-Za-z]{0,16}\([ \t]{0,4}\\{0,8}[\"']\Z"
)
# A part of a multipart form, and two strings in brackets.
_PART = re.compile(
    rb"\\{0,8}\"(?:;[^\r\n]{0,200})?(?:\r?\n[A-Za-z\-]{1,40}:[^\r\n]{0,200}){0,4}\r?\n\r?\n(?P<value>[^\r\n]{1,4096})"
)
_FORM_DATA = re.compile(rb"(?i)form-data;[ \t]{0,4}name=\\{0,8}\"\Z")
_TWO = re.compile(rb"(?P<q>[\"'])[ \t]{0,4},[ \t]{0,4}(?P=q)(?P<value>[^\"'\s\\]{3,2048})(?P=q)[ \t]{0,4}[)\]]")
_OPENED = re.compile(rb"(?:^|[\s(\[,=:{])[(\[][ \t]{0,4}[\"']\Z")
_QUOTES_AND_BACKSLASH = (b'"', b"'", b"`", b"\\")
_BLANKS = re.compile(rb"[ \t]{1,16}")


def _operand(
    text: bytes, start: int, match: re.Match[bytes], name: Name, cut: bool, effort: Effort
) -> SecretPlace | None:
    quoted_name = bool(match["close"].strip(b"])?"))
    spaced = bool(match["space"] or match["more"])
    line = None
    if match["op"] == b"=" and not spaced and not quoted_name and _ENV_NAME.match(text, start, match.start()):
        line = _ENV_LINE.search(text, max(0, start - 32), start) or (start == 0)
    return read_value(
        text,
        match.end(),
        name,
        cut,
        effort,
        quoted_name=quoted_name,
        whole_line=bool(line),
        spaced=spaced,
        colon=match["op"] == b":",
        written=text[start : match.start()],
        start=start,
    )


_PREFIXES = compile_bytes(
    r"(?:" + "|".join([
        "mcps_", "gh[pousr]_", "github_pat_", "gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat)-", "xox[a-z]-", "xapp-", r"\bAKIA", r"\bASIA", "AIza", r"ya29\.", "GOCSPX-",
        "[sr]k_(?:live|test)_", "whsec_", r"\bSG\.", "npm_", "pypi-", "sk-ant-", "sk-proj-", r"\bsk-", r"\bhf_", "shp[a-z]{2}_", "do[oprt]_v1_", "dapi[0-9a-f]", "sq0[a-z]{3}-", r"\beyJ",
        r"hv[sbr]\.", r"dp\.[a-z]{2}\.", "lin_api_", r"\bntn_", r"\bsecret_", "PMAK-", "glsa_", "glc_", "NRAK-", "HRKU-", "ATATT3", "ATCTT3", "dckr_[a-z]{3}_", r"\.atlasv1\.", "figd_", "sntry[a-z]_",
        "AGE-SECRET-KEY-", r"\bEAA[A-Z]", r"\bSK[0-9a-f]", r"\bkey-[0-9a-f]", "rubygems_", "tskey-", "pscale_", r"bearer\s+", r"basic\s+", "xkeysib-", "hooks.slack.com/services/", "api/webhooks/", "-----BEGIN",
    ]) + r")([A-Za-z0-9_\-./+=:|]*)\z",
    case_sensitive=True,
)  # fmt: skip


_URL_PASSWORD = re.compile(rb"://[^\s/?#\"'<>@:]{0,200}:(?P<value>(?![0-9]{1,5}\Z)[^\s\"'<>/@]{1,512})\Z")
_LAST_WORD = re.compile(rb"[A-Za-z0-9+/_\-=.]{12,4096}\Z")


def _unfinished(text: bytes) -> Iterator[SecretPlace]:
    """Yield the beginning of a secret at the end of a text that was cut there."""
    base = max(0, len(text) - 600)
    match = _PREFIXES.search(text[base:])
    if match and match.end(1) > match.start(1):
        yield SecretPlace(base + match.start(), base + match.end(), "cut")
    if password := _URL_PASSWORD.search(text, base):
        yield SecretPlace(*password.span("value"), "cut")
    last = _LAST_WORD.search(text, max(0, len(text) - 4096))
    if last and looks_random(last[0], False, 12):
        yield SecretPlace(*last.span(), "cut")
