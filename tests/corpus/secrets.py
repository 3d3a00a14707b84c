"""Secrets of many vendors, made up from a seed, and the places in which agents, tools and logs put them.

Nothing here was ever issued: every value is drawn from the alphabet and length that its vendor documents. The corpus is
made anew each time and never stored, since scanners rightly stop a push that holds such strings.
"""

from __future__ import annotations

import base64
import json
import random
import string
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
BASE62 = DIGITS + UPPER + LOWER
HEX = "0123456789abcdef"
URL64 = BASE62 + "-_"
B64 = BASE62 + "+/"
R = random.Random


def draw(r: R, alphabet: str, size: int) -> str:
    made = "".join(r.choice(alphabet) for _ in range(size))
    # A draw without a digit or a capital is possible and would test something else.
    if alphabet in (BASE62, URL64, B64) and size >= 12:
        made = made[:3] + r.choice(DIGITS) + r.choice(UPPER) + r.choice(LOWER) + made[6:]
    return made


def base62_crc(text: str) -> str:
    value, out = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, rest = divmod(value, 62)
        out = BASE62[rest] + out
    return out


def jwt(r: R) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": draw(r, DIGITS, 10), "iat": r.randint(1_600_000_000, 1_900_000_000), "name": "Ann"}
    return f"{part({'alg': r.choice(['HS256', 'RS256', 'ES256']), 'typ': 'JWT'})}.{part(claims)}.{draw(r, URL64, 43)}"


