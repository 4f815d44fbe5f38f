"""Nobody but this machine, unless a password says so."""

import pytest

from durian_jax.app.access import Access, kind_of
from input_pipeline.errors import InputError


def test_this_machine_alone_needs_no_password():
    for access in (Access(), Access(listen="localhost"), Access(listen="127.0.0.1")):
        assert access.is_local and access.admits is None
        assert "evil.example" not in access.hosts and "*" not in access.hosts


@pytest.mark.parametrize(("listen", "host"), [("::1", "[::1]"), ("127.0.0.2", "127.0.0.2")])
def test_a_browser_finds_any_address_of_the_loopback(listen, host):
    access = Access(listen=listen)
    assert access.is_local and access.host == host and host in access.hosts


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::"])
def test_others_need_a_password(host):
    with pytest.raises(InputError, match=f"listen {host}: others could use this machine"):
        Access(listen=host)
    admits = Access(listen=host, password="correct horse").admits
    assert admits("anybody", "correct horse") and not admits("anybody", "wrong horse")
    assert not admits("anybody", "") and not admits("", "korrekt hörse")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 0}, "port 0: use 1 to 65535"),
        ({"listen": "0.0.0.0", "password": "short"}, "password has 5 characters: use 8 or more"),
        ({"listen": "my host", "password": "long enough"}, "listen 'my host': give an address"),
    ],
)
def test_what_cannot_be_is_said(values, message):
    with pytest.raises(InputError, match=message):
        Access(**values)


def test_folders_are_known_by_what_lies_in_them(tmp_path, case_folder, prepared_dataset):
    assert kind_of(case_folder) == "cases" and kind_of(prepared_dataset) == "dataset"
    with pytest.raises(InputError, match=r"show .*: neither a report, nor cases, nor a data set"):
        kind_of(tmp_path)
