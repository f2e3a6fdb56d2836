// What is refused, and how: every wrong field by name, in OpenAI's form.

#include "tests/serve/small_server.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Refusals : public testing::SmallServer {
 protected:
  struct Case {
    const char* fields;  ///< of a request that is right otherwise
    const char* param;
    const char* message;  ///< a part
  };
  void check(const std::string& path, const json& right, const std::vector<Case>& cases) {
    for (const Case& c : cases) {
      json body = right;
      body.update(json::parse(c.fields));
      const auto answer = testing::post(port(), path, body);
      EXPECT_EQ(answer.status, 400) << c.fields << answer.body;
      if (answer.status != 400) continue;
      EXPECT_EQ(answer.error("param"), c.param) << c.fields;
      EXPECT_EQ(answer.error("type"), "invalid_request_error") << c.fields;
      EXPECT_THAT(answer.error(), HasSubstr(c.message)) << c.fields;
    }
    EXPECT_TRUE(service.requests().empty());
    EXPECT_EQ(testing::post(port(), path, right).status, 200);
  }
};

TEST_F(Refusals, FieldsOfCompletions) {
  check("/v1/completions", {{"prompt", "a"}},
        {{R"({"prompt": null})", "prompt", "prompt is missing"},
         {R"({"prompt": 7})", "prompt", "must be a string, a list of strings"},
         {R"({"prompt": []})", "prompt", "must be a string, a list of strings"},
         {R"({"prompt": [{}]})", "prompt", "must be a string, a list of strings"},
         {R"({"prompt": ["a", [1]]})", "prompt", "must be a string, a list of strings"},
         {R"({"prompt": [1, "a"]})", "prompt", "all token ids"},
         {R"({"prompt": [1, 320]})", "prompt", "token 320, which is outside the model's vocabulary of 320"},
         {R"({"prompt": [-1]})", "prompt", "token -1"},
         {R"({"prompt": [18446744073709551615]})", "prompt", "outside the model's vocabulary"},
         {R"({"prompt": ""})", "prompt", "the prompt is empty"},
         {R"({"prompt": [[]]})", "prompt", "the prompt is empty"},
         {R"({"max_tokens": "5"})", "max_tokens", "max_tokens is \"5\"; an integer is expected"},
         {R"({"max_tokens": 1.5})", "max_tokens", "an integer is expected"},
         {R"({"max_tokens": 0})", "max_tokens", "without echo it must be 1 or more"},
         {R"({"max_tokens": -1})", "max_tokens", "0 or more"},
         {R"({"max_tokens": 1000})", "max_tokens", "1000 positions; 1 in the prompt and max_tokens = 1000 are more"},
         {R"({"max_tokens": 18446744073709551615})", "max_tokens", "18446744073709551615"},
         {R"({"temperature": 2.1})", "temperature", "from 0 to 2"},
         {R"({"temperature": "hot"})", "temperature", "a number is expected"},
         {R"({"top_p": 0})", "top_p", "above 0"},
         {R"({"min_p": 2})", "min_p", "from 0 to 1"},
         {R"({"top_k": -2})", "top_k", "-1 or more"},
         {R"({"repetition_penalty": 0})", "repetition_penalty", "above 0"},
         {R"({"presence_penalty": 3})", "presence_penalty", "from -2 to 2"},
         {R"({"frequency_penalty": -3})", "frequency_penalty", "from -2 to 2"},
         {R"({"n": 0})", "n", "from 1 to 128"},
         {R"({"n": 129})", "n", "from 1 to 128"},
         {R"({"n": 2, "best_of": 3})", "best_of", "best_of = 3 differs from n = 2"},
         {R"({"seed": "x"})", "seed", "an integer is expected"},
         {R"({"stop": 5})", "stop", "a string or a list of strings"},
         {R"({"stop": ["a", ""]})", "stop", "empty string"},
         {R"({"stop": ["a", "b", "c", "d", "e"]})", "stop", "5 strings; at most 4"},
         {R"({"logprobs": 21})", "logprobs", "from 0 to 20"},
         {R"({"logprobs": true})", "logprobs", "an integer is expected"},
         {R"({"echo": 1})", "echo", "true or false is expected"},
         {R"({"stream": "yes"})", "stream", "true or false is expected"},
         {R"({"stream_options": {"include_usage": true}})", "stream_options", "only allowed with stream = true"},
         {R"({"stream": true, "stream_options": 1})", "stream_options", "an object is expected"},
         {R"({"stream": true, "stream_options": {"x": 1}})", "stream_options.x", "unrecognized request argument"},
         {R"({"stop_token_ids": [999]})", "stop_token_ids", "outside the model's vocabulary"},
         {R"({"suffix": "end"})", "suffix", "not supported"},
         {R"({"logit_bias": {"5": 1}})", "logit_bias", "not supported"},
         {R"({"response_format": {"type": "json_object"}})", "response_format", "not supported"},
         {R"({"guided_regex": "a*"})", "guided_regex", "not supported"},
         {R"({"max_token": 5})", "max_token", "did you mean max_tokens?"},
         {R"({"quux": 5})", "quux", "unrecognized request argument: quux"}});
}

