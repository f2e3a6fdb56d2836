// Answers as server-sent events: pieces are whole characters without stop strings, in order, and add up.

#include "tests/serve/small_server.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Stream : public testing::SmallServer {
 protected:
  std::vector<json> events(const std::string& path, json body) {
    body["stream"] = true;
    const auto answer = testing::post(port(), path, body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_THAT(answer.headers.at("content-type"), HasSubstr("text/event-stream"));
    return answer.events();
  }
};

TEST_F(Stream, PiecesAddUp) {
  const std::string text = "h\u00e9llo \u4e16\u754c \U0001F600!";
  service.say(text);
  std::string all;
  int num_pieces = 0;
  std::string reason;
  for (const json& event : events("/v1/completions", {{"prompt", "a"}, {"max_tokens", 100}})) {
    EXPECT_EQ(event["object"], "text_completion");
    ASSERT_EQ(event["choices"].size(), 1u);
    EXPECT_TRUE(reason.empty()) << "something follows the end";
    all += event["choices"][0]["text"].get<std::string>();
    if (event["choices"][0]["finish_reason"].is_string()) reason = event["choices"][0]["finish_reason"];
    EXPECT_EQ(event.count("usage"), 0u);
    ++num_pieces;
  }
  EXPECT_EQ(all, text);
  EXPECT_EQ(reason, "stop");
  EXPECT_GT(num_pieces, 8) << "they come as they are made";
}

TEST_F(Stream, ACutCharacterBecomesAReplacementCharacter) {
  service.say("a\xe4\xb8");
  std::string all;
  for (const json& event : events("/v1/completions", {{"prompt", "a"}})) all += event["choices"][0]["text"];
  EXPECT_EQ(all, "a\uFFFD");
}

TEST_F(Stream, NoPartOfAStopStringIsShown) {
  service.say("one tw two three");
  service.allow(10);  // up to the stop string's end
  std::string all;
  json last;
  for (const json& event : events("/v1/completions", {{"prompt", "a"}, {"stop", "two"}, {"logprobs", 1}})) {
    all += event["choices"][0]["text"];
    EXPECT_EQ(std::string("one tw ").substr(0, all.size()), all);
    last = event["choices"][0];
  }
  EXPECT_EQ(all, "one tw ");
  EXPECT_EQ(last["finish_reason"], "stop");
  EXPECT_TRUE(testing::wait_until(10, [&] { return service.num_open() == 0; }));
  EXPECT_EQ(service.num_cancelled(), 1u) << "the engine need not go on";
}

TEST_F(Stream, UsageComesLastWhereAskedFor) {
  const auto all =
      events("/v1/completions", {{"prompt", "abc"}, {"max_tokens", 4}, {"stream_options", {{"include_usage", true}}}});
  for (size_t i = 0; i + 1 < all.size(); ++i) EXPECT_TRUE(all[i].at("usage").is_null());
  EXPECT_TRUE(all.back()["choices"].empty());
  EXPECT_EQ(all.back()["usage"], json::parse(R"({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})"));
}

TEST_F(Stream, Chat) {
  std::vector<std::string> texts(2);
  std::vector<int> num_roles(2);
  std::vector<std::string> reasons;
  const auto all = events("/v1/chat/completions",
                          {{"messages", {{{"role", "user"}, {"content", "x"}}}}, {"n", 2}, {"logprobs", true}});
  for (const json& event : all) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    EXPECT_EQ(event["id"], all[0]["id"]);
    const json choice = event["choices"][0];
    const size_t index = choice["index"];
    const json delta = choice["delta"];
    if (delta.count("role") != 0) {
      EXPECT_EQ(delta, json({{"role", "assistant"}, {"content", ""}}));
      EXPECT_EQ(texts[index], "") << "it comes first";
      ++num_roles[index];
    } else if (delta.count("content") != 0) {
      texts[index] += delta["content"];
      EXPECT_EQ(choice["logprobs"]["content"].size(), 1u);
    }
    if (choice["finish_reason"].is_string()) reasons.push_back(choice["finish_reason"]);
  }
  EXPECT_THAT(texts, ElementsAre("Hello, world.", "Hello, world."));
  EXPECT_THAT(num_roles, ElementsAre(1, 1));
  EXPECT_THAT(reasons, ElementsAre("stop", "stop"));
}

TEST_F(Stream, PiecesComeWhenTheyAreMade) {
  service.allow(0);
  testing::Client client(port());
  client.send(testing::post_text("/v1/completions", R"({"prompt": "a", "stream": true})"));
  ASSERT_TRUE(testing::wait_until(10, [&] { return service.num_open() == 1; }));
  service.allow(2);
  EXPECT_THAT(client.read_until("\"text\":\"H\""), HasSubstr("200 OK"));
  EXPECT_NE(client.read_until("\"text\":\"e\""), "");
  EXPECT_EQ(service.num_open(), 1u) << "it still goes on";
  service.allow_all();
  EXPECT_NE(client.read_until("[DONE]"), "");
}

TEST_F(Stream, FailuresAreEventsOnceItHasBegun) {
  service.fail_after(3, "rank 1 is lost");
  const auto all = events("/v1/completions", {{"prompt", "a"}, {"n", 2}});
  EXPECT_EQ(all.back()["error"]["message"], "rank 1 is lost");
  EXPECT_EQ(all.back()["error"]["type"], "server_error");
  const auto whole = complete({{"prompt", "a"}});
  EXPECT_EQ(whole.status, 500);
  EXPECT_EQ(whole.error(), "rank 1 is lost");
}

TEST_F(Stream, OfHttp10EndsWithTheConnection) {
  testing::Client client(port());
  const std::string body = R"({"prompt": "a", "stream": true})";
  client.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  const auto answer = client.read();
  EXPECT_EQ(answer.headers.count("transfer-encoding"), 0u);
  EXPECT_FALSE(answer.events().empty());
}

}  // namespace
}  // namespace farskip
