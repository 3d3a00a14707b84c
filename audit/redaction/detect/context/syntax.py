"""Secrets told by the syntax around them (pure): URLs, data source names, command lines, SQL, .netrc."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.redaction.detect.automata import compile_bytes
from audit.redaction.detect.heuristics import DATE, REFERENCE, TRAILING, is_words, looks_like_our_token
from audit.redaction.detect.matching import SecretPlace
from audit.redaction.detect.randomness import has_digit, looks_random

__all__ = ("by_place",)

_USERINFO = compile_bytes(
    r"://([^\s/?#\"'<>\\@:]*)(?::([^\s\"'<>\\/?#]*|[^\s\"'<>\\@]*?))?@(?:[^\s\"'<>@/?#]|\z)",
)
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


def by_place(text: bytes) -> Iterator[SecretPlace]:
    """Secrets told by the syntax around them: URLs, data source names, command lines, SQL."""
    if b"://" in text:
        for match in _USERINFO.finditer(text):
            user, password = match.span(1), match.span(2)
            if password[1] > password[0] >= 0:
                port = re.match(rb"[0-9]{1,5}/", text[password[0] : password[1]])
                if not port:
                    yield SecretPlace(password[0], password[1], "password")
            elif user[1] > user[0] and looks_random(text[slice(*user)], least=16):
                yield SecretPlace(user[0], user[1], "credential")
    if b"@" in text:
        for found in _MYSQL_DSN.finditer(text):
            if not found["value"].isdigit():
                yield SecretPlace(*found.span("value"), "password")
    if (b"?" in text or b"&" in text or b"#" in text) and (b"=" in text or b"%3" in text):
        for found in _QUERY.finditer(text):
            if found["name"].lower() in _ALWAYS_IN_QUERY or looks_random(found["value"], least=10):
                yield SecretPlace(*found.span("value"), "signature" if b"sig" in found["name"].lower() else "code")
    if b"-" in text:
        yield from _on_command_lines(text)
    if b"/" in text:
        for found in _ORACLE.finditer(text) if b"@" in text else ():
            yield SecretPlace(*found.span("value"), "password")
        for found in _LOGIN.finditer(text) if _SPACED_SLASH.search(text) else ():
            value = found["value"].rstrip(TRAILING)
            if has_digit(value) and not is_words(value) and not DATE.match(value):
                yield SecretPlace(found.start("value"), found.start("value") + len(value), "password")
    lowered = text.lower()
    if b"login" in lowered and b"password" in lowered:
        for found in _NETRC.finditer(text):
            if not looks_like_our_token(found["value"]):
                yield SecretPlace(*found.span("value"), "password")
    if b"password" in lowered or b"identified" in lowered:
        for found in _SQL.finditer(text):
            yield SecretPlace(*found.span("value"), "password")


_SPACED_SLASH = re.compile(rb"[ \t]/[ \t]")
_USER = re.compile(rb"-[uU]|--(?:user|proxy-user|basic)")
_PASSWORD_FLAG = re.compile(rb"[\s\"',](?:-[pPwak]|/p:)")


def _on_command_lines(text: bytes) -> Iterator[SecretPlace]:
    found = list(_USER_FLAG.finditer(text)) if _USER.search(text) else []
    if _PASSWORD_FLAG.search(text):
        found += _COMMANDS.finditer(text)
    for one in found:
        value = one["value"]
        if not (REFERENCE.match(value) or _FILE.search(value) or (value.isdigit() and len(value) <= 5)):
            yield SecretPlace(*one.span("value"), "password")
