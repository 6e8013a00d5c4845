//! Secrets: providers' tokens by their form, and values beside a word that says what they are.
//!
//! Owns the rows of `secret.*`. A form that nothing else has needs no context; a form that others share needs a check
//! for randomness. A stand-in (`ghp_xxxx…`) is no secret.

use crate::detect::{
    checks::secret::{
        access_key, aws_secret, basic, bearer, connection, keyed_password, keyed_token, private_key, random_token,
        token,
    },
    pattern::{At, Edge, Pattern, accept},
};
use crate::domain::detection::{Family, Severity};

/// A provider's token: begins where its literal begins, critical, checked for stand-ins.
const fn provider(
    category: &'static str,
    label: &'static str,
    triggers: &'static [&'static str],
    expression: &'static str,
) -> Pattern {
    Pattern::new(Family::Secrets, category, label, At::Start(triggers), expression)
        .severity(Severity::Critical)
        .score(9_800)
        .edges(Edge::Word, Edge::Word)
        .check(token)
}

/// A value behind a word that names it.
const fn keyed(
    category: &'static str,
    label: &'static str,
    triggers: &'static [&'static str],
    lead: &'static str,
    expression: &'static str,
) -> Pattern {
    Pattern::new(Family::Secrets, category, label, At::Start(triggers), expression)
        .lead(lead)
        .edges(Edge::Any, Edge::Any)
        .check(keyed_token)
}

