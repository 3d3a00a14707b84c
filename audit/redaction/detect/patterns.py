"""What a secret looks like by its own form, whatever name it stands under (pure).

Each form is a kind and a pattern in RE2's syntax that matches the secret alone. `word` asks for the start of a word in front
of it, which the letter of an escape (`\\n`) does not hide. Lengths are the vendors' own with some room, since a token cut
short is still most of a token. How texts are searched for them is `audit.redaction.detect.matching`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from audit.redaction.detect.randomness import PUBLIC_REFERENCE, decode_base64, has_digit, looks_random, mixed

__all__ = ("FORMS", "RUN", "Form")

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
# What a form without a beginning of its own needs: 20 letters and digits in a row.
RUN: tuple[bytes, ...] = (b"",)


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of secret: its pattern, what must stand in front of it, and a check that a pattern cannot word."""

    kind: str
    pattern: str
    word: bool = False
    check: Callable[[bytes], bool] | None = None
    # Words ("Bearer") that introduce the secret; they stay readable.
    before: str = ""
    # For one that begins like anything: what a text must hold before it is searched for.
    needs: tuple[bytes, ...] = ()
    # How it begins, where that is not read off the pattern.
    opening: str = ""


def _has_digit_or_upper(value: bytes) -> bool:
    body = value.split(b"-", 1)[-1]
    return has_digit(body) and (mixed(1, 1, 1)(body) or looks_random(body))


def _not_public_reference(value: bytes) -> bool:
    return not PUBLIC_REFERENCE.match(value)


def _bearer(value: bytes) -> bool:
    return len(value) >= 6 and (looks_random(value, least=8) or has_digit(value))


def _basic(value: bytes) -> bool:
    decoded = decode_base64(value)
    return decoded is not None and b":" in decoded and all(c >= 32 for c in decoded)


def _jwt(value: bytes) -> bool:
    decoded = decode_base64(value.split(b".", 1)[0])
    return decoded is not None and decoded[:1] == b"{"


def _azure(value: bytes) -> bool:
    # Lines of PEM and MIME have 64 and 76 characters, and any four letters in them by chance.
    return len(value) not in (64, 76) and _AZURE_MIX(value)


_AZURE_MIX = mixed(3, 3, 3)


def _telegram(value: bytes) -> bool:
    return looks_random(value.split(b":", 1)[1])


