"""Strings to compare tokenizers on: scripts, emoji, code, white space, digits, broken UTF-8, random bytes and characters."""

import random

WORDS = """The quick brown fox jumps over the lazy dog I'm you're WE'LL they've it's can't 'tis John's o'clock naïve café résumé
Ångström façade Straße übergröße İstanbul ısı ŁÓDŹ Đường Việt Nam tiếng Привет мир съёмка Ελληνικά φιλοσοφία Ὀδυσσεύς ΣΊΣΥΦΟΣ
Հայաստան გამარჯობა שָׁלוֹם עולם مرحبا بالعالم فارسی اُردُو हिन्दी भाषा ক্ষুদ্র বাংলা தமிழ் మంచి ಕನ್ನಡ മലയാളം සිංහල สวัสดีชาวโลก ลาว ភាសាខ្មែរ မြန်မာ བོད་ཡིག አማርኛ
中文分词 漢字 日本語の文章 カタカナ ﾊﾝｶｸ ｆｕｌｌｗｉｄｔｈ 한국어 조합 한글 𠮷野家 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝕏𝕐 ℌ ①②③ Ⅷ ½ ²³ ٣٤٥ १२३ 一二三 3.14159 1,234,567 0xDEADBEEF 2024-11-24 10%
foo_bar camelCase HTTPServer snake_case_99 __init__ kebab-case x=y+z; i++ a&&b ||c !== => -> :: ... ?! «quotes» “curly” ‘single’ —dash– …
€100 £5 ¥ ©®™ °C ½ × ÷ ≠ ∑∫√ → ⇒ ★ ☃ ♥ 😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☺️ 🧑🏿‍🚀 e\u0301 n\u0303 a\u030a\u0327 \u1e9b\u0323 \ufb01 ﬃ \u2126 \u212b \u200d \u200b \ufeff \u00ad \u202e \u0085 \u180e
word wordy sword words keyword ⁄ Ǆ ǅ ǆ ǲ ſ K 'ſ 'S 'Re don’t <|endoftext|> <s> </s> <|im_start|> <left> <right> <｜begin▁of▁sentence｜> <|eot_id|> ▁ ▁▁ <0x41>""".split()
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000", "\u2028", "\x0b", "\x0c", "    ", " " * 17, "\u2009", ""]
CODE = ["def f(x):\n    return x**2 + 1  # square\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n\n",
        "SELECT * FROM t WHERE a='b' AND c>=10;\r\n", "<div class=\"x\">\n  &nbsp;</div>\n", "\\frac{1}{2}\\,\\alpha_{i}^{2}",
        "{\"a\": [1, 2.5e-10, null], \"b\\n\": \"\\u00e9\"}", "#!/bin/sh\nset -e\necho \"$1\" | sed 's/a/b/g' >/dev/null 2>&1\n",
        "std::vector<std::pair<int,int>> v{{1,2}};", "https://example.com/path?q=1&r=%20#frag", "user@example.com"]
RANGES = [(0x20, 0x7f), (0xa0, 0x250), (0x250, 0x600), (0x600, 0x900), (0x900, 0x1200), (0x1200, 0x2000), (0x2000, 0x2c00),
          (0x3000, 0x3400), (0x4e00, 0x9fff), (0xa000, 0xd7ff), (0xf900, 0xfffd), (0x10000, 0x10fff), (0x1f300, 0x1faff),
          (0x20000, 0x20100), (0xe0000, 0xe0080)]


def one(rng):
    kind = rng.randrange(8)
    if kind < 3:
        return "".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randint(1, 20)))
    if kind == 3:
        return "".join(rng.choice(CODE) for _ in range(rng.randint(1, 3)))
    if kind == 4:
        low, high = rng.choice(RANGES)
        return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 30)))
    if kind == 5:
        return "".join(rng.choice(SPACES) * rng.randint(1, 4) + rng.choice(["", "", "a", "1", ".", "中"]) for _ in range(rng.randint(1, 8)))
    if kind == 6:
        return "".join(chr(rng.randrange(*rng.choice(RANGES))) for _ in range(rng.randint(1, 25)))
    return "".join(rng.choice(["1", "23", "456", "7890", "a", "B", ".", "'", "'s", " ", "\n", "é", "中", "-"]) for _ in range(rng.randint(1, 40)))


def strings(count, seed=1):
    """Bytes without NUL: a quarter of them with bytes that are no UTF-8."""
    rng = random.Random(seed)
    result = [word.encode() for word in WORDS] + [("a" * 300).encode(), (" " * 300).encode(), ("ab" * 2000).encode(), ("中" * 500).encode()]
    while len(result) < count:
        text = one(rng).encode("utf-8", "replace")
        spoil = rng.randrange(8)
        if spoil == 0:
            text = bytes(rng.randrange(256) for _ in range(rng.randint(1, 40)))
        elif spoil == 1 and text:
            cut = bytearray(text)
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(cut) + 1)
                cut[at:at + rng.randrange(3)] = bytes(rng.choice([0x80, 0xbf, 0xc0, 0xc3, 0xe2, 0xed, 0xa0, 0xf0, 0x9f, 0xf4, 0x90, 0xff])
                                                      for _ in range(rng.randrange(3)))
            text = bytes(cut)
        result.append(text.replace(b"\0", b"?"))
    return result[:count]
