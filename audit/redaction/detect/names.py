"""Which names stand for secrets (pure).

A name is folded (compatibility forms, case, accents, separators), then judged:

    >>> judge("ACCESS-TOKEN").kind, judge("password ").kind, judge("next_page_token").kind
    ('token', 'password', '')

A *strong* name makes its value a secret whatever it looks like; a *weak* one (`signature`, `some_key`) only when the value
looks random as well; any other name says nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import re2

__all__ = ("NOTHING", "Name", "fold", "judge", "words")

_MAX_NAME = 1_000


@dataclass(frozen=True, slots=True)
class Name:
    """What a name says of its value."""

    kind: str = ""
    strong: bool = False
    # Numbers and booleans under it are counts or switches ("tokens": 5, "pass": true), not secrets.
    textual: bool = False
    # Its value may be hexadecimal and still be a secret; not so for a bare `key` that may hold a digest.
    hexadecimal: bool = True


NOTHING = Name()

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def fold(name: str) -> str:
    """Fold a name to the letters and digits that carry its meaning."""
    if len(name) > _MAX_NAME:
        name = name[: _MAX_NAME // 2] + name[-_MAX_NAME // 2 :]
    if not name.isascii():
        # NFKC then casefold for compatibility forms, NFKD so that accents fall off as separators do.
        name = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    return _SEPARATORS.sub("", name.lower())


def words(name: str) -> list[str]:
    """Words of a name as its writer parted them: `userPin` and `user_pin` are both `user`, `pin`."""
    return [word.lower() for word in _WORDS.findall(name[:_MAX_NAME])]


# What a name may say about a secret without being one: password_policy, secretName, apiKeyId.
_ABOUT = frozenset(
    """id ids name names count counts length len limit limits type types expiry expires expiresat expiresin expiration expired
    ttl url uri urls endpoint path paths file files filename filepath dir policy policies required isrequired enabled disabled
    optional strength age min max minlength maxlength algorithm alg version status state valid validity invalid isvalid
    createdat updatedat lastused lastchanged lastmodified modifiedat changeddate expirydate expirationdate encryption lastusedat changedat changed rotation rotationdays lifetime field fields label labels
    placeholder description descriptions title manager store storage provider usage budget scope scopes format rule rules
    reset resetat ref refs reference references arn location source kind class index position set isset exists present
    missing found match matches mismatch matching form input page screen prompt button link help message error errors less
    attempts retries tries history list listing lists review protected protection visible hidden show shown mask masked
    keyref nameref lastset needed supported needsreset parser validator checker generator factory handler service helper
    middleware guard hasher hashers validators backend backends generators checkers origins trustedorigins interceptor header headername params bucket quota owner issuer audience""".split()
)
# What only says which of several secrets it is: password2, token_prod.
_WHICH = re2.compile(  # in linear time: words that repeat can be read in many ways
    r"(?:value|val|str|string|text|raw|plain|plaintext|data|b64|base64|hex|enc|encoded|encrypted|current|old|new|confirm|"
    r"confirmation|repeat|again|again|hash|hashed|digest|env|var|prod|production|dev|staging|test|live|default|primary|"
    r"secondary|backup|main|admin|user|root|ro|rw|readonly|s|\d{1,4})*"
)

_PASSWORD = re.compile(
    r"pass(?:word|wd|wrd|phrase|code|key)|pwd|psswd|passwort|kennwort|motdepasse|contrasena|contrasenya|wachtwoord|"
    r"salasana|losenord|adgangskode"
)
_SECRET = re.compile(r"secret(?!ar[yi]|ion|iv|ly)")
_KEY = re.compile(
    r"(?:api|apis|access|private|priv|secret|auth|encryption|encrypt|decryption|signing|master|shared|sharedaccess|"
    r"subscription|storage|storageaccount|account|ssh|hmac|aes|jwt|recovery|session|deploy|cipher|crypto|service|"
    r"servicerole|rolekey|webhook|license|licence|rsa|pgp|gpg|ecdsa|ed25519|tls|ssl|fernet|data|wallet|"
    r"serviceaccount|admin|apiaccess|apisecret|personalaccess|consumer|ingest|ingestion|insert)key(?!board|word|space|ring|stroke|frame|note|stone|pad)"
)
# These keys are strong; the others that _KEY finds are weak.
_STRONG_KEY = re.compile(
    r"(?:api|apis|access|private|priv|secret|auth|encryption|decryption|signing|master|shared|subscription|"
    r"storageaccount|account|ssh|hmac|aes|jwt|recovery|session|cipher|servicerole|rsa|fernet|wallet)key"
)
_CREDENTIAL = re.compile(r"credentials?|(?<![a-z])creds?$|(?:user|db|login|aws|gcp|my|api|service|admin)creds?$")
_AUTHORIZATION = re.compile(r"^(?:x|http|proxy|xforwarded|xoriginal)*authorization(?:header|value|token)?$")
_AUTH = frozenset(
    """auth basicauth httpauth proxyauth xauth dockerauth npmauth authheader authdata authstring authvalue authinfo authbasic
    bearer bearerauth authcode authorizationcode authcookie authpass userauth requestpass requirepass masterauth""".split()
)
_COOKIE = re.compile(r"^(?!.*(?:accept|consent|policy|allow|use|has)).*cookies?$|^cookies?(?:header|value|string|jar)$")
_SESSION = re.compile(r"sess(?:ion)?id$|sessionkey$|sessioncookie$|^(?:php|j|asp|aspnet)?sess(?:ion)?id")
_EXACT = frozenset(
    """pin pincode cardpin userpin cvv cvc cvv2 cvc2 securitycode cardsecuritycode otp totp otpcode totpcode mfacode
    verificationcode onetimecode twofactorcode twofacode 2fa 2facode onetimepassword recoverycode recoverycodes backupcode
    backupcodes recoveryphrase seedphrase mnemonic mnemonicphrase ssn socialsecuritynumber psk wpapsk netrc pgpass htpasswd
    dockerconfigjson dockerconfig csrf xsrf csrfmiddlewaretoken jwt jws senha haslo heslo parola lozinka mysqlpwd authn
    pepper peppers keypepper keypeppers privkey privatekeypem pem keypem sshprivatekey sas sastoken passwordsalt""".split()
)
_PIN = re.compile(
    r"^(?:(?:card|user)?pin(?:code)?|cv[vc]2?|(?:h|t)?otp(?:code)?|.*(?:security|mfa|verification|onetime|twofactor|2fa|twofa)code|2fa|ssn|socialsecuritynumber)$"
)
_CSRF = re.compile(r"(?:x|http|django)*[cx]srf(?:middleware)?(?:token|cookie|key|secret|value)*")
# "hasPassword": true is an answer, not a password.
_ASKS = frozenset(
    "has is show hide require requires required use uses enable enabled allow need needs forgot reset save remember change no with without can should".split()
)
_LAST_WORD = frozenset("pass pin otp totp pw psw cvv cvc psk jwt pword passwrd auth cookie cookies creds".split())
_PASS = re.compile(
    r"(?:db|database|smtp|imap|user|admin|root|mysql|pg|postgres|redis|ftp|sftp|mail|email|login|http|proxy|sudo|wifi|key|"
    r"store|ssh|vpn|ldap|bind|rds|mongo|mongodb|rabbitmq|amqp|jenkins|nexus|app|service|svc|client|server|the|your|our)pass$"
)
_BENIGN_EXACT = frozenset(
    """author authors authority authorities tokenizer tokenizers tokenization passenger passengers secretary publickey
    passwordless authenticate wwwauthenticate authenticated authorized noauth requiresauth requireauth needsauth skipauth
    useauth preauth unauth oauth keepass lastpass bypass compass trespass surpass encompass boardingpass
    accesskeyid awsaccesskeyid accesskeys1 securitykeys compassword keysecretref rotatesecret getsecret listsecrets
    createtoken getpassword resetpassword forgotpassword changepassword""".split()
)

# Names of tokens that are places in a list or pieces of text.
_PLACE_TOKEN = re.compile(
    r"^(?:.*(?:page|paging|pagination|cursor|continuation|continue|progress|sync|scroll|offset|resume|resumption|change|"
    r"position|watch|list|iterator|marker|next|previous|prev|max|min|eos|bos|pad|unk|sep|mask|cls|stop|special|newline|"
    r"begin|end|start|first|last|num|per|by|lex|syntax|word|sub|design|idempotency|cache|pushback|lookahead))token$"
)
_COUNT_TOKENS = re.compile(
    r"^(?:.*(?:max|min|total|prompt|completion|input|output|cached?|reasoning|num|n|used|remaining|available|audio|image|"
    r"text|new|context|limit|budget|thinking|generated|response|request|accepted|rejected|prediction|special|stop|"
    r"creation|read|write|of|per|by|avg|average|count|sum|design|place|sentence|word))tokens$"
)
_NON_ASCII = re.compile(
    "парол|секрет|токен|密码|密碼|口令|秘密|令牌|パスワード|暗証|비밀번호|암호|كلمةالمرور|סיסמה|रहस्य|मधु"
)

_BENIGN_KEY = re2.compile(
    r"^(?:partition|sort|primary|foreign|cache|row|object|s3|idempotency|public|pub|publishable|site|issue|project|parent|"
    r"composite|unique|group|lookup|map|dict|hash|range|shard|index|natural|surrogate|candidate|translation|i18n|locale|"
    r"message|config|setting|event|metric|label|tag|property|attribute|field|column|json|query|search|order|filter|hot|"
    r"shortcut|arrow|modifier|enter|escape|tab|function|meta|context|state|react|list|item|node|record|entity|document|doc|"
    r"file|bucket|registry|feature|flag|nav|menu|route|path|dedup|dedupe|dedupication|job|task|workflow|queue|topic|"
    r"routing|binding|space|sub|child|left|right|any|which|press|up|down|musical|answer|component|story|epic|board|"
    r"rate|limit|bucket|etag|version|locale|ui|store|external|internal|reference|ref|resource|tenant|customer|mon|don|tur|hoc|joc|whis)*keys?$"
)
_WEAK = frozenset(
    """secretid vaultsecretid approlesecretid signature sig xamzsignature xgoogsignature xhubsignature xhubsignature256 sid session pat sast salt nonce
    hmac mac ticket assertion samlresponse samlassertion grant invite invitecode activationcode
    xamzcredential xgoogcredential voucher ottoken seed""".split()
)


@lru_cache(maxsize=8192)
def _judge(name: str) -> Name:
    folded = fold(name)
    if not name.isascii() and _NON_ASCII.search(unicodedata.normalize("NFKC", name).casefold()):
        return Name("secret", strong=True)
    if not folded or folded in _BENIGN_EXACT:
        return NOTHING
    found = _judge_folded(folded, name.lower())
    if found is not NOTHING:
        if found.strong and not found.textual and words(name)[:1] and words(name)[0] in _ASKS:
            return Name(found.kind, strong=True, textual=True)
        return found
    last = words(name)[-1:]
    if last and last[0] in _LAST_WORD:
        if _PIN.match(last[0]):
            return Name("pin", strong=True)
        return Name("password" if last[0].startswith("p") else "secret", strong=True, textual=last[0] == "pass")
    return Name("token") if last == ["pat"] else NOTHING


def _judge_folded(folded: str, lowered: str) -> Name:
    for kind, pattern in (
        ("password", _PASSWORD),
        ("secret", _SECRET),
        ("key", _STRONG_KEY),
        ("credential", _CREDENTIAL),
    ):
        match = pattern.search(folded)
        if match is None:
            continue
        rest = folded[match.end() :]
        if rest in _ABOUT or (rest.startswith("s") and rest[1:] in _ABOUT and rest != "s"):
            continue
        return Name(kind, strong=True)
    # "auth" is the beginning of too many words to look for it between separators.
    if _AUTHORIZATION.match(folded) or (folded in _AUTH and ("auth" in lowered or folded[0] in "br")):
        return Name("authorization", strong=True)
    if "cookie" in folded and _COOKIE.search(folded):
        return Name("cookie", strong=True)
    if "sess" in folded and _SESSION.search(folded):
        return Name("session", strong=True)
    if folded in _EXACT or _PASS.search(folded):
        return Name("pin" if _PIN.search(folded) else "secret", strong=True)
    if _CSRF.fullmatch(folded):
        return Name("token", strong=True)
    if "token" in folded and "csrf" not in folded:
        return _judge_token(folded)
    if folded in _WEAK:
        return Name("secret", hexadecimal=True)
    if folded.endswith(("key", "keys")) and not _BENIGN_KEY.match(folded):
        return Name("key", hexadecimal=folded not in ("key", "keys"))
    if folded in ("key", "keys"):
        return Name("key", hexadecimal=False)
    return NOTHING


def _judge_token(folded: str) -> Name:
    if _PLACE_TOKEN.match(folded) or _COUNT_TOKENS.match(folded):
        return NOTHING
    rest = folded[folded.rindex("token") + 5 :]
    if rest.startswith(("iz", "is")) or rest in _ABOUT or (rest.startswith("s") and rest[1:] in _ABOUT and rest != "s"):
        return NOTHING
    if rest == "s":
        return Name("token", strong=True, textual=True)
    if _WHICH.fullmatch(rest):
        return Name("token", strong=True)
    return Name("token")


def judge(name: str) -> Name:
    """Say what a name, as somebody wrote it, says of its value."""
    return _judge(name if len(name) <= _MAX_NAME else name[: _MAX_NAME // 2] + name[-_MAX_NAME // 2 :])
