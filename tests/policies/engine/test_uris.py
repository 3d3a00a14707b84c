"""A URI is decided in the form in which a server may open it: what readers of several kinds make of one, against the decision."""

import ntpath
import posixpath
import re
import time
import unicodedata
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide, decide_reference
from policies.engine.types import Context, Principal, Target
from policies.engine.uris import ambiguous
from policies.simulate.explain import explain
from policies.specs import numbered

NOW = Context(datetime(2026, 11, 30, 12, tzinfo=UTC), "127.0.0.1")
POLICY = """
roles:
  public: {allow: ["resource:file:///public/*", "resource:note://public/*"]}
  most: {allow: ["resource:*"], deny: ["resource:file:///secret/*", "resource:note://secret/*", "resource:file:///key"]}
  suffix: {allow: ["resource:*.md"]}
  asked: {}
  raw: {allow: ["resource:file:///a/../b", "resource:x://*"], deny: ["resource:x://h/*"]}
rules:
  - {name: by condition, effect: allow, roles: [asked], resource: "*", when: [{subject: name, under: "file:///public"}]}
  - {name: not by condition, effect: deny, roles: [most], resource: "*", when: [{subject: name, like: "note://vault/*"}]}
"""


@pytest.fixture(scope="module")
def policy():
    return compiled()


def compiled(text=POLICY):
    return PolicySet(numbered(parse(text).spec))


COMPILED = compiled()


def decided(role, uri, *, how=decide, policy=COMPILED):
    return how(policy, Principal(None, "", "", role), Target("resource", "files", uri), NOW)


AMBIGUOUS = [
    "file:///public/../secret/b", "file:///public/%2e%2e/secret/b", "file:///public/%2E%2E/secret/b", "file:///public/./b",
    "file:///public//b", "file:///public/%73ecret", "file:///%73ecret/key", "file:////secret/b", "FILE:///public/b", "file:/public/b",
    "file:public/b", "file://localhost/public/b", "file://host/public/b", "file:///public/..\\secret", "file:///public%2Fb",
    "file:///public%5Cb", "file:///public/%252e%252e/b", "file:///public/..;/secret", "file:///public/..;a=b/secret", "file:///public/b.",
    "file:///public/b ", "file:///public./b", "file:///public/b%20", "file:///pub\tlic/b", "file:///pub\nlic/b", " file:///public/b",
    "file:///public/\uff0e\uff0e/b", "file:///public/\u2025/b", "file:///public\uff0fb", "file:///public/%c0%ae%c0%ae/b", "file:///public/%C0%AE/b",
    "file:///public/%FF", "file:///public/%", "file:///public/%zz", "file:///public/%2", "file:///public/%00", "file:///public/b%00.md",
    "file:///public/%0A", "file:///public/b?x", "file:///public/b#x", "file:///public/b%3Fx", "file:///public/b::$DATA", "file:///PUBLIC~1/b",
    "file:///C|/b", "file:///public/.\u200b./b", "file:///public/...", "file:///public/a%c3%a9", "file:///public/\u2215/b", "note:public/../b", "note:/public/b", "note://public/..%2Fb",
    "note://public/a%2F%2E%2E", "note://public/%2F/b", "note://u@public/b", "note://public:/b", "note://public:080/b", "note://../b", "..", "a/../b", "//a",
    "note://public/b?/../../x", "http://Host/b", "http://host:80/b", "https://host:443/b", "http://host:080/b", "http://127.1/b", "http://0x7f.0.0.1/b",
    "http://2130706433/b", "http:host/b", "http:///host/b", "http://host./b", "http://h%6Fst/b", "http://\u24d7ost/b", "http://h\u00f6st/b", "https://user:pw@host/b",
    "file:///;/secret/b", "note://public/;a=b/x", "note:;/secret/b", "note:////secret/b", "note://///b",
]  # fmt: skip
PLAIN = [
    "file:///public/a.txt", "file:///public/", "file:///", "file:///C:/Users/x.txt", "file:///c%3A/x", "file:///d/my%20file.txt", "file:///d/my file.txt",
    "file:///d/%E3%81%82.md", "file:///d/\u3042.md", "file:///d/re\u0301sume.md", "file:///d/\uff08\u6700\u65b0\uff09.pdf", "file:///.config/..b/c", "file:///d/{path}", "file:///{+path}", "file://{path}", "https://{host}/x", "note://{a}/{b}{?c}",
    "repo://owner/name/contents/a%2Fb", "repo://Owner/Name/x", "note://x?y=a%20b", "note://x?next=../b", "note://My%20Note", "note:///x", "test://one", "customers",
    "demo://resource/1", "https://example.com/a/b?x=1&y=%2F#f", "https://example.com", "https://127.0.0.1:8080/x", "http://[::1]:8080/x", "urn:isbn:123",
    "ui://app/main.html", "postgres://db:5432/t/schema", "note://100%25", "git://r/HEAD~2", "/x/y", "x://a~b", "mailto:a@b.org",
]  # fmt: skip