def pem(r: R) -> str:
    kind = r.choice(
        ["RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]
    )
    body = "\n".join(draw(r, B64, 64) for _ in range(r.randint(4, 20)))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


def own_key(r: R) -> str:
    body = f"mcps_{r.choice(['live', 'test', 'demo'])}_{draw(r, BASE62, 12)}_{draw(r, BASE62, 43)}"
    return body + base62_crc(body)


def password(r: R) -> str:
    words = ["hunter", "Tr0ub4dor", "dragon", "Sommer", "winter", "qwerty", "monkey", "letmein", "s3cret", "Pa55w0rd"]
    return r.choice(words) + r.choice("!#$*_-.~") + draw(r, DIGITS, r.randint(2, 4)) + r.choice(["", "xK", "!", "zQ9"])


def password_symbols(r: R) -> str:
    return draw(r, LOWER, 4) + draw(r, UPPER, 3) + draw(r, "!$*^~_-.", 3) + draw(r, DIGITS, 3) + draw(r, LOWER, 3)


@dataclass(frozen=True)
class Format:
    name: str
    make: Callable[[R], str]
    names: tuple[str, ...]


def F(name: str, make: Callable[[R], str], *names: str) -> Format:
    return Format(name, make, names)


FORMATS: tuple[Format, ...] = (
    F("own-key", own_key, "api_key", "X-Api-Key", "SENTINEL_API_KEY"),
    F("password", password, "password", "DB_PASSWORD", "userPassword", "passwd", "smtp_pass"),
    F("password-symbols", password_symbols, "password", "PGPASSWORD", "adminPassword", "passphrase"),
    F("aws-access-key", lambda r: r.choice(["AKIA", "ASIA"]) + draw(r, UPPER + "234567", 16), "aws_access_key_id", "accessKeyId", "AWS_ACCESS_KEY_ID"),
    F("aws-secret-key", lambda r: draw(r, B64, 40), "aws_secret_access_key", "secretAccessKey", "AWS_SECRET_ACCESS_KEY"),
    F("aws-session-token", lambda r: "IQoJb3JpZ2luX2Vj" + draw(r, B64, 200) + "==", "aws_session_token", "sessionToken", "AWS_SESSION_TOKEN"),
    F("google-api-key", lambda r: "AIza" + draw(r, URL64, 35), "google_api_key", "apiKey", "GOOGLE_API_KEY"),
    F("google-oauth-token", lambda r: "ya29." + draw(r, URL64, 120), "access_token", "accessToken", "GOOGLE_OAUTH_TOKEN"),
    F("google-client-secret", lambda r: "GOCSPX-" + draw(r, URL64, 28), "client_secret", "clientSecret", "GOOGLE_CLIENT_SECRET"),
    F("google-refresh-token", lambda r: "1//0" + draw(r, URL64, 60), "refresh_token", "refreshToken", "GOOGLE_REFRESH_TOKEN"),
    F("azure-client-secret", lambda r: draw(r, BASE62, 3) + "8Q~" + draw(r, BASE62 + "_~.-", 34), "client_secret", "clientSecret", "AZURE_CLIENT_SECRET"),
    F("azure-storage-key", lambda r: base64.b64encode(r.randbytes(64)).decode(), "account_key", "AccountKey", "AZURE_STORAGE_KEY"),
    F("github-classic", lambda r: "ghp_" + draw(r, BASE62, 36), "github_token", "token", "GITHUB_TOKEN"),
    F("github-oauth", lambda r: r.choice(["gho_", "ghu_", "ghs_"]) + draw(r, BASE62, 36), "token", "accessToken", "GH_TOKEN"),
    F("github-refresh", lambda r: "ghr_" + draw(r, BASE62, 76), "refresh_token", "refreshToken", "GITHUB_REFRESH_TOKEN"),
    F("github-fine-grained", lambda r: "github_pat_" + draw(r, BASE62, 22) + "_" + draw(r, BASE62, 59), "token", "githubToken", "GITHUB_PAT"),
    F("gitlab-pat", lambda r: "glpat-" + draw(r, URL64, 20), "private_token", "PRIVATE-TOKEN", "GITLAB_TOKEN"),
    F("gitlab-deploy", lambda r: r.choice(["gldt-", "glrt-", "glptt-"]) + draw(r, URL64, 22), "deploy_token", "runnerToken", "CI_DEPLOY_TOKEN"),
    F("slack-bot", lambda r: f"xoxb-{draw(r, DIGITS, 12)}-{draw(r, DIGITS, 12)}-{draw(r, BASE62, 24)}", "slack_token", "botToken", "SLACK_BOT_TOKEN"),
    F("slack-user", lambda r: f"xoxp-{draw(r, DIGITS, 12)}-{draw(r, DIGITS, 12)}-{draw(r, DIGITS, 12)}-{draw(r, HEX, 32)}", "token", "slackToken", "SLACK_TOKEN"),
    F("slack-app", lambda r: f"xapp-1-A{draw(r, UPPER + DIGITS, 10)}-{draw(r, DIGITS, 13)}-{draw(r, HEX, 64)}", "app_token", "appToken", "SLACK_APP_TOKEN"),
    F("stripe-live", lambda r: r.choice(["sk_live_", "rk_live_"]) + draw(r, BASE62, r.choice([24, 99])), "stripe_key", "stripeSecretKey", "STRIPE_SECRET_KEY"),
    F("stripe-test", lambda r: "sk_test_" + draw(r, BASE62, 24), "api_key", "stripeKey", "STRIPE_API_KEY"),
    F("stripe-webhook", lambda r: "whsec_" + draw(r, BASE62, 32), "webhook_secret", "webhookSecret", "STRIPE_WEBHOOK_SECRET"),
    F("twilio-token", lambda r: draw(r, HEX, 32), "auth_token", "authToken", "TWILIO_AUTH_TOKEN"),
    F("twilio-key", lambda r: "SK" + draw(r, HEX, 32), "api_key", "twilioApiKey", "TWILIO_API_KEY"),
    F("sendgrid", lambda r: f"SG.{draw(r, URL64, 22)}.{draw(r, URL64, 43)}", "sendgrid_api_key", "apiKey", "SENDGRID_API_KEY"),
    F("npm", lambda r: "npm_" + draw(r, BASE62, 36), "npm_token", "_authToken", "NPM_TOKEN"),
    F("pypi", lambda r: "pypi-AgEIcHlwaS5vcmc" + draw(r, URL64, 150), "pypi_token", "password", "TWINE_PASSWORD"),
    F("rubygems", lambda r: "rubygems_" + draw(r, HEX, 48), "rubygems_api_key", "apiKey", "GEM_HOST_API_KEY"),
    F("openai", lambda r: "sk-" + draw(r, BASE62, 20) + "T3BlbkFJ" + draw(r, BASE62, 20), "openai_api_key", "apiKey", "OPENAI_API_KEY"),
    F("openai-project", lambda r: "sk-proj-" + draw(r, URL64, 74) + "T3BlbkFJ" + draw(r, URL64, 73), "api_key", "openaiKey", "OPENAI_API_KEY"),
    F("anthropic", lambda r: "sk-ant-api03-" + draw(r, URL64, 93) + "AA", "anthropic_api_key", "x-api-key", "ANTHROPIC_API_KEY"),
    F("huggingface", lambda r: "hf_" + draw(r, BASE62, 34), "hf_token", "hfToken", "HUGGING_FACE_HUB_TOKEN"),
    F("telegram", lambda r: draw(r, "123456789", 10) + ":AA" + draw(r, URL64, 33), "bot_token", "telegramToken", "TELEGRAM_BOT_TOKEN"),
    F("discord", lambda r: "M" + draw(r, BASE62, 23) + "." + draw(r, URL64, 6) + "." + draw(r, URL64, 38), "discord_token", "botToken", "DISCORD_TOKEN"),
    F("shopify", lambda r: r.choice(["shpat_", "shpca_", "shppa_", "shpss_"]) + draw(r, HEX, 32), "shopify_token", "X-Shopify-Access-Token", "SHOPIFY_ACCESS_TOKEN"),
    F("digitalocean", lambda r: "dop_v1_" + draw(r, HEX, 64), "do_token", "accessToken", "DIGITALOCEAN_TOKEN"),
    F("databricks", lambda r: "dapi" + draw(r, HEX, 32), "databricks_token", "token", "DATABRICKS_TOKEN"),
    F("mailgun", lambda r: "key-" + draw(r, HEX, 32), "mailgun_api_key", "apiKey", "MAILGUN_API_KEY"),
    F("mailchimp", lambda r: draw(r, HEX, 32) + "-us" + draw(r, "123456789", 1), "mailchimp_api_key", "apiKey", "MAILCHIMP_API_KEY"),
    F("square", lambda r: "sq0atp-" + draw(r, URL64, 22), "square_token", "accessToken", "SQUARE_ACCESS_TOKEN"),
    F("jwt", jwt, "id_token", "accessToken", "JWT", "session_token"),
    F("pem", pem, "private_key", "privateKey", "TLS_PRIVATE_KEY"),
    F("age", lambda r: "AGE-SECRET-KEY-1" + draw(r, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58), "age_key", "ageSecretKey", "SOPS_AGE_KEY"),
    F("vault", lambda r: r.choice(["hvs.", "hvb."]) + draw(r, URL64, 90), "vault_token", "X-Vault-Token", "VAULT_TOKEN"),
    F("doppler", lambda r: "dp.pt." + draw(r, BASE62, 43), "doppler_token", "dopplerToken", "DOPPLER_TOKEN"),
    F("linear", lambda r: "lin_api_" + draw(r, BASE62, 40), "linear_api_key", "linearApiKey", "LINEAR_API_KEY"),
    F("notion", lambda r: r.choice(["secret_" + draw(r, BASE62, 43), "ntn_" + draw(r, BASE62, 46)]), "notion_token", "notionSecret", "NOTION_TOKEN"),
    F("postman", lambda r: f"PMAK-{draw(r, HEX, 24)}-{draw(r, HEX, 34)}", "postman_api_key", "X-API-Key", "POSTMAN_API_KEY"),
    F("grafana", lambda r: r.choice([f"glsa_{draw(r, BASE62, 32)}_{draw(r, HEX, 8)}", "glc_" + draw(r, B64, 60) + "="]), "grafana_token", "token", "GRAFANA_TOKEN"),
    F("newrelic", lambda r: "NRAK-" + draw(r, UPPER + DIGITS, 27), "new_relic_api_key", "apiKey", "NEW_RELIC_API_KEY"),
    F("heroku", lambda r: r.choice([str(uuid.UUID(int=r.getrandbits(128), version=4)), "HRKU-AA" + draw(r, URL64, 58)]), "heroku_api_key", "apiKey", "HEROKU_API_KEY"),
    F("cloudflare", lambda r: draw(r, URL64, 40), "cloudflare_api_token", "apiToken", "CLOUDFLARE_API_TOKEN"),
    F("okta", lambda r: "00" + draw(r, URL64, 40), "okta_token", "apiToken", "OKTA_API_TOKEN"),
    F("atlassian", lambda r: "ATATT3xFfGF0" + draw(r, URL64, 170) + "=" + draw(r, HEX.upper(), 8), "jira_token", "apiToken", "JIRA_API_TOKEN"),
    F("dropbox", lambda r: "sl.B" + draw(r, URL64, 140), "dropbox_token", "accessToken", "DROPBOX_ACCESS_TOKEN"),
    F("facebook", lambda r: "EAA" + draw(r, BASE62, 150), "fb_token", "access_token", "FACEBOOK_ACCESS_TOKEN"),
    F("docker", lambda r: "dckr_pat_" + draw(r, URL64, 27), "docker_token", "dockerPassword", "DOCKER_PASSWORD"),
    F("terraform", lambda r: draw(r, BASE62, 14) + ".atlasv1." + draw(r, BASE62, 67), "tfe_token", "token", "TF_TOKEN_app_terraform_io"),
    F("airtable", lambda r: "pat" + draw(r, BASE62, 14) + "." + draw(r, HEX, 64), "airtable_token", "apiKey", "AIRTABLE_API_KEY"),
    F("figma", lambda r: "figd_" + draw(r, URL64, 40), "figma_token", "X-Figma-Token", "FIGMA_TOKEN"),
    F("sentry", lambda r: r.choice(["sntrys_" + draw(r, B64, 120), "sntryu_" + draw(r, HEX, 64)]), "sentry_token", "authToken", "SENTRY_AUTH_TOKEN"),
    F("datadog", lambda r: draw(r, HEX, r.choice([32, 40])), "dd_api_key", "DD-API-KEY", "DD_API_KEY"),
    F("supabase", lambda r: r.choice(["sbp_" + draw(r, HEX, 40), "sb_secret_" + draw(r, URL64, 31)]), "supabase_key", "serviceRoleKey", "SUPABASE_ACCESS_TOKEN"),
    F("planetscale", lambda r: "pscale_tkn_" + draw(r, URL64, 43), "pscale_token", "token", "PLANETSCALE_TOKEN"),
    F("tailscale", lambda r: f"tskey-auth-{draw(r, BASE62, 12)}CNTRL-{draw(r, BASE62, 32)}", "tailscale_key", "authKey", "TS_AUTHKEY"),
    F("groq", lambda r: "gsk_" + draw(r, BASE62, 52), "groq_api_key", "apiKey", "GROQ_API_KEY"),
    F("bcrypt", lambda r: "$2b$12$" + draw(r, BASE62 + "./", 53), "password_hash", "passwordHash", "ADMIN_PASSWORD_HASH"),
    F("session-cookie", lambda r: draw(r, BASE62, 32), "sessionid", "session_cookie", "SESSION_TOKEN"),
    F("hex-secret", lambda r: draw(r, HEX, 64), "secret_key", "encryptionKey", "SECRET_KEY_BASE"),
    F("brevo", lambda r: f"xkeysib-{draw(r, HEX, 64)}-{draw(r, BASE62, 16)}", "brevo_api_key", "api-key", "BREVO_API_KEY"),
    F("pagerduty", lambda r: "u+" + draw(r, URL64, 18), "pagerduty_token", "apiToken", "PAGERDUTY_TOKEN"),
    F("algolia", lambda r: draw(r, HEX, 32), "algolia_api_key", "X-Algolia-API-Key", "ALGOLIA_ADMIN_API_KEY"),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    format: str
    position: str
    payload: Any  # a JSON value, or bytes as they came
    secrets: tuple[str, ...]  # none of these may be seen


def _header(name: str) -> str:
    return name if "-" in name else "X-" + "-".join(part.capitalize() for part in name.replace("_", " ").split())


def nested(r: R, s: str, n: str) -> Any:
    inner = {n: s, "region": "eu-west-1", "retries": 3}
    return r.choice([
        {"params": {"arguments": {"config": inner}}},
        {"a": [{"b": {"c": [inner]}}]},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "connect", "arguments": inner}},
        {"profiles": {"default": inner, "other": {"user": "ann"}}},
        {"config": {n: [s]}},
        {"config": {n.upper(): s}},
        {"config": {n + " ": s}},
    ])  # fmt: skip


