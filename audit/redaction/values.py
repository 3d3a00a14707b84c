"""Secrets in one JSON value (pure): by the names things stand under, pairs, flags and their arguments, and every text."""

from __future__ import annotations

import json
import re
from typing import Any

from audit.redaction import escapes, json_digits
from audit.redaction.blobs import blob_in, described
from audit.redaction.detect import spelling
from audit.redaction.detect.names import NOTHING, Name, fold
from audit.redaction.detect.randomness import looks_random
from audit.redaction.text import Texts, as_bytes, keep

__all__ = ("MAX_DEPTH", "Walk")

MAX_DEPTH = 130
_TOKEN_TEXT = re.compile(r"\[REDACTED:[a-z0-9\-]{1,40}:[0-9a-f]{8}\]")
_SCHEME_TEXT = re.compile(r"(?:Bearer|Basic|Token|ApiKey|SSWS|Bot|DPoP|GenieKey|bearer|basic|token) +(?=\S+\Z)")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)+\Z")
_PLAIN_NAME = re.compile(r"[\w$\-](?:[\w$\-]|\.(?=[\w]{1,40}\Z)){1,80}\Z")
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_.\-]*\Z")
_USER_FLAGS = frozenset(("-u", "--user", "--proxy-user", "-U"))
_PASSWORD_COMMANDS = frozenset(
    "mysql mysqldump mysqladmin mariadb sshpass 7z 7za zip unzip docker podman redis-cli sqlcmd ldapsearch".split()
)
_NAME_ROLES = frozenset(
    "name key header field variable var param parameter attribute attr property option flag arg argument keyname headername headerkey paramname fieldname".split()
)
_VALUE_ROLES = frozenset(
    "value val values content default defaultvalue stringvalue data text secret plaintext rawvalue current".split()
)
_FIELD_LISTS = frozenset(
    "required enum fields columns names keywords topics keys scopes scope headers_allowed allowedheaders vary tags labels properties".split()
)
_SCHEMA_WORDS = frozenset(
    """type title description format default examples example const enum anyOf oneOf allOf not $ref minLength maxLength pattern
    items properties required additionalProperties minimum maximum nullable writeOnly readOnly deprecated minItems maxItems
    uniqueItems contentEncoding contentMediaType x-mcp-header enumNames multipleOf exclusiveMinimum exclusiveMaximum $comment""".split()
)
# What says how somebody logs in, and nothing that would let another.
_HOW = frozenset(
    "type types method methods scheme schemes kind mode enabled required in location flow provider".split()
)
_WAYS = frozenset(
    """none basic bearer digest oauth oauth2 openid oidc openidconnect saml apikey api_key api-key http https header query cookie
    jwt token password anonymous iam mtls session ldap kerberos ntlm negotiate default custom client_credentials disabled
    authorization_code implicit public no optional required sigv4 hawk inherit noauth""".split()
)
_SCHEMA_VALUES = frozenset(("default", "examples", "example", "const", "enum"))
_HARMLESS = frozenset(("include", "same-origin", "omit"))


