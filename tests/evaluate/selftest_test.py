import json

from durian_jax.cli.main import main
from durian_jax.evaluate import selftest


def test_this_machine_computes_the_stored_numbers(capsys):
    """If a metric is meant to change, raise the protocols' versions, and store the new numbers with
    `selftest._GOLDEN.write_text(json.dumps(selftest.compute(), indent=1))`."""
    assert main(["evaluate", "--selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(selftest.compute()) and all(line.endswith("ok") for line in lines)


def test_another_number_is_found(tmp_path, monkeypatch, capsys):
    golden = json.loads(selftest._GOLDEN.read_text())
    golden["ssim"] += 1e-4
    other = tmp_path / "golden.json"
    other.write_text(json.dumps(golden))
    monkeypatch.setattr(selftest, "_GOLDEN", other)
    assert main(["evaluate", "--selftest"]) == 2
    captured = capsys.readouterr()
    assert "selftest: ssim differ from the stored numbers" in captured.err
    assert captured.out.count("differs from") == 1