def pair(r: R, s: str, n: str) -> Any:
    return r.choice([
        {"env": [{"name": n, "value": s}, {"name": "LANG", "value": "C"}]},
        {"headers": [{"name": _header(n), "value": s}]},
        {"vars": [{"key": n, "value": s}]},
        {"parameters": [{"value": s, "name": n, "type": "string"}]},
        {"Environment": [{"Name": n, "Value": s}]},
        {"fields": [{"field": n, "value": s}]},
        {"variables": [{"variable": n, "value": s, "secret": True}]},
    ])  # fmt: skip


def headers(r: R, s: str, n: str) -> Any:
    if "\n" in s:
        s = s.replace("\n", "\\n")
    h = _header(n)
    return r.choice([
        {"headers": [["Accept", "*/*"], [h, s]]},
        {"headers": [["Authorization", f"Bearer {s}"]]},
        {"headers": [f"{h}: {s}", "Accept: */*"]},
        {"rawHeaders": ["Accept", "*/*", h, s, "Host", "example.com"]},
        {"headers": f"Host: example.com\r\n{h}: {s}\r\nAccept: */*\r\n"},
        {"headers": {"Authorization": f"Bearer {s}"}},
        {"headers": {"authorization": "Basic " + base64.b64encode(f"ann:{s}".encode()).decode()}},
        {"headers": {"Cookie": f"lang=en; session={s}; theme=dark"}},
        {"headers": {"Authorization": f"token {s}"}},
        {"headers": {"Authorization": s}},
    ])  # fmt: skip