@pytest.mark.parametrize("uri", AMBIGUOUS)
def test_what_a_server_may_read_as_another_name_is_refused_by_name(uri, policy):
    for role in ("public", "most", "asked"):
        for how in (decide, decide_reference):
            decision = decided(role, uri, how=how)
            assert (decision.allowed, decision.reason) == (False, "ambiguous_target"), role
    told = explain(policy, Principal(None, "", "", "most"), Target("resource", "files", uri), NOW)
    assert (told.decision.reason, told.listed) == ("ambiguous_target", False)


@pytest.mark.parametrize("uri", PLAIN)
def test_uris_as_servers_make_them_pass(uri):
    assert not ambiguous(uri)
    assert decided("most", uri).allowed


def test_names_of_other_kinds_are_no_uris(policy):
    for kind in ("tool", "prompt", "method"):
        target = Target(kind, "files", "a//../%2e", {})
        assert decide(policy, Principal(None, "", "", "most"), target, NOW).reason == "no_rule"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///SECRET/b", "file:///Secret/b", "file:///\uff33ecret/b", "file:///\u017fecret/b", "file:///key/", "file:///KEY", "note://SECRET/b", "note://secret/", "note://secret%2Fb", "note://secret%20/b",
        "note://secret;a/b", "note://vault/b", "note://VAULT/b", "note://vault%2Fb",
        "note:secret/b", "note:///secret/b", "note:///Secret%20/b", "note://secret:8080/b", "note:///secret:1/b", "note:secret/b?x", "/secret/b", "secret/b", "/key", "KEY", "/key?x",
    ],
)  # fmt: skip
def test_a_rule_that_denies_looks_past_case_escapes_and_parameters(uri):
    assert decided("most", uri).reason in ("denied_by_rule", "ambiguous_target")


def test_a_rule_that_allows_means_what_is_left_without_query_fragment_and_parameters():
    assert decided("suffix", "note://a/b.md").allowed
    for uri in ("note://secret/key?x.md", "note://secret/key#.md", "note://secret/key;.md", "note://secret/key%23.md"):
        assert not decided("suffix", uri).allowed, uri
    asked = compiled('roles: {q: {allow: ["resource:note://x?id=*"]}}')
    assert decided("q", "note://x?id=5", policy=asked).allowed


def test_a_rule_that_spells_the_whole_name_allows_that_spelling_and_no_other():
    assert decided("raw", "file:///a/../b").rule is not None
    assert decided("raw", "file:///a/../c").reason == decided("raw", "file:///a/./../b").reason == "ambiguous_target"
    assert decided("raw", "x://a/../h").reason == "ambiguous_target"  # a wildcard spells nothing
    both = compiled('roles: {q: {allow: ["resource:x://a/../b"], deny: ["resource:X://A/*"]}}')
    assert decided("q", "x://a/../b", policy=both).reason == "denied_by_rule"


def test_a_condition_on_the_name_must_hold_however_it_is_read():
    rules = """
roles: {q: {}}
rules:
  - {name: a, effect: allow, roles: [q], resource: "note://*", when: [{subject: name, not_like: "note://Secret/*"}]}
"""
    policy = PolicySet(numbered(parse(rules).spec))
    assert decided("q", "note://open/b", policy=policy).allowed
    for uri in ("note://Secret/b", "note://secret/b", "note://secret%2Fb", "note://SECRET/b"):
        assert not decided("q", uri, policy=policy).allowed, uri


# -- the decision against readers of several kinds


def by_urllib(uri):
    """`urllib.parse` and a path from the root, as many small servers do it."""
    parts = urlsplit(uri)
    place = "" if parts.scheme == "file" else f"//{parts.hostname or ''}"
    return f"{parts.scheme}:{place}" + (posixpath.normpath(unquote(parts.path)) if parts.path else "")


