"""openai_client.py PORT KEY PID REQUESTS: OpenAI's package against a server (80_openai_client.sh), then rough handling."""

import asyncio
import json
import random
import re
import socket
import struct
import sys
import threading
import time

import openai
from openai import AsyncOpenAI, OpenAI

PORT, KEY, PID, REQUESTS = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
URL = f"http://127.0.0.1:{PORT}/v1"
client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=120)
HELLO = [{"role": "user", "content": "The quick"}]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def raises(kind, call, text):
    try:
        call()
    except kind as error:
        check(text in str(error), f"{text!r} is not in {error}")
        return error
    raise AssertionError(f"no {kind.__name__} with {text!r}")


def completions():
    greedy = dict(model="small", temperature=0, max_tokens=20, extra_body={"ignore_eos": True})
    whole = client.completions.create(prompt="The quick", **greedy)
    text = whole.choices[0].text
    check(len(text) > 10 and whole.usage.completion_tokens == 20, whole)
    pieces = list(client.completions.create(prompt="The quick", stream=True, stream_options={"include_usage": True}, **greedy))
    check("".join(p.choices[0].text for p in pieces[:-1]) == text, pieces)
    check(pieces[-1].usage == whole.usage and pieces[-2].choices[0].finish_reason == "length", pieces[-2:])
    several = client.completions.create(prompt=["The quick", "jumps over"], n=2, **greedy)
    check([c.index for c in several.choices] == [0, 1, 2, 3] and several.choices[1].text == text, several)
    scored = client.completions.create(prompt="The quick", echo=True, logprobs=2, max_tokens=0, model="small")
    logprobs = scored.choices[0].logprobs
    check("".join(logprobs.tokens) == "The quick" and logprobs.token_logprobs[0] is None, logprobs)
    check(all(x <= 0 for x in logprobs.token_logprobs[1:]), logprobs)
    check(logprobs.text_offset == [sum(map(len, logprobs.tokens[:i])) for i in range(len(logprobs.tokens))], logprobs)
    ids = [2, 3, 4]
    check(client.completions.create(prompt=ids, **greedy).usage.prompt_tokens == 3, "ids")
    check(client.completions.create(prompt=[ids, ids], **greedy).usage.prompt_tokens == 6, "lists of ids")
    stop = text[8:11]
    check(client.completions.create(prompt="The quick", stop=[stop], **greedy).choices[0].text == text[: text.index(stop)], "stop")
    drawn = dict(model="small", prompt="The", temperature=1.5, max_tokens=20, seed=7, n=2)
    first, second = (client.completions.create(**drawn) for _ in range(2))
    check([c.text for c in first.choices] == [c.text for c in second.choices], "the same seed")
    check(first.choices[0].text != first.choices[1].text, "streams of a seed")


def chats():
    greedy = dict(model="other", messages=HELLO, temperature=0, max_completion_tokens=16)
    whole = client.chat.completions.create(logprobs=True, top_logprobs=3, **greedy)
    choice = whole.choices[0]
    check(choice.message.role == "assistant", whole)
    check(all(len(t.top_logprobs) == 3 for t in choice.logprobs.content), choice.logprobs)
    check(b"".join(bytes(t.bytes) for t in choice.logprobs.content).decode(errors="replace") == choice.message.content, choice)
    text = ""
    for piece in client.chat.completions.create(stream=True, **greedy):
        text += piece.choices[0].delta.content or ""
    check(text == choice.message.content, (text, choice))
    with client.chat.completions.stream(**greedy) as stream:
        for _ in stream:
            pass
        check(stream.get_final_completion().choices[0].message.content == text, "the package's own stream")
    again = HELLO + [choice.message.model_dump(), {"role": "user", "content": "more"}]
    check(client.chat.completions.create(model="small", messages=again, max_tokens=3).usage.completion_tokens <= 3, "again")


def errors():
    right = dict(model="small", messages=HELLO)
    raises(openai.NotFoundError, lambda: client.completions.create(model="gpt", prompt="a"), "does not exist")
    tools = [{"type": "function", "function": {"name": "f"}}]
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(tools=tools, **right), "tools")
    check(error.param == "tools" and error.code == "unsupported_parameter" and error.type == "invalid_request_error", error.body)
    raises(openai.BadRequestError, lambda: client.completions.create(model="small", prompt="a", max_tokens=100000), "256 positions")
    raises(openai.BadRequestError, lambda: client.completions.create(model="small", prompt="a", extra_body={"x": 1}), "x")
    raises(openai.BadRequestError, lambda: client.completions.create(model="small", prompt="a", temperature=9), "temperature")
    wrong = OpenAI(base_url=URL, api_key="wrong", max_retries=0)
    raises(openai.AuthenticationError, wrong.models.list, "API key")
    check([m.id for m in client.models.list()] == ["small", "other"], "models")
    check(client.models.retrieve("small").id == "small", "model")
    raises(openai.NotFoundError, lambda: client.models.retrieve("nothing"), "not served")


