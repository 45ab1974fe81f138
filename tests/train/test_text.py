from pathlib import Path

import numpy as np
import pytest
import torch

from sayso.errors import InputError
from train.models.text import TextSettings, TextTower
from train.recipe import load_recipe
from train.vocabulary import Vocabulary, load_vectors


def tower(*, padding_in_max: bool = False) -> TextTower:
    settings = TextSettings(hidden=32, padding_in_max=padding_in_max)
    return TextTower(settings, words=50, word_dim=8, embedding=6, frozen=False)


def padded(words: int) -> torch.Tensor:
    return torch.nn.functional.pad(torch.tensor([[3, 7, 9]]), (0, words - 3))


def test_padding_takes_no_part() -> None:
    model = tower()
    torch.testing.assert_close(model(padded(4)), model(padded(20)), rtol=0, atol=0)
    torch.testing.assert_close(model(padded(3)), model(padded(20)))


def test_padding_takes_part_as_in_the_release() -> None:
    model = tower(padding_in_max=True)
    assert not torch.allclose(model(padded(3)), model(padded(4)))


def test_order_of_words_does_not_matter_and_words_do() -> None:
    model = tower()
    torch.testing.assert_close(model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[3, 1, 2]])))
    assert not torch.allclose(model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[1, 2, 4]])))


def test_bags_keep_their_shape_and_nothing_said_is_finite() -> None:
    model = tower()
    assert model(torch.zeros(2, 3, 5, dtype=torch.int64)).shape == (2, 3, 6)
    torch.testing.assert_close(model(torch.zeros(1, 5, dtype=torch.int64))[0], model.fc2.bias)