def by_text(uri):
    """Everything behind the scheme is a path; escapes are resolved twice."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme.lower()}:" + posixpath.normpath("/" + unquote(unquote(rest)).lstrip("/"))


def by_browser(uri):
    """The URL Standard, as far as it resolves anything away."""
    text = re.sub(r"[\t\n\r]", "", uri.strip("".join(map(chr, range(33)))))
    scheme, _, rest = text.partition(":")
    scheme = scheme.lower()
    if scheme in ("file", "http", "https"):
        rest = rest.replace("\\", "/")
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host = ""
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
    parts = []
    for part in rest.split("/"):
        plain = re.sub("%2e", ".", part, flags=re.I)
        if plain == "..":
            parts = parts[:-1]
        elif plain != ".":
            parts.append(part)
    path = posixpath.normpath("/" + unquote("/".join(parts)).lstrip("/"))
    return f"{scheme}:{path}" if scheme == "file" else f"{scheme}://{host.rpartition('@')[2].lower()}{path}"


def by_windows(uri):
    """A path of Windows: any slash, any case, no dots or spaces at the end of a part, wide letters narrowed."""
    parts = urlsplit(uri)
    path = unicodedata.normalize(
        "NFKC", unquote(parts.path if parts.scheme == "file" else "/" + parts.netloc + parts.path)
    )
    clean = [p if p in ("", ".", "..") else p.rstrip(". ") for p in re.split(r"[/\\]", path.partition("::$")[0])]
    return f"{parts.scheme}:" + ntpath.normpath("/".join(clean) or ".").replace("\\", "/").lower()


def by_java(uri):
    """Path parameters are taken off each part before anything is resolved."""
    return by_urllib(re.sub(r";[^/?#]*", "", uri))


READERS = [by_urllib, by_text, by_browser, by_windows, by_java]
PIECES = st.sampled_from(
    ["/", "/", "/", "//", "public", "secret", "SECRET", "Public", "key", "..", ".", "%2e", "%2E%2E", "%73ecret", "%2F", "%2f", "%5C", "\\", ";", "..;",
     ";x", "?", "#", " ", "%20", "%00", "\t", "\n", "\uff0e", "\uff33ecret", "\u017fecret", "%252e", "%25", "%", "a.txt", "b", "~", "@", ":", "::$DATA", "localhost", "\u200b", "\u2025"]
)  # fmt: skip
URIS = st.builds(
    lambda scheme, pieces: scheme + "".join(pieces),
    st.sampled_from(["file:///public/", "file:///", "file:///secret/", "note://public/", "note://", "note:", "file://", "file:/", "FILE:///"]),
    st.lists(PIECES, max_size=6),
)  # fmt: skip


def opened(uri):
    """Each reader's answer, where it does not refuse the URI itself."""
    for reader in READERS:
        try:
            yield reader, reader(uri)
        except ValueError:
            continue


def inside(place, folder):
    """Whether a reader's answer lies in `secret` or `public`, whether that is a host or a folder."""
    return re.match(rf"(?:file|note):/*{folder}(?:/|\Z)", place) is not None


@settings(max_examples=3000, deadline=None)
@given(URIS)
@example("note://public/?/../../secret")
@example("file:///public/..;/secret")
@example("note://secret;x/b")
def test_what_is_allowed_is_what_any_reader_opens(uri):
    if decided("public", uri).allowed:
        for reader, place in opened(uri):
            assert inside(place, "public"), (reader.__name__, place)
    if decided("most", uri).allowed:
        for reader, place in opened(uri):
            assert not inside(place.lower(), "secret/.") and not place.endswith("file:/key"), (reader.__name__, place)


@given(st.text(max_size=30))
def test_nothing_breaks_it(text):
    for role in ("public", "most", "asked", "suffix"):
        decided(role, text)
        decided(role, "file:///" + text)


@pytest.mark.parametrize(
    "piece", ["a/", "../", "%41", "%20", "\uff0e", "e\u0301", "~1/", ";", "?", ":$", "\u200b", "."]
)
def test_a_long_name_costs_no_time(piece):
    for uri in ("file:///" + piece * (4_000_000 // len(piece)), "note://" + piece * (8000 // len(piece))):
        begun = time.perf_counter()
        decided("most", uri)
        decided("asked", uri)
        assert time.perf_counter() - begun < 0.5
