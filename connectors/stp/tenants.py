"""Whose orders are made how: company, payer account and key of each tenant, from a file or from the settings.

    {"greenbank": {"company": "GREEN", "payer_account": "646180110400000007", "private_key_file": "green.pem",
                   "private_key_passphrase_file": "green.pass", "tracking_prefix": "GB"},
     "bluebank":  {"company": "BLUE", ...}}

Everything is read and every key parsed once, when the process starts. Relative paths begin at the file's own folder. A
tenant that is in neither place has no company at STP, and its payments become incidents, never another's orders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator

from connectors.stp.accounts import STP, is_clabe
from connectors.stp.dispatch import Profile, Profiles
from connectors.stp.settings import StpSettings
from connectors.stp.signature import BadKey, Signer
from connectors.stp.wire import FREE, Orden, Sender
from hub.settings import SettingsError
from hub.transfer import TenantId

_FILE: Final = "PAYHUB_STP_TENANTS_FILE"


class StpTenant(BaseModel):
    """One tenant at STP. The names are those of the settings without their prefix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    company: str = Field(min_length=1, max_length=15)
    payer_account: str
    payer_name: str | None = Field(default=None, min_length=1, max_length=40)
    payer_tax_id: str | None = Field(default=None, max_length=18)
    private_key_file: Path
    private_key_passphrase_file: Path | None = None
    operating_institution: int = STP
    tracking_prefix: str = Field(default="PH", pattern="^[A-Z0-9]{0,4}$")
    latitude: str | None = Field(default=None, max_length=30)
    longitude: str | None = Field(default=None, max_length=30)
    constants: dict[str, str | int] = Field(default_factory=dict)

    @field_validator("payer_account")
    @classmethod
    def _clabe(cls, value: str) -> str:
        if not is_clabe(value):
            raise ValueError("must be a CLABE: 18 digits with the right check digit")
        return value

    @field_validator("constants")
    @classmethod
    def _fields(cls, value: dict[str, str | int]) -> dict[str, str | int]:
        return checked_constants(value)


class _File(RootModel[dict[str, StpTenant]]):
    pass


def checked_constants(constants: dict[str, str | int]) -> dict[str, str | int]:
    """The fields that every order carries, if an order can carry them. Raises `ValueError`."""
    for name in constants:
        if name not in FREE:
            raise ValueError(f"{name} is none of {', '.join(sorted(FREE))}")
    try:
        Orden.model_validate(constants)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}") from None
    return constants


def profiles(settings: StpSettings) -> Profiles:
    """How the orders of each tenant are made. Raises `SettingsError` when one cannot be."""
    listed = _listed(settings.tenants_file) if settings.tenants_file else {}
    single = _single(settings)
    if single is None or settings.tenant_id is None:
        return Profiles(listed, everyone=single)
    return Profiles({TenantId(settings.tenant_id): single, **listed})


def _single(settings: StpSettings) -> Profile | None:
    """The profile that the settings themselves describe."""
    needed = {
        "COMPANY": settings.company,
        "PAYER_ACCOUNT": settings.payer_account,
        "PRIVATE_KEY_FILE": settings.private_key_file,
    }
    missing = [name for name, value in needed.items() if value is None]
    if len(missing) == len(needed) and settings.tenants_file is not None:
        return None
    if missing or settings.company is None or settings.payer_account is None or settings.private_key_file is None:
        raise SettingsError("; ".join(f"PAYHUB_STP_{name}: is not set" for name in missing))
    try:
        constants = checked_constants(settings.constants)
    except ValueError as error:
        raise SettingsError(f"PAYHUB_STP_CONSTANTS: {error}") from None
    passphrase = settings.private_key_passphrase
    try:
        signer = Signer.from_file(settings.private_key_file, passphrase.get_secret_value() if passphrase else None)
    except BadKey as error:
        raise SettingsError(f"PAYHUB_STP_PRIVATE_KEY_FILE: {error}") from None
    return Profile(
        sender=Sender(
            settings.company,
            settings.payer_account,
            settings.operating_institution,
            tuple(constants.items()),
            settings.payer_name,
            settings.payer_tax_id,
        ),
        signer=signer,
        tracking_prefix=settings.tracking_prefix,
        unsigned=_position(settings.latitude, settings.longitude),
    )


def _listed(file: Path) -> dict[TenantId, Profile]:
    try:
        tenants = _File.model_validate(json.loads(file.read_text(encoding="utf-8"))).root
    except OSError as error:
        raise SettingsError(f"{_FILE}: {file}: {error.strerror}") from None
    except ValidationError as error:
        problems = (
            f"/{'/'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"{_FILE}: {file}: " + "; ".join(problems)) from None
    except (ValueError, RecursionError):
        raise SettingsError(f"{_FILE}: {file}: is not JSON") from None
    return {TenantId(name): _profile(name, tenant, file) for name, tenant in tenants.items()}


def _profile(name: str, tenant: StpTenant, file: Path) -> Profile:
    try:
        passphrase = None
        if tenant.private_key_passphrase_file is not None:
            passphrase = (file.parent / tenant.private_key_passphrase_file).read_text(encoding="utf-8").rstrip("\r\n")
        signer = Signer.from_file(file.parent / tenant.private_key_file, passphrase)
    except BadKey as error:
        raise SettingsError(f"{_FILE}: {file}: /{name}/private_key_file: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SettingsError(f"{_FILE}: {file}: /{name}/private_key_passphrase_file: {problem}") from None
    return Profile(
        sender=Sender(
            tenant.company,
            tenant.payer_account,
            tenant.operating_institution,
            tuple(tenant.constants.items()),
            tenant.payer_name,
            tenant.payer_tax_id,
        ),
        signer=signer,
        tracking_prefix=tenant.tracking_prefix,
        unsigned=_position(tenant.latitude, tenant.longitude),
    )


def _position(latitude: str | None, longitude: str | None) -> tuple[tuple[str, str], ...]:
    return (("latitud", latitude), ("longitud", longitude)) if latitude and longitude else ()
