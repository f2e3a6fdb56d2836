"""`farskip tokenizer train` against the BpeTrainer of Hugging Face's tokenizers: train_peer.py FARSKIP FOLDER TEXT, a folder."""

import json
import pathlib
import subprocess
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from texts import strings

farskip, folder, text = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
many = folder / "many_scripts.txt"
many.write_bytes(b"\n".join(s.decode("utf-8", "replace").encode() for s in strings(2000, seed=5)) + b"\n")
files = [str(many)] + sorted(str(path) for path in text.glob("*") if path.is_file())
for size in (300, 1000, 4000):
    out = folder / f"{size}.json"
    subprocess.run([farskip, "tokenizer", "train", *files, "--vocab-size", str(size), "-o", str(out)], check=True,
                   stdout=subprocess.DEVNULL)
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    theirs.train(files, trainers.BpeTrainer(vocab_size=size, min_frequency=2, special_tokens=["<|endoftext|>"],
                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(theirs.to_str())["model"]
    ours = json.loads(out.read_text())["model"]
    assert ours["vocab"] == model["vocab"], f"{size}: the vocabularies differ"
    assert [list(m) for m in ours["merges"]] == [list(m) for m in model["merges"]], f"{size}: the merges differ"
    sample = strings(500)
    read = Tokenizer.from_file(str(out))  # they read our file
    for s in sample:
        s = s.decode("utf-8", "replace")
        assert read.encode(s).ids == theirs.encode(s).ids, s
    print(f"train: {size} ids of {len(files)} files: the same vocabulary and merges")
