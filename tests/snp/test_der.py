"""``sev_attest._der``: DER is read strictly, whatever a stranger wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import _der
from sev_attest._der import Der
from sev_attest.errors import MalformedInput
from sev_attest.testing import x509


def refused(data: bytes) -> str:
    with pytest.raises(MalformedInput) as caught:
        Der(data, "thing").value(_der.OCTET_STRING, "field")
    assert caught.value.structure == "thing"
    return str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000])
def test_a_value_of_any_size_is_read(size: int) -> None:
    der = Der(x509.tlv(0x04, bytes(size)) + x509.tlv(0x05), "thing")
    assert der.value(0x04, "field") == bytes(size)
    assert der.more
    assert der.tag == 0x05
    with pytest.raises(MalformedInput, match="2 bytes after its end"):
        der.finish("field")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing where tag 0x04 was expected"),
        (b"\x05\x00", "tag 0x05 where tag 0x04 was expected"),
        (b"\x04", "the length is missing"),
        (b"\x04\x02\x00", "1 bytes left, 2 stated"),
        (b"\x04\x80\x00\x00", "indefinite"),
        (b"\x04\x81", "cut short"),
        (b"\x04\x82\x01", "cut short"),
        (b"\x04\x85\x01\x00\x00\x00\x00", "too many bytes"),
        (b"\x04\xff" + bytes(200), "too many bytes"),
        (b"\x04\x81\x7f" + bytes(127), "shortest form"),
        (b"\x04\x82\x00\x80" + bytes(128), "shortest form"),
        (b"\x04\x84\xff\xff\xff\xff", "0 bytes left, 4294967295 stated"),
    ],
)
def test_another_length_is_refused(data: bytes, words: str) -> None:
    assert words in refused(data)


def test_an_inner_value_does_not_reach_beyond_the_outer_one() -> None:
    inner = Der(x509.tlv(0x30, b"\x04\x05\x00") + bytes(8), "thing").inside(0x30, "field")
    with pytest.raises(MalformedInput, match="1 bytes left, 5 stated"):
        inner.value(0x04, "field")


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 2**4096])
def test_a_number_is_read(value: int) -> None:
    assert Der(x509.integer(value), "thing").number("field") == value
    assert _der.integer(x509.integer(value)) == value


@pytest.mark.parametrize(
    "data",
    [b"\x02\x00", b"\x02\x01\xff", b"\x02\x02\x00\x01", b"\x02\x02\x80\x00", b"\x04\x01\x00"],
)
def test_a_number_that_is_not_der_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        Der(data, "thing").number("field")
    assert _der.integer(data) is None


def test_bits_are_whole_bytes() -> None:
    assert Der(b"\x03\x02\x00\xff", "thing").bits("field") == b"\xff"
    for data in (b"\x03\x02\x04\xf0", b"\x03\x00"):
        with pytest.raises(MalformedInput, match="whole bytes"):
            Der(data, "thing").bits("field")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x02", b"\x16\x01\xff", b"\x16\x81\x01a", b"\x16\x01ab", b"\x36\x03\x16\x01a",
        b"\x30" * 4000, b"\x16\x80a\x00\x00",
    ],
)  # fmt: skip
def test_a_text_that_is_not_der_is_none(data: bytes) -> None:
    assert _der.ia5_string(data) is None
    assert _der.octet_string(data) is None


def test_texts_and_bytes_are_decoded() -> None:
    assert _der.ia5_string(x509.ia5_string("Milan-B0")) == "Milan-B0"
    assert _der.octet_string(x509.tlv(0x04, b"id")) == b"id"


def test_object_ids_are_decoded() -> None:
    for dotted in ("2.5.4.3", "1.3.6.1.4.1.3704.1.3.10", "1.2.840.113549.1.1.10"):
        assert _der.dotted(x509.object_id(dotted)[2:]) == dotted
    for odd in (b"", b"\x80", b"\x55\x80", b"\x55\x80\x01", bytes(200)):
        assert _der.dotted(odd) == ""


@given(st.binary(max_size=64))
def test_only_our_errors_come_out(data: bytes) -> None:
    assert _der.integer(data) is None or x509.integer(_der.integer(data) or 0) == data
    found = _der.ia5_string(data)
    assert found is None or x509.ia5_string(found) == data
    try:
        der = Der(data, "thing").inside(0x30, "field")
        while der.more:
            der.whole(der.tag, "field")
    except MalformedInput:
        pass
