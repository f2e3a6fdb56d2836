"""Small tokenizers of Hugging Face's package, trained with the normalizers, pre-tokenizers and models of the families."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT4 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA4 = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + "?|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS + "?|"
          r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
KIMI = ("[\\p{Han}]+|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+" + CONTRACTIONS +
        r"?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*" +
        CONTRACTIONS + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_V2_LETTERS = (
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌ"
    "ῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+")
DEEPSEEK_V3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
               r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(*steps):
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not steps)
    return pre_tokenizers.Sequence([*steps, cut]) if steps else cut


def trained(texts, vocab_size, cut, specials, normalizer=None, model=None, post=None):
    tokenizer = Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if post is not None:
        tokenizer.post_processor = post
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=ALPHABET, show_progress=False))
    return tokenizer


def mixtral(texts, vocab_size):
    """As its tokenizer.json: no pre-tokenizer, spaces as a letter, bytes for characters without a token."""
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainee = Tokenizer(models.BPE())
    trainee.pre_tokenizer = pre_tokenizers.Metaspace()
    trainee.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials,
                                                           limit_alphabet=150, show_progress=False))
    import json
    model = json.loads(trainee.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def families(texts, vocab_size):
    """Name to tokenizer."""
    def bpe(cut, specials, **more):
        return trained(texts, vocab_size, cut, specials, **more)

    deepseek = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
    llama3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    result = {
        "gpt2": bpe(byte_level(), ["<|endoftext|>"]),
        "deepseek_v2": bpe(byte_level(split("[\r\n]"), split(DEEPSEEK_V2_LETTERS), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                                      split("\\s+$"), split("[一-龥ࠀ-一가-퟿]+"), pre_tokenizers.Digits(True)), deepseek,
                           post=processors.TemplateProcessing(single=deepseek[0] + " $A", special_tokens=[(deepseek[0], 0)])),
        "deepseek_v3": bpe(byte_level(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3)), deepseek),
        "qwen": bpe(byte_level(split(GPT4 % r"\p{N}")), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                    normalizer=normalizers.NFC()),
        "llama3": bpe(byte_level(split(GPT4 % r"\p{N}{1,3}")), llama3, model=models.BPE(ignore_merges=True),
                      post=processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
                          single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])])),
        "llama4": bpe(byte_level(split(LLAMA4)), ["<|begin_of_text|>", "<|eot|>"]),
        "olmoe": bpe(byte_level(), ["|||IP_ADDRESS|||", "<|endoftext|>", "<|padding|>"], normalizer=normalizers.NFC()),
        "mixtral": mixtral(texts, vocab_size + 300),
    }
    result["olmoe"].add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    result["gpt2"].add_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True),
                               AddedToken("word", single_word=True), AddedToken("wordy")])
    return result