F = Form
FORMS: tuple[Form, ...] = (
    # Our own keys, always: whatever the checksum says.
    F("mcps-key", r"mcps_[A-Za-z0-9_]{16,}", check=_not_public_reference),
    # Private keys, whole or cut short; certificates and public keys are not secrets.
    F(
        "private-key",
        r"(?s:-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----|\z))",
    ),
    F(
        "private-key",
        r"(?s:---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----.*?(?:---- END SSH2 ENCRYPTED PRIVATE KEY ----|\z))",
    ),
    F(
        "private-key",
        r"(?:[A-Za-z0-9+/=]|\s|\\+[rn]){16,}-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----",
        needs=(b"-----END ",),
    ),
    F("private-key", r"(?s:Private-Lines: ?\d+.*?(?:Private-MAC: ?[0-9a-f]*|\z))"),
    F("private-key", r"MII[A-Za-z0-9+/]{3,5}IBA(?:AKCA|DANBgkqhkiG9w0BAQEFAAS)[A-Za-z0-9+/=\s]{40,}"),
    F("private-key", r"b3BlbnNzaC1rZXktdjE[A-Za-z0-9+/=\s]{20,}"),
    F("private-key", r"AGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]{10,}"),
    F("private-key", r"RWRTY0Iy[A-Za-z0-9+/=]{60,}"),
    F("private-key", r"(?:xprv|yprv|zprv|tprv)[1-9A-HJ-NP-Za-km-z]{50,}", word=True),
    F("private-key", r"[5KL][1-9A-HJ-NP-Za-km-z]{50,51}\b", word=True, check=mixed(2, 5, 5), needs=RUN),
    F("private-key", r"nsec1[a-z0-9]{40,}", word=True),
    # JSON Web Tokens and what is built like them (two parts or more).
    F("jwt", r"ey[JI][A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]*", check=_jwt),
    F("jwt", r"e(?:yJhbGciOi|yJ0eXAiOi|yJraWQiOi|yJlbmMiOi|yJjdHkiOi|yJ4NXQi)[A-Za-z0-9_\-=]{4,}"),
    # Credentials introduced by their scheme.
    F("bearer", r"[A-Za-z0-9_\-.~+/:|]{6,}=*", before=r"(?i:bearer)(?:\s|%20|\+|:)+", check=_bearer),
    F("basic", r"[A-Za-z0-9+/_\-]{6,}={0,2}", before=r"(?i:basic)(?:\s|%20|\+|:)+", check=_basic),
    F(
        "token",
        r"[A-Za-z0-9_\-.=+/]{12,}",
        before=r"\b(?:SSWS|GenieKey|ApiKey|apikey|Apikey|token|Token|Key|GoogleLogin auth=|Discogs token=|MAC|hmac|Bot|OAuth|DPoP|Splunk|PRIVATE-TOKEN|Snowflake Token=|Klaviyo-API-Key|AccessKey|Api-Key)(?:\s+|\\+[nrt])\"?",
        check=lambda v: looks_random(v, hexadecimal=True, least=16),
    ),
    F("signature", r"[0-9a-f]{32,}", before=r"Signature="),
    # GitHub, GitLab, Bitbucket, Atlassian and other forges.
    F("github-token", r"gh[pousr]_[A-Za-z0-9_.\-]{16,}", check=mixed(1, 0, 0)),
    F("github-token", r"github_pat_[A-Za-z0-9_]{16,}"),
    F("github-token", r"v1\.[0-9a-f]{40}\b", word=True),
    F("gitlab-token", r"gl(?:pat|oas|dt|rt|rtr|cbt|ptt|ft|imt|agent|soat|ffct|wt|sa)-[A-Za-z0-9_\-.=]{16,}"),
    F("gitlab-token", r"GR1348941[A-Za-z0-9_\-]{16,}"),
    F("atlassian-token", r"AT(?:ATT|CTT|STT|OATT|SCTT)3[A-Za-z0-9_\-=.+/]{16,}"),
    F("atlassian-token", r"ATBB[A-Za-z0-9]{20,}", word=True),
    F("atlassian-token", r"BBDC-[A-Za-z0-9+/@]{30,}", word=True),
    F("forge-token", r"(?:sgp|slk|sgph)_(?:local_|[0-9a-f]{16}_)?[A-Za-z0-9]{30,}", word=True),
    # Clouds.
    F("aws-key", r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{12,}\b", word=True, check=lambda v: len(v) < 33),
    F("aws-key", r"ABSK[A-Za-z0-9+/]{80,}={0,2}", word=True),
    F("aws-key", r"bedrock-api-key-[A-Za-z0-9+/=_\-.%]{16,}"),
    F("aws-token", r"(?:FwoGZXIvYXdz|FQoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=_%\-]{16,}"),
    F("aws-key", r"amzn\.mws\.[0-9a-f\-]{16,}"),
    F("aws-key", r"amzn1\.oa2-cs\.v1\.[0-9a-f]{16,}"),
    F("google-key", r"AIza[A-Za-z0-9_\-]{30,}"),
    F("google-token", r"ya29\.[A-Za-z0-9_\-.]{16,}"),
    F("google-secret", r"GOCSPX-[A-Za-z0-9_\-]{16,}"),
    F("google-token", r"1//0[A-Za-z0-9_\-]{24,}", word=True),
    F("google-token", r"4/0A[A-Za-z0-9_\-]{24,}", word=True),
    F("google-key", r"GOOG[A-Z0-9]{16,}", word=True, check=mixed(2, 4, 0)),
    F("google-key", r"AQ\.Ab[A-Za-z0-9_\-]{24,}", word=True),
    F("google-key", r"AAAA[A-Za-z0-9_\-]{7}:[A-Za-z0-9_\-]{80,}", word=True),
    F("azure-secret", r"[A-Za-z0-9_~.\-]{3}[78]Q~[A-Za-z0-9_~.\-]{24,}", needs=(b"8Q~", b"7Q~")),
    F(
        "azure-key",
        r"[A-Za-z0-9+/_\-]{24,90}(?:\+(?:ABa|AMC|ASt|ASb|AEh|ARm|AIoT|ACR)|AzFu|AzSe|AzCa|ACDb|APIM|AIoT|AZDO|JQQJ99)[A-Za-z0-9+/_\-]{4,40}={0,2}",
        check=_azure,
        needs=(
            b"+ABa",
            b"+AMC",
            b"+ASt",
            b"+ASb",
            b"+AEh",
            b"+ARm",
            b"+AIoT",
            b"+ACR",
            b"AzFu",
            b"AzSe",
            b"AzCa",
            b"ACDb",
            b"APIM",
            b"AIoT",
            b"AZDO",
            b"JQQJ99",
        ),
    ),
    F("digitalocean-token", r"do[oprt]_v1_[0-9a-f]{16,}"),
    F("cloudflare-token", r"v1\.0-[0-9a-f]{24}-[0-9a-f]{40,}", word=True),
    F("cloudflare-token", r"cf(?:ut|at|k|t)_[A-Za-z0-9_\-]{24,}", word=True),
    F("heroku-key", r"HRKU-[A-Za-z0-9_\-]{16,}", word=True),
    F("alibaba-key", r"LTAI[A-Za-z0-9]{12,26}\b", word=True, check=mixed(1, 1, 1)),
    F("tencent-key", r"AKID[A-Za-z0-9]{28,}", word=True),
    F(
        "yandex-token",
        r"(?:AQVN[A-Za-z0-9_\-]{30,}|y[0-3]_[A-Za-z0-9_\-]{30,}|t1\.[A-Za-z0-9_\-]+=*\.[A-Za-z0-9_\-]{60,}=*|YC[A-Za-z0-9_\-]{38}\b)",
        word=True,
        check=mixed(1, 1, 1),
    ),
    F("ibm-key", r"ApiKey-" + _UUID, word=True),
    F("hosting-token", r"(?:rnd|nfp|nfo|nfc|nfu|napi|rpa|railway|koyeb|upstash)_[A-Za-z0-9]{24,}", word=True),
    F("fly-token", r"(?:fm[12][a-z]?|fo1)_[A-Za-z0-9+/=,_\-]{24,}", word=True),
    F("vercel-token", r"(?:vc[piark]_[A-Za-z0-9]{20,}|vercel_blob_rw_[A-Za-z0-9_]{20,})", word=True),
    F("supabase-key", r"(?:sbp_(?:oauth_|v0_)?[0-9a-f]{30,}|sb_secret_[A-Za-z0-9_\-]{16,})", word=True),
    F("planetscale-token", r"pscale_(?:tkn|pw|oauth|api)_[A-Za-z0-9_.=\-]{16,}"),
    # Chat and mail.
    F("slack-token", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9\-]{10,}"),
    F("slack-token", r"(?:xapp|xwfp)-[A-Za-z0-9\-]{16,}"),
    F("slack-webhook", r"[A-Za-z0-9/_\-]{10,}", before=r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/"),
    F("discord-webhook", r"[0-9]{10,}/[A-Za-z0-9_\-]{20,}", before=r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/"),
    F(
        "discord-token",
        # It begins with the digits of an id in base64, in which neither "-" nor "_" can occur.
        r"[A-Za-z0-9]{23,30}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,}",
        word=True,
        needs=RUN,
        check=mixed(2, 3, 3),
    ),
    F("discord-token", r"mfa\.[A-Za-z0-9_\-]{40,}", word=True),
    F(
        "teams-webhook",
        r"[A-Za-z0-9@/_\-]{36,}",
        before=r"(?:webhook\.office\.com/webhookb2/|outlook\.office\.com/webhook/)",
    ),
    F("zapier-webhook", r"[A-Za-z0-9/]{8,}", before=r"hooks\.zapier\.com/hooks/catch/"),
    F("telegram-token", r"[0-9]{8,10}:AA[A-Za-z0-9_\-]{28,}", check=_telegram, needs=(b":AA",)),
    F("sendgrid-key", r"SG\.[A-Za-z0-9_\-]{16,}(?:\.[A-Za-z0-9_\-]{8,})?", word=True, check=mixed(1, 1, 1)),
    F("mailgun-key", r"key-[0-9a-f]{32}\b", word=True),
    F("mailgun-key", r"[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}\b", word=True, needs=RUN),
    F("mailchimp-key", r"[0-9a-f]{32}-us[0-9]{1,2}\b", word=True, needs=(b"-us",)),
    F("brevo-key", r"x(?:key|smtp)sib-[0-9a-f]{16,}(?:-[A-Za-z0-9]{8,})?"),
    F("mail-key", r"(?:mlsn\.[0-9a-f]{32,}|re_[A-Za-z0-9]{8}_[A-Za-z0-9]{16,})", word=True),
    F("twilio-key", r"SK[0-9a-f]{32}\b", word=True),
    # Payments and commerce.
    F("stripe-key", r"(?:sk|rk)_(?:live|test|prod|org)_[A-Za-z0-9_]{10,}"),
    F("stripe-secret", r"whsec_[A-Za-z0-9+/=]{16,}"),
    F("stripe-secret", r"(?:pi|seti|cs|src)_[A-Za-z0-9_]{10,}_secret_[A-Za-z0-9]{10,}", word=True),
    F("square-token", r"sq0[a-z]{3}-[A-Za-z0-9_\-]{16,}"),
    F("square-token", r"EAAA[A-Za-z0-9_\-]{50,}", word=True),
    F("shopify-token", r"shp[a-z]{2,3}_[A-Za-z0-9]{16,}"),
    F("paypal-token", r"access_token\$(?:production|sandbox)\$[a-z0-9]{8,}\$[0-9a-f]{16,}"),
    F(
        "payment-key",
        r"(?:rzp_(?:live|test)_[A-Za-z0-9]{12,}|FLWSECK(?:_TEST)?-[A-Za-z0-9\-]{10,}|shippo_(?:live|test)_[0-9a-f]{30,}|duffel_(?:live|test)_[A-Za-z0-9_=\-]{30,}|EZ[AT]K[A-Za-z0-9]{40,}|(?:live|test)_[0-9a-f]{35}\b|access-(?:sandbox|development|production)-"
        + _UUID
        + r"|sk_(?:[0-9a-f]{40,}|[A-Za-z0-9]{40,})|pk_[0-9a-f]{34}\b|adyen_[A-Za-z0-9_\-]{30,}|AQE[A-Za-z0-9+/*=_\-]{60,})",
        word=True,
    ),
    # Models.
    F("anthropic-key", r"sk-ant-[A-Za-z0-9_\-]{10,}"),
    F("openai-key", r"sk-(?:proj|svcacct|admin|service|None|or-v1|lf)-[A-Za-z0-9_\-]{12,}", word=True),
    F("openai-key", r"sk-[A-Za-z0-9_\-]{16,}", word=True, check=_has_digit_or_upper),
    F("huggingface-token", r"(?:hf|api_org)_[A-Za-z0-9]{20,}", word=True, check=mixed(0, 2, 2)),
    F(
        "model-key",
        r"(?:gsk|pcsk|jina|fw|lsv2_pt|lsv2_sk|tgp_v1|e2b|esecret|dsk|nebius)_[A-Za-z0-9_\-]{20,}",
        word=True,
        check=mixed(1, 0, 0),
    ),
    F(
        "model-key",
        r"(?:xai|pplx|nvapi|tvly|csk|fc|sk-or|vk|co|pa|gsk|ctx7sk)-[A-Za-z0-9_\-]{24,}",
        word=True,
        check=mixed(2, 0, 0),
    ),
    F("model-key", r"(?:r8|ls_)_[A-Za-z0-9]{24,}", word=True, check=mixed(2, 0, 0)),
    F("model-key", r"wandb_v1_[A-Za-z0-9_\-]{24,}", word=True),
    F("model-key", r"apify_(?:api|proxy)_[A-Za-z0-9]{16,}"),
    F("model-key", r"BSA[A-Za-z0-9_\-]{24,30}\b", word=True, check=mixed(2, 3, 3)),
    # Packages.
    F("npm-token", r"npm_[A-Za-z0-9]{20,}", check=mixed(1, 1, 1)),
    F("pypi-token", r"pypi-A[A-Za-z0-9_\-]{16,}"),
    F("rubygems-key", r"rubygems_[0-9a-f]{16,}"),
    F(
        "registry-token",
        r"(?:oy2[a-z0-9]{43}|cio[A-Za-z0-9]{32}|CLOJARS_[A-Za-z0-9]{30,}|packagist_[a-z]{3}_[0-9a-f]{16,}|AKCp[A-Za-z0-9]{50,}|cmVmdGtu[A-Za-z0-9+/=]{40,})\b",
        word=True,
    ),
    F("docker-token", r"dckr_(?:pat|oat|uat)_[A-Za-z0-9_\-]{16,}"),
    # Infrastructure.
    F("vault-token", r"hv[sbr]\.[A-Za-z0-9_\-]{16,}", word=True),
    F("vault-token", r"[sbr]\.[A-Za-z0-9]{24}\b", word=True, needs=RUN, check=mixed(1, 2, 2)),
    F("terraform-token", r"[A-Za-z0-9]{10,20}\.atlasv1\.[A-Za-z0-9_=\-]{16,}", needs=(b".atlasv1.",)),
    F("doppler-token", r"dp\.(?:pt|st|ct|sa|scim|audit|said)\.[A-Za-z0-9_.\-]{16,}", word=True),
    F("databricks-token", r"(?:dapi|dkea|dose|doo)[0-9a-f]{32}(?:-\d)?", word=True),
    F("databricks-token", r"dapi[A-Za-z0-9]{24,}", word=True, check=mixed(2, 0, 1)),
    F("grafana-token", r"gl(?:sa|c)_[A-Za-z0-9+/=_\-]{16,}"),
    F("newrelic-key", r"NR(?:AK|II|IQ|RA|AA|JS|SP|BR|AL)-[A-Za-z0-9_\-]{16,}", word=True),
    F("newrelic-key", r"[0-9a-f]{36}NRAL\b", word=True, needs=(b"NRAL",)),
    F("dynatrace-token", r"dt0[a-z][0-9]{2}\.[A-Z0-9]{8,24}(?:\.[A-Z0-9]{20,64})?", word=True),
    F("sentry-token", r"sntry[a-z]_[A-Za-z0-9_=+/\-]{16,}"),
    F(
        "observability-key",
        r"(?:hc[a-z]{2,3}_[a-z0-9]{40,}|xa[ap]t-"
        + _UUID
        + r"|phx_[A-Za-z0-9]{30,}|sq[upa]_[0-9a-f]{30,}|lgk_[A-Za-z0-9]{30,}|cflt[A-Za-z0-9+/]{50,})",
        word=True,
    ),
    F("tailscale-key", r"tskey-[a-z]{2,10}-[A-Za-z0-9\-]{10,}"),
    F("tailscale-key", r"tskey-[A-Za-z0-9]{16,}"),
    F(
        "ci-token",
        r"(?:bk[a-z]{1,3}_[0-9a-f]{30,}|CCI(?:PAT|PRJ)_[A-Za-z0-9_]{20,}|pul-[0-9a-f]{30,}|pn[ub]_[A-Za-z0-9]{30,}|ico-[A-Za-z0-9]{32}|(?:pat|sat)\.[A-Za-z0-9_\-]{20,24}\.[A-Za-z0-9]{20,26}\.[A-Za-z0-9]{16,22}|signkey-[a-z]+-[0-9a-f]{20,}|tr_(?:dev|prod|stg)_[A-Za-z0-9]{16,})",
        word=True,
    ),
    F("launchdarkly-key", r"(?:api|sdk)-" + _UUID, word=True),
    F("onepassword-token", r"ops_ey[A-Za-z0-9+/=_\-]{30,}", word=True),
    F(
        "onepassword-key",
        r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}",
        word=True,
    ),
    # Work tools.
    F("linear-key", r"lin_(?:api|oauth|wh|in)_[A-Za-z0-9]{16,}"),
    F("notion-token", r"(?:secret_[A-Za-z0-9]{32,}|ntn_[A-Za-z0-9]{24,})", word=True),
    F("postman-key", r"PM(?:AK|AT)-[A-Za-z0-9\-]{20,}"),
    F("airtable-token", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{32,}", word=True, needs=RUN),
    F("airtable-token", r"key[A-Za-z0-9]{14}\b", word=True, opening=r"key[A-Za-z0-9]{14}", check=mixed(2, 3, 2)),
    F("figma-token", r"fig[a-z]{1,2}_[A-Za-z0-9_\-]{20,}", word=True),
    F("dropbox-token", r"sl\.(?:u\.)?[A-Za-z0-9_\-]{40,}", word=True),
    F("asana-token", r"[0-2]/[0-9]{10,}(?:/[0-9]{10,})?:[0-9a-f]{32}", word=True, needs=RUN),
    F("contentful-token", r"CFPAT-[A-Za-z0-9_\-]{30,}"),
    F("hubspot-token", r"pat-[a-z]{2,3}\d-" + _UUID, word=True),
    F("salesforce-token", r"00D[A-Za-z0-9]{12,15}![A-Za-z0-9._]{30,}", word=True),
    F("okta-token", r"00[A-Za-z0-9_\-]{40}\b", word=True, check=mixed(2, 3, 3)),
    F("typeform-token", r"tfp_[A-Za-z0-9_.=\-]{30,}", word=True),
    F("mapbox-token", r"sk\.ey[A-Za-z0-9_\-.]{30,}", word=True),
    F(
        "saas-key",
        r"(?:rdme_[a-z0-9]{50,}|aio_[A-Za-z0-9]{24,}|zpka_[a-z0-9]{30,}_[a-z0-9]{8}|nyk_v0_[A-Za-z0-9]{20,}|os_v2_[a-z]{3}_[a-z0-9]{40,}|ion_[A-Za-z0-9]{40,}|sec-c-[A-Za-z0-9]{30,}|cal_(?:live_)?[0-9a-f]{32}|WPL_AP[01]\.[A-Za-z0-9.]{10,}|pina_[A-Za-z0-9]{20,}|IG(?:QV|QW|AA)[A-Za-z0-9_\-]{40,}|1000\.[0-9a-f]{32}\.[0-9a-f]{32}|fio-u-[A-Za-z0-9_\-=]{30,}|b_[A-Za-z0-9=_/\-]{44}\b|ak-[A-Za-z0-9]{22}\b|as-[A-Za-z0-9]{22}\b|cu_[0-9a-f]{32}\b|secret-token:[A-Za-z0-9_%./+=\-]{10,}|npa_[A-Za-z0-9]{20,}|dG9rOg[A-Za-z0-9+/=]{30,})",
        word=True,
        check=mixed(1, 0, 1),
    ),
    F("facebook-token", r"EAA[A-Za-z0-9]{30,}", word=True, check=mixed(2, 2, 2)),
    F("facebook-token", r"[0-9]{13,17}\|[A-Za-z0-9_\-]{24,}", word=True, needs=(b"|",)),
    F("twitter-token", r"A{20,}[A-Za-z0-9%]{40,}", word=True, needs=(b"A" * 20,)),
    # Password hashes are what an attacker cracks.
    F("password-hash", r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{50,53}"),
    F("password-hash", r"\$(?:1|5|6|7|y|gy|apr1|argon2(?:id|i|d)|scrypt|pbkdf2(?:-sha\d+)?)\$[^\s\"':,;<>\\]{16,}"),
    F("password-hash", r"(?:pbkdf2_sha\d+|bcrypt_sha256|argon2|scrypt)\$[^\s\"',;<>\\]{20,}"),
    F("password-hash", r"\{(?:SSHA|SHA|SMD5|CRYPT|SSHA256|SSHA512|MD5)\}[A-Za-z0-9+/=$.]{16,}"),
)
