"""The decision again, slow and obvious: every rule is asked everything, in the order in which docs/policy.md tells it."""

import re
from datetime import UTC, timedelta
from ipaddress import ip_address, ip_network
from zoneinfo import ZoneInfo

YES, NO, ERROR = "yes", "no", "error"
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
NOTHING = object()


def glob(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == "*":
        return glob(pattern[1:], name) or (bool(name) and glob(pattern, name[1:]))
    return bool(name) and (pattern[0] == "?" or pattern[0] == name[0]) and glob(pattern[1:], name[1:])


def number(value):
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value == int(value) and abs(value) > 2**53:
        return None
    return value


def kind(value):
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def clean(text):
    if "\\" in text or any(ord(c) < 32 or ord(c) == 127 for c in text) or text.startswith("~"):
        return None
    parts = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return ("/" if text.startswith("/") else "") + "/".join(parts)


def among(values, value):
    same = [v for v in values if kind(v) == kind(value)]
    if not same or (kind(value) == "number" and number(value) is None):
        return ERROR
    return YES if value in same else NO


def flip(answer):
    return {YES: NO, NO: YES, ERROR: ERROR}[answer]


def ask(operator, wanted, value):
    if value is NOTHING or value is None:
        return YES if operator == "absent" else NO
    if operator == "absent":
        return NO
    if operator == "present":
        return YES
    if operator == "type":
        if wanted == "integer":
            return YES if kind(value) == "number" and value == int(value) else NO
        return YES if kind(value) == wanted else NO
    if operator in ("eq", "in"):
        return among(list(wanted) if operator == "in" else [wanted], value)
    if operator in ("ne", "not_in", "not_like", "not_matches", "not_under"):
        return flip(ask({"ne": "eq", "not_in": "in"}.get(operator, operator[4:]), wanted, value))
    if operator in ("lt", "le", "gt", "ge"):
        found = number(value)
        if found is None:
            return ERROR
        holds = {"lt": found < wanted, "le": found <= wanted, "gt": found > wanted, "ge": found >= wanted}[operator]
        return YES if holds else NO
    if operator in ("min_length", "max_length"):
        if kind(value) not in ("string", "array"):
            return ERROR
        return YES if (len(value) >= wanted if operator == "min_length" else len(value) <= wanted) else NO
    if kind(value) != "string":
        return ERROR
    if operator in ("like", "matches"):
        if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            return ERROR
        if operator == "like":
            return YES if glob(wanted, value) else NO
        return YES if re.fullmatch(wanted, value, re.S) else NO
    path = clean(value)
    if path is None or path.startswith("/") != wanted.startswith("/"):
        return ERROR
    return YES if path == wanted or path.startswith(wanted + "/") else NO


def step(value, name):
    if value is NOTHING or value is None:
        return NOTHING
    if not isinstance(value, dict):
        raise TypeError
    return value.get(name, NOTHING)


def condition(c, target):
    subject = target.arguments
    if c.subject == "name":
        return ask(c.operator, c.value, target.name)
    if c.subject == "annotations":
        subject = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}
        subject.update(target.annotations or {})
    try:
        if "[]" not in c.path:
            value = subject
            for name in c.path.split("."):
                value = step(value, name)
            return ask(c.operator, c.value, value)
        head, _, tail = c.path.partition("[]")
        items = step(subject, head)
        if items is NOTHING or items is None:
            return YES if c.operator == "absent" else NO
        if not isinstance(items, list):
            return ERROR
        answers = [ask(c.operator, c.value, step(item, tail[1:]) if tail else item) for item in items]
    except TypeError:
        return ERROR
    first, rest = (NO, YES) if c.quantifier == "every" else (YES, NO)
    return first if first in answers else ERROR if ERROR in answers else rest


def in_window(w, now):
    if w.valid_from and now < w.valid_from:
        return NO
    if w.valid_until and now >= w.valid_until:
        return NO
    local = now.astimezone(ZoneInfo(w.zone))
    days = w.days or DAYS
    if w.from_time is None:
        return YES if DAYS[local.weekday()] in days else NO
    for back in (0, 1):
        day = (local - timedelta(days=back)).date()
        start = local.replace(year=day.year, month=day.month, day=day.day, hour=w.from_time.hour, minute=0)
        length = (w.to_time.hour - w.from_time.hour) % 24
        if start <= local < start + timedelta(hours=length) and DAYS[day.weekday()] in days:
            return YES
    return NO


def matches(rule, principal, target, context):
    plain = (
        (rule.roles is None or principal.role in rule.roles)
        and (rule.keys is None or principal.key_prefix in rule.keys)
        and target.kind in rule.kinds
        and (not rule.upstreams or target.upstream in rule.upstreams)
        and glob(rule.pattern, target.name)
    )
    if not plain:
        return NO
    answers = [in_window(rule.window, context.now.astimezone(UTC))]
    if rule.networks:
        if context.client_ip is None:
            answers.append(ERROR)
        else:
            address = ip_address(context.client_ip)
            address = getattr(address, "ipv4_mapped", None) or address
            answers.append(YES if any(address in ip_network(n) for n in rule.networks) else NO)
    answers += [condition(c, target) for c in rule.conditions]
    return NO if NO in answers else ERROR if ERROR in answers else YES


def decide(rules, principal, target, context):
    """(allowed, reason, ids of the rules that could have settled it, ids of shadow rules that match)."""
    if principal.upstreams and target.upstream not in principal.upstreams:
        return False, "no_rule", set(), set()
    live = [rule for rule in rules if rule.enabled]
    answers = {rule.id: matches(rule, principal, target, context) for rule in live}
    shadows = {
        r.id for r in live if r.observe and (answers[r.id] == YES or (answers[r.id] == ERROR and r.effect == "deny"))
    }
    denies = {r.id for r in live if r.effect == "deny" and not r.observe and answers[r.id] != NO}
    if denies:
        return False, "denied_by_rule", denies, shadows
    allows = {r.id for r in live if r.effect == "allow" and not r.observe and answers[r.id] == YES}
    if allows:
        return True, "allowed_by_rule", allows, shadows
    erred = any(r.effect == "allow" and not r.observe and answers[r.id] == ERROR for r in live)
    return False, "policy_error" if erred else "no_rule", set(), shadows
