# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: closed, drawn as it is, each also a builtin, each with its facts across pickling."""

from __future__ import annotations

import errno
import pickle
import re
from ipaddress import ip_address

import pytest

from mizarnet import EndpointKey, errors
from mizarnet.errors import MizarnetError

EXAMPLES: list[MizarnetError] = [
    errors.InvalidValueError("m", argument="vni", value=0, hint="h"),
    errors.MtuError("m", argument="mtu", value=1501),
    errors.SpecError("m", errors={"endpoints[0].ip": "is missing"}),
    errors.InvalidTypeError("m", argument="vni"),
    errors.ClosedError("m"),
    errors.ForkedError("m"),
    errors.StaleHandleError("m"),
    errors.MissingLibraryError("m", hint="h"),
    errors.PrivilegeError("m", missing=["CAP_BPF"]),
    errors.UnsupportedError("m", feature="geneve"),
    errors.ExistsError("m", holder="eth0", differences={"mtu": (1, 2)}),
    errors.ForeignEntryError("m", key=EndpointKey(7, ip_address("10.0.0.9")), feed="f", hint="h"),
    errors.TunnelNotFoundError("m"),
    errors.UnderlayNotFoundError("m"),
    errors.AgentNotFoundError("m"),
    errors.SwitchNotFoundError("m"),
    errors.UntrustedNamespaceError("m", netns="n"),
    errors.NetnsNotFoundError("m"),
    errors.EndpointNotFoundError("m"),
    errors.EntryNotFoundError("m"),
    errors.InUseError("m", users=["a", "b"]),
    errors.LocalEndpointError("m"),
    errors.CapacityError("m", table="peers", capacity=2, used=2),
    errors.LayoutError("m", struct="mzn_ip", differences=["x"]),
    errors.SelfTestError("m", program="agent", frame="f", wanted="w", found="x"),
    errors.LockTimeoutError("m", timeout=1.5),
    errors.StalePlanError("m", changed=["endpoint web"]),
    errors.BulkError("m", failed={"a": errors.ClosedError("n")}, done=["b"]),
    errors.KernelError("create x", errno=errno.EPERM),
    errors.NetlinkError("create x", errno=errno.EEXIST, kernel_message="taken"),
    errors.BpfError("load x", errno=errno.EINVAL, hint="h"),
    errors.VerifierError("load x", errno=errno.EACCES, program="p", log=["a", "b"]),
]


def facts(error: MizarnetError) -> dict[str, str]:
    return {name: repr(value) for name, value in vars(error).items() if not name.startswith("__")}


def test_a_fact_that_cannot_leave_the_process_goes_in_words() -> None:
    generator = (each for each in ())
    copy = pickle.loads(pickle.dumps(errors.InvalidValueError("m", argument="ip", value=generator)))
    assert (copy.argument, copy.value) == ("ip", repr(generator))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_facts(error: MizarnetError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert facts(copy) == facts(error)


def test_the_drawing_is_the_tree() -> None:
    drawn = dict(re.findall(r"─ (\w+)(?: \((\w+)\))?", errors.__doc__ or ""))
    named = {name for name in errors.__all__ if name not in ("MizarnetError", "OutdatedWarning")}
    assert set(drawn) == named
    for name, builtin in drawn.items():
        cls = getattr(errors, name)
        assert issubclass(cls, MizarnetError)
        if builtin:
            assert builtin in {base.__name__ for base in cls.__mro__}


def test_every_error_is_one_of_the_examples() -> None:
    assert {type(error).__name__ for error in EXAMPLES} >= set(errors.__all__) - {
        "MizarnetError",
        "NotFoundError",
        "OutdatedWarning",
    }


def test_the_hint_follows_the_message() -> None:
    assert str(errors.ClosedError("it is closed", hint="open another")) == "it is closed; open another"


def test_a_kernel_error_names_the_number_and_the_kernels_words() -> None:
    error = errors.NetlinkError("create eth0", errno=errno.EEXIST, kernel_message="name taken")
    assert str(error) == "create eth0: File exists [EEXIST] (name taken)"
    assert error.errno == errno.EEXIST


def test_a_limit_or_setting_has_its_advice_whatever_the_call() -> None:
    assert "ulimit -n" in errors.NetlinkError("open a socket", errno=errno.EMFILE).hint
    assert errors.BpfError("load x", errno=errno.ENOMEM, hint="h").hint == "h"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.InUseError("m", users=[]), errno.EBUSY),
        (errors.CapacityError("m", table="t", capacity=1, used=1), errno.ENOSPC),
    ],
)
def test_errors_that_are_os_errors_have_a_number(error: OSError, number: int) -> None:
    assert error.errno == number


def test_a_foreign_entry_is_json() -> None:
    error = errors.ForeignEntryError("m", key=EndpointKey(7, ip_address("10.0.0.9")), feed="directory")
    assert error.to_dict() == {
        "error": "ForeignEntryError",
        "message": "m",
        "key": {"vni": 7, "ip": "10.0.0.9"},
        "feed": "directory",
        "hint": "",
    }


def test_a_long_verifier_log_is_shown_by_its_end() -> None:
    error = errors.VerifierError(
        "load", errno=errno.EACCES, program="p", log=[f"line {n}" for n in range(10)]
    )
    assert "line 9" in str(error)
    assert "line 3" not in str(error)
    assert "(4 lines omitted" in str(error)


def test_a_bulk_error_lists_its_failures_up_to_ten() -> None:
    failed = {f"e{n}": errors.ClosedError(f"why {n}") for n in range(12)}
    lines = str(errors.BulkError("12 of 20 failed", failed=failed, done=[])).splitlines()
    assert lines[:2] == ["12 of 20 failed", "    'e0': why 0"]
    assert lines[10:] == ["    'e9': why 9", "    and 2 more, all in .failed"]
    one = errors.BulkError("1 of 2 failed", failed={"a": errors.ClosedError("why")}, done=["b"])
    assert str(one) == "1 of 2 failed\n    'a': why"