def many():
    async def run():
        own = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=20, timeout=300)

        async def one(i):
            if i % 2:
                answer = await own.completions.create(model="small", prompt=f"number {i % 10}", max_tokens=10, temperature=0)
                return answer.choices[0].text
            text = ""
            async for piece in await own.completions.create(
                model="small", prompt=f"number {i % 10 + 1}", max_tokens=10, temperature=0, stream=True):
                text += piece.choices[0].text
            return text

        # More than there are connections: some are told to come back, and do.
        texts = await asyncio.gather(*(one(i) for i in range(150)))
        await own.close()
        for i in range(0, 150, 2):
            check(len(texts[i]) > 0, i)

    asyncio.run(run())


def connect():
    return socket.create_connection(("127.0.0.1", PORT))


def request(body, path="/v1/completions"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data


def metric(name):
    with connect() as s:
        s.sendall(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        page = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    return float(re.search("^" + re.escape(name) + r"\{[^}]*\} (\S+)", page, re.M).group(1))


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < end, what)
        time.sleep(0.05)


def slow_and_vanishing():
    silent = [connect() for _ in range(64)]  # as many as there are threads
    for i, s in enumerate(silent):
        s.sendall(b"POST /v1/comp" if i % 2 else request({"prompt": "a"})[:-4])
    time.sleep(1.5)
    client.completions.create(model="small", prompt="a", max_tokens=2)  # not held up
    for s in silent:
        s.close()
    for whole in (True, False):
        s = connect()
        s.sendall(request({"prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": not whole}))
        time.sleep(0.05)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    wait_for(lambda: metric("vllm:num_requests_running") == 0, "vanished clients' requests still run")
    # Half a stream, then gone, by the package's own means.
    stream = client.completions.create(model="small", prompt="a", max_tokens=200, stream=True)
    next(iter(stream))
    stream.close()
    wait_for(lambda: metric("vllm:num_requests_running") == 0, "a closed stream's request still runs")


def rough(seed):
    """One request of one of many kinds; its status, or 0 where there was no answer or none was awaited."""
    random.seed(seed)
    kind = random.randrange(10)
    body = {"prompt": "The quick " * random.randrange(1, 8), "max_tokens": random.randrange(1, 40), "seed": seed,
            "temperature": random.random() * 2, "n": random.randrange(1, 3), "stream": random.random() < 0.5,
            "stop": random.choice([None, "fox", ["a", "zz"]]), "logprobs": random.choice([None, 0, 3])}
    data = request(body)
    if kind == 0:
        data = request(bytes(random.randrange(256) for _ in range(random.randrange(200))))
    elif kind == 1:
        data = bytes(random.randrange(256) for _ in range(random.randrange(1, 400)))
    elif kind == 2:
        data = data[: random.randrange(len(data))]
    elif kind == 3:
        at = random.randrange(len(data))
        data = data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
    elif kind == 4:
        data = request({"messages": [{"role": "user", "content": "x" * random.randrange(100)}], "max_tokens": 5},
                       "/v1/chat/completions")
    s = connect()
    try:
        s.settimeout(60)
        s.sendall(data)
        if kind in (5, 6):  # gone at some moment
            time.sleep(random.random() * 0.1)
            if kind == 6:
                s.recv(random.randrange(1, 2000))
            return 0
        if kind == 2:
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
            if answer.endswith(b"0\r\n\r\n"):
                break
            head, _, rest = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length and len(rest) >= int(length.group(1)):
                break
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    except (ConnectionError, socket.timeout):
        return 0
    finally:
        s.close()


def memory_kib():
    with open(f"/proc/{PID}/status") as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))


def soak():
    statuses, lock = {}, threading.Lock()
    numbers = iter(range(10**9))

    def work(count):
        for _ in range(count):
            with lock:
                seed = next(numbers)
            status = rough(seed)
            with lock:
                statuses[status] = statuses.get(status, 0) + 1

    def round_of(count):
        threads = [threading.Thread(target=work, args=(count // 16,)) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        wait_for(lambda: metric("vllm:num_requests_running") == 0 and metric("vllm:num_requests_waiting") == 0, "something still runs")
        return memory_kib()

    kib = [round_of(max(16, REQUESTS // 4)) for _ in range(5)]  # the first fills pools and caches
    with connect() as s:
        s.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        check(s.recv(100).startswith(b"HTTP/1.1 200"), "health")
    check(statuses.get(500, 0) == 0, statuses)
    check(statuses.get(200, 0) > 0 and statuses.get(400, 0) > 0, statuses)
    print(f"statuses {dict(sorted(statuses.items()))}; memory {kib} KiB")
    check(kib[-1] - kib[1] < 4096, f"memory grows: {kib} KiB")


for test in (completions, chats, errors, many, slow_and_vanishing, soak):
    begin = time.monotonic()
    test()
    print(f"{test.__name__}: right, {time.monotonic() - begin:.1f} s", flush=True)
