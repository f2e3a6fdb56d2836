// Whole answers of /v1/completions and /v1/chat/completions.

#include "tests/serve/small_server.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::StartsWith;

using Completions = testing::SmallServer;

TEST_F(Completions, AnswerAndUsage) {
  const auto answer = complete({{"model", "bytes"}, {"prompt", "Say it"}, {"max_tokens", 5}, {"seed", 7}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  const json body = answer.json();
  EXPECT_THAT(body["id"].get<std::string>(), StartsWith("cmpl-"));
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "bytes");
  EXPECT_GT(body["created"], 1700000000);
  EXPECT_EQ(body["choices"],
            json::parse(R"([{"index": 0, "text": "Hello", "logprobs": null, "finish_reason": "length"}])"));
  EXPECT_EQ(body["usage"], json::parse(R"({"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11})"));
  const auto request = service.requests().at(0);
  EXPECT_EQ(request.prompt, testing::byte_tokens("Say it"));
  EXPECT_EQ(request.sampling.seed, 7u);
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_THAT(request.stop_tokens, ElementsAre(256));
}

TEST_F(Completions, SettingsReachTheEngine) {
  const auto answer = complete(json::parse(R"({"prompt": "a", "max_tokens": 1, "temperature": 0.25, "top_p": 0.5,
      "top_k": 3, "min_p": 0.125, "repetition_penalty": 1.5, "presence_penalty": -1, "frequency_penalty": 2,
      "seed": -1, "ignore_eos": true, "stop_token_ids": [7, 8], "best_of": 1, "user": "me", "suffix": null})"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const auto request = service.requests().at(0);
  const SamplingOptions& sampling = request.sampling;
  EXPECT_EQ(sampling.temperature, 0.25);
  EXPECT_EQ(sampling.top_p, 0.5);
  EXPECT_EQ(sampling.top_k, 3);
  EXPECT_EQ(sampling.min_p, 0.125);
  EXPECT_EQ(sampling.repetition_penalty, 1.5);
  EXPECT_EQ(sampling.presence_penalty, -1);
  EXPECT_EQ(sampling.frequency_penalty, 2);
  EXPECT_EQ(sampling.seed, ~uint64_t{0});
  EXPECT_THAT(request.stop_tokens, ElementsAre(7, 8));
  ASSERT_EQ(complete({{"prompt", "a"}, {"top_k", -1}}).status, 200);
  const auto defaults = service.requests().at(1);
  EXPECT_EQ(defaults.sampling.top_k, 0);
  EXPECT_EQ(defaults.max_tokens, 16);
  EXPECT_NE(defaults.sampling.seed, service.requests().at(0).sampling.seed) << "without a seed a new one each time";
}

TEST_F(Completions, PromptsInAllForms) {
  const json prompts[] = {"ab", json::array({"ab"}), json::array({97, 98}), json::parse("[[97, 98]]")};
  for (const json& prompt : prompts) {
    const auto answer = complete({{"prompt", prompt}});
    ASSERT_EQ(answer.status, 200) << prompt << answer.body;
    EXPECT_EQ(service.requests().back().prompt, testing::byte_tokens("ab")) << prompt;
  }
  const auto answer = complete({{"prompt", {"a", "bcd"}}, {"n", 2}, {"max_tokens", 2}, {"seed", 1}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = answer.json();
  ASSERT_EQ(body["choices"].size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(body["choices"][i]["index"], i);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(body["usage"]["completion_tokens"], 8);
  std::vector<std::pair<size_t, uint64_t>> seen;  // lengths of prompts, streams of the seed
  for (const auto& request : service.requests()) seen.emplace_back(request.prompt.size(), request.stream);
  seen.erase(seen.begin(), seen.begin() + 4);
  EXPECT_THAT(seen, ElementsAre(std::pair(1u, 0u), std::pair(1u, 1u), std::pair(3u, 2u), std::pair(3u, 3u)));
}

TEST_F(Completions, StopStringsEndASequence) {
  service.say("one two three two");
  const auto answer = complete({{"prompt", "a"}, {"stop", {"three", "wo"}}, {"max_tokens", 100}, {"logprobs", 0}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["text"], "one t");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["logprobs"]["tokens"], json({"o", "n", "e", " ", "t"})) << "what is shown alone";
  EXPECT_EQ(answer.json()["usage"]["completion_tokens"], 7) << "with those of the stop string";
  EXPECT_EQ(complete({{"prompt", "a"}, {"stop", "zzz"}, {"max_tokens", 100}}).json()["choices"][0]["text"],
            "one two three two");
}

TEST_F(Completions, Logprobs) {
  service.say("h\u00e9");
  const auto answer = complete({{"prompt", "a"}, {"logprobs", 2}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json logprobs = answer.json()["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"h", "bytes:\\xc3", "bytes:\\xa9", ""})) << "and the one that ended the text";
  EXPECT_EQ(logprobs["token_logprobs"], json({-0.5, -0.5, -0.5, -0.5}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 1, 2})) << "of the character that a part belongs to";
  EXPECT_EQ(logprobs["top_logprobs"][0], json({{"h", -0.5}, {"i", -1.5}}));
  EXPECT_EQ(complete({{"prompt", "a"}, {"logprobs", 0}}).json()["choices"][0]["logprobs"]["top_logprobs"][0],
            json({{"h", -0.5}}));
}

TEST_F(Completions, EchoWithLogprobsOfThePrompt) {
  const auto answer =
      complete({{"prompt", "a\u00fcb"}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 2}, {"temperature", 0}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["text"], "a\u00fcbHe");
  const json logprobs = choice["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"a", "bytes:\\xc3", "bytes:\\xbc", "b", "H", "e"}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 1, 2, 3, 4}));
  EXPECT_EQ(logprobs["token_logprobs"], json({nullptr, -0.5, -0.5, -0.5, -0.5, -0.5}));
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["top_logprobs"][3], json({{"b", -0.5}}));
}

// lm-evaluation-harness leaves the last entry out, whichever token was drawn.
TEST_F(Completions, ScoringAlwaysHasTheTokenBehindThePrompt) {
  for (const std::string said : {"", "x"}) {
    service.say(said);
    const auto answer = complete(
        {{"prompt", {{97, 98}, {99}}}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 1}, {"temperature", 0}});
    ASSERT_EQ(answer.status, 200) << answer.body;
    const json choices = answer.json()["choices"];
    EXPECT_EQ(choices[0]["text"], "ab" + said);
    EXPECT_EQ(choices[0]["logprobs"]["tokens"], json({"a", "b", said}));
    EXPECT_EQ(choices[0]["logprobs"]["token_logprobs"], json({nullptr, -0.5, -0.5}));
    EXPECT_EQ(choices[0]["logprobs"]["top_logprobs"].size(), 3u);
    EXPECT_EQ(choices[1]["logprobs"]["tokens"], json({"c", said}));
    EXPECT_EQ(answer.json()["usage"]["completion_tokens"], said.empty() ? 0 : 2);
  }
}

TEST_F(Completions, EchoOfThePromptAlone) {
  const auto scored = complete({{"prompt", {97, 98}}, {"echo", true}, {"logprobs", 1}, {"max_tokens", 0}});
  ASSERT_EQ(scored.status, 200) << scored.body;
  const json choice = scored.json()["choices"][0];
  EXPECT_EQ(choice["text"], "ab");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json({nullptr, -0.5}));
  EXPECT_EQ(service.requests().at(0).max_tokens, 0);
  const auto echoed = complete({{"prompt", "ab"}, {"echo", true}, {"max_tokens", 0}});
  EXPECT_EQ(echoed.json()["choices"][0]["text"], "ab");
  EXPECT_EQ(service.requests().size(), 1u) << "nothing to compute";
}

TEST_F(Completions, Chat) {
  const auto answer = chat(json::parse(R"({"model": "also/bytes", "max_completion_tokens": 5, "logprobs": true,
      "top_logprobs": 2, "messages": [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "He"}, {"type": "text", "text": "y"}], "name": null},
        {"role": "assistant", "content": "Yes?", "refusal": null, "tool_calls": null, "annotations": []},
        {"role": "user", "content": "Go"}]})"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(service.requests().at(0).prompt,
            testing::byte_tokens("system: Be kind.\nuser: Hey\nassistant: Yes?\nuser: Go\nassistant: "));
  const json body = answer.json();
  EXPECT_THAT(body["id"].get<std::string>(), StartsWith("chatcmpl-"));
  EXPECT_EQ(body["object"], "chat.completion");
  const json choice = body["choices"][0];
  EXPECT_EQ(choice["message"], json({{"role", "assistant"}, {"content", "Hello"}, {"refusal", nullptr}}));
  EXPECT_EQ(choice["finish_reason"], "length");
  const json first = choice["logprobs"]["content"][0];
  EXPECT_EQ(first["token"], "H");
  EXPECT_EQ(first["bytes"], json({72}));
  EXPECT_EQ(first["top_logprobs"][1], json({{"token", "I"}, {"logprob", -1.5}, {"bytes", {73}}}));
  EXPECT_EQ(choice["logprobs"]["content"].size(), 5u);
  EXPECT_EQ(chat({{"messages", {{{"role", "user"}, {"content", "x"}}}}}).json()["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(service.requests().at(1).max_tokens, 1000 - 19) << "all positions that are left";
}

TEST_F(Completions, ModelsAndWhatOperatorsAsk) {
  const json models = testing::get(port(), "/v1/models").json();
  EXPECT_EQ(models["object"], "list");
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "bytes");
  EXPECT_EQ(models["data"][0]["max_model_len"], 1000);
  EXPECT_EQ(testing::get(port(), "/v1/models/bytes").json()["object"], "model");
  EXPECT_EQ(testing::get(port(), "/v1/models/also%2Fbytes").json()["id"], "also/bytes");
  EXPECT_EQ(testing::get(port(), "/v1/models/other").status, 404);
  EXPECT_EQ(testing::get(port(), "/version").json()["version"], FARSKIP_VERSION);
  EXPECT_EQ(testing::get(port(), "/health").status, 200);
  EXPECT_EQ(testing::get(port(), "/ping").status, 200);
}

TEST_F(Completions, HealthTellsOfAnEngineThatFailed) {
  std::atomic<bool> failed = false;
  options.failure = [&] { return failed ? "rank 1 is lost" : ""; };
  EXPECT_EQ(testing::get(port(), "/health").status, 200);
  failed = true;
  EXPECT_EQ(testing::get(port(), "/health").status, 503);
  const auto answer = complete({{"prompt", "a"}});
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.error(), "the engine has failed: rank 1 is lost");
}

}  // namespace
}  // namespace farskip
