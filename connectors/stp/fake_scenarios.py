"""What can happen to an order at the pretend STP, and how one says that it should.

Four ways, the first that applies wins: a rule set through the control API, chance when faults are switched on, the
cents of the amount, or "it settles".
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

Kind = TypeVar("Kind", bound=str)

AnswerKind = Literal["normal", "lost", "500", "502", "403", "truncated", "garbage", "slow", "no-response", "id-as-text"]
"""How the request is answered: rightly, or in one of the ways in which an answer goes wrong.

`lost`: the connection is closed without a byte. `slow`: after `slow_by` seconds. `no-response`: id 0, "No se recibió
respuesta del servicio". The rest is what it says.
"""


class Step(BaseModel):
    """One change of an order's state, and whether and how STP tells of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estado: str
    causa: int | str | None = None
    after: float = Field(default=0.0, ge=0)
    """Seconds since the order was accepted, added to the simulator's own delay."""
    report: bool = True
    times: int = Field(default=1, ge=1, le=50)
    """How many times it is posted even though it was answered rightly."""
    key: str | None = None
    """A tracking key to post instead of the order's own; the id is then another one too, and no state changes."""
    id_as_text: bool = False
    word: str | None = None
    """A word to post instead of the state's own."""


class Scenario(BaseModel):
    """What happens to one order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    refuse: int | None = None
    """Answer with this error number."""
    text: str = "Rechazada por el simulador"
    """The error's text."""
    registers: bool = True
    """Whether the order comes into being. A refused one does not, unless `refuse` is -1."""
    answer: AnswerKind = "normal"
    slow_by: float = Field(default=60.0, ge=0)
    callback_first: bool = False
    """Post the first callback, and wait for its answer, before the order itself is answered."""
    hidden_for: float = Field(default=0.0, ge=0)
    """Seconds in which inquiries do not find the order."""
    times: int | None = Field(default=None, ge=1)
    """Happens to this many attempts of one order only; later ones go well."""
    steps: tuple[Step, ...] = (Step(estado="LQ"),)


_SETTLED: Final = Step(estado="LQ")
_SETTLED_UNSEEN: Final = Step(estado="LQ", report=False)
_RETURNED: Final = Step(estado="D", causa=1)
_CANCELLED: Final = Step(estado="CN")

SETTLES: Final = Scenario()

PRESETS: Final[Mapping[str, Scenario]] = {
    "settle": SETTLES,
    "refuse": Scenario(refuse=-20, text="El monto es invalido", registers=False),
    "cancel": Scenario(steps=(_CANCELLED,)),
    "return": Scenario(steps=(_RETURNED,)),
    "return-later": Scenario(steps=(_SETTLED, Step(estado="D", causa=1, after=1.0))),
    "silent": Scenario(steps=()),
    "lose-answer": Scenario(answer="lost", times=1, steps=(_SETTLED_UNSEEN,)),
    "lose-request": Scenario(answer="lost", times=1, registers=False),
    "repeat": Scenario(steps=(Step(estado="LQ", times=20),)),
    "reorder": Scenario(steps=(_RETURNED, Step(estado="LQ", after=0.2))),
    "delay": Scenario(steps=(Step(estado="LQ", after=5.0),)),
    "callback-first": Scenario(callback_first=True),
    "hide-a-while": Scenario(answer="lost", times=1, hidden_for=3.0, steps=(_SETTLED_UNSEEN,)),
    "error-500": Scenario(answer="500", times=1),
    "error-502": Scenario(answer="502", times=1, registers=False),
    "error-403": Scenario(answer="403", times=1, registers=False),
    "slow": Scenario(answer="slow", times=1),
    "sluggish": Scenario(answer="slow", slow_by=3.0, times=1),
    "truncated": Scenario(answer="truncated", times=1),
    "garbage": Scenario(answer="garbage", times=1),
    "no-response": Scenario(answer="no-response", times=1),
    "no-response-not-taken": Scenario(answer="no-response", times=1, registers=False),
    "taken-yet-duplicate": Scenario(refuse=-1, text="Clave de rastreo duplicada"),
    "undocumented": Scenario(refuse=-27, text="", registers=False),
    "launder": Scenario(refuse=-200, text="Rechazada por PLD", registers=False),
    "consults-only": Scenario(refuse=-30, text="Plataforma en modo de consulta", registers=False, times=1),
    "twice": Scenario(steps=(Step(estado="LQ", times=2),)),
    "unknown-status": Scenario(steps=(Step(estado="LQ", word="ZZ"), Step(estado="LQ", after=0.5))),
    "unknown-key": Scenario(steps=(Step(estado="LQ", key="NADIE0000000000000000000000"), _SETTLED)),
    "unseen": Scenario(steps=(_SETTLED_UNSEEN,)),
    "unseen-cancel": Scenario(steps=(Step(estado="CN", report=False),)),
    "unseen-return": Scenario(steps=(Step(estado="D", causa=1, report=False),)),
    "contradict": Scenario(steps=(_SETTLED, Step(estado="CN", after=0.2))),
}
"""Scenarios by name, for the control API."""

