"""Which parameters of a URL carry a secret, service by service, and which only look so."""

from __future__ import annotations

import pytest

from tasks.contracts.redaction import is_secret_name, literal_secrets, without_secrets

SECRET = {
    "S3, SigV4": "X-Amz-Signature X-Amz-Credential X-Amz-Security-Token",
    "S3, SigV2": "AWSAccessKeyId Signature",
    "Google Cloud Storage": "X-Goog-Signature X-Goog-Credential GoogleAccessId Signature",
    "Azure SAS": "sig sas sasToken",
    "Azure storage": "AccountKey SharedKey",
    "Azure interfaces": "subscription-key Ocp-Apim-Subscription-Key x-functions-key",
    "CloudFront": "Policy Signature Key-Pair-Id",
    "Akamai": "hdnts hdnea hdntl hdnts.token",
    "Alibaba": "OSSAccessKeyId x-oss-signature x-oss-security-token auth_key",
    "Tencent": "q-signature q-ak x-cos-security-token sign txSecret",
    "Huawei, Volcano": "AccessKeyId X-Obs-Signature X-Tos-Signature X-Tos-Credential",
    "Swift": "temp_url_sig",
    "Backblaze": "Authorization",
    "Hawk": "bewit",
    "WebHDFS": "delegation",
    "GitLab, GitHub": "private_token job_token access_token feed_token pat personal_access_token",
    "GitLab, Azure DevOps, upper case": "PRIVATE-TOKEN PAT",
    "Dropbox, Drive, OneDrive, SharePoint": "rlkey resourcekey authkey tempauth",
    "OAuth": "oauth_token oauth_signature oauth_consumer_key client_secret id_token refresh_token client_assertion",
    "SAML": "SAMLResponse",
    "APIs": "key api_key apiKey api.key x-api-key appKey app_code developerKey master_key hmac jwt bearer api_sig",
    "passwords": "password passwd pass pwd pw pswd passphrase passcode user_password db-password",
    "logins": "auth http_auth authorization auth_code access_code otp totp credentials",
    "sessions": "session sessionId PHPSESSID jsessionid sid session_key",
    "brackets": "user[password] auth[token]",
    "encoded": "api%5Fkey private%5ftoken",
}
HARMLESS = (
    # What stands beside a signature and opens nothing without it.
    *("se", "st", "sp", "sv", "sr", "spr", "skoid", "Expires", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Algorithm"),
    *("X-Amz-SignedHeaders", "X-Goog-Date", "X-Goog-Expires", "temp_url_expires", "q-sign-algorithm", "q-key-time"),
    # What only looks like one.
    *("page", "q", "v", "id", "lang", "path", "format", "pattern", "patch", "compat", "spat", "design", "config"),
    *("author", "authors", "keyword", "keywords", "monkey", "sort_key", "signed", "passage", "bypass", "token_count"),
    *("assign", "campaign", "sessions", "side", "password_reset", "code", "hash", "user", "login", "cursor"),
)


@pytest.mark.parametrize("service", SECRET)
def test_a_services_secrets_are_seen_and_hidden(service: str) -> None:
    for name in SECRET[service].split():
        for before in ("?", "?page=2&", ";", "#"):
            url = f"https://h.example/a{before}{name}=s3cr3t&x=1"
            assert f"the query parameter {name}" in literal_secrets(url), url
            assert without_secrets(f"GET {url}") == f"GET https://h.example/a{before}{name}=***&x=1"
        assert not literal_secrets(f"https://h.example/a?{name}=${{NAME}}")


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names_are_left(name: str) -> None:
    assert not is_secret_name(name)
    assert without_secrets(f"https://h.example/a?{name}=value") == f"https://h.example/a?{name}=value"
