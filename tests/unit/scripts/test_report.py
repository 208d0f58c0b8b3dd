"""What `make report` lays over all that it gathers: nothing of it may carry a secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REPORT = Path(__file__).resolve().parents[3] / "scripts/report"


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("endpoint http://ann:pa55@hub.example/x", "endpoint http://***@hub.example/x"),
        ("endpoint http://ann:p@ss/w@hub.example/x", "endpoint http://***@hub.example/x"),
        ("      MODEL_CACHE_TOKEN: abc.def", "      MODEL_CACHE_TOKEN: ***"),
        ("HF_TOKEN=/abcDEF123", "HF_TOKEN=***"),
        ("API_TOKEN='two words'", "API_TOKEN=***"),
        ("api-key: supersecret", "api-key: ***"),
        ('"token": "abc"', '"token": ***'),
        ("GET /x?access_token=abc", "GET /x?access_token=***"),
        ('GF_SECURITY_ADMIN_PASSWORD="hunter2"', "GF_SECURITY_ADMIN_PASSWORD=***"),
        ('{"authorization": "Bearer abc123"}', '{"authorization": "Bearer ***"}'),
        ("key sk-abcdefgh1234 and hf_abcdefgh1234", "key sk-*** and hf_***"),
        ("MODEL_CACHE_TOKEN_FILE: /run/secrets/token", "MODEL_CACHE_TOKEN_FILE: /run/secrets/token"),
        ('gateway_completion_tokens_total{model="m"} 7', 'gateway_completion_tokens_total{model="m"} 7'),
        ("https://modelscope.cn/a@b", "https://modelscope.cn/a@b"),
        (
            r'err="Post \"https://hooks.example/T0/s3cr3t\": EOF"',
            r'err="Post \"https://hooks.example/***\": EOF"',
        ),
        (
            'err="unexpected status code 404: https://hooks.example/T0/s3cr3t: no_team"',
            'err="unexpected status code 404: https://hooks.example/***: no_team"',
        ),
    ],
)
def test_secrets_are_masked_and_nothing_else(said: str, masked: str) -> None:
    done = subprocess.run([REPORT, "--mask"], input=said, capture_output=True, text=True, check=True)
    assert done.stdout == masked
