"""Models of the hub, and folders that are like them."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from sayso.errors import ModelNotFound
from train.features.frozen import first_line

# Nothing that would have to be unpickled, and no code.
_FILES = ["*.json", "*.safetensors"]


def hub_folder(wanted: str, *, offline: bool) -> Path:
    """A folder as it is, else the hub's copy: from its cache on this machine, or fetched now.

    ModelNotFound says where it was looked for; `offline` keeps the hub from being asked.
    """
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return folder.resolve()
    looked = f"model {wanted}: no such folder"
    if wanted.startswith(("/", ".", "~")):
        raise ModelNotFound(f"{looked}; give the folder of a model of transformers, or a name on the hub")
    for local in (True,) if offline else (True, False):
        try:
            return Path(snapshot_download(wanted, allow_patterns=_FILES, local_files_only=local))
        except LocalEntryNotFoundError:
            continue
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise ModelNotFound(f"{looked}, and the hub has not got it ({first_line(error)})") from None
    answer = "the hub was not asked" if offline else "the hub does not answer"
    raise ModelNotFound(f"{looked}, not in the hub's cache, and {answer}; give a folder")
