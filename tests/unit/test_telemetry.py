"""OpenVINO's telemetry stays off unless its user has opted in."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PROGRAM = """
import sys
import distill.graphs.openvino, openvino
print(sys.modules.get("openvino_telemetry") is not None, openvino.tools.ovc.telemetry.__class__.__module__)
"""


def test_openvino_takes_its_stub_and_leaves_no_client_id(tmp_path):
    env = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "openvino.tools.ovc.telemetry_stub"]
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize(
    ("written", "is_off"), [(None, True), ("0", True), ("", True), ("1\n", False), (b"\xff", True)]
)
def test_who_has_opted_in_stays_so(tmp_path, monkeypatch, written, is_off):
    from distill import _telemetry

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_telemetry, "_NAME", "some_telemetry")
    if written is not None:
        (tmp_path / "intel").mkdir()
        content = written if isinstance(written, bytes) else written.encode()
        (tmp_path / "intel" / "some_telemetry").write_bytes(content)
    monkeypatch.delitem(sys.modules, "some_telemetry", raising=False)
    _telemetry.switch_off()
    assert ("some_telemetry" in sys.modules) == is_off
    sys.modules.pop("some_telemetry", None)
