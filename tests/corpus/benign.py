"""Strings that look like secrets or speak of them and are none, made from a seed."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.corpus.secrets import BASE62, DIGITS, HEX, LOWER, UPPER, draw

R = random.Random


@dataclass(frozen=True)
class Benign:
    kind: str
    payload: Any
    text: str


PROSE = """
The password must be at least 12 characters long and contain a digit.
Your token has expired, please log in again.
Secrets are stored in a vault and rotated every 90 days.
Never share your API key with anyone.
Reset your password by clicking the link in the e-mail.
The secret of good soup is patience.
An access token is a short-lived credential that identifies a client.
Password reset is not available for this account.
Invalid password. Please try again.
The session cookie is set with the Secure and HttpOnly flags.
We use OAuth 2.0 with PKCE; the client secret is not required.
Use a password manager such as Bitwarden or KeePass.
API keys are hashed with SHA-256 before they are stored.
The tokenizer splits the text into 512 tokens.
Set max_tokens to 4096 and temperature to 0.2.
Token usage: 1234 prompt tokens, 567 completion tokens.
The key to success is to keep trying.
Primary key constraint violated on table users.
The authorization header is missing.
Basic authentication is disabled for this tenant.
Bearer tokens must be sent in the Authorization header.
She kept the secret for twenty years.
Rotate the signing key once a year; the old key stays valid for a week.
The author's passport was issued in 2019.
How do I generate a personal access token on GitHub?
The secretary passed the keys to the janitor.
This endpoint requires an API key, see the documentation.
Two-factor authentication codes are six digits long.
Do not commit .env files that contain passwords.
The cookie policy was updated on 12 May 2024.
Password: required. Username: optional.
password is case-sensitive
Token type: Bearer
The private key is kept in an HSM and never leaves it.
The certificate's public key uses RSA-2048.
Passwords are hashed with bcrypt and a cost of 12.
The secret ingredient is love (and 200 g of butter).
A token bucket with 100 tokens refills at 10 tokens per second.
Your API key was created on 2024-05-12.
Token expires in 3600 seconds.
The password is stored as an Argon2id hash.
The access key was rotated by ann@example.com yesterday.
Please enter the 6-digit verification code that we sent to you.
Keyboard shortcuts: Ctrl+K opens search, Ctrl+Shift+P the palette.
The session is over; the next session starts at 14:00.
Set the Authorization header to your token.
Please provide the password for user admin
The credentials provided are invalid for tenant contoso.
Our authentication service had an outage from 10:05 to 10:47 UTC.
Error: token is not valid for this audience
The token was issued by https://login.example.com and is valid for one hour
We never log passwords, tokens or keys.
The password is wrong.
Your password is about to expire in 3 days.
The password is expired, please contact your administrator.
Our password policy is strict: at least 14 characters.
I think the password was changed yesterday, and the token was revoked.
The passwords are stored as salted hashes.
The password is stored in the vault under team/db.
The password is required for this step.
A password is something you know; a token is something you have.
My password was stolen last year, so I changed it everywhere.
The password was reset by support.
Is the password case sensitive? The password is case sensitive.
The secret is safe with me.
The token is a JWT signed with RS256.
This token is used for pagination.
The API key is missing from the request.
The API key is sent in the X-Api-Key header.
Which key is used to sign the release?
The key is to write tests first.
The session token is kept in memory only.
Users, roles, passwords and sessions are managed in the admin panel.
The password is ready for pickup at the front desk.
The password is longer than needed.
If the password is correct the door opens.
When the password is typed three times wrong the account locks.
What was the password again?
The password is hidden by default, and you can reveal it.
Authorization is handled by the gateway.
The cookie is strictly necessary.
The pass is valid for two days in all museums.
Her secret was revealed in chapter 12.
The secretary was present; the author was not.
He kept a secret diary in his desk.
Password managers generate long random passwords for you.
password reset email sent
invalid credentials for user ann
token limit exceeded: 8192 > 4096
The access token lifetime is 3600 seconds.
Signing keys are rotated quarterly (next: 2026-03-01).
Private keys never leave the HSM.
2FA is mandatory for all administrators.
Credentials are checked on every request.
Set `password_encryption = scram-sha-256` in postgresql.conf.
the password field must not be empty
Enter your password:
Password (again):
Forgot password?
bearer tokens are the default since v2.1.0
The pin is soldered to the board, pin 12 carries 3.3V.
Use pip install --user secrets-manager to install it
SELECT count(*) FROM tokens WHERE expires_at < now()
SELECT token_type, count(*) FROM api_keys GROUP BY 1
INSERT INTO settings (name, value) VALUES ('theme', 'dark')
CREATE TABLE users (id bigint, name text, password_hash text not null, created_at timestamptz)
ALTER USER app VALID UNTIL '2027-01-01'
The password is compared in constant time.
The password was compromised in a breach.
The password is a string of at least 8 characters.
their password is never shown to us
The password is optional for guests.
The password is English, not German.
Is your password unique?
The password is written on the sticker below the router.
The password is neither stored nor logged.
""".strip().splitlines()

CODE = r"""
password = get_password()
token = os.environ["API_TOKEN"]
const token = process.env.GITHUB_TOKEN;
def login(username: str, password: str) -> Token:
if (password === undefined) { throw new Error("missing"); }
self.secret = secret
api_key: str | None = None
headers = {"Authorization": f"Bearer {token}"}
curl -H "Authorization: Bearer $TOKEN" https://api.example.com
password: ${DB_PASSWORD}
export API_KEY=$(cat /run/secrets/api_key)
client = Client(api_key=settings.API_KEY)
token = request.headers.get("X-Token")
SELECT id, password_hash FROM users WHERE email = $1
<input type="password" name="password" placeholder="Password">
for key, value in sorted(items.items()): print(key, value)
ALTER TABLE keys ADD COLUMN secret_id bigint NOT NULL
let key = map.keys().next().unwrap();
public function setPassword(string $password): void
return hashlib.sha256(data).hexdigest()
assert token.is_valid()
password=<your password>
token: <token>
secrets = load_secrets(path)
const { apiKey, region } = config;
parser.add_argument("--token", help="API token")
type Credentials struct { Username string; Password string }
if key not in cache: cache[key] = compute(key)
git commit -m "Remove password from the login form"
kubectl create secret generic db --from-file=./password.txt
secretKeyRef: {name: db, key: password}
docker run -e POSTGRES_PASSWORD_FILE=/run/secrets/pg postgres:16
raise AuthenticationError("token expired")
import secrets; secrets.token_urlsafe(32)
var sessionKey = crypto.randomBytes(32);
new_password = form.cleaned_data["password1"]
@app.route("/token", methods=["POST"])
auth = HTTPBasicAuth(username, password)
public_key = private_key.public_key()
$ ssh -i ~/.ssh/id_ed25519 git@github.com
def check_password(self, raw_password): return hmac.compare_digest(self.hash(raw_password), self.password)
if (!token) throw new UnauthorizedError('token required');
const [password, setPassword] = useState('');
<Field name="password" label="Password" type="password" />
fields = (("password", "Password"), ("email", "E-mail"))
token = jwt.encode(payload, settings.SECRET_KEY, algorithm="HS256")
parser.add_argument('--password', help='the password to use', required=True)
export const getToken = () => localStorage.getItem('token');
$password = Read-Host -AsSecureString "Password"
password: process.env.DB_PASSWORD || 'undefined',
self.assertEqual(response.data['token'], user.auth_token.key)
@pytest.fixture
def token(client): return client.post("/token").json()["access_token"]
  password: { type: String, required: true, minlength: 8 },
  api_key: { $ref: '#/components/schemas/ApiKey' }
