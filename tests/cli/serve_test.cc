// farskip serve as a user meets it: a small trained model, a client, signals.

#include <fmt/format.h>

#include <csignal>
#include <regex>

#include "tests/cli/tiny_training.h"
#include "tests/serve/client.h"

namespace farskip {
namespace {

using nlohmann::json;
using testing::get;
using ::testing::HasSubstr;
using testing::post;
using testing::run_farskip;
using testing::RunningProgram;
using testing::wait_until;

/// A model that has learned its text by heart, and a server.
class Serve : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    trained("connectivity=farskip train_iters=150 lr=2e-2 save=" + (folder / "run"));
  }
  /// Returns when it answers.
  std::unique_ptr<RunningProgram> start(const std::string& options = "") {
    auto program = std::make_unique<RunningProgram>(
        "serve " + folder / "run" + " --port 0 --served-model-name tiny " + options, folder / "server");
    const std::regex line("serving \\S+ at http://127.0.0.1:([0-9]+)\n");
    std::smatch found;
    std::string out;
    const bool started = wait_until(120, [&] {
      out = program->out();
      return std::regex_search(out, found, line) || program->wait(0);
    });
    EXPECT_TRUE(started && !found.empty()) << out << program->err();
    port = found.empty() ? 0 : std::stoi(found[1]);
    return program;
  }
  void end(RunningProgram& program, int signal = SIGTERM) {
    program.send(signal);
    EXPECT_EQ(program.wait(60), 0) << program.err();
  }
  json complete(const json& body) const {
    const auto answer = post(port, "/v1/completions", body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.status == 200 ? answer.json() : json();
  }
  static json greedy(const std::string& prompt) {
    return {{"model", "tiny"}, {"prompt", prompt}, {"temperature", 0}, {"max_tokens", 24}};
  }

  int port = 0;
};

TEST_F(Serve, SaysWhatGenerateSays) {
  const auto generated = run_farskip("generate " + folder / "run" + " --prompt 'The quick' --max-tokens 24");
  ASSERT_EQ(generated.status, 0) << generated.err;
  const std::string expected = generated.out.substr(9, generated.out.size() - 10);
  const auto program = start();
  const json whole = complete(greedy("The quick"));
  EXPECT_EQ(whole["choices"][0]["text"], expected);
  EXPECT_EQ(whole["usage"]["prompt_tokens"], 9);
  json streamed = greedy("The quick");
  streamed["stream"] = true;
  std::string text;
  for (const auto& event : post(port, "/v1/completions", streamed).events()) text += event["choices"][0]["text"];
  EXPECT_EQ(text, expected);

  json scored = greedy("The quick");
  scored.update({{"echo", true}, {"logprobs", 1}, {"max_tokens", 2}});
  const json logprobs = complete(scored)["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 11u);
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  for (size_t i = 1; i < 11; ++i) {
    EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0);
    for (const auto& [name, value] : logprobs["top_logprobs"][i].items())
      EXPECT_GE(value.get<double>(), logprobs["token_logprobs"][i].get<double>() - 1e-6) << i;
  }
  EXPECT_GT(logprobs["token_logprobs"][6].get<double>(), -0.7) << "'The qu' goes on so in what it has learned";

  const auto chat = post(port, "/v1/chat/completions", {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}});
  EXPECT_EQ(chat.status, 400);
  EXPECT_THAT(chat.error(), HasSubstr("no chat template"));
  EXPECT_EQ(get(port, "/health").status, 200);
  EXPECT_THAT(get(port, "/metrics").body, HasSubstr("vllm:request_success_total{engine=\"0\",model_name=\"tiny\","
                                                    "finished_reason=\"length\"} 3\n"));
  end(*program);
}

TEST_F(Serve, ManyClientsGetTheirOwnAnswers) {
  const auto program = start("--max-num-seqs 4 --max-num-batched-tokens 16 --batch-invariant");
  const std::vector<std::string> prompts = {"The quick", "The brown fox", "num", "ber 1", "over the", "J"};
  std::vector<std::string> alone;
  for (const auto& prompt : prompts) alone.push_back(complete(greedy(prompt))["choices"][0]["text"]);
  std::vector<std::string> together(24);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < together.size(); ++i) {
    threads.emplace_back([&, i] { together[i] = complete(greedy(prompts[i % 6]))["choices"][0]["text"]; });
  }
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < together.size(); ++i) EXPECT_EQ(together[i], alone[i % 6]) << i;
  json drawn = greedy("The");
  drawn.update({{"temperature", 1.5}, {"seed", 5}, {"n", 3}});
  const json first = complete(drawn)["choices"], second = complete(drawn)["choices"];
  EXPECT_EQ(first, second) << "the same seed";
  EXPECT_NE(first[0]["text"], first[1]["text"]);
  end(*program, SIGINT);
}

TEST_F(Serve, TwoRanksSayTheSame) {
  auto one = start();
  const json expected = complete(greedy("The quick"))["choices"];
  end(*one);
  for (const std::string layout : {"--layout tp=2", "--layout tp=2 --transport gloo"}) {
    const auto two = start(layout);
    EXPECT_EQ(complete(greedy("The quick"))["choices"], expected) << layout;
    end(*two);
  }
}

TEST_F(Serve, AnEndFinishesWhatRuns) {
  const auto program = start();
  testing::Client client(port);
  json body = greedy("The quick");
  body.update({{"max_tokens", 100}, {"stream", true}, {"ignore_eos", true}});
  client.send(testing::post_text("/v1/completions", body.dump()));
  ASSERT_NE(client.read_until("data: "), "");
  program->send(SIGTERM);
  EXPECT_NE(client.read_until("data: [DONE]"), "") << "the last word is heard";
  EXPECT_EQ(program->wait(60), 0) << program->err();
}

TEST_F(Serve, ALostRankEndsWhatRuns) {
  const auto program = start("--layout tp=2 --transport gloo --max-num-seqs 1");
  testing::Client client(port);
  json body = greedy("The quick");
  body.update({{"max_tokens", 100}, {"n", 16}, {"stream", true}, {"ignore_eos", true}});
  client.send(testing::post_text("/v1/completions", body.dump()));
  ASSERT_NE(client.read_until("data: "), "");
  const auto children = program->children();
  ASSERT_EQ(children.size(), 2u);
  kill(children[1], SIGKILL);
  EXPECT_NE(client.read_until("\"error\""), "");
  EXPECT_THAT(program->wait(60), ::testing::Optional(::testing::Ne(0)));
  EXPECT_THAT(program->err(), HasSubstr(fmt::format("rank 1 of 2 (process {}) was killed by signal 9", children[1])));
}

TEST_F(Serve, WrongUseIsExplained) {
  const auto said = [&](const std::string& options) {
    const auto result = run_farskip("serve " + folder / "run" + " " + options);
    EXPECT_NE(result.status, 0) << options;
    return result.err;
  };
  const auto program = start();
  EXPECT_THAT(said("--port " + std::to_string(port)), HasSubstr("choose another --port"));
  end(*program);
  EXPECT_THAT(said("--port 99999"), HasSubstr("99999"));
  EXPECT_THAT(said("--layout tp=3"), HasSubstr("3"));
  EXPECT_THAT(said("--chat-template /nowhere"), HasSubstr("/nowhere"));
  EXPECT_THAT(said("--host nowhere.invalid"), HasSubstr("nowhere.invalid"));
}

}  // namespace
}  // namespace farskip
