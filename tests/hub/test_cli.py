"""The command line without servers: what it says when something is missing, and what needs no server at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.stp.signature import generate_key_pair

PAYHUB = str(Path(sys.executable).with_name("payhub"))


def payhub(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PAYHUB, *words], capture_output=True, text=True, check=False, cwd=folder)


def test_a_token_without_a_stack_says_how_to_start_one(tmp_path: Path):
    ran = payhub("token", "--role", "channel", "--tenant", "acme", folder=tmp_path)
    assert ran.returncode == 1
    assert "payhub up" in ran.stderr


def test_a_command_that_needs_a_database_names_the_setting_and_the_fix(tmp_path: Path):
    ran = payhub("ledger", "verify", "--json", folder=tmp_path)
    assert ran.returncode == 1
    error = json.loads(ran.stdout)["error"]
    assert "PAYHUB_DATABASE_URL" in error
    assert "--data-dir" in error


@pytest.mark.parametrize("words", [("work", "nobody"), ("serve", "nothing"), ("bench", "nonsense")])
def test_an_unknown_worker_service_or_benchmark_is_answered_with_those_there_are(
    tmp_path: Path, words: tuple[str, str]
):
    ran = payhub(*words, folder=tmp_path)
    assert ran.returncode == 1
    assert "there are" in ran.stderr
    ran = payhub(*words, "--json", folder=tmp_path)
    assert ran.returncode == 1
    assert "there are" in json.loads(ran.stdout)["error"]


def test_an_outcome_that_is_none_is_refused(tmp_path: Path):
    ran = payhub("payment", "decide", "p-1", "--outcome", "UNKNOWN", "--note", "x", folder=tmp_path)
    assert ran.returncode == 1
    assert "SETTLED, REJECTED, RETURNED, CANCELLED" in ran.stderr


def test_the_drawings_are_as_coded(tmp_path: Path):
    ran = payhub("bpmn", "check", "--json", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert json.loads(ran.stdout)["findings"] == []


ORDER = {
    "institucionContraparte": 40072,
    "empresa": "TAMIZI",
    "claveRastreo": "CR1564969083",
    "institucionOperante": 90646,
    "monto": 1.2,
    "tipoPago": 1,
    "tipoCuentaOrdenante": 40,
    "cuentaOrdenante": "646180110400000007",
    "tipoCuentaBeneficiario": 40,
    "nombreBeneficiario": "Ricardo Sanchez",
    "cuentaBeneficiario": "072691004495711499",
    "rfcCurpBeneficiario": "ND",
    "conceptoPago": "Prueba",
    "referenciaNumerica": 5273144,
    "topologia": "T",
    "medioEntrega": 3,
    "prioridad": 0,
}


def test_an_order_is_joined_and_signed(tmp_path: Path):  # L42
    private, _ = generate_key_pair(tmp_path)
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    ran = payhub("stp", "sign", "order.json", "--key", str(private), folder=tmp_path)
    signed = json.loads(ran.stdout)
    assert signed["joined"] == (
        "||40072|TAMIZI|||CR1564969083|90646|1.20|1|40||646180110400000007||40|Ricardo Sanchez|072691004495711499|ND"
        "||||||Prueba||||||5273144||T||3|0|||"
    )
    assert len(signed["signature"]) == 344


def test_a_bad_order_is_refused_with_the_field_named(tmp_path: Path):
    private, _ = generate_key_pair(tmp_path)
    (tmp_path / "order.json").write_text(json.dumps(ORDER | {"conceptoPago": "a|b"}))
    ran = payhub("stp", "sign", "order.json", "--key", str(private), folder=tmp_path)
    assert ran.returncode == 1
    assert "conceptoPago" in ran.stderr
    assert ran.stdout == ""