var token = lexer.NextToken();
while (tokens.hasMoreTokens()) { System.out.println(tokens.nextToken()); }
public record Credentials(String user, String password) {}
key = f"user:{user_id}:profile"
cache.set(key, value, timeout=300)
for (const key of Object.keys(obj)) console.log(key, obj[key]);
secret = secrets.token_hex(32)
git remote add origin git@github.com:acme/token-service.git
assert_eq!(tokenizer.next(), Some(Token::Ident("password")));
func (s *Server) Login(ctx context.Context, user, password string) (string, error) {
it('rejects a wrong password', async () => {
throw new Error(`Invalid token at line ${line}`);
help_text=_("Your password can't be too similar to your other personal information.")
path("reset/<uidb64>/<token>/", views.PasswordResetConfirmView.as_view(), name="password_reset_confirm")
""".strip().splitlines()


def b64(r: R, size: int) -> str:
    return base64.b64encode(r.randbytes(size)).decode()


def git_hash(r: R) -> str:
    return r.choice(
        [
            draw(r, HEX, 40),
            draw(r, HEX, 7),
            draw(r, HEX, 12),
            f"commit {draw(r, HEX, 40)}",
            f"Merge {draw(r, HEX, 7)} into {draw(r, HEX, 7)}",
        ]
    )


def digest(r: R) -> str:
    data = r.randbytes(16)
    return r.choice([
        hashlib.sha256(data).hexdigest(), "sha256:" + hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest(),
        "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(), hashlib.sha512(data).hexdigest(),
        "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode(), base64.b64encode(hashlib.sha256(data).digest()).decode(),
        f'W/"{draw(r, HEX, 16)}"', "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("="),
        ":".join(draw(r, HEX, 2) for _ in range(20)), f"registry.example.com/app@sha256:{hashlib.sha256(data).hexdigest()}",
    ])  # fmt: skip


def image(r: R) -> str:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + r.randbytes(r.randint(40, 1200))
    gif = b"GIF89a" + r.randbytes(r.randint(20, 600))
    raw = base64.b64encode(r.choice([png, gif, b"\xff\xd8\xff\xe0\0\x10JFIF" + r.randbytes(300)])).decode()
    return r.choice([raw, f"data:image/png;base64,{raw}", f'<img src="data:image/gif;base64,{raw}">'])


def uuids(r: R) -> str:
    made = uuid.UUID(int=r.getrandbits(128), version=4)
    return r.choice(
        [
            str(made),
            str(made).upper(),
            made.hex,
            f"urn:uuid:{made}",
            f"{{{made}}}",
            f"request {made} failed",
            f"/orders/{made}/items",
        ]
    )


def address(r: R) -> str:
    return r.choice([
        f"{r.choice(['ann', 'bob.smith', 'ci+builds'])}@{r.choice(['example.com', 'mail.example.org'])}",
        ".".join(str(r.randint(1, 254)) for _ in range(4)), ".".join(str(r.randint(1, 254)) for _ in range(4)) + f":{r.randint(80, 65535)}",
        "2001:db8:" + ":".join(draw(r, HEX, 4) for _ in range(6)), ":".join(draw(r, HEX, 2) for _ in range(6)),
        f"{r.randint(1, 999)} {r.choice(['Main Street', 'Baker Street', 'Elm Avenue'])}, {r.choice(['Springfield', 'London'])} {draw(r, DIGITS, 5)}",
        f"https://example.com/{draw(r, LOWER, 6)}/{draw(r, LOWER, 9)}?page={r.randint(1, 90)}&sort=desc", f"git@github.com:acme/{draw(r, LOWER, 8)}.git",
        f"ssh://git@git.example.com:2222/{draw(r, LOWER, 5)}/{draw(r, LOWER, 7)}.git", f"s3://bucket-{draw(r, LOWER, 5)}/path/{draw(r, LOWER, 8)}.parquet",
        f"arn:aws:iam::{draw(r, DIGITS, 12)}:role/{draw(r, LOWER, 10)}", f"arn:aws:s3:::bucket-{draw(r, LOWER, 6)}/*", f"postgresql://localhost:5432/{draw(r, LOWER, 6)}",
        f"redis://cache:6379/{r.randint(0, 9)}", f"http://user@example.com:8080/{draw(r, LOWER, 6)}", f"mailto:{draw(r, LOWER, 6)}@example.com",
        "0x" + draw(r, HEX, 40), f"bc1q{draw(r, '023456789acdefghjklmnpqrstuvwxyz', 38)}", f"https://cdn.example.com/assets/app.{draw(r, HEX, 20)}.js",
        f"https://www.youtube.com/watch?v={draw(r, BASE62, 11)}", f"https://docs.google.com/document/d/1{draw(r, BASE62, 43)}/edit", f"https://example.com/img@2x.png?w={r.randint(10, 999)}",
    ])  # fmt: skip


def version(r: R) -> str:
    a, b, c = r.randint(0, 30), r.randint(0, 40), r.randint(0, 99)
    return r.choice([
        f"{a}.{b}.{c}", f"v{a}.{b}.{c}", f"{a}.{b}.{c}-beta.{b}", f"{a}.{b}.{c}+build.{draw(r, HEX, 7)}", f"django=={a}.{b}.{c}", f"node:{a}.{b}-alpine3.{b}",
        f"^{a}.{b}.{c}", f"package-{draw(r, LOWER, 6)}-{a}.{b}.{c}-py3-none-any.whl", f"linux-image-{a}.{b}.0-{c}-generic", f"Python {a}.{b}.{c} (main, Jan 1 2026) [GCC 12.2.0]",
        f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{a}.0.{b}.{c} Safari/537.36",
        f"ghcr.io/acme/app:{a}.{b}.{c}", f"golang.org/x/crypto v0.{b}.{c} h1:{b64(r, 32)}", f"{a}.{b}.{c}.dev{r.randint(1, 99)}+g{draw(r, HEX, 7)}",
    ])  # fmt: skip


def identifier(r: R) -> str:
    return r.choice([
        "msg_01" + draw(r, BASE62, 22), "toolu_01" + draw(r, BASE62, 22), "call_" + draw(r, BASE62, 24), "chatcmpl-" + draw(r, BASE62, 29), "cus_" + draw(r, BASE62, 14),
        "pi_" + draw(r, BASE62, 24), "file-" + draw(r, BASE62, 24), "req_" + draw(r, BASE62, 16), "AC" + draw(r, HEX, 32), draw(r, UPPER, 4) + "-" + draw(r, DIGITS, 5), "prj_" + draw(r, BASE62, 20),
        f"{draw(r, UPPER, 3)}-{r.randint(1, 9999)}", draw(r, DIGITS, 18), f"order #{draw(r, DIGITS, 8)}", "01" + draw(r, "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24), f"i-0{draw(r, HEX, 16)}", f"subnet-{draw(r, HEX, 17)}",
        f"TICKET-{draw(r, DIGITS, 6)}", f"978-3-16-{draw(r, DIGITS, 6)}-0", f"trace-id {draw(r, HEX, 32)}", f"00-{draw(r, HEX, 32)}-{draw(r, HEX, 16)}-01", "mcps_live_" + draw(r, BASE62, 12), f"usr_{draw(r, BASE62, 16)}",
        f"U{draw(r, UPPER + DIGITS, 10)}", f"C{draw(r, UPPER + DIGITS, 8)}", f"pk_live_{draw(r, BASE62, 24)}", f"wf-{draw(r, LOWER, 6)}-{draw(r, HEX, 8)}", f"{draw(r, HEX, 24)}", f"dQw4w9WgXc{draw(r, BASE62, 1)}",
    ])  # fmt: skip


def cursor(r: R) -> str:
    return base64.b64encode(
        json.dumps(
            r.choice(
                [
                    {"offset": r.randint(0, 9999)},
                    {"after": r.randint(0, 9999), "page": r.randint(1, 99)},
                    {"id": draw(r, DIGITS, 8), "ts": "2026-01-01T00:00:00Z"},
                ]
            )
        ).encode()
    ).decode()


def wrapped(r: R) -> str:
    plain = r.choice(
        [
            *PROSE[10:14],
            "The quick brown fox jumps over the lazy dog",
            f"User:{r.randint(1, 99999)}",
            f"cursor:{r.randint(1, 9999)}:v2",
            '{"name":"report.pdf","size":1234}',
            "hello world, hello world",
        ]
    )
    return base64.b64encode(plain.encode()).decode()


def path(r: R) -> str:
    return r.choice([
        f"/home/ann/projects/{draw(r, LOWER, 8)}/src/main/java/com/example/Token{draw(r, UPPER, 1)}Service.java", "/etc/ssl/private/server.key", "~/.ssh/id_rsa.pub", "C:\\Users\\Ann\\Documents\\passwords-policy.docx",
        f"/usr/local/lib/python3.{r.randint(8, 14)}/site-packages/django/contrib/auth/tokens.py", "./secrets/README.md", "src/auth/token_service.ts", f"node_modules/@babel/core/lib/index.{draw(r, HEX, 8)}.js",
        f"PWD=/home/{draw(r, LOWER, 6)}", f"/var/lib/docker/overlay2/{draw(r, HEX, 64)}/merged",
    ])  # fmt: skip


def log_line(r: R) -> str:
    return r.choice([
        f"2026-11-{r.randint(10, 28)}T10:0{r.randint(0, 9)}:12.{draw(r, DIGITS, 3)}Z INFO request {draw(r, HEX, 16)} done in {r.randint(1, 900)} ms",
        f'127.0.0.1 - - [10/Oct/2026:13:55:36 +0000] "GET /api/items?page={r.randint(1, 50)} HTTP/1.1" 200 {r.randint(100, 9999)}', f"kernel: [{draw(r, DIGITS, 6)}.{draw(r, DIGITS, 6)}] usb 1-1: new high-speed USB device",
        f"token validation took {r.randint(1, 90)} ms", f"Refreshing token for user {draw(r, LOWER, 6)}", f"auth: user {draw(r, LOWER, 5)} logged in from 10.0.0.{r.randint(1, 250)}", f"GET /v1/keys/{draw(r, DIGITS, 6)} 200", "password check: ok", "key=value pairs are parsed from left to right",
        f"session opened for user root by (uid={r.randint(0, 999)})", f"cache key user:{r.randint(1, 9999)}:profile hit",
    ])  # fmt: skip


def public_key(r: R) -> str:
    body = "\n".join(b64(r, 48) for _ in range(4))
    return r.choice([
        f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{draw(r, BASE62, 43)} ann@laptop", f"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ{b64(r, 250)} ann@host", f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----", f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----",
        f"age1{draw(r, '023456789acdefghjklmnpqrstuvwxyz', 58)}",
    ])  # fmt: skip


TABLES = (
    "name,type,required\npassword,string,yes\nemail,string,no\n",
    "| parameter | type | description |\n|---|---|---|\n| password | string | The password |\n| token | string | A token |\n",
    "id,token_count,author\n1,523,Ann\n2,99,Bob\n",
    "event,count\npassword_reset,12\nlogin,99\n",
    "key,value\ntheme,dark\nlang,en\n",
    "feature\tpassword required\tSSO\nBasic\tyes\tno\nPro\tno\tyes\n",
    "user,last_login,password_changed_at\nann,2026-01-01,2025-12-12\n",
    "Users, passwords and sessions\nare, as always, in the manual.\n",
    "INSERT INTO settings (name, value) VALUES ('theme', 'dark')",
)


def table(r: R) -> str:
    return r.choice(TABLES)


def structured(r: R) -> Any:
    return r.choice([
        {"max_tokens": r.randint(1, 9999), "next_page_token": draw(r, BASE62, 20), "token_count": 3, "author": "Ann"}, {"usage": {"prompt_tokens": r.randint(1, 9999), "completion_tokens": 5, "total_tokens": 12}},
        {"key": f"{draw(r, UPPER, 3)}-{r.randint(1, 999)}", "summary": "Fix the login page", "status": "open"}, {"password_policy": {"min_length": 12, "require_digit": True}}, {"token_type": "Bearer", "expires_in": 3600},
        {"inputSchema": {"type": "object", "properties": {"password": {"type": "string", "description": "The password to check"}, "user": {"type": "string"}}, "required": ["user", "password"]}},
        {"nextCursor": cursor(r)}, {"_meta": {"progressToken": r.randint(1, 99)}}, {"primary_key": "id", "foreign_key": "user_id", "sort_key": "ts#1"}, {"keywords": ["auth", "token", "secret"], "keyboard": "us"}, {"publicKey": b64(r, 32)},
        {"cache_key": draw(r, HEX, 32), "etag": draw(r, HEX, 32)}, {"name": "password_reset", "description": "Resets a password", "value": "enabled"}, {"idempotency_key": str(uuid.UUID(int=r.getrandbits(128), version=4))}, {"secret_name": "prod/db", "secret_arn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db"},
        {"auth": {"type": r.choice(["none", "basic", "oauth2"])}}, {"keywords": ["secret", "password"]}, {"password_last_changed": "2026-01-01T00:00:00Z"}, {"image": f"ghcr.io/acme/auth:1.2.3@sha256:{draw(r, HEX, 64)}"},
        {"columns": ["id", "password", "email"]}, {"scopes": ["read:tokens", "write:keys"]}, {"monkey": draw(r, LOWER, 8), "turkey": 3},
    ])  # fmt: skip


KINDS: dict[str, Callable[[R], Any]] = {
    "uuid": uuids, "git hash": git_hash, "digest": digest, "prose about secrets": lambda r: r.choice(PROSE), "code": lambda r: r.choice(CODE), "base64 image": image, "address": address, "version": version,
    "identifier": identifier, "cursor": cursor, "base64 of plain text": wrapped, "path": path, "log line": log_line, "public key": public_key, "structured": structured, "table": table,
}  # fmt: skip

NEUTRAL = ("text", "value", "note", "id", "content", "description", "data", "output", "ref", "title", "input", "result")


def cases(seed: int = 5, count: int = 6_000) -> Iterator[Benign]:
    r = R(seed)
    kinds = list(KINDS)
    for index in range(count):
        kind = kinds[index % len(kinds)]
        made = KINDS[kind](r)
        if not isinstance(made, str):
            yield Benign(kind, made, "")
            continue
        where = r.choice(NEUTRAL)
        payload = r.choice([
            {where: made}, {"result": {"content": [{"type": "text", "text": made}]}}, {"items": [made, made]}, {"a": {"b": {where: made}}},
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "store", "arguments": {where: made}}}, [made],
        ])  # fmt: skip
        yield Benign(kind, payload, made)


__all__ = ("Benign", "cases", "string")
