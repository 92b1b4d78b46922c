"""No account, name, key or joined string in any log line, metric, message to the engine or error."""

from __future__ import annotations

import logging

import pytest
import structlog
from prometheus_client import generate_latest

from hub.testing import Failed, Thrown, run
from hub.transfer import IdentifierType, Party

CLABE = "002010077777777771"
NAME = "Canaria Secreta"
RFC = "CASE800101AB1"
CONCEPT = "CONCEPTO CANARIO"


@pytest.fixture
def lines(capsys, caplog):
    """Everything that was printed or logged, unredacted."""
    structlog.reset_defaults()
    caplog.set_level(logging.DEBUG)
    yield lambda: "".join(capsys.readouterr()) + caplog.text
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "do",
    ["settle", "refuse", "lose-answer", "lose-request", {"answer": "403", "registers": False},
     {"refuse": -27, "text": f"Cuenta {CLABE} de {NAME}", "registers": False},
     {"refuse": 0, "text": f"Error validando la firma de {CLABE}", "registers": False},
     {"refuse": -1, "steps": []}, {"answer": "garbage", "times": 1}],
)  # fmt: skip
async def test_nothing_personal_leaves_the_database(rail, lines, do):
    party = Party(id_type=IdentifierType.CLABE, identifier=CLABE, name=NAME, tax_id=RFC)
    job = rail.job(payee=party, payer=party, concept=CONCEPT)
    await rail.rule(job, do)
    endings = [await run(rail.worker, job)]
    if not isinstance(endings[0], (Thrown, Failed)):
        endings.append(await run(rail.worker, rail.ask(job)))
    await rail.post_status({"id": 5, "claveRastreo": rail.key(job), "estado": f"X{CLABE}", "nombreCep": NAME})
    await rail.post_status({"id": 5, "claveRastreo": rail.key(job), "estado": "D", "causaDevolucion": f"A {CLABE}"})
    shown = lines() + generate_latest().decode() + repr(endings) + repr(rail.engine.messages)
    for canary in (CLABE, NAME, NAME.upper(), RFC, CONCEPT, "||", '"firma"', rail.settings.payer_account):
        assert canary not in shown


async def test_an_order_does_not_print_its_account(rail):
    job = rail.job()
    await rail.worker.send_order(job)
    assert job.payee.identifier not in repr(await rail.order(job))