def arguments(r: R, s: str, n: str) -> Any:
    flag = "--" + n.lower().replace("_", "-")
    quoted = json.dumps(s)
    return r.choice([
        {"args": ["run", flag, s, "--verbose"]},
        {"args": ["run", f"{flag}={s}", "--verbose"]},
        {"command": f"deploy {flag} {quoted} --region eu"},
        {"command": f"deploy {flag}={quoted} --region eu"},
        {"args": ["-e", f"{n.upper()}={s}", "image"]},
        {"cmd": ["curl", "-H", f"Authorization: Bearer {s}", "https://example.com"]},
        {"cmd": f"curl -H 'X-Api-Key: {s}' https://example.com/items"},
        {"cmd": ["curl", "-u", f"ann:{s}", "https://example.com"]},
        {"args": ["login", "--password", s]},
        {"args": ["--token", s, "--json"]},
    ])  # fmt: skip


def lines(r: R, s: str, n: str) -> Any:
    upper = n.upper().replace("-", "_")
    value = s if "\n" not in s else json.dumps(s)
    return r.choice([
        {"env": f"LANG=C\n{upper}={value}\nDEBUG=1\n"},
        {"content": f"# settings\nexport {upper}={value}\n"},
        {"content": f'{upper}="{s}"\nOTHER=1'},
        {"content": f"{upper}='{s}'\n"},
        {"content": f"[default]\n{n} = {value}\nregion = eu\n"},
        {"content": f"database:\n  host: db\n  {n}: {value}\n  port: 5432\n"},
        {"env": [f"{upper}={s}", "LANG=C"]},
        {"content": f'{{\n  {n}: "{s}",\n  debug: true\n}}'},
        {"content": f'{n} := "{s}"\n'},
    ])  # fmt: skip


