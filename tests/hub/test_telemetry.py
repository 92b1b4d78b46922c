import json
import logging
import subprocess
import sys

import pytest

from hub.telemetry import redact_text

CANARIES = ["646180157000000017", "4111111111111111", "GODE561231GR8", "GODE561231HDFRRN09"]


@pytest.mark.parametrize("canary", CANARIES)
def test_personal_data_inside_a_sentence_is_masked(canary: str):
    assert canary not in redact_text(f"the account {canary} was refused")


def test_a_password_inside_a_url_is_masked():
    assert "hunter2" not in redact_text("postgresql+psycopg://owner:hunter2@127.0.0.1:5433/payhub")


def test_a_token_is_masked():
    assert "eyJ" not in redact_text("Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl")


def test_ids_of_payments_stay_readable():
    payment = "0193b5c4-7f3e-7c7d-9f7e-123456789012"
    assert payment in redact_text(f"payment {payment} settled")


def test_a_log_line_is_one_json_object_without_personal_data():
    program = (
        "from hub.telemetry import configure_logging, logger\n"
        "import logging\n"
        "configure_logging('test')\n"
        "facts = {'payment_id': 'p-1', 'job_key': 2251799813685249, 'payee': {'name': 'Ana'}}\n"
        "logger('a').info('sent', **facts, note='646180157000000017')\n"
        "logging.getLogger('library').error('cannot reach 646180157000000017')\n"
        "try:\n    raise ValueError('646180157000000017')\nexcept ValueError:\n    logger('a').exception('broken')\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["sent", "cannot reach ***", "broken"]
    assert lines[0] | {"component": "test", "job_key": 2251799813685249, "payee": "***", "note": "***"} == lines[0]
    assert "646180157000000017" not in ran.stderr
    assert logging.getLogger("library").handlers == []