BY_CENTS: Final[Mapping[int, Scenario]] = {
    1: Scenario(refuse=-1, text="Clave de rastreo duplicada", registers=True),
    2: Scenario(refuse=-200, text="Rechazada por PLD", registers=False),
    3: Scenario(refuse=-30, text="Plataforma en modo de consulta", registers=False, times=1),
    4: PRESETS["return-later"],
    5: PRESETS["cancel"],
    6: Scenario(answer="lost", times=1, hidden_for=5.0, steps=(_SETTLED_UNSEEN,)),
    7: Scenario(steps=(_SETTLED,)),
    9: Scenario(steps=(Step(estado="LQ", key="NADIE0000000000000000000000"), _SETTLED)),
    10: PRESETS["lose-answer"],
    11: PRESETS["return"],
    12: Scenario(answer="500", times=1, steps=(_SETTLED,)),
    13: Scenario(answer="502", times=1, registers=False),
    14: Scenario(answer="403", times=1, registers=False),
    15: Scenario(answer="slow", times=1, steps=(_SETTLED,)),
    16: Scenario(answer="truncated", times=1, steps=(_SETTLED,)),
    17: Scenario(answer="no-response", times=1, steps=(_SETTLED,)),
    18: Scenario(answer="no-response", times=1, registers=False),
    19: PRESETS["callback-first"],
    20: Scenario(steps=(Step(estado="LQ", times=2),)),
    21: PRESETS["repeat"],
    22: PRESETS["reorder"],
    23: Scenario(steps=(_SETTLED, Step(estado="CN", after=0.2))),
    24: Scenario(steps=(Step(estado="D", causa="Cuenta inexistente"),)),
    25: Scenario(answer="id-as-text", steps=(Step(estado="LQ", id_as_text=True),)),
    26: Scenario(steps=(Step(estado="LQ", word="ZZ"), Step(estado="LQ", after=0.5))),
    27: PRESETS["silent"],
    28: Scenario(answer="garbage", times=1, steps=(_SETTLED,)),
    29: Scenario(refuse=-27, text="", registers=False),
    30: Scenario(refuse=-20, text="El monto es invalido", registers=False),
}
"""What the cents of an amount choose. Cents that are not listed settle."""


ConsultFault = Literal["500", "garbage", "limit", "lost"]
CallbackFault = Literal["lost", "unheard", "late", "twice"]
"""`lost`: the post does not arrive. `unheard`: it arrives and its answer does not; both are repeated. `late`: it waits
up to two seconds. `twice`: it is posted once more although it was answered rightly."""


class Faults(BaseModel):
    """What goes wrong by chance: for each kind, the share of cases in which it does.

    Orders: names of `PRESETS`, once per order. The same seed and the same order of requests go wrong alike.
    """

    model_config = ConfigDict(extra="forbid")

    seed: int | None = None
    orders: dict[str, float] = {}
    consults: dict[ConsultFault, float] = {}
    callbacks: dict[CallbackFault, float] = {}

    def model_post_init(self, _: object) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 (nothing secret hangs on it)

    _chance: random.Random = PrivateAttr()

    def order(self) -> Scenario | None:
        """What goes wrong with one order, if anything. Raises `KeyError` for a name that no preset has."""
        name = self._drawn(self.orders)
        return None if name is None else PRESETS[name]

    def known(self) -> None:
        """Raises `KeyError` for a name that no preset has."""
        for name in self.orders:
            PRESETS[name]

    def consult(self) -> ConsultFault | None:
        return self._drawn(self.consults)

    def callback(self) -> CallbackFault | None:
        return self._drawn(self.callbacks)

    def wait(self) -> float:
        """How late something late is, in seconds."""
        return self._chance.random() * 2

    def _drawn(self, shares: Mapping[Kind, float]) -> Kind | None:
        if not shares:
            return None
        point = self._chance.random()
        for kind, share in shares.items():
            point -= share
            if point < 0:
                return kind
        return None


class Rule(BaseModel):
    """A scenario for the orders whose fields are equal to these, `uses` times or always."""

    model_config = ConfigDict(extra="forbid")

    match: dict[str, str] = {}
    """STP's field names; an amount as `12.50`."""
    do: Scenario | str
    """A scenario, or the name of one of `PRESETS`."""
    uses: int | None = Field(default=None, ge=1)

    def scenario(self) -> Scenario:
        """Raises `KeyError` for a name that no preset has."""
        return PRESETS[self.do] if isinstance(self.do, str) else self.do

    def applies(self, fields: Mapping[str, str]) -> bool:
        return all(fields.get(name) == value for name, value in self.match.items())