def json_string(r: R, s: str, n: str) -> Any:
    return r.choice([
        {"body": json.dumps({n: s, "x": 1})},
        {"body": json.dumps({"a": [{"headers": {n: s}}]}, indent=2)},
        {"result": {"content": [{"type": "text", "text": json.dumps({"user": "ann", n: s})}]}},
        {"text": "response: " + json.dumps({n: s, "x": 1})},
    ])  # fmt: skip


def json_twice(r: R, s: str, n: str) -> Any:
    return {"body": json.dumps({"inner": json.dumps({n: s, "ok": True}), "x": 1})}


def url(r: R, s: str, n: str) -> Any:
    enc = quote(s, safe="")
    return r.choice([
        {"url": f"https://api.example.com/v1/items?{n}={enc}&page=2"},
        {"url": f"https://ann:{enc}@example.com/repo.git"},
        {"dsn": f"postgresql://app:{enc}@db.internal:5432/app?sslmode=require"},
        {"dsn": f"redis://:{enc}@cache:6379/0"},
        {"text": f"see https://example.com/cb#access_token={enc}&state=1 for it"},
        {"dsn": f"mongodb+srv://svc:{enc}@cluster0.example.net/db"},
        {"dsn": f"Server=db;Database=app;User Id=sa;Password={s};Encrypt=true"} if "\n" not in s and ";" not in s else {"dsn": f"amqps://u:{enc}@mq/vhost"},
        {"url": f"https://example.com/login?user=ann&password={enc}"},
        {"url": f"https://example.com/hook?api_key={enc}"},
    ])  # fmt: skip


