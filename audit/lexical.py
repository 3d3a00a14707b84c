"""Secrets in text that nobody parsed: prose, logs, code, command lines, broken JSON (pure).

Works on UTF-8 bytes. A name that stands for a secret is found, then what follows it is read the way a person would:
an operator and a value (`password = "x"`, `X-Api-Key: x`, `&token=x`, `<secret>x</secret>`), a flag and its argument
(`--token x`), a pair (`"name": "X-Api-Key", "value": "x"`), or words (`the password is x`). Every pattern here is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import re2

from audit.forms import FORMS, Found, _mixed, decode_base64, looks_random, search_forms
from audit.names import NOTHING, Name, judge

__all__ = ("TOKEN", "TRIGGERS", "find", "looks_like_our_token")

TOKEN = re.compile(rb"\[REDACTED:[a-z0-9\-]{1,40}:[0-9a-f]{8}\]")
_MAX_VALUE = 16_384


def _compile(pattern: str, case_sensitive: bool = False) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = case_sensitive
    options.log_errors = False
    options.max_mem = 32 << 20
    return re2.compile(pattern.encode("utf-8"), options)


# Letters that every name of a secret has in it. `judge` has the last word on the whole name.
TRIGGERS = (
    "passw|passphrase|passcode|passkey|pwd|psswd|passwort|kennwort|motdepasse|contrasen|contraseñ|wachtwoord|salasana|losenord|"
    "lösenord|adgangskode|senha|haslo|hasło|heslo|parola|secret|token|key|credential|creds|authorization|authcode|auth(?:\\b|_|-|[0-9]|code|header|data|string|value|info|basic|cookie|pass)|bearer|cookie|session|sessid|"
    "csrf|xsrf|jwt|jws|otp|mnemonic|pepper|netrc|pgpass|htpasswd|dockerconfig|"
    "recoverycode|backupcode|seedphrase|recoveryphrase|2fa|securitycode|verificationcode|onetimecode|twofactorcode|mfacode|"
    "cvv|cvc|psk|pincode|userpin|cardpin|pass|ssn|socialsecurity|signature|salt|nonce|hmac|ticket|assertion|samlresponse|"
    "invite|activationcode|credential|voucher|seed|"
    "парол|секрет|токен|密码|密碼|口令|秘密|令牌|パスワード|暗証|비밀번호|암호|كلمة|סיסמה"
)
_SHORT = r"(?:\b|_|-)(?:pin|pw|psw|sas|pem|sig|sid|pat|mac)(?:\b|_|-)|(?-i:Pin|Pw|Sas|Pem|Sig|Sid|Pat)\b"
_FIRST_WORDS = (
    r"(?:\b(?:api|access|private|secret|client|auth|authentication|encryption|signing|shared|account|storage|subscription|master|"
    r"license|service|app|application|admin|bot|bearer|session|refresh|personal|deploy|webhook|root|security|recovery|"
    r"verification|ssh|one[ \-]time|two[ \-]factor|backup|seed|pin|card|user|csrf|consumer|oauth|aws)[ \t]+){0,3}"
)
_NAME = _compile(
    rf"{_FIRST_WORDS}(?:[A-Za-z0-9_.$\-\x{{80}}-\x{{ff}}]*(?:{TRIGGERS})[A-Za-z0-9_.\-\x{{80}}-\x{{ff}}]*|"
    rf"[A-Za-z0-9_.$\-]*(?:{_SHORT})|(?:recovery|backup|verification|security|one[ \-]time|activation)[ \t]+codes?\b|"
    r"(?:seed|recovery)[ \t]+phrase\b|connection[ \t]+string)"
)

_OPENER = re.compile(rb"(?:[rbfuRBFU]{1,2})?\\{0,16}[\"'`]")
_AFTER = re.compile(
    rb"(?P<close>(?:\\{0,16}[\"'`])?[\])]?\??)"
    rb"(?P<space>(?:[ \t\r\n]|\\{1,8}[rnt]){0,64})"
    rb"(?P<op>=>|:=|===?|=|:|->|\xe2\x86\x92|%3[aAdD]|%253[aAdD])"
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
_SCHEME = re.compile(
    rb"(?i:(?:bearer|basic|token|apikey|api-key|ssws|bot|hmac|dpop|geniekey|mac|oauth|negotiate|ntlm|key|splunk|digest|"
    rb"aws4-hmac-sha256|aws|signature|sharedaccesssignature|sharedkey)(?:[ \t]|%20|\+)+)+"
)
_WHOLE_LINE_SCHEMES = re.compile(rb"(?i)digest|aws|signature|hmac|mac|oauth|shared")
_PLAIN_VALUE = re.compile(
    rb"(?:[^\s;&\"'`<>,)\]}\\|]|\\(?![\"'nrt])|\|(?!\|)|[,)\]}](?=[^\s,;&\"'`<>)\]}\\])(?![A-Za-z_][A-Za-z0-9_.\-]{0,40}\s?[=:])){1,16384}"
)
_LINE_VALUE = re.compile(rb"[^\r\n\"'`]{1,16384}")
_WHOLE_LINE = re.compile(rb"[^\r\n]{1,16384}")
_COOKIES = re.compile(rb"[^\r\n\"'`\\]{1,16384}")
_ENV_LINE = re.compile(rb"(?:^|[\r\n])[ \t]{0,16}(?:export[ \t]{1,8}|set[ \t]{1,8}|ENV[ \t]{1,8}|-e[ \t]{1,8})?\Z")
_ENV_NAME = re.compile(rb"[A-Z][A-Z0-9_]{1,80}\Z")
_REFERENCE = re.compile(
    rb"(?:\$\{[^}\s]{1,80}\}|\$\{\{[^}]{1,120}\}\}|\$\([^)]{1,80}\)|\$[A-Za-z_][A-Za-z0-9_]{0,60}|\{\{[^}]{1,80}\}\}|<[A-Za-z][A-Za-z0-9 _\-]{0,60}>|"
    rb"(?i:your|insert|enter|example|sample|placeholder|replace)(?:[-_][A-Za-z]+){0,6}|[A-Za-z]+(?:[-_][A-Za-z]+){0,6}[-_](?i:here)|"
    rb"\{[a-z_][a-z0-9_.]{0,40}\}|%[sdr]|%\([a-z_]+\)s|%[A-Z_]{2,40}%|\*{3,}|x{4,}|X{4,}|\.{3,}|\xe2\x80\xa6|\xe2\x80\xa2+|-|\?|\[\]|\{\}|\(none\)|N/A|n/a)\Z"
)
_REFERENCE_AT = re.compile(
    rb"[\[(](?:[a-z]{2,20}[ \-]?){1,5}[\])]|"
    rb"\$\{[^}\s]{1,80}\}|\$\{\{[^}]{1,120}\}\}|\$\([^)]{1,80}\)|\{\{[^}]{1,80}\}\}|"
    rb"(?:self|settings|config|cfg|conf|os|process|env|environ|secrets|args|request|req|options|opts|params|ctx|context|this|props|vault|keyring|"
    rb"var|local|module|credentials|creds|user|form|session|app|state|data)(?:\.|\?\.|->)[A-Za-z_][A-Za-z0-9_.\[\]\"']{0,80}(?![A-Za-z0-9_.])"
)
_REFERENCE_ONLY = re.compile(
    rb"(?:(?:[Bb]earer|[Bb]asic|[Tt]oken) +)?(?:\$?\{[A-Za-z_][A-Za-z0-9_.()]{0,60}\}|\$\{\{?[^}]{1,80}\}?\}|\{\{[^}]{1,80}\}\}|\$[A-Za-z_][A-Za-z0-9_]{0,60}|<[A-Za-z][A-Za-z0-9 _\-]{0,60}>|%s)\Z"
)
_WORDS_NOT_VALUES = frozenset(
    rb"""null none true false nil undefined void empty yes no on off required optional string str int integer number bool boolean
    bytes any object array list dict map tuple set text char varchar nvarchar uuid date datetime float double long byte
    str|none string|null optional[str] missing invalid expired valid wrong incorrect correct unknown hidden redacted masked
    encrypted hashed secret password token key weak strong default changed unchanged unset given provided blank default_token
    the a an and or not is are was be it its this that these those your our my their his her for from with by in of to as at
    self request args kwargs options params config settings env process data input value values name type field http https
    bearer basic digest oauth jwt sha256 sha1 sha512 md5 bcrypt argon2 hmac secretstr slicestr interface const readonly""".split()
)
_CODE = re.compile(
    rb"[A-Za-z_$][A-Za-z0-9_$]{0,60}(?:(?:\.|->|::|\?\.)[A-Za-z_$][A-Za-z0-9_$]{0,60}){0,8}(?:[(\[{][^\s]{0,200})?[)\]},;]{0,4}\Z"
)
_CALL = re.compile(rb"[A-Za-z_$][A-Za-z0-9_$.:]{0,80}[(\[]")
_ALGORITHM = re.compile(
    rb"(?i)(?:sha|md|aes|rsa|hs|rs|es|ps|ed|base|utf|pbkdf|argon|bcrypt|scrypt|oauth|http|https|tls|ssl|rfc|x|v|iso|ipv|p|curve|"
    rb"secp|hmac|blake|crc|s|ec|python|node|es|k|u|t|r|q)-?[0-9]{1,5}(?:[-_./a-z0-9]{0,16})\Z"
)
_DATE = re.compile(rb"[0-9]{1,4}[-/.:][0-9]{1,2}(?:[-/.:T][0-9:.]{1,16}Z?)?\Z")
_QUANTITY = re.compile(
    rb"(?i)[0-9]{1,6}(?:\.[0-9]+)?(?:%|[a-z]{1,7}|-(?:bit|byte|char|characters?|day|hour|minute|second|digit|month|year|chars?)s?)?\Z"
)
_CONNECT = re.compile(
    rb"(?i)(?:(?:[ \t]{1,4}(?:for|of|on|in|at|to)[ \t]{1,4}[^\s\"'`,;]{1,40}(?:[ \t]{1,4}[^\s\"'`,;]{1,40}){0,2}?)?)"
    rb"(?:[ \t]{1,4}(?:is|was|are|equals|being|reads|=|:|-|\xe2\x80\x93|\xe2\x80\x94)|[ \t]{0,4}[,:]?[ \t]{1,4}(?:set|changed|equal|reset|rotated|updated)[ \t]{1,4}to|[ \t]{1,4}(?:i[ \t]{1,4}(?:use|used)|we[ \t]{1,4}use|you[ \t]{1,4}need|to[ \t]{1,4}use|provided|given|used|found|sent|received|value|here)[ \t]{0,4}(?:is|was|:|=)?|(?P<loose>[ \t]{1,4}as|[ \t]{1,4}of|[ \t]{1,4}to)|\xe2\x80\x99s|'s)"
    rb"[ \t]{0,4}(?:(?:now|just|still|currently|simply|always|probably|the|new|set[ \t]{1,4}to|called|this|following|string|value)[ \t:]{1,4}){0,3}"
)
_WITHIN = re.compile(rb"(?:[ \t]{1,4}[A-Za-z'()]{1,20}){1,5}[ \t]{0,4}(?::|=|->|-|\xe2\x80\x93|\xe2\x80\x94)[ \t]{0,4}")
_QUOTED_TOKEN = re.compile(
    rb"(?P<q>\\{0,8}[\"'`]|\xe2\x80\x9c|\xe2\x80\x98|\*\*|<)(?P<value>[^\s\"'`<>]{3,2048}?)(?=\\{0,8}[\"'`]|\xe2\x80\x9d|\xe2\x80\x99|\*\*|>)"
)
_BARE_TOKEN = re.compile(rb"[^\s\"'`<>]{3,4096}")
_TRAILING = b".,;:!?)]}"
_RANDOM_TOKEN = re.compile(rb"(?<![A-Za-z0-9+/=_\-.~:@%])[A-Za-z0-9+/_\-.~]{16,4096}={0,2}")
_USERINFO = _compile(
    r"[a-z][a-z0-9+.\-]{0,30}://([^\s/?#\"'<>\\@:]*)(?::([^\s\"'<>\\/?#]*|[^\s\"'<>\\@]*?))?@[^\s\"'<>@/?#]"
)
_USERINFO_HINT = "://[^\\s\"'<>]*@"
_MYSQL_DSN = re.compile(
    rb"(?<![A-Za-z0-9_.\-/:@])(?!(?:mailto|sip|sips|xmpp|acct|git|ssh|data|urn):)[A-Za-z0-9_.+\-]{1,64}:(?P<value>[^\s@:/\"'<>(),;]{3,256})@(?:(?:tcp|unix)\(|[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*(?::[0-9]{2,5}|/[A-Za-z0-9_\-]))"
)
_QUERY = re.compile(
    rb"(?i)[?&#;](?:amp;)?(?P<name>sig|signature|sign|code|x-amz-signature|x-amz-credential|x-goog-signature|x-goog-credential|"
    rb"hmac|oauth_signature|oauth_verifier|code_verifier|client_assertion|hdnts|hdnea|policy|access|pass|pin|otp|pw|p|u?auth|crumb|"
    rb"state|invite|ticket|t|k|secure|sso|magic|login|id_token_hint|logout_token)(?:=|%3[dD])(?P<value>[^&\s\"'<>#\\]{4,4096})"
)
_ALWAYS_IN_QUERY = frozenset(
    (
        b"sig",
        b"signature",
        b"x-amz-signature",
        b"x-amz-credential",
        b"x-goog-signature",
        b"x-goog-credential",
        b"oauth_signature",
        b"oauth_verifier",
        b"code_verifier",
        b"client_assertion",
        b"hdnts",
        b"hdnea",
        b"pass",
        b"pin",
        b"otp",
        b"pw",
        b"hmac",
        b"auth",
        b"ticket",
        b"crumb",
    )
)
_USER_FLAG = re.compile(
    rb"(?:^|[\s\"',\[])(?:-u|--user|--proxy-user|-U|--basic)(?:[ =]|[\"'],[ ]?[\"'])[ \t]{0,4}[\"']?[^\s:\"'=/]{1,128}(?::|%)(?P<value>[^\s\"',]{2,1024})"
)
_COMMANDS = re.compile(
    rb"\b(?P<command>mysql|mysqldump|mysqladmin|mariadb|mariadb-dump|sshpass|7za?|zip|unzip|docker[ \t]+login|podman[ \t]+login|helm[ \t]+registry[ \t]+login|ldapsearch|redis-cli|mongo|mongosh|mongodump|sqlcmd|bcp|smbclient|kinit|htpasswd|wget|az[ \t]+login|cf[ \t]+login|oc[ \t]+login|rabbitmqctl|snmpwalk|openssl|gpg|pscp|plink|winrs|xfreerdp|rdesktop|impacket-[a-z]+|crackmapexec|hydra|net[ \t]+use)\b"
    rb"[^\n|;&]{0,400}?[\s\"',](?:(?:-p|/p:|-passin[ \t]pass:)(?:[\s\"',]{1,6}|(?=[^\s\-]))|(?:-P|-w|-a|-pw|-k)[\s\"',]{1,6})(?P<value>[^\s\-\"',][^\s\"',]{2,512})"
)
_SQL = re.compile(
    rb"(?i)(?:(?:with|encrypted)[ \t]+password|identified[ \t]+(?:with[ \t]+[a-z0-9_']{1,40}[ \t]+)?by|set[ \t]+password[^=\n]{0,80}=|password\()[ \t]*(?P<q>\\{0,4}['\"])(?P<value>[^'\"\s\\]{1,512})"
)
_ORACLE = re.compile(
    rb"(?:jdbc:oracle:[a-z]{2,5}:|\b(?:sqlplus|expdp|impdp|exp|imp|rman)[ \t]+(?:-[A-Za-z]+[ \t]+){0,3})[^/\s@\"']{1,64}/(?P<value>[^@\s\"']{3,256})@"
)
_NETRC = re.compile(rb"\blogin[ \t\n]{1,8}\S{1,200}[ \t\n]{1,8}password[ \t\n]{1,8}(?P<value>[^\s\"'\\]{3,512})")
_LOGIN = re.compile(
    rb"(?i)\b(?:log[ -]?in|credentials?|creds|account|user(?:name)?)\b[^\n/]{0,24}?[: ][^\s/]{1,64}[ \t]{1,4}/[ \t]{1,4}(?P<value>[^\s\"'<>]{6,256})"
)
_FILE = re.compile(rb"[A-Za-z0-9]\.[a-z][a-z0-9]{1,3}\Z")
_BASE64_OF_TEXT = _compile(
    r"(?:[I-Za-f][C-HS-Xi-nyz0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_\-]){4}", case_sensitive=True
)
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_\-]{16,65536}={0,2}")
_BASE64_BEFORE = re.compile(rb"[A-Za-z0-9+/_\-]{0,65536}\Z")


def looks_like_our_token(value: bytes) -> bool:
    """Whether a value is a replacement that stands here already."""
    return TOKEN.fullmatch(value) is not None


def find(text: bytes, *, cut: bool = False) -> list[Found]:
    """Find the secrets in a text, in order and apart from each other. `cut`: the text may end within one."""
    found = list(search_forms(text))
    found += _by_name(text, cut)
    found += _by_place(text)
    if cut:
        found += _unfinished(text)
    return _merge(text, found)


def _by_place(text: bytes) -> Iterator[Found]:
    """Secrets told by the syntax around them: URLs, data source names, command lines, SQL."""
    if b"://" in text:
        for match in _USERINFO.finditer(text):
            user, password = match.span(1), match.span(2)
            if password[1] > password[0] >= 0:
                port = re.match(rb"[0-9]{1,5}/", text[password[0] : password[1]])
                if not port:
                    yield Found(*password, "password")
            elif user[1] > user[0] and looks_random(text[slice(*user)], least=16):
                yield Found(*user, "credential")
    if b"@" in text:
        for found in _MYSQL_DSN.finditer(text):
            if not found["value"].isdigit():
                yield Found(*found.span("value"), "password")
    if b"=" in text or b"%3" in text:
        for found in _QUERY.finditer(text):
            if found["name"].lower() in _ALWAYS_IN_QUERY or looks_random(found["value"], least=10):
                yield Found(*found.span("value"), "signature" if b"sig" in found["name"].lower() else "code")
    if b"-" in text:
        for found in (*_USER_FLAG.finditer(text), *_COMMANDS.finditer(text)):
            value = found["value"]
            if not (_REFERENCE.match(value) or _FILE.search(value) or (value.isdigit() and len(value) <= 5)):
                yield Found(*found.span("value"), "password")
    if b"/" in text:
        for found in _ORACLE.finditer(text):
            yield Found(*found.span("value"), "password")
        for found in _LOGIN.finditer(text):
            value = found["value"].rstrip(_TRAILING)
            if any(48 <= c <= 57 for c in value) and not _is_words(value) and not _DATE.match(value):
                yield Found(found.start("value"), found.start("value") + len(value), "password")
    for found in _NETRC.finditer(text):
        if not looks_like_our_token(found["value"]):
            yield Found(*found.span("value"), "password")
    for found in _SQL.finditer(text):
        yield Found(*found.span("value"), "password")


def _by_name(text: bytes, cut: bool) -> list[Found]:
    found: list[Found] = []
    spoken: list[int] = []  # where a sentence speaks of a secret
    position, size = 0, len(text)
    match_at, anchor = _NAME._regexp.Match, re2._Anchor.UNANCHORED
    while position < size:
        ((start, end),) = match_at(anchor, text, position, size)
        if end < 0:
            break
        position = max(end, position + 1)
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
        one = _after(text, start, end, name, cut)
        if one is not None:
            found.append(one)
            if one.start >= end:
                position = max(position, one.end)  # what is masked is not read for names
        else:
            spoken.append(end)
    if spoken:
        found += _nearby(text, spoken)
    return found


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


def _after(text: bytes, start: int, end: int, name: Name, cut: bool) -> Found | None:
    """Say what a name at text[start:end] makes a secret."""
    while end > start and text[end - 1 : end] in (b".", b"-"):
        end -= 1
    match = _AFTER.match(text, end)
    if match and (match["close"] or b"\n" not in match["space"]):
        found = _operand(text, start, match, name, cut)
        if found or match["op"] != b":":
            return found
    if text[start - 1 : start] in (b"<", b":") and (xml := _XML.match(text, end)):
        value = xml["value"].strip()
        closed = xml.end() < len(text) or cut or b" " not in value
        if value and closed and not looks_like_our_token(value) and _accepts(name, value):
            return Found(*xml.span("value"), name.kind)
        return None
    if (yaml := _YAML_PAIR.match(text, end)) and _YAML_NAME.search(text, max(0, start - 40), start):
        return _value(text, yaml.end(), name, cut, quoted_name=True)
    if text[end : end + 1] in _QUOTES_AND_BACKSLASH:
        if pair := _PAIR.match(text, end):
            return _value(text, pair.end(), name, cut, quoted_name=True)
        if before := _PAIR_BEFORE.search(text, max(0, start - 600), start):
            return Found(*before.span("value"), name.kind) if _accepts(name, before["value"]) else None
        written = text[start:end]
        header = (
            _CALLED.search(text, max(0, start - 48), start)
            or b"-" in written
            or written.lower() in (b"authorization", b"cookie")
        )
        if header and (item := _NEXT_ITEM.match(text, end)):
            if text[item.end() : item.end() + 2].lstrip(b"\\\"'`")[:1] == b"-":
                return None
            return _value(text, item.end(), name, cut, quoted_name=True)
    if text[start : start + 1] == b"-" and text[start : start + 3] != b"---":
        flag = _BLANKS.match(text, end)
        if flag and text[flag.end() : flag.end() + 1] not in (b"-", b"", b"|", b">", b"<", b"&"):
            return _value(text, flag.end(), name, cut, quoted_name=True)
    return _prose(text, end, name) or _said_before(text, start, name)


_YAML_PAIR = re.compile(
    rb"[\"']?[ \t]{0,16}(?:\r?\n|\\{1,8}n)[ \t]{0,64}[\"']?(?:value|val|content|default|Value)[\"']?:[ \t]{1,16}"
)
_YAML_NAME = re.compile(rb"(?:name|key|header|Name|Key)[\"']?:[ \t]{1,16}[\"']?\Z")
_CALLED = re.compile(
    rb"(?:define|[Ss]et|put|add|append|setdefault|header|environ|config|store|save)[A-Za-z]{0,16}\([ \t]{0,4}\\{0,8}[\"']\Z"
)
_QUOTES_AND_BACKSLASH = (b'"', b"'", b"`", b"\\")
_BLANKS = re.compile(rb"[ \t]{1,16}")


def _operand(text: bytes, start: int, match: re.Match[bytes], name: Name, cut: bool) -> Found | None:
    quoted_name = bool(match["close"].strip(b"])?"))
    spaced = bool(match["space"] or match["more"])
    line = None
    if match["op"] == b"=" and not spaced and not quoted_name and _ENV_NAME.match(text, start, match.start()):
        line = _ENV_LINE.search(text, max(0, start - 32), start) or (start == 0)
    return _value(
        text,
        match.end(),
        name,
        cut,
        quoted_name=quoted_name,
        whole_line=bool(line),
        spaced=spaced,
        colon=match["op"] == b":",
        written=text[start : match.start()],
        start=start,
    )


def _value(
    text: bytes,
    at: int,
    name: Name,
    cut: bool,
    *,
    quoted_name: bool = False,
    whole_line: bool = False,
    spaced: bool = False,
    colon: bool = False,
    written: bytes = b"",
    start: int = -1,
) -> Found | None:
    """Read the value that begins at a place: quoted, bracketed or plain."""
    opener = _OPENER.match(text, at)
    if opener and spaced and not quoted_name and _closes(text, start, opener[0][-1:]):
        return None
    if opener:
        return _quoted(text, opener, name, cut)
    first = text[at : at + 1]
    if _REFERENCE_AT.match(text, at) or (first in (b"/", b"~") and written.lower() in (b"pwd", b"oldpwd")):
        return None
    if first in (b"{", b"[") and not TOKEN.match(text, at) and (quoted_name or not spaced):
        if not (name.strong and quoted_name):
            return None
        return Found(at, _closing(text, at), name.kind)
    if name.kind == "cookie" and not quoted_name and (cookies := _COOKIES.match(text, at)):
        value = cookies[0].strip()
        if looks_like_our_token(value) or not (b"=" in value or looks_random(value)):
            return None
        return Found(*cookies.span(), "cookie")
    begin = at
    if scheme := _SCHEME.match(text, at):
        begin = scheme.end()
        if _WHOLE_LINE_SCHEMES.match(scheme[0]) and (rest := _WHOLE_LINE.match(text, begin)):
            return (
                Found(begin, rest.end(), name.kind)
                if b"=" in rest[0]
                else _plain(text, begin, name, False, False, colon=False)
            )
    elif whole_line and (rest := _LINE_VALUE.match(text, at)):
        value = rest[0].rstrip()
        if _REFERENCE.match(value) or looks_like_our_token(value) or not _accepts(name, value):
            return None
        return Found(at, at + len(value), name.kind)
    return _plain(text, begin, name, spaced and not scheme, quoted_name, colon=colon, written=written, start=start)


def _closes(text: bytes, before: int, quote: bytes) -> bool:
    """Whether a quote closes the text in which a name stands, as in `ask("Password: ")`."""
    line = text[max(0, before - 120) : before]
    return line[line.rfind(b"\n") + 1 :].count(quote) % 2 == 1


def _plain(
    text: bytes,
    at: int,
    name: Name,
    spaced: bool,
    quoted_name: bool,
    *,
    colon: bool,
    written: bytes = b"",
    start: int = -1,
) -> Found | None:
    plain = _PLAIN_VALUE.match(text, at)
    if plain is None or _REFERENCE_AT.match(text, at):
        return None
    value = plain[0]
    stripped = value.rstrip(b".,") if not quoted_name else value
    if _REFERENCE.match(value) or TOKEN.match(value) or not stripped:
        return None
    after = text[plain.end() : plain.end() + 1]
    before = text[start - 1 : start] if start > 0 else b""
    if name.textual and (value.isdigit() or value in (b"true", b"false", b"null")):
        return None
    if value in (b"null", b"None", b"undefined", b"nil"):
        return None
    if not quoted_name:
        if spaced and _is_words(stripped) and start > 0 and _FAULT.search(text, max(0, start - 24), start):
            return None  # "unexpected token: identifier"
        lowered = stripped.lower()
        if lowered in _WORDS_NOT_VALUES or lowered == written.lower() or _CALL.match(value):
            return None
        if (
            (spaced or (colon and after in (b" ", b"")))
            and not any(48 <= c <= 57 for c in stripped)
            and _CODE.match(stripped)
        ):
            # Plain words after a blank: code or prose, unless it is a whole line of its own, as in a configuration.
            identifier = (
                b"_" in stripped
                or b"." in stripped
                or b"(" in stripped
                or after in (b"(", b"[")
                or not stripped.islower()
            )
            if identifier or (after == b" " and colon) or not _own_line(text, plain.end()):
                return None
        if colon and not spaced and before == b":" and not looks_random(stripped):
            return None  # a part of a name such as an ARN
        if spaced and (_ALGORITHM.match(stripped) or (_QUANTITY.match(stripped) and name.kind not in _NUMERIC)):
            return None
        if written[:1] in (b"P", b"p", b"O") and written.lower() in (b"pwd", b"oldpwd") and value[:1] in (b"/", b"~"):
            return None
    if not _accepts(name, stripped):
        return None
    return Found(at, at + len(stripped), name.kind)


_FAULT = re.compile(rb"(?i)(?:unexpected|invalid|unknown|missing|duplicate|expected|unrecognized|illegal)[ \t]\Z")


def _own_line(text: bytes, end: int) -> bool:
    return text[end : end + 1] in (b"\n", b"\r", b"") or text[end : end + 2] in (b"\\n", b"\\r")


def _quoted(text: bytes, opener: re.Match[bytes], name: Name, cut: bool) -> Found | None:
    quote, escapes = opener[0][-1:], opener[0].count(b"\\")
    begin = opener.end()
    at = begin
    while True:
        at = text.find(quote, at)
        if at < 0:
            at = len(text)
            break
        slashes = 0
        while at - slashes - 1 >= begin and text[at - slashes - 1] == 0x5C:
            slashes += 1
        # At the same depth of escaping the quote closes; deeper down it is part of the value.
        if slashes <= escapes or (escapes == 0 and slashes % 2 == 0):
            at -= min(slashes, escapes)
            break
        at += 1
    value = text[begin:at]
    inner = value.strip()
    if _REFERENCE_ONLY.match(inner):
        return None  # "Bearer {token}": a template
    if not inner or looks_like_our_token(inner) or _REFERENCE.match(inner) and inner[:1] != b"-":
        return None
    if (scheme := _SCHEME.match(value)) and scheme.end() < len(value) and not _WHOLE_LINE_SCHEMES.match(scheme[0]):
        begin += scheme.end()
        if looks_like_our_token(text[begin:at].strip()):
            return None
    if _accepts(name, inner):
        return Found(begin, at, name.kind)
    return None


_BRACKETS = re.compile(rb"[\[\]{}]|\"(?:[^\"\\]|\\.)*+\"?")


def _closing(text: bytes, at: int) -> int:
    """Where a bracketed value ends; at the end of the text when nothing closes it."""
    depth, size = 0, min(len(text), at + _MAX_VALUE)
    for mark in _BRACKETS.finditer(text, at, size):
        first = mark[0][:1]
        if first in (b"{", b"["):
            depth += 1
        elif first in (b"}", b"]"):
            depth -= 1
            if depth <= 0:
                return mark.end()
    return size


def _accepts(name: Name, value: bytes) -> bool:
    if name.kind == "credential" and value in (b"include", b"same-origin", b"omit"):
        return False  # what a browser's fetch() takes
    return name.strong or looks_random(value, name.hexadecimal)


_NUMERIC = frozenset(("password", "pin"))


def _secretish(value: bytes, name: Name, quoted: bool) -> bool:
    """Whether a word that follows a name in a sentence is a secret and not one more word of the sentence."""
    if value[:1] in (b"{", b"<") or value[:2] in (b"${", b"$(", b"%{") or _REFERENCE_AT.match(value):
        return False
    lowered = value.lower()
    if (
        lowered in _WORDS_NOT_VALUES
        or _REFERENCE.match(value)
        or TOKEN.match(value)
        or b"[REDACTED:" in value
        or b"://" in value
    ):
        return False
    if (
        _ALGORITHM.match(value)
        or _DATE.match(value)
        or (_QUANTITY.match(value) and not (name.kind in _NUMERIC and value.isdigit() and len(value) >= 3))
    ):
        return False
    if not name.strong:
        return looks_random(value, name.hexadecimal, least=16)
    digit = any(48 <= c <= 57 for c in value)
    letter = any(65 <= c <= 90 or 97 <= c <= 122 for c in value)
    symbol = any(c in b"!@#$%^&*+=~?{}|" for c in value)
    if quoted:
        if _CALL.match(value) or (
            not digit and not symbol and (b"_" in value or b"-" in value or b"." in value or b"/" in value)
        ):
            return False
        return (digit or symbol or len(value) >= 6) and not (value.istitle() and not digit)
    if name.kind == "password" and value.count(b"-") >= 3 and len(value) >= 16:
        return True  # a phrase of words
    if b"(" in value or value[:1] in (b"/", b"."):
        return looks_random(value)
    return len(value) >= (3 if name.kind == "pin" else 4) and (
        (digit and letter)
        or (symbol and letter and len(value) >= 6)
        or looks_random(value)
        or (digit and name.kind in _NUMERIC)
    )


def _prose(text: bytes, end: int, name: Name) -> Found | None:
    while end < len(text) and text[end : end + 1] in b"\"'`*":
        end += 1
    connected = _CONNECT.match(text, end)
    if connected is not None:
        if found := _word(text, connected.end(), name):
            value = text[found.start : found.end]
            if not connected["loose"] or name.kind == "password" or not _is_words(value):
                return found
    elif connected := _WITHIN.match(text, end):
        found = _word(text, connected.end(), name)
        if found and looks_random(text[found.start : found.end], name.hexadecimal, least=8):
            return found
    direct = _DIRECT.match(text, end)
    if direct is None or name.textual:
        return None
    quoted = _QUOTED_TOKEN.match(text, direct.end())
    if quoted:
        value = quoted["value"]
        digits = len(value) >= 8 and any(48 <= c <= 57 for c in value)
        if _secretish(value, name, True) and (digits or not _is_words(value)):
            return Found(*quoted.span("value"), name.kind)
        return None
    bare = _BARE_TOKEN.match(text, direct.end())
    if bare is None or not name.strong:
        return None
    value = bare[0].rstrip(_TRAILING)
    if len(value) < 6 or b"=" in value[:24] or b":" in value or not _secretish(value, name, False):
        return None
    if _is_words(value) and not (name.kind == "password" and _WORD_AND_DIGITS.match(value)):
        return None
    return Found(bare.start(), bare.start() + len(value), name.kind)


def _said_before(text: bytes, start: int, name: Name) -> Found | None:
    """Find a secret that stands in front of its name, as in `use "x" as the password`."""
    match = _SAID_BEFORE.search(text, max(0, start - 160), start)
    if match is None:
        return None
    value = match["value"].rstrip(_TRAILING)
    if _is_words(value) or not _secretish(value, name, False):
        return None
    return Found(match.start("value"), match.start("value") + len(value), name.kind)


_SAID_BEFORE = re.compile(
    rb"(?:(?<=[\s\"'`(*])|^)(?P<value>[^\s\"'`(*]{6,150})[\"'`*]{0,2},?[ \t]{1,4}(?:as|is|was|for)[ \t]{1,4}"
    rb"(?:(?:the|my|your|our|his|her|their|this|its|a|an|new|old|current|correct|temporary|initial|default|root|admin|db|database|user)[ \t]{1,4}){0,4}[\"'`*]?\Z"
)
_DIRECT = re.compile(rb"[ \t]{0,4}[(\[](?=\S)|[ \t]{0,4}[:(\[]?[ \t]{1,4}")
_WORD_AND_DIGITS = re.compile(rb"[A-Za-z]{3,}[0-9]{1,4}\Z")
_is_words_re = re.compile(rb"(?:[A-Za-z]+[0-9]{0,2}|[0-9]{1,4})(?:[-_./'][A-Za-z]+[0-9]{0,2}|[-_./][0-9]{1,4})*\Z")


def _is_words(value: bytes) -> bool:
    return _is_words_re.match(value) is not None and not looks_random(value, least=10)


def _word(text: bytes, at: int, name: Name) -> Found | None:
    quoted = _QUOTED_TOKEN.match(text, at)
    if quoted:
        return Found(*quoted.span("value"), name.kind) if _secretish(quoted["value"], name, True) else None
    bare = _BARE_TOKEN.match(text, at)
    if bare is None:
        return None
    value = bare[0].rstrip(_TRAILING)
    if value and _secretish(value, name, False):
        return Found(at, at + len(value), name.kind)
    return None


def _nearby(text: bytes, spoken: list[int]) -> Iterator[Found]:
    """Yield words that only a generator writes, within a sentence that speaks of a secret."""
    ahead = 0
    for match in _RANDOM_TOKEN.finditer(text):
        while ahead < len(spoken) and spoken[ahead] < match.start() - 160:
            ahead += 1
        if ahead == len(spoken):
            return
        if spoken[ahead] > match.end() + 160:
            continue
        value = match[0].rstrip(b".-")
        if len(value) >= 20 and value[:8] not in _PUBLIC_KEYS and _MIXED(value) and looks_random(value, False, 20):
            yield Found(match.start(), match.start() + len(value), "token")


_MIXED = _mixed(2, 2, 2)
_PUBLIC_KEYS = (b"AAAAB3Nz", b"AAAAC3Nz", b"AAAAE2Vj")
_PREFIXES = _compile(
    r"(?:" + "|".join([
        "mcps_", "gh[pousr]_", "github_pat_", "gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat)-", "xox[a-z]-", "xapp-", r"\bAKIA", r"\bASIA", "AIza", r"ya29\.", "GOCSPX-",
        "[sr]k_(?:live|test)_", "whsec_", r"\bSG\.", "npm_", "pypi-", "sk-ant-", "sk-proj-", r"\bsk-", r"\bhf_", "shp[a-z]{2}_", "do[oprt]_v1_", "dapi[0-9a-f]", "sq0[a-z]{3}-", r"\beyJ",
        r"hv[sbr]\.", r"dp\.[a-z]{2}\.", "lin_api_", r"\bntn_", r"\bsecret_", "PMAK-", "glsa_", "glc_", "NRAK-", "HRKU-", "ATATT3", "ATCTT3", "dckr_[a-z]{3}_", r"\.atlasv1\.", "figd_", "sntry[a-z]_",
        "AGE-SECRET-KEY-", r"\bEAA[A-Z]", r"\bSK[0-9a-f]", r"\bkey-[0-9a-f]", "rubygems_", "tskey-", "pscale_", r"bearer\s+", r"basic\s+", "xkeysib-", "hooks.slack.com/services/", "api/webhooks/", "-----BEGIN",
    ]) + r")([A-Za-z0-9_\-./+=:|]*)\z",
    case_sensitive=True,
)  # fmt: skip


def _unfinished(text: bytes) -> Iterator[Found]:
    """Yield the beginning of a secret at the end of a text that was cut there."""
    match = _PREFIXES.search(text[-600:])
    if match and match.end(1) > match.start(1):
        base = max(0, len(text) - 600)
        yield Found(base + match.start(), base + match.end(), "cut")
    elif match is None:
        last = re.compile(rb"[A-Za-z0-9+/_\-=.]{12,4096}\Z").search(text, max(0, len(text) - 4096))
        if last and looks_random(last[0], False, 12):
            yield Found(last.start(), last.end(), "cut")


def _merge(text: bytes, found: list[Found]) -> list[Found]:
    """Make one of those that overlap, the more telling kind kept; leave replacements that stand here alone."""
    if not found:
        return found
    standing = [match.span() for match in TOKEN.finditer(text)] if b"[REDACTED:" in text else []
    merged: list[Found] = []
    for one in sorted(found, key=lambda f: (f.start, -f.end)):
        if one.end <= one.start:
            continue
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            kind = last.kind if last.kind not in _VAGUE or one.kind in _VAGUE else one.kind
            merged[-1] = Found(last.start, max(last.end, one.end), kind)
        else:
            merged.append(one)
    return _spare(text, merged, standing) if standing else merged


def _spare(text: bytes, found: list[Found], standing: list[tuple[int, int]]) -> list[Found]:
    """Leave replacements that stand in the text alone; one that would be cut in two is taken in whole."""
    kept = []
    first = 0
    for one in found:
        start, end = one.start, one.end
        while first < len(standing) and standing[first][1] <= start:
            first += 1
        last = first
        while last < len(standing) and standing[last][0] < end:
            last += 1
        if last > first:
            if last == first + 1 and standing[first][0] <= start and end <= standing[first][1]:
                continue
            start, end = min(start, standing[first][0]), max(end, standing[last - 1][1])
            if TOKEN.sub(b"", text[start:end]).strip(b" ,;:&=") == b"":
                continue
        kept.append(Found(start, end, one.kind))
    return kept


_VAGUE = frozenset(
    (
        "password",
        "secret",
        "token",
        "key",
        "credential",
        "authorization",
        "cookie",
        "session",
        "bearer",
        "cut",
        "code",
        "signature",
    )
)


def base64_runs(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield runs of base64 whose beginning decodes to ASCII text, decoded."""
    position, size = 0, len(text)
    while position < size:
        match = _BASE64_OF_TEXT.search(text, position)
        if match is None:
            return
        before = _BASE64_BEFORE.search(text, max(position, match.start() - 65536), match.start())
        start = before.start() if before else match.start()
        run = _BASE64_RUN.match(text, start)
        if run is None:
            position = match.end()
            continue
        for begin in (start, match.start()) if match.start() != start else (start,):
            decoded = decode_base64(text[begin : run.end()])
            if decoded is not None and _is_text(decoded):
                yield begin, run.end(), decoded
                break
        position = run.end()


def _is_text(decoded: bytes) -> bool:
    sample = decoded[:4096]
    return sum(32 <= c < 127 or c in (9, 10, 13) for c in sample) >= len(sample) * 0.9 and len(sample) >= 8


__all__ += ("FORMS", "base64_runs")
