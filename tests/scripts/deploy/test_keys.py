"""Keys and certificates are what TLS and Flower take, and nobody else can read the private halves."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes

from scripts.deploy.keys import make_authority, make_hospital_key, make_server_certificate


@pytest.fixture
def server(tmp_path: Path) -> Path:
    make_authority(tmp_path / "authority")
    make_server_certificate(tmp_path, tmp_path / "authority", ["federation.example.org", "127.0.0.1"])
    return tmp_path


def shake(server: Path, authority: Path, *, host: str) -> str:
    """The peer that a client sees that trusts this authority."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server / "server.pem", server / "server.key")
    trusting = ssl.create_default_context(cafile=authority / "ca.pem")
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            serving.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with trusting.wrap_socket(ours, server_hostname=host) as wrapped:
            return str(wrapped.version())
    finally:
        ours.close()
        thread.join()


def test_the_certificate_is_for_the_names_it_was_made_for(server: Path) -> None:
    assert shake(server, server / "authority", host="federation.example.org") == "TLSv1.3"
    assert shake(server, server / "authority", host="127.0.0.1") == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, server / "authority", host="elsewhere.example.org")


def test_another_authority_does_not_vouch_for_the_server(server: Path) -> None:
    make_authority(server / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, server / "other", host="127.0.0.1")


def test_a_new_certificate_keeps_the_authority(server: Path) -> None:
    before, ca = (server / "server.pem").read_bytes(), (server / "authority" / "ca.pem").read_bytes()
    make_authority(server / "authority")
    make_server_certificate(server, server / "authority", ["127.0.0.1"])
    assert (server / "server.pem").read_bytes() != before
    assert (server / "authority" / "ca.pem").read_bytes() == ca
    assert shake(server, server / "authority", host="127.0.0.1") == "TLSv1.3"


def test_a_hospitals_key_is_one_that_flower_takes_and_stays(tmp_path: Path) -> None:
    make_hospital_key(tmp_path)
    private = load_ssh_private_key((tmp_path / "supernode.key").read_bytes(), None)
    public = load_ssh_public_key((tmp_path / "supernode.pub").read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert private.public_key().public_numbers() == public.public_numbers()
    assert bytes_to_public_key(public_key_to_bytes(public)).public_numbers() == public.public_numbers()
    before = (tmp_path / "supernode.key").read_bytes()
    make_hospital_key(tmp_path)
    assert (tmp_path / "supernode.key").read_bytes() == before


def test_private_keys_are_for_their_owner_alone(server: Path) -> None:
    make_hospital_key(server)
    for file in ("server.key", "authority/ca.key", "supernode.key"):
        assert (server / file).stat().st_mode & 0o077 == 0