def percent(r: R, s: str, n: str) -> Any:
    return r.choice([
        {"data": quote(json.dumps({n: s}), safe="")},
        {"url": "https://example.com/redirect?to=" + quote(f"https://x.example/?{n}={quote(s, safe='')}", safe="")},
        {"body": f"user=ann&{n}={quote(s, safe='')}&x=1"},
        {"data": quote(f"{n}={s}", safe="")},
        {"data": quote(quote(f"password={s}", safe=""), safe="")},
    ])  # fmt: skip


def b64(r: R, s: str, n: str) -> Case:
    plain = r.choice(
        [
            json.dumps({n: s}),
            f"{n}={s}",
            f"{n.upper()}={s}\nLANG=C\n",
            f"Authorization: Bearer {s}\r\n",
            json.dumps({"auths": {"r.example": {"password": s}}}),
        ]
    )
    wrapped = r.choice([base64.b64encode, base64.urlsafe_b64encode])(plain.encode()).decode()
    return Case("", "", r.choice([{"data": wrapped}, {"text": f"payload {wrapped} end"}]), (s, wrapped))


def sse(r: R, s: str, n: str) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": {n: s}}})
    pretty = json.dumps({"params": {n: s}}, indent=1).splitlines()
    return r.choice([
        f"event: message\ndata: {body}\n\n".encode(),
        f"id: 7\ndata: {body}\n\ndata: {{\"ok\":true}}\n\n".encode(),
        ("\n".join("data: " + line for line in pretty) + "\n\n").encode(),
        {"chunk": f"event: message\ndata: {body}\n\n"},
    ])  # fmt: skip


def error(r: R, s: str, n: str) -> Any:
    return r.choice([
        {"error": {"code": -32000, "message": f'invalid value for {n}: "{s}"'}},
        {"error": {"message": f"401 Unauthorized for https://example.com/v1?{n}={quote(s, safe='')}"}},
        {"error": {"message": f"could not connect: postgresql://app:{quote(s, safe='')}@db/app: timeout"}},
        {"error": {"message": f"Authentication failed: {n}={s}"}},
        {"error": {"data": f"Traceback (most recent call last):\n  File \"x.py\", line 3, in f\n    connect({n}='{s}')\nValueError: no"}},
        {"error": {"message": f"request failed, headers: {{'Authorization': 'Bearer {s}', 'Accept': '*/*'}}"}},
        {"error": {"message": f"Incorrect API key provided: {s}. You can find your API key at https://example.com."}},
        {"isError": True, "content": [{"type": "text", "text": f"password authentication failed for user \"app\" with password \"{s}\""}]},
    ])  # fmt: skip


