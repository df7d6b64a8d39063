from __future__ import annotations

import builtins
import socket

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No network, as where there is none, and nothing may be asked."""

    def refuse(*args, **kwargs):
        raise OSError("the network is blocked")

    def asked(*args):
        raise AssertionError("something was asked on standard input")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builtins, "input", asked)