class Walk(Texts):
    """One pass over one value; counts what it replaces."""

    __slots__ = ()

    def within(self, value: Any) -> Any:
        """Redact a JSON value that stood in a text, which is escaped as a whole."""
        inside = Walk(self.rules, self.fingerprint, self.again, keep, self.effort)
        new = inside.value(value, 0, "")
        self.count += inside.count
        return new

    def value(self, value: Any, depth: int, parent: str) -> Any:
        """Redact any value; `parent` is the name it stands under."""
        if isinstance(value, str):
            return self.text(value, 0)
        if isinstance(value, dict):
            return self.members(value, depth + 1, parent) if depth < MAX_DEPTH else "[NESTED]"
        if isinstance(value, list):
            return self.items(value, depth + 1, parent) if depth < MAX_DEPTH else "[NESTED]"
        if self.rules.more and type(value) in (int, json_digits.Digits):
            # Cards and numbers of an own pattern are often sent as numbers.
            written = str(value)
            shown = self.text(written, 0)
            return value if shown == written else shown
        return value

    def members(self, value: dict[str, Any], depth: int, parent: str) -> dict[str, Any]:
        """Redact an object: by its names, as a name/value pair, as an image."""
        pair = _pair(value, self) if 2 <= len(value) <= 12 else None
        blob = blob_in(value)
        made: dict[str, Any] = {}
        for key, item in value.items():
            shown = self.text(key, 0)
            plain = self.plain(shown)
            name = self.rules.judge(plain)
            if key == blob:
                new: Any = described(item, value, self.fingerprint)
            elif name is not NOTHING:
                new = self.named(item, name, depth, key, parent)
            elif pair and fold(plain) in _VALUE_ROLES:
                new = self.named(item, pair, depth, key, "")
            else:
                new = self.value(item, depth, key)
            while shown in made:
                shown += "'"
            made[shown] = new
        return made

    def plain(self, shown: str) -> str:
        """Give a name as it is judged: without escapes, and without what was replaced in it."""
        if "\\u{" in shown and self._escape is not keep:
            shown = escapes.unescape(shown)
        shown = _TOKEN_TEXT.sub("", shown) if "[REDACTED:" in shown else shown
        return spelling.name(shown) if "\\" in shown or "%" in shown or "&" in shown else shown

    def items(self, value: list[Any], depth: int, parent: str) -> list[Any]:
        """Redact a list, in which one element may make a secret of the next."""
        made: list[Any] = []
        field_list = fold(parent) in _FIELD_LISTS
        pending: Name | None = None
        user_flag = False
        first = value[0] if value else None
        command = isinstance(first, str) and first.rsplit("/", 1)[-1] in _PASSWORD_COMMANDS
        for index, item in enumerate(value):
            if (
                pending is not None
                and not isinstance(item, (dict, list))
                and not (isinstance(item, str) and _FLAG.match(item) and len(item) > 2)
            ):
                made.append(self.named(item, pending, depth, "", ""))
                pending = None
                continue
            pending = None
            if user_flag and isinstance(item, str) and ":" in item and not _TOKEN_TEXT.search(item):
                user, _, password = item.partition(":")
                made.append(f"{user}:{self.replace('password', password)}" if password else item)
                user_flag = False
                continue
            user_flag = False
            if (
                command
                and index
                and isinstance(item, str)
                and len(item) > 3
                and item[:2] == "-p"
                and "[REDACTED:" not in item
            ):
                made.append("-p" + self.replace("password", item[2:]))
                continue
            if isinstance(item, str) and 1 < len(item) <= 128:
                user_flag = item in _USER_FLAGS
                if command and item in ("-p", "-a", "-w", "-P") and index:
                    pending = Name("password", strong=True)
                elif not field_list and self.announces(item, len(value) == 2 and index == 0):
                    pending = self.rules.judge(item)
            made.append(self.value(item, depth, parent))
        return made

    def announces(self, item: str, first_of_two: bool) -> bool:
        """Whether an element of a list makes a secret of the next one: a flag, a header's name, the name in a pair."""
        if not _PLAIN_NAME.match(item):
            return False
        flag = _FLAG.match(item) is not None
        if not (flag or first_of_two or _HEADER_NAME.match(item) or item.lower() in ("authorization", "cookie")):
            return False
        return self.rules.judge(item) is not NOTHING

    def named(self, value: Any, name: Name, depth: int, key: str, parent: str) -> Any:
        if value is None or value == "" or value == {} or value == []:
            return value
        if isinstance(value, str):
            return self.named_text(value, name, key)
        if isinstance(value, (dict, list)):
            if not name.strong:
                if isinstance(value, list):
                    return (
                        [
                            self.named(item, name, depth, key, "")
                            if isinstance(item, str)
                            else self.value(item, depth, key)
                            for item in value
                        ]
                        if depth < MAX_DEPTH
                        else "[NESTED]"
                    )
                return self.value(value, depth, key)
            if isinstance(value, dict) and name.kind in ("authorization", "credential") and _only_says_how(value):
                return self.value(value, depth, key)
            if isinstance(value, dict) and parent == "properties" and _SCHEMA_WORDS.issuperset(value):
                return self.schema(value, name, depth)
            if isinstance(value, list) and all(
                item is None or (isinstance(item, str) and (not item.strip() or _TOKEN_TEXT.fullmatch(item)))
                for item in value
            ):
                return value
            return self.replace(name.kind, _canonical(value))
        if not name.strong or name.textual:
            return value
        return self.replace(name.kind, _canonical(value))

    def named_text(self, value: str, name: Name, key: str) -> str:
        """Redact a text that stands under a name; the scheme of a credential stays readable."""
        if self.again and "\\u{" in value:
            plain = escapes.unescape(value)
            first = Walk(self.rules, self.fingerprint, escape=keep)
            new = first.named_text(plain, name, key)
            self.count += first.count
            return value if new == plain else escapes.escape(new)
        stripped = value.strip()
        if not stripped or _TOKEN_TEXT.fullmatch(stripped):
            return self.text(value, 0)
        if not name.strong:
            if looks_random(as_bytes(stripped), name.hexadecimal, least=16):
                return self.replace(name.kind, value)
            return self.text(value, 0)
        if (name.kind == "credential" and value in _HARMLESS) or (value[:1] in "/~" and fold(key) in ("pwd", "oldpwd")):
            return self.text(value, 0)
        scheme = _SCHEME_TEXT.match(value)
        if scheme:
            rest = value[scheme.end() :]
            if _TOKEN_TEXT.fullmatch(rest):
                return value
            return scheme[0] + self.replace(scheme[0].strip().lower(), rest)
        return self.replace(name.kind, value)

    def schema(self, value: dict[str, Any], name: Name, depth: int) -> dict[str, Any]:
        """Redact only the values in a JSON Schema that describes a secret: what it says of its shape is no secret."""
        return {
            k: self.named(v, name, depth, k, "") if k in _SCHEMA_VALUES else self.value(v, depth, k)
            for k, v in value.items()
        }


def _only_says_how(value: dict[str, Any]) -> bool:
    """Whether an object under `auth` or the like tells of the way alone: {"type": "none"}."""
    for name, item in value.items():
        if name.lower() not in _HOW:
            return False
        for way in item if isinstance(item, list) else [item]:
            if not (way is None or isinstance(way, bool) or (isinstance(way, str) and way.lower() in _WAYS)):
                return False
    return True


def _canonical(value: Any) -> bytes:
    try:
        return json_digits.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=lambda _: None).encode()


def _pair(value: dict[str, Any], of: Walk) -> Name | None:
    """Say what the name in a name/value pair says, if the object is one."""
    name: Name | None = None
    has_value = False
    for key, item in value.items():
        if len(key) > 16:
            continue
        folded = fold(of.plain(key) if of.again else key)
        if folded in _NAME_ROLES and isinstance(item, str) and len(item) <= 256 and name is None:
            counted = of.count
            judged = of.rules.judge(of.plain(of.text(item, 0)))
            of.count = counted
            name = judged if judged is not NOTHING else name
        elif folded in _VALUE_ROLES:
            has_value = True
    return name if has_value else None
