"""Compares `farskip tokenizer` with the packages of Hugging Face, tiktoken and SentencePiece.

peer.py FARSKIP FOLDER TEXT COUNT [GPT2]: FARSKIP is the program, FOLDER takes the vocabularies that are trained on the files
of folder TEXT, COUNT is the number of strings, GPT2 a folder with encoder.json and vocab.bpe.
"""

import base64
import importlib.util
import json
import os
import pathlib
import random
import subprocess
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from families import KIMI, families
from texts import strings

farskip, folder, text_folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), int(sys.argv[4])
gpt2 = pathlib.Path(sys.argv[5]) if len(sys.argv) > 5 else None
failed = []


def run(verb, tokenizer, data, *flags):
    done = subprocess.run([farskip, "tokenizer", verb, str(tokenizer), "--null", *flags], input=data, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{verb} {tokenizer}: {done.stderr.decode()}")
    return done.stdout


def compare(name, path, encode, decode, num_ids, special_encode=None, first_id=0):
    """encode(text) and decode(ids) are the peer's."""
    texts = strings(count)
    joined = b"".join(text + b"\0" for text in texts)
    wrong = 0
    expected = [encode(text.decode("utf-8", "replace")) for text in texts]
    for flags, ids in [([], expected)] + ([(["--add-special-tokens"], [special_encode(t.decode("utf-8", "replace")) for t in texts])]
                                          if special_encode else []):
        got = [[int(i) for i in line.split()] for line in run("encode", path, joined, *flags).decode().split("\n")[:-1]]
        assert len(got) == len(texts), (len(got), len(texts))
        for text, mine, theirs in zip(texts, got, ids):
            if mine != theirs:
                wrong += 1
                if wrong <= 5:
                    print(f"{name}: {text!r}: {mine} instead of {theirs}")
    rng = random.Random(2)
    rows = expected + [[rng.randrange(first_id, num_ids) for _ in range(rng.randint(1, 12))] for _ in range(count // 4)]
    rows = [row for row in rows if "\0" not in decode(row)]  # NUL separates them
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    back = run("decode", path, lines.encode()).split(b"\0")[:-1]
    assert len(back) == len(rows)
    for row, mine in zip(rows, back):
        if mine.decode() != decode(row):
            wrong += 1
            if wrong <= 10:
                print(f"{name}: {row}: {mine.decode()!r} instead of {decode(row)!r}")
    print(f"{name}: {len(texts)} strings, {sum(map(len, expected))} ids, {len(rows)} decoded: " + (f"{wrong} differ" if wrong else "equal"))
    if wrong:
        failed.append(name)


def compare_hf(name, tokenizer, path):
    compare(name, path, lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda ids: tokenizer.decode(ids, skip_special_tokens=False), tokenizer.get_vocab_size(),
            lambda text: tokenizer.encode(text).ids)


def training_texts():
    texts = [text for file in sorted(text_folder.glob("*")) if file.is_file()
             for text in file.read_text(errors="replace").split("\n")[:4000]]
    return texts + [text.decode("utf-8", "replace") for text in strings(2000, seed=7)]


def tiktoken_folder(tokenizer, path):
    """The ranks of a byte-level vocabulary, as Kimi's are stored."""
    byte_of = {}
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    for byte in range(256):
        byte_of[chr(byte if byte in printable else 256 + len([b for b in range(byte) if b not in printable]))] = byte
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"].items(), key=lambda item: item[1])
    ranks = {bytes(byte_of[c] for c in token): rank for rank, (token, _) in enumerate(tokens)}
    path.mkdir(exist_ok=True)
    with open(path / "tiktoken.model", "w") as file:
        file.writelines(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    special = {"[BOS]": len(ranks), "[EOS]": len(ranks) + 1, "<|im_end|>": len(ranks) + 2}
    config = {"tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]", "eos_token": "[EOS]",
              "added_tokens_decoder": {str(i): {"content": token, "special": True} for token, i in special.items()}}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    special.update({f"<|reserved_token_{i}|>": i for i in range(len(ranks) + 3, len(ranks) + 256)})
    return ranks, special


folder.mkdir(parents=True, exist_ok=True)
texts = training_texts()
for name, tokenizer in families(texts, 3000).items():
    (folder / name).mkdir(exist_ok=True)
    tokenizer.save(str(folder / name / "tokenizer.json"))
    compare_hf(name, tokenizer, folder / name)
    if name == "qwen":  # merges in the other spelling
        document = json.loads((folder / name / "tokenizer.json").read_text())
        document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
        (folder / "spaced").mkdir(exist_ok=True)
        (folder / "spaced" / "tokenizer.json").write_text(json.dumps(document))
        compare_hf("merges as strings", tokenizer, folder / "spaced")

if importlib.util.find_spec("tiktoken"):
    import tiktoken
    from families import trained, byte_level, split
    ranks, special = tiktoken_folder(trained(texts, 3000, byte_level(split(KIMI)), []), folder / "kimi")
    encoding = tiktoken.Encoding("kimi", pat_str=KIMI, mergeable_ranks=ranks, special_tokens=special)
    compare("kimi (tiktoken)", folder / "kimi", lambda text: encoding.encode(text, allowed_special="all"),
            lambda ids: encoding.decode(ids), encoding.n_vocab)

if importlib.util.find_spec("sentencepiece"):
    import sentencepiece
    (folder / "sentencepiece").mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([text for text in texts if text.strip()]), model_prefix=str(folder / "sentencepiece" / "tokenizer"),
        model_type="bpe", vocab_size=2500, byte_fallback=True, character_coverage=0.98, minloglevel=2, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True)
    piece = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece" / "tokenizer.model"))
    all_strings = strings  # the library does not look for control symbols in a text, ours does
    strings = lambda *which: [text for text in all_strings(*which) if not any(token in text for token in (b"<s>", b"</s>"))]
    compare("sentencepiece", folder / "sentencepiece", piece.encode, piece.decode, piece.get_piece_size(), first_id=3)
    strings = all_strings

if gpt2:
    vocab = json.loads((gpt2 / "encoder.json").read_text())
    merges = [tuple(line.split()) for line in (gpt2 / "vocab.bpe").read_text().split("\n")[1:] if line]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "gpt2.json"))
    compare_hf("GPT-2's own vocabulary", tokenizer, gpt2)
    compare_hf("GPT-2's own as tokenizer.json", tokenizer, folder / "gpt2.json")

if failed:
    sys.exit("different: " + ", ".join(failed))
