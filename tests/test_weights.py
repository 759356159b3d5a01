"""Trained networks in files: kept, checked, handed on, and built again to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import snas
from snas.cli.main import main
from snas.errors import InputError, SnasError
from snas.training.tensor_files import read_tensors, write_tensors
from snas.weights import load_network, read_network

SMALL = {"space_arg": {"hidden_layers": 2, "width": 12}, "dataset": "tiny.npz", "epochs": 1, "registry": "r.db"}
KEPT = "r.db.files/weights/row-1-seed-0.safetensors"


@pytest.fixture(autouse=True)
def _tiny(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "tiny.npz", x=rng.random((60, 1, 8, 8), dtype=np.float32), y=np.arange(60) % 3)


def made(**more):
    return snas.prune(
        "mlp", **{"method": "snip", "density": 0.3, "final_seeds": 1, "keep_weights": True, **SMALL, **more}
    )


def accuracy_of(network, result):
    test = result._bench.test_split()
    with torch.no_grad():
        return float((network(test.x).argmax(1) == test.y).double().mean())


@pytest.mark.parametrize("method", ["snip", "rigl", "dense", "dct", "gradual"])
def test_a_loaded_network_does_what_was_recorded(method):
    more = {"density": None} if method == "dense" else {}
    result = made(method=method, kernel="auto", epochs=2, **more)
    network = load_network(1, registry="r.db")
    assert not network.training
    accuracy = accuracy_of(network, result)
    assert accuracy == pytest.approx(result.test_accuracy, abs=1e-12)
    weights = [network.get_parameter(layer.parameter) for layer in result.densities.layers]
    assert sum(int(weight.count_nonzero()) for weight in weights) <= result.densities.kept_weights
    state, _ = read_tensors(Path(KEPT))
    masks = read_network(Path(KEPT)).masks
    assert masks.kept.counts == result.densities.counts
    for layer in masks.layers:
        assert not state[layer.parameter][~masks[layer.name]].any()  # exactly zero in the file


def test_a_plain_reader_finds_a_state_dict():
    made()
    found = load_file(KEPT)
    network = made().build()
    plain = {name: value for name, value in found.items() if not name.startswith("mask/")}
    network.load_state_dict(plain)
    assert {name for name in found if name.startswith("mask/")} == {
        f"mask/{layer.name}" for layer in made().densities.layers
    }


@pytest.mark.parametrize("kernel", ["dense", "sparse"])
def test_kernels_leave_the_file_as_it_is(kernel):
    made(kernel=kernel)
    network = load_network(1, registry="r.db")
    assert all(type(module).__name__ != "SparseLinear" for module in network.modules())


def test_nothing_is_kept_unless_it_is_asked_for(capsys):
    made(keep_weights=False)
    assert not Path("r.db.files/weights").exists()
    with pytest.raises(InputError, match=r"were not kept; snas train 1 --keep-weights"):
        load_network(1, registry="r.db")
    assert main(["weights", "1", "--registry", "r.db"]) == 2
    assert "no weights of row 1 were kept" in capsys.readouterr().err


def test_finished_seeds_are_trained_again_for_their_weights_and_nothing_else_changes():
    before = made(keep_weights=False, final_seeds=2)
    again = snas.train(1, dataset="tiny.npz", keep_weights=True, registry="r.db")
    assert again.accuracies == before.accuracies
    assert again.row.epochs_spent == before.row.epochs_spent
    for seed in (0, 1):
        network = load_network(1, seed=seed, registry="r.db")
        assert accuracy_of(network, again) == pytest.approx(again.accuracies[seed], abs=1e-12)
    assert not list(Path("r.db.files/finals").glob("*"))


def test_weights_that_do_not_come_out_again_are_not_kept(monkeypatch):
    made(keep_weights=False)
    from snas.training.task import Training

    monkeypatch.setattr(Training, "test", lambda *_: (1.0, 0.123))
    with pytest.raises(SnasError, match=r"trained again its test accuracy is 0\.123"):
        snas.train(1, dataset="tiny.npz", keep_weights=True, registry="r.db")
    with pytest.raises(InputError, match="were not kept"):
        load_network(1, registry="r.db")


def test_the_command_checks_and_writes(capsys, tmp_path):
    made(final_seeds=2)
    assert main(["weights", "1", "--registry", "r.db", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["seed"] for one in told["weights"]] == [0, 1]
    assert main(["weights", "1", "--registry", "r.db", "--seed", "1", "-o", "one.safetensors"]) == 0
    handed = load_network(tmp_path / "one.safetensors")
    kept = load_network(1, seed=1, registry="r.db")
    assert all(torch.equal(a, b) for a, b in zip(handed.state_dict().values(), kept.state_dict().values(), strict=True))
    capsys.readouterr()
    for words, message in (
        (["-o", "one.pkl"], "ends in .safetensors"),
        (["-o", "no/one.safetensors"], "no folder"),
        (["--seed", "7", "-o", "x.safetensors"], "no seed 7"),
    ):
        assert main(["weights", "1", "--registry", "r.db", *words]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("place", [20, -1])
def test_a_changed_file_is_refused_with_a_way_out(place, tmp_path, capsys):
    made()
    path = tmp_path / KEPT
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    for source in (1, path):
        with pytest.raises(InputError, match=r"damaged|cannot be used"):
            load_network(source, registry="r.db")
    assert main(["weights", "1", "--registry", "r.db"]) == 2
    assert "SHA-256 is not the recorded one" in capsys.readouterr().err
    path.unlink()  # as the line says
    snas.train(1, dataset="tiny.npz", keep_weights=True, registry="r.db")
    load_network(1, registry="r.db")


def test_another_whole_file_in_its_place_is_noticed(tmp_path):
    made()
    tensors, about = read_tensors(tmp_path / KEPT)
    about.pop("sha256")
    tensors["classifier.bias"] = tensors["classifier.bias"] + 1
    write_tensors(tmp_path / KEPT, tensors, about)
    load_network(tmp_path / KEPT)  # whole by itself
    with pytest.raises(InputError, match="SHA-256 is not the recorded one"):
        load_network(1, registry="r.db")


def test_files_that_say_what_is_not_so_are_refused(tmp_path):
    made()
    tensors, about = read_tensors(tmp_path / KEPT)
    about.pop("sha256")
    path, known = tmp_path / "x.safetensors", json.loads(about["snas"])
    name = known["space"]["layers"][0]["parameter"]
    cases = [
        (tensors, {}),
        (tensors, {"snas": "[" * 100_000}),
        (tensors, {"snas": json.dumps({**known, "format": "other"})}),
        (tensors, {"snas": json.dumps({**known, "space": {**known["space"], "layers": 3}})}),
        ({**tensors, name: tensors[name] + 1}, about),  # masked weights are not zero
        ({**tensors, f"mask/{known['space']['layers'][0]['name']}": torch.zeros(2, dtype=torch.uint8)}, about),
        ({key: value for key, value in tensors.items() if key != name}, about),
        ({key: value for key, value in tensors.items() if key != "classifier.bias"}, about),
        (tensors, {"snas": json.dumps({**known, "space": {**known["space"], "arguments": {"hidden_layers": 3}}})}),
    ]
    for wrong, texts in cases:
        write_tensors(path, wrong, texts)
        with pytest.raises(InputError) as caught:
            load_network(path)
        assert "\n" not in str(caught.value)


def test_code_runs_only_where_it_is_named(tmp_path):
    text = "import math\nfrom torch import nn\nfrom pathlib import Path\nPath('RAN').touch()\n\n"
    text += "def own(input_shape, classes):\n"
    text += "    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), 8), nn.Linear(8, classes))\n"
    (tmp_path / "net.py").write_text(text)
    settings = {key: value for key, value in SMALL.items() if key != "space_arg"}
    snas.prune("net.py:own", method="snip", density=0.5, final_seeds=1, keep_weights=True, **settings)
    (tmp_path / "RAN").unlink()
    with pytest.raises(InputError, match=r"custom space 'net:own', whose code it does not have; give space="):
        load_network(1, registry="r.db")
    assert not (tmp_path / "RAN").exists()
    load_network(1, registry="r.db", space="net.py:own")
    with pytest.raises(InputError, match="another network"):
        load_network(1, registry="r.db", space="mlp")


def test_an_interrupted_seed_keeps_its_weights_when_it_goes_on(monkeypatch):
    from snas import finals

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finals, "keep_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            made(epochs=2)
    result = made(epochs=2)
    assert result.row.epochs_spent == 2
    assert accuracy_of(load_network(1, registry="r.db"), result) == pytest.approx(result.test_accuracy, abs=1e-12)


def test_no_room_is_said_and_the_same_command_goes_on(monkeypatch):
    from snas import weights

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "write_tensors", full)
        with pytest.raises(SnasError, match=r"cannot write weights .* make room"):
            made()
    made()
    load_network(1, registry="r.db")