TEST_F(Refusals, FieldsOfChats) {
  const json right = {{"messages", {{{"role", "user"}, {"content", "x"}}}}};
  check(
      "/v1/chat/completions", right,
      {{R"({"messages": null})", "messages", "at least one"},
       {R"({"messages": []})", "messages", "at least one"},
       {R"({"messages": ["x"]})", "messages[0]", "an object is expected"},
       {R"({"messages": [{"role": "user"}]})", "messages[0].content", "missing"},
       {R"({"messages": [{"content": "x"}]})", "messages[0].role", "must be system, developer, user or assistant"},
       {R"({"messages": [{"role": "tool", "content": "x"}]})", "messages[0].role", "tools are not supported"},
       {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content", "a string or a list of parts"},
       {R"({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]})",
        "messages[0].content[0].type", "reads text alone"},
       {R"({"messages": [{"role": "user", "content": [{"type": "text"}]}]})", "messages[0].content[0].text", "missing"},
       {R"({"messages": [{"role": "user", "content": "x", "name": "me"}]})", "messages[0].name", "not supported"},
       {R"({"messages": [{"role": "user", "content": "x", "colour": 1}]})", "messages[0].colour", "unrecognized"},
       {R"({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]})", "messages",
        "must be the first"},
       {R"({"tools": [{"type": "function"}]})", "tools", "not supported"},
       {R"({"tool_choice": "auto"})", "tool_choice", "not supported"},
       {R"({"functions": [{"name": "f"}]})", "functions", "not supported"},
       {R"({"audio": {"voice": "x"}})", "audio", "not supported"},
       {R"({"modalities": ["text", "audio"]})", "modalities", "not supported"},
       {R"({"response_format": {"type": "json_schema"}})", "response_format", "not supported"},
       {R"({"logprobs": 5})", "logprobs", "true or false is expected"},
       {R"({"top_logprobs": 5})", "top_logprobs", "only allowed with logprobs = true"},
       {R"({"logprobs": true, "top_logprobs": 21})", "top_logprobs", "from 0 to 20"},
       {R"({"max_tokens": 5, "max_completion_tokens": 6})", "max_tokens", "differ"},
       {R"({"max_completion_tokens": 0})", "max_completion_tokens", "1 or more"},
       {R"({"max_completion_tokens": 1000})", "max_completion_tokens", "1000 positions"},
       {R"({"prompt": "a"})", "prompt", "unrecognized request argument"}});
  // What says nothing is let through.
  json harmless = right;
  harmless.update(json::parse(R"({"tools": null, "tool_choice": "none", "response_format": {"type": "text"},
      "modalities": ["text"], "logit_bias": {}, "parallel_tool_calls": true, "metadata": {"a": "b"}})"));
  EXPECT_EQ(chat(harmless).status, 200);
}

TEST_F(Refusals, AnotherModelsName) {
  const auto answer = complete({{"model", "gpt-9"}, {"prompt", "a"}});
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.error("code"), "model_not_found");
  EXPECT_EQ(answer.error(), "the model `gpt-9` does not exist; this server has bytes");
}

TEST_F(Refusals, PromptsWithoutRoom) {
  const auto answer = complete({{"prompt", std::string(1000, 'a')}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.error("code"), "context_length_exceeded");
  EXPECT_THAT(answer.error(), HasSubstr("1000 positions, and the prompt has 1000 tokens"));
  EXPECT_EQ(complete({{"prompt", std::string(999, 'a')}, {"max_tokens", 1}}).status, 200);
  EXPECT_EQ(complete({{"prompt", std::string(1000, 'a')}, {"max_tokens", 0}, {"echo", true}}).status, 200);
  const auto engine = complete({{"prompt", "thirteen byte"}});
  EXPECT_EQ(engine.status, 400);
  EXPECT_EQ(engine.error(), "13 tokens are never read");
}

TEST_F(Refusals, TooManySequences) {
  options.max_sequences = 10;
  const auto answer = complete({{"prompt", {"a", "b"}}, {"n", 6}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.error(), HasSubstr("2 prompts times n = 6 are more than 10 sequences"));
  EXPECT_EQ(complete({{"prompt", std::vector<std::string>(11, "a")}}).status, 400);
}

TEST_F(Refusals, WithoutAChatTemplate) {
  model.render_chat = nullptr;
  const auto answer = chat({{"messages", {{{"role", "user"}, {"content", "x"}}}}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_THAT(answer.error(), HasSubstr("use /v1/completions, or start the server with --chat-template FILE"));
}

TEST_F(Refusals, AnEngineWithTooMuchToDo) {
  service.accept_at_most(3);
  service.allow(0);
  const auto answer = complete({{"prompt", "a"}, {"n", 4}});
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
  EXPECT_EQ(answer.error("code"), "overloaded");
  EXPECT_EQ(service.num_cancelled(), 3u) << "all or none";
}

TEST_F(Refusals, WhatIsNoJson) {
  for (const std::string body : {"", "{", "[1,", "{\"prompt\": \"a\"} x", "{\"prompt\": \"\xff\xfe\"}", "nonsense",
                                 "{\"prompt\": \"\\ud800\"}", "{\"max_tokens\": 1e999}", "\x80\x81\x82"}) {
    const auto answer = testing::post(port(), "/v1/completions", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_NE(answer.error().find("the body is "), std::string::npos) << answer.error();
  }
  for (const std::string body : {"[]", "5", "\"x\"", "null", "true"}) {
    EXPECT_EQ(testing::post(port(), "/v1/completions", json(body)).status, 400) << body;
  }
  const std::string deep(1 << 20, '[');
  EXPECT_EQ(testing::post(port(), "/v1/completions", deep).status, 400);
  EXPECT_EQ(testing::post(port(), "/v1/completions", deep + std::string(1 << 20, ']')).status, 400);
  const std::string nested = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_EQ(testing::post(port(), "/v1/completions", "{\"prompt\": " + nested + "}").status, 400);
}

}  // namespace
}  // namespace farskip