def test_vocabulary_reads_words_as_people_write_them(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_texts(["Stir the soup.", "Don't stir!", "the end"], max_words=4)
    assert vocabulary.words == ["stir", "the", "don't", "end", "soup"]
    assert vocabulary.encode(["STIR, then stir the soup -- the end"]).tolist() == [[1, 1, 2, 5]]
    assert vocabulary.encode(["unheard words", ""]).tolist() == [[0] * 4] * 2
    vocabulary.save(tmp_path / "vocabulary.json")
    again = Vocabulary.load(tmp_path / "vocabulary.json")
    assert (again.words, again.max_words) == (vocabulary.words, 4)


def test_rare_words_are_left_out() -> None:
    assert Vocabulary.from_texts(["a b", "a c"], max_words=4, min_count=2).words == ["a"]


def test_a_broken_vocabulary_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(InputError, match=r"vocabulary\.json is not a vocabulary"):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_vectors_come_with_a_row_for_padding(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array(["cut", "fold"]), vecs=np.array([[1, 2], [3, 4]], dtype=np.float16))
    words, vectors = load_vectors(path)
    assert words == ["cut", "fold"]
    assert vectors.tolist() == [[0, 0], [1, 2], [3, 4]]
    np.savez(path, words=np.array(["cut"]), vecs=np.zeros((2, 2)))
    with pytest.raises(InputError, match="1 words but vectors of shape"):
        load_vectors(path)
    with pytest.raises(InputError, match="arrays words and vecs"):
        load_vectors(tmp_path / "missing.npz")


def test_words_may_be_bytes(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array([b"cut", "naïve".encode()]), vecs=np.zeros((2, 3)))
    assert load_vectors(path)[0] == ["cut", "naïve"]


@pytest.mark.parametrize("bytes_left", [0, 100, -9, None])
def test_a_damaged_npz_is_named(bytes_left: int | None, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    np.savez_compressed(path, words=np.array(["cut", "fold"]), vecs=np.arange(200.0).reshape(2, 100))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data[:bytes_left])
    with pytest.raises(InputError, match=r"no word vectors in .*vectors\.npz"):
        load_vectors(path)


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    with (tmp_path / "vectors.npz").open("wb") as file:
        np.save(file, np.zeros((2, 3)))
    with pytest.raises(InputError, match="arrays words and vecs"):
        load_vectors(tmp_path / "vectors.npz")


@pytest.mark.parametrize("words", [["fold", "cut"], ["cut", "fold", "stir"]])
def test_vectors_of_other_words_than_the_runs_are_refused(words: list[str], tmp_path: Path) -> None:
    """As when the file was replaced between two starts: as many words in another order would fit, and all be wrong."""
    from train.engine import build_model

    path = tmp_path / "vectors.npz"
    where = ["data.root=/none", "model.text.vectors=" + str(path), "model.video.width=0.1"]
    recipe = load_recipe("mil_nce_demo", [*where, f"output.folder={tmp_path}"])
    vocabulary = Vocabulary(["cut", "fold"], 4)
    np.savez(path, words=np.array(vocabulary.words), vecs=np.array([[1, 2], [3, 4]]))
    assert build_model(recipe, vocabulary).text.word_embd.weight.tolist() == [[0, 0], [1, 2], [3, 4]]
    np.savez(path, words=np.array(words), vecs=np.ones((len(words), 2)))
    with pytest.raises(
        InputError, match=r"vectors\.npz has other words than .*vocabulary\.json.*; give the file of then"
    ):
        build_model(recipe, vocabulary)


WORDS = ["cut", "fold", "new york", "naïve"]
VECTORS = np.array([[1, -2.5, 0.125], [3, 4, 5], [0, 0, 1e-3], [7, 8, 9]], dtype=np.float32)


def layouts() -> dict[str, bytes]:
    lines = "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, VECTORS.tolist(), strict=True))
    # A word of word2vec's has no space in it: it stands for the end of the word.
    pairs = [(word.replace(" ", "_").encode(), row.tobytes()) for word, row in zip(WORDS, VECTORS, strict=True)]
    return {
        "glove.txt": lines.encode(),
        "word2vec.txt": f"{len(WORDS)} 3\n{lines}".encode(),
        "plain.bin": b"4 3\n" + b"".join(word + b" " + row for word, row in pairs),
        "with_breaks.bin": b"4 3\n" + b"".join(word + b" " + row + b"\n" for word, row in pairs),
    }


@pytest.mark.parametrize("name", layouts())
def test_vectors_are_read_in_every_published_layout(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(layouts()[name])
    words, vectors = load_vectors(path)
    assert [word.replace("_", " ") for word in words] == WORDS
    assert vectors.tolist() == [[0, 0, 0], *VECTORS.tolist()]


@pytest.mark.parametrize("name", layouts())
def test_of_all_words_those_to_keep_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(layouts()[name])
    words, vectors = load_vectors(path, keep={"naïve", "cut", "stir"})
    assert words == ["cut", "naïve"]
    assert vectors.tolist() == [[0, 0, 0], *VECTORS[[0, 3]].tolist()]
    words, vectors = load_vectors(path, keep=set())
    assert (words, vectors.tolist()) == ([], [[0, 0, 0]])
    path.write_bytes(layouts()[name][:-9])
    with pytest.raises(InputError, match="no word vectors in"):
        load_vectors(path, keep={"cut"})
    np.savez(path.with_suffix(".npz"), words=np.array(WORDS), vecs=VECTORS)
    words, vectors = load_vectors(path.with_suffix(".npz"), keep={"fold"})
    assert (words, vectors.tolist()) == (["fold"], [[0, 0, 0], VECTORS[1].tolist()])


@pytest.mark.parametrize("name", layouts())
def test_vectors_that_are_cut_off_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(layouts()[name][:-9])
    with pytest.raises(InputError, match="no word vectors in"):
        load_vectors(path)


def test_published_vectors_put_like_words_together(published: Path) -> None:
    """The small file above shows the format; this is the real one."""
    words, vectors = load_vectors(published / "glove100_80k_fp16.npz")
    assert vectors.shape == (len(words) + 1, 100)
    index = {word: row for row, word in enumerate(words, start=1)}
    like = torch.cosine_similarity(vectors[index["knife"]], vectors[[index["fork"], index["senate"]]])
    assert like[0] > like[1]
