"""What the STP connector needs to know. Three classes, because the three processes must know different things.

The process that signs has the key; the one that listens to callbacks has the shared secret; neither needs the other's.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.stp.accounts import DEMO_COUNTERPART, NOT_SERVED, STP, Institutions, catalogue, is_clabe
from hub.settings import Settings, prefixed


class CallbackCheck(StrEnum):
    """A way to tell who posts a callback."""

    SECRET = "secret"  # noqa: S105 (the name of the check)
    BASIC = "basic"
    NETWORK = "network"
    SIGNATURE = "signature"


class StpSettings(Settings):
    """How orders are made and sent: `payhub work stp`."""

    model_config = prefixed("PAYHUB_STP_")

    base_url: str
    """Where orders go, for instance `https://prod.stpmex.com`; the paths are added."""

    consult_url: str | None = None
    """Where inquiries go; the base URL when unset."""

    tenants_file: Path | None = None
    """JSON with the company, account and key of each tenant (docs/stp-tenants.md); the settings below then serve the
    tenants that it does not name, or nobody when they are unset."""

    company: str | None = Field(default=None, min_length=1, max_length=15)
    """`empresa`: the alias that STP gave the company. Required without a tenants file, as are payer account and key."""

    payer_account: str | None = None
    """The CLABE registered at STP under the company; orders are paid from it."""

    payer_name: str | None = Field(default=None, min_length=1, max_length=40)
    """The name under which the tenant itself pays its stores; the company when unset."""

    payer_tax_id: str | None = Field(default=None, max_length=18)
    """The RFC that stands beside that name."""

    private_key_file: Path | None = None
    """PEM of the RSA key whose certificate STP has; encrypted or not."""

    private_key_passphrase: SecretStr | None = None
    """The key's passphrase, when it is encrypted."""

    tenant_id: str | None = None
    """The tenant whose payments are sent under this company; unset: every tenant's."""

    operating_institution: int = STP
    """`institucionOperante`."""

    constants: dict[str, str | int] = Field(default_factory=dict)
    """Fields that stand the same in every order, by STP's names, for instance `{"usuario": "hub", "prioridad": 1}`."""

    tracking_prefix: str = Field(default="PH", pattern="^[A-Z0-9]{0,4}$")
    """The first letters of each tracking key; give each installation that shares a company its own."""

    latitude: str | None = Field(default=None, max_length=30)
    """`latitud`, unsigned: the position newer contracts ask for; sent when both parts are set."""

    longitude: str | None = Field(default=None, max_length=30)
    """`longitud`, unsigned."""

    institutions: dict[str, int] = Field(default_factory=dict)
    """Corrections of the catalogue: first three digits of a CLABE → institution code."""

    demo_counterpart: bool = False
    """Take CLABEs that begin with 846, the counterpart of STP's demonstration environment."""

    denied_institutions: frozenset[int] = NOT_SERVED
    """Institutions to which nothing is sent."""

    card_institutions: dict[str, int] = Field(default_factory=dict)
    """First digits of a card → institution code. A card whose digits are not listed is refused."""

    mobile_institution: int | None = None
    """Where payments to mobile numbers go; refused when unset."""

    connect_timeout: float = Field(default=5, gt=0, le=30)
    """Seconds for opening a connection; running out of them is certainly not sent."""

    read_timeout: float = Field(default=30, gt=0, le=40)
    """Seconds for the answer to an order; running out of them is unknown."""

    consult_timeout: float = Field(default=10, gt=0, le=40)
    """Seconds for the answer to an inquiry."""

    connections: int = Field(default=64, ge=1)
    """The most connections that are open to STP at once."""

    ca_file: Path | None = None
    """Certificate authorities to trust instead of the public ones."""

    inquire_after: int = Field(default=30, ge=1)
    """Seconds without a status after which STP is asked."""

    inquire_again_after: int = Field(default=3600, ge=1)
    """Seconds between questions once a payment waits for an operator."""

    resend: bool = True
    """Whether an order that STP does not have may be sent again: the same bytes, on the same operation date."""

    rollover_guard: int = Field(default=300, ge=0)
    """Seconds before the operation date ends in which nothing is sent again: clocks differ."""

    sweep_every: float = Field(default=2, gt=0)
    """Seconds between looks for statuses that were stored and not yet told to the engine."""

    consults_per_hour: int = Field(default=100, ge=10)
    """Questions that STP answers to one company in an hour; all workers together ask no more."""

    poll_after: int = Field(default=900, ge=1)
    """Seconds after which an order without a final state is asked for beside its process; then ever more rarely."""

    poll_every: float = Field(default=60, gt=0)
    """Seconds between looks for such orders."""

    page_pause: float = Field(default=3, ge=0)
    """Seconds between two pages of a conciliation."""

    reconcile_again_after: int = Field(default=86_400, ge=1)
    """Seconds between the three comparisons of an operation date."""

    reconcile_ledger: bool = True
    """Whether our own ledger is compared too, if `PAYHUB_LEDGER_DATABASE_URL` is set; not with another one."""

    booking_grace: int = Field(default=600, ge=0)
    """Seconds within which the book may lag behind an order's state without being called different."""

    @field_validator("payer_account")
    @classmethod
    def _clabe(cls, value: str | None) -> str | None:
        if value is not None and not is_clabe(value):
            raise ValueError("must be a CLABE: 18 digits with the right check digit")
        return value

    @field_validator("base_url", "consult_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        if not urlsplit(value).hostname:
            raise ValueError("must name a host")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _within_a_job(self) -> Self:
        """A job is given to another worker after 60 s; an attempt must be over before that."""
        if self.connect_timeout + self.read_timeout > 40:
            raise ValueError("connect_timeout and read_timeout together must stay within 40 seconds")
        return self

    def known_institutions(self) -> Institutions:
        """The catalogue with this installation's corrections."""
        demo = dict([DEMO_COUNTERPART]) if self.demo_counterpart else {}
        return Institutions(
            by_prefix=catalogue() | demo | self.institutions,
            by_card=self.card_institutions,
            mobile=self.mobile_institution,
            denied=self.denied_institutions,
        )

    def in_flight_at_most(self) -> timedelta:
        """How long an attempt to send can last, whoever makes it: after that it is certainly over."""
        return timedelta(seconds=self.connect_timeout + self.read_timeout + 5)


class StpCallbackSettings(Settings):
    """How STP's callbacks are believed: `payhub serve stp-callbacks`."""

    model_config = prefixed("PAYHUB_STP_")

    callback_checks: frozenset[CallbackCheck] = frozenset({CallbackCheck.SECRET})
    """What a callback must pass, all of it: `secret`, `basic`, `network`, `signature`. A network alone is no proof."""

    callback_secret: SecretStr | None = Field(default=None, min_length=1)
    """What STP sends in the header `X-STP-Secret`; another one per environment (L33)."""

    callback_user: str | None = None
    """The user of HTTP Basic."""

    callback_password: SecretStr | None = Field(default=None, min_length=1)
    """The password of HTTP Basic."""

    callback_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where callbacks may come from, for instance `["10.8.0.0/16"]`; the connection's own address counts, no header."""

    callback_public_key_file: Path | None = None
    """PEM of the certificate or public key with which the header `X-STP-Signature` is checked."""

    publish_within: float = Field(default=0.7, gt=0)
    """Seconds in which the engine must take a status before STP is answered; the sweep does it later otherwise."""

    deposit_answer_within: float = Field(default=0.8, gt=0, le=30)
    """Seconds that a deposit's process has to refuse it in the answer; after them STP is told to keep the money."""

    tenant_id: str | None = None
    """The tenant that has every account which no prefix of the seed file names; unset: such deposits go back."""


class StpSimulatorSettings(Settings):
    """The pretend STP: `payhub serve stp-simulator`. Never for production."""

    model_config = prefixed("PAYHUB_STP_SIMULATOR_")

    company: str = "PAYHUB"
    """The one company it knows."""

    payer_account: str
    """The CLABE registered under the company."""

    public_key_file: Path
    """PEM of the company's certificate or public key; every signature is verified with it."""

    book_file: Path
    """SQLite file that keeps the orders; it survives restarts."""

    callback_url: str
    """Where statuses are posted, for instance `http://127.0.0.1:8081/stp/order-status`."""

    callback_secret: SecretStr
    """Sent in the header `X-STP-Secret`."""

    dialect: str = Field(default="C", pattern="^[ABC]$")
    """Which of the three dialects the callbacks are written in."""

    settle_after: float = Field(default=0.0, ge=0)
    """Seconds from accepting an order to its status."""

    by_cents: bool = True
    """Whether the cents of an amount choose what happens to the order (`connectors.stp.fake.BY_CENTS`)."""

    repeat_every: float = Field(default=1.0, gt=0)
    """Seconds before a callback that was not answered rightly is repeated; the pause grows."""

    deposit_url: str | None = None
    """Where incoming money is posted; unset: the callback URL with `deposits` for `order-status`."""

    companies_file: Path | None = None
    """JSON list of further companies: `empresa`, `public_key_file`, `accounts`, `callback_url`, `callback_secret`,
    and where they differ `deposit_url`, `dialect`, `opening_balance`."""

    opening_balance: int = Field(default=10**15, ge=0)
    """Centavos on the company's account before the first order; an order beyond the balance is cancelled."""

    key_again: bool = True
    """Whether a tracking key is taken again on the next operation date, as STP seems to do."""

    stp_to_stp: bool = True
    """Whether orders to other accounts at STP are taken; otherwise they are refused with -31."""

    consults_per_hour: int | None = Field(default=None, ge=1)
    """How many consults are answered in an hour, per company; all of them when unset."""

    page_size: int = Field(default=1000, ge=1)
    """Orders on a page of conciliation."""

    unanswered_deposit: Literal["confirm", "return"] = "confirm"
    """What becomes of incoming money that was never answered rightly. STP documents neither."""