def broken(r: R, s: str, n: str) -> Any:
    return r.choice([
        f'{{"jsonrpc":"2.0","id":1,"params":{{"{n}":{json.dumps(s)}'.encode(),
        f'{{"{n}": {json.dumps(s)}, "x": }}'.encode(),
        f"{{'{n}': '{s}', 'x': 1}}".encode(),
        f'{{"{n}": {json.dumps(s)},, "y": [1,2}}'.encode(),
        f'{{"headers": {{"Authorization": "Bearer {s}"}}, oops'.encode(),
        f'{{"env": [{{"name": "{n}", "value": {json.dumps(s)}}}'.encode(),
        f'{{"args": ["--{n.lower().replace("_", "-")}", {json.dumps(s)}, '.encode(),
        f'{n}={s}'.encode(),
    ])  # fmt: skip


def prose(r: R, s: str, n: str) -> Any:
    word = n.replace("_", " ").replace("-", " ")
    return {"text": r.choice([
        f"Hi, the {word} is {s} and it works.",
        f"Please use this {word}: {s}",
        f"My password is {s}, can you log in for me?",
        f"Here is the token: {s} - do not share it.",
        f"The API key for staging is `{s}`.",
        f"I set the {n} to {s} yesterday.",
        f"Use \"{s}\" as the password.",
        f"The secret ({s}) was rotated.",
        f"With API key {s} the call works.",
        f"login ann password {s}",
    ])}  # fmt: skip


def table(r: R, s: str, n: str) -> Any:
    if set(s) & set("\n,;|\t'\"\\"):
        return {"config": {n: s}}
    return r.choice([
        {"text": f"id,user,{n},email\n1,ann,{s},ann@example.com\n"},
        {"text": f'"id";"{n}"\n"1";"{s}"\n'},
        {"text": f"user\t{n}\tage\nann\t{s}\t41\n"},
        {"text": f"| user | {n} |\n|------|:----:|\n| ann | {s} |\n"},
        {"query": f"INSERT INTO logins (id, name, {n}) VALUES (1, 'bob', NULL), (2, 'ann', '{s}')"},
    ])  # fmt: skip


def form_part(r: R, s: str, n: str) -> Any:
    if "\n" in s:
        return {"config": {n: s}}
    extra = r.choice(["", "Content-Type: text/plain\r\n"])
    return {"body": f'--x1\r\nContent-Disposition: form-data; name="{n}"\r\n{extra}\r\n{s}\r\n--x1--\r\n'}


POSITIONS: dict[str, Callable[[R, str, str], Any]] = {
    "nested key": nested, "name/value pair": pair, "header list": headers, "argument list": arguments,
    "KEY=value lines": lines, "JSON in a string": json_string, "JSON twice": json_twice, "URL and DSN": url,
    "percent-wrapped": percent, "base64-wrapped": b64, "SSE data": sse, "error text": error,
    "broken JSON": broken, "prose": prose, "table": table, "form part": form_part,
}  # fmt: skip


def cases(seed: int = 5, rounds: int = 3) -> Iterator[Case]:
    """Every format in every position, `rounds` times with other values and wordings."""
    r = R(seed)
    for _ in range(rounds):
        for form in FORMATS:
            for position, place in POSITIONS.items():
                secret, name = form.make(r), r.choice(form.names)
                made = place(r, secret, name)
                if isinstance(made, Case):
                    yield Case(form.name, position, made.payload, made.secrets)
                else:
                    yield Case(form.name, position, made, (secret,))
