"""What a view may show of a person."""

from __future__ import annotations

import json

import pytest

from exporters.privacy import mask, mask_identifier, mask_json, mask_name, mask_text, search_digest


@pytest.mark.parametrize(
    ("whole", "shown"),
    [("012180001183597198", "**************7198"), ("525511110001", "********0001"), ("1234567", "*******"), ("", "")],
)
def test_an_identifier_shows_its_last_four_characters(whole: str, shown: str):
    assert mask_identifier(whole) == shown


def test_a_name_shows_its_initials():
    assert mask_name("María del Carmen Ruiz") == "M*** d*** C*** R***"


def test_variables_are_masked_by_their_names_at_any_depth():
    variables = {
        "payment_id": "01a1fd0d-d38f-761d-b195-525511110001",
        "amount": 123456789012,
        "payer": {"id_type": "MSISDN", "identifier": "525511110001", "name": "Ana Torres", "tax_id": "TOAA800101XX9"},
        "payee_account": "646180157000000004",
        "account_type": "savings",
        "holders": [{"holder_name": "Luis Vega", "rfc_curp": "VEGL800101HDFRNN09"}],
    }
    assert mask(variables) == {
        "payment_id": "01a1fd0d-d38f-761d-b195-525511110001",
        "amount": 123456789012,
        "payer": {"id_type": "MSISDN", "identifier": "********0001", "name": "A*** T***", "tax_id": "***"},
        "payee_account": "**************0004",
        "account_type": "savings",
        "holders": [{"holder_name": "L*** V***", "rfc_curp": "***"}],
    }


@pytest.mark.parametrize(
    "personal",
    ["012180001183597198", "4152313012345678", "525511110001", "+52 55 1111 0001", "TOAA800101XX9", "ana@bank.example"],
)
def test_free_text_loses_what_tells_who_somebody_is(personal: str):
    told = mask_text(f"the account of {personal} is closed")
    assert personal not in told
    assert told.startswith("the account of ")
    assert told.endswith(" is closed")


def test_a_variable_is_masked_as_the_engine_keeps_it():
    assert json.loads(mask_json("payer", '{"identifier":"525511110001"}')) == {"identifier": "********0001"}
    assert mask_json("payer_account", "525511110001") == '"********0001"'
    assert mask_json("amount", "525511110001") == "525511110001"
    assert mask_json("concept", '"call 525511110001"') == '"call ********0001"'
    assert mask_json("concept", "525511110001 is no JSON") == "********0001 is no JSON"


def test_a_party_is_found_by_its_whole_identifier_only_with_the_secret():
    assert search_digest(b"one", "525511110001") == search_digest(b"one", "525511110001")
    assert search_digest(b"one", "525511110001") != search_digest(b"other", "525511110001")
