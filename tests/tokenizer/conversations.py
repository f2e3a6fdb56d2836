"""Conversations to compare chat templates on."""


def turns(*texts, system=None):
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system is not None else []) + messages


CONVERSATIONS = [
    turns("Hello"),
    turns("Hello", "Hi there"),
    turns("Hello", "Hi there", "Who are you?"),
    turns("Hello", "Hi there", "Who are you?", "   I am an assistant   "),
    turns("Hello", system="You are a helpful assistant."),
    turns("Hello", "Hi", system="Be brief."),
    turns("a", "b", "c", "d", "e", "f", system="Letters only.\n\nPlease."),
    turns("  spaces around  ", "\n\nnew lines around\n\n", "\tTabs\t", " \u00a0no-break\u00a0 "),
    turns("你好，世界", "こんにちは", "안녕하세요", "Привет 👋🏽", system="多言語"),
    turns("", "An empty question", "", ""),
    turns("def f(x):\n    return {'a': \"b\"}[x]\n", "```python\nprint('\\n')\n```"),
    turns("2+2?", "<think>\nTwo and two.\n</think>\n\n4"),
    turns("2+2?", "<think>\nTwo and two.\n</think>\n\n4", "And 3+3?"),
    turns("2+2?", "<think>\nTwo.\n</think>\n\n4", "3+3?", "<think>\n\nSix\nthen\n\n</think>\n\n\n6\n", system="Think."),
    turns("nested", "a</think>b</think>\nc", "again", "<think>x<think>\ny</think>z"),
    turns("quotes \" and ' and \\ and {{ braces }} {% tags %}", "yes {# comment #}"),
    turns("special <|im_end|> <s> </s> [INST] <|eot_id|> inside", "also <|endoftext|>"),
    turns("one", "two", "three", "four", "five"),
    turns("Ends with a new line\n", "So does this\n", "\n"),
    turns("- a\n- b\n\n1. c", "| x | y |\n|---|---|\n| 1 | 2 |"),
    turns("Größe?", "12,5 cm – „ungefähr“", "Sicher?", "Ja!"),
    turns("emoji 👩‍👩‍👧‍👦", "🇩🇪"),
    turns("[INST] nested [/INST]", "<<SYS>> x <</SYS>>", "User: a\n\nAssistant: b"),
    turns("x" * 500, "y" * 300),
    [{"role": "assistant", "content": "I begin."}, {"role": "user", "content": "Fine."}],
    [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}, {"role": "assistant", "content": "three"}],
    [{"role": "user", "content": "q"}, {"role": "system", "content": "late system"}, {"role": "assistant", "content": "a"}],
    [{"role": "system", "content": "first"}, {"role": "system", "content": "second"}, {"role": "user", "content": "q"}],
    [{"role": "system", "content": "only a system message"}],
    [{"role": "user", "content": "weather?"}, {"role": "assistant", "content": "Looking."}, {"role": "tool", "content": "{\"t\": 21}"},
     {"role": "tool", "content": "{\"t\": 22}"}, {"role": "assistant", "content": "About 21."}],
    [{"role": "user", "content": "q"}, {"role": "user", "content": "<tool_response>\nr\n</tool_response>"}, {"role": "assistant", "content": "a"},
     {"role": "assistant", "content": "b"}],
    turns("\u2028line separator\u2028", "\u3000ideographic\u3000", "\x1c\x85control", "zero\u200bwidth\ufeff"),
]