/// Tokens with a form of their own.
pub(in crate::detect) const TABLE: &[Pattern] = &[
    provider(
        "secret.aws_access_key",
        "AWS access key id",
        &["AKIA", "ASIA", "ABIA", "ACCA"],
        "A(?:KI|SI|BI|CC)A[A-Z2-7]{16}",
    )
    .check(access_key),
    provider(
        "secret.github_token",
        "GitHub token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        "gh[pousr]_[A-Za-z0-9]{36,251}",
    )
    .reach(260),
    provider("secret.github_token", "GitHub fine-grained token", &["github_pat_"], "github_pat_[A-Za-z0-9_]{50,90}"),
    provider(
        "secret.openai_key",
        "OpenAI key",
        &["sk-proj-", "sk-svcacct-", "sk-admin-"],
        "sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}",
    ),
    provider("secret.openai_key", "OpenAI key", &["sk-"], "sk-[A-Za-z0-9]{20,64}")
        .edges(Edge::Token, Edge::Token)
        .score(9_000)
        .check(random_token),
    provider("secret.anthropic_key", "Anthropic key", &["sk-ant-"], "sk-ant-[a-z0-9]{3,12}-[A-Za-z0-9_-]{20,}")
        .score(9_900),
    provider("secret.openrouter_key", "OpenRouter key", &["sk-or-"], "sk-or-v1-[a-f0-9]{40,72}").score(9_900),
    provider("secret.google_api_key", "Google API key", &["AIza"], "AIza[A-Za-z0-9_-]{35}")
        .edges(Edge::Word, Edge::Token),
    provider("secret.google_oauth", "Google OAuth secret", &["GOCSPX-"], "GOCSPX-[A-Za-z0-9_-]{28}"),
    provider("secret.google_oauth", "Google access token", &["ya29."], r"ya29\.[A-Za-z0-9_-]{40,}").reach(260),
    provider(
        "secret.slack_token",
        "Slack token",
        &["xoxb-", "xoxp-", "xoxa-", "xoxo-", "xoxs-", "xoxr-", "xoxe-", "xoxc-", "xoxd-"],
        "xox[abcdeoprs]-[A-Za-z0-9-]{20,200}",
    ),
    provider("secret.slack_token", "Slack app token", &["xapp-"], r"xapp-\d-[A-Z0-9]{6,16}-\d{6,16}-[a-z0-9]{32,128}"),
    provider(
        "secret.slack_webhook",
        "Slack webhook",
        &["hooks.slack.com/"],
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[TE][A-Z0-9]{6,14}/[A-Za-z0-9]{6,20}/[A-Za-z0-9]{16,40}",
    ),
    provider(
        "secret.discord_webhook",
        "Discord webhook",
        &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"],
        r"discord(?:app)?\.com/api/webhooks/\d{16,20}/[A-Za-z0-9_-]{50,90}",
    ),
    provider(
        "secret.stripe_key",
        "Stripe key",
        &["sk_live_", "sk_test_", "rk_live_", "rk_test_"],
        "[sr]k_(?:live|test)_[A-Za-z0-9]{16,200}",
    ),
    provider("secret.stripe_key", "Stripe webhook secret", &["whsec_"], "whsec_[A-Za-z0-9+/=]{24,80}")
        .edges(Edge::Word, Edge::Any),
    provider(
        "secret.gitlab_token",
        "GitLab token",
        &["glpat-", "glptt-", "gldt-", "glrt-", "glcbt-", "glsoat-", "glft-", "glagent-"],
        r"gl(?:pat|ptt|dt|rt|cbt|soat|ft|agent)-[A-Za-z0-9_.-]{20,64}",
    ),
    provider("secret.npm_token", "npm token", &["npm_"], "npm_[A-Za-z0-9]{36}"),
    provider("secret.pypi_token", "PyPI token", &["pypi-AgE"], "pypi-AgE[A-Za-z0-9_-]{50,}").reach(270),
    provider("secret.rubygems_token", "RubyGems key", &["rubygems_"], "rubygems_[a-f0-9]{48}"),
    provider(
        "secret.docker_token",
        "Docker Hub token",
        &["dckr_pat_", "dckr_oat_"],
        "dckr_[po]at_[A-Za-z0-9_-]{20,40}",
    ),
    provider("secret.sendgrid_key", "SendGrid key", &["SG."], r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
    provider("secret.twilio_key", "Twilio key", &["SK"], "SK[0-9a-f]{32}").edges(Edge::Token, Edge::Token),
    provider("secret.mailgun_key", "Mailgun key", &["key-"], "key-[0-9a-f]{32}").edges(Edge::Token, Edge::Token),
    provider("secret.mailchimp_key", "Mailchimp key", &["-us"], r"-us[0-9]{1,2}")
        .edges(Edge::Any, Edge::Word)
        .check(crate::detect::checks::secret::mailchimp),
    provider("secret.telegram_token", "Telegram bot token", &[":AA"], ":AA[A-Za-z0-9_-]{33}")
        .edges(Edge::Any, Edge::Word)
        .check(crate::detect::checks::secret::telegram),
    provider("secret.huggingface_token", "Hugging Face token", &["hf_"], "hf_[A-Za-z0-9]{34,40}"),
    provider("secret.groq_key", "Groq key", &["gsk_"], "gsk_[A-Za-z0-9]{40,60}"),
    provider("secret.xai_key", "xAI key", &["xai-"], "xai-[A-Za-z0-9]{60,90}"),
    provider("secret.perplexity_key", "Perplexity key", &["pplx-"], "pplx-[A-Za-z0-9]{40,60}"),
    provider("secret.replicate_token", "Replicate token", &["r8_"], "r8_[A-Za-z0-9]{37}"),
    provider(
        "secret.digitalocean_token",
        "DigitalOcean token",
        &["dop_v1_", "doo_v1_", "dor_v1_"],
        "do[opr]_v1_[a-f0-9]{64}",
    ),
    provider("secret.databricks_token", "Databricks token", &["dapi"], "dapi[a-f0-9]{32}(?:-[0-9])?"),
    provider("secret.vault_token", "HashiCorp Vault token", &["hvs.", "hvb."], r"hv[sb]\.[A-Za-z0-9_-]{24,200}"),
    provider("secret.terraform_token", "Terraform token", &[".atlasv1."], r"\.atlasv1\.[A-Za-z0-9_=-]{60,70}")
        .edges(Edge::Any, Edge::Word),
    provider(
        "secret.shopify_token",
        "Shopify token",
        &["shpat_", "shpca_", "shppa_", "shpss_"],
        "shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    ),
    provider("secret.square_token", "Square token", &["sq0csp-", "sq0atp-"], "sq0(?:csp|atp)-[A-Za-z0-9_-]{22,43}"),
    provider("secret.linear_key", "Linear key", &["lin_api_"], "lin_api_[A-Za-z0-9]{40}"),
    provider("secret.notion_token", "Notion token", &["ntn_"], "ntn_[A-Za-z0-9]{40,50}"),
    provider("secret.atlassian_token", "Atlassian token", &["ATATT3"], "ATATT3[A-Za-z0-9_=-]{100,220}"),
    provider("secret.figma_token", "Figma token", &["figd_"], "figd_[A-Za-z0-9_-]{38,44}"),
    provider(
        "secret.planetscale_token",
        "PlanetScale token",
        &["pscale_"],
        r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,64}",
    ),
    provider("secret.grafana_token", "Grafana token", &["glsa_", "glc_"], "gl(?:sa|c)_[A-Za-z0-9+/=_]{32,}")
        .reach(260)
        .edges(Edge::Word, Edge::Any),
    provider("secret.newrelic_key", "New Relic key", &["NRAK-"], "NRAK-[A-Z0-9]{27}"),
    provider(
        "secret.doppler_token",
        "Doppler token",
        &["dp.pt.", "dp.st.", "dp.ct."],
        r"dp\.[psc]t\.[A-Za-z0-9_.-]{40,60}",
    ),
    provider("secret.postman_key", "Postman key", &["PMAK-"], "PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    provider("secret.age_key", "age secret key", &["AGE-SECRET-KEY-1"], "AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    provider("secret.tappass_key", "tappass key", &["tp_"], "tp_(?:dev_|pat_|adm_)?[A-Za-z0-9_-]{24,160}")
        .check(random_token),
    provider(
        "secret.jwt",
        "JSON web token",
        &["eyJ"],
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}",
    )
    .edges(Edge::Token, Edge::Any)
    .reach(4_096)
    .score(9_500)
    .severity(Severity::High),
    provider(
        "secret.private_key",
        "Private key",
        &["-----BEGIN"],
        "(?i)-----BEGIN (?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----",
    )
    .edges(Edge::Any, Edge::Any)
    .check(private_key),
];

/// Values that only their neighbours give away.
pub(in crate::detect) const KEYED: &[Pattern] = &[
    Pattern::new(
        Family::Secrets,
        "secret.connection_string",
        "Connection string with a password",
        At::Within { triggers: &["://"], back: 24 },
        r#"[A-Za-z][A-Za-z0-9+.-]{1,22}://[^\s:/@"'<>`\\]{0,80}:[^\s/@"'`\\]{1,128}@[A-Za-z0-9\[_{$%-]"#,
    )
    .severity(Severity::Critical)
    .score(9_300)
    .edges(Edge::Any, Edge::Any)
    .reach(220)
    .check(connection),
    keyed(
        "secret.aws_secret_key",
        "AWS secret access key",
        &["secret_access", "secret-access", "secret access", "secretaccess", "aws_secret", "aws-secret", "aws secret", "awssecret"],
        r#"(?i)(?:secret[_ -]?access[_ -]?key|aws[_ -]?secret(?:[_ -]?(?:access[_ -]?)?key)?)\\?["'\]]{0,2}\s{0,3}(?::=|=>|=|:| is )\s{0,3}\\?["'`]?"#,
        "[A-Za-z0-9/+]{40}",
    )
    .edges(Edge::Any, Edge::Token)
    .severity(Severity::Critical)
    .score(9_700)
    .check(aws_secret),
    keyed(
        "secret.azure_key",
        "Azure storage key",
        &["AccountKey=", "SharedAccessKey="],
        "(?i)(?:AccountKey|SharedAccessKey)=",
        "[A-Za-z0-9+/]{43,86}={0,2}",
    )
    .severity(Severity::Critical)
    .score(9_700)
    .check(accept),
    keyed(
        "secret.bearer_token",
        "Bearer token",
        &["bearer "],
        "(?i)bearer {1,2}",
        r"[A-Za-z0-9_.~+/=-]{20,}",
    )
    .reach(620)
    .edges(Edge::Word, Edge::Any)
    .check(bearer),
    keyed(
        "secret.basic_auth",
        "Basic authorization",
        &["authorization: basic ", "authorization\": \"basic ", "authorization': 'basic "],
        r#"(?i)authorization["']?: ?["']?basic "#,
        "[A-Za-z0-9+/]{12,}={0,2}",
    )
    .reach(300)
    .check(basic),
    keyed(
        "secret.generic_token",
        "Value of a token or key",
        &["secret", "token", "api_key", "api-key", "apikey", "api key", "secret_key", "secret-key", "secretkey", "secret key", "access_key", "access-key", "accesskey", "access key", "auth_key", "auth-key", "authkey", "auth key", "private_key", "privatekey", "encryption_key", "encryptionkey", "signing_key", "signingkey", "client_secret", "clientsecret", "app_secret", "appsecret", "signing_secret", "signingsecret", "shared_secret", "sharedsecret", "webhook_secret", "webhooksecret", "jwt_secret", "jwtsecret", "session_secret", "sessionsecret"],
        r#"(?i)(?:(?:api|secret|access|auth)[_ -]?key|(?:private|encryption|signing)_?key|(?:client|app|signing|shared|webhook|jwt|session)_?secret|secret|token)(?:\\?["'\]]{0,2}\s{0,3}(?::\s?[&A-Za-z<>'._]{2,24}\s?=\s?|:=|=>|=|:| is )|>)\s{0,3}\\?["'`]?"#,
        r"[A-Za-z0-9_.~+/=-]{16,}",
    )
    .score(8_500),
    keyed(
        "secret.password",
        "Value of a password",
        &["password", "passwd", "passphrase", "passwort", "pwd", "db_pass", "dbpass", "mot_de_passe", "contrase"],
        r#"(?i)(?:passwor[dt]|passwd|passphrase|pwd|db_?pass|mot_de_passe|contrase(?:ñ|n)a)(?:\\?["'\]]{0,2}\s{0,3}(?::\s?[&A-Za-z<>'._]{2,24}\s?=\s?|:=|=>|=|:| is:? | was )|>)\s{0,3}\\?["'`]?"#,
        r"[!#-&(-+\--:=?-_a-~]{6,128}",
    )
    .score(8_500)
    .check(keyed_password),
];
