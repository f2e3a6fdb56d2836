// Many requests at once, on one rank, against each of them alone: whatever the engine does with them, their tokens stay
// the same.

#include "infer/engine.h"

#include <gmock/gmock.h>

#include <deque>
#include <optional>
#include <random>

#include "infer/decoder.h"
#include "tests/base/error_of.h"
#include "tests/infer/engine_harness.h"
#include "tests/infer/sequence_logits.h"

namespace farskip {
namespace {

using testing::alone;
using testing::Caller;
using testing::error_of;
using testing::golden;
using testing::golden_text;
using ::testing::HasSubstr;
using testing::request_for;
using testing::with_engine;

struct EngineCase {
  std::string family;
  bool ahead;
};

class Engines : public ::testing::TestWithParam<EngineCase> {
 protected:
  void SetUp() override {
    const std::string folder = golden(GetParam().family);
    if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no golden model at " << folder;
    model_.emplace(folder, InferenceModelOptions{.dtype = at::kFloat});
    text_ = golden_text(GetParam().family);
  }

  EngineOptions options() const {
    EngineOptions options;
    options.max_model_len = 2500;
    options.async_scheduling = GetParam().ahead;
    return options;
  }

  /// Prompts of 1 to 220 tokens, of which many begin alike.
  std::vector<GenerationRequest> requests(size_t num, uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](int64_t least, int64_t most) {
      return std::uniform_int_distribution<int64_t>(least, most)(random);
    };
    std::vector<GenerationRequest> result;
    for (size_t i = 0; i < num; ++i) {
      GenerationRequest request = request_for({}, pick(1, 12));
      const int64_t size = pick(0, 2) == 0 ? pick(1, 20) : pick(100, 220), common = pick(0, 1) * 70;
      for (int64_t p = 0; p < size; ++p) {
        const size_t at = p < common ? p : pick(0, 1000);
        request.prompt.push_back(text_[at % text_.size()]);
      }
      if (i % 3 == 2) {
        request.sampling.temperature = 0.8;
        request.sampling.top_p = 0.9;
        request.sampling.seed = seed + i;
        request.sampling.repetition_penalty = 1.1;
        request.sampling.presence_penalty = 0.2;
      }
      result.push_back(request);
    }
    return result;
  }

  void expect_alone(const std::vector<GenerationRequest>& requests, std::deque<Caller>& callers) {
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(callers[i].wait_for_end()) << i;
      const GeneratedSequence expected = alone(*model_, requests[i]);
      EXPECT_EQ(callers[i].tokens, expected.tokens) << i;
      EXPECT_EQ(callers[i].finish_reason, expected.finish_reason) << i << callers[i].error;
      EXPECT_EQ(callers[i].num_events, std::ssize(expected.tokens) + (expected.finish_reason == "stop")) << i;
    }
  }

  std::optional<InferenceModel> model_;
  std::vector<int32_t> text_;
};

TEST_P(Engines, RequestsAtRandomTimesGiveWhatTheyGiveAlone) {
  const auto all = requests(24, 7);
  EngineOptions options = this->options();
  options.max_num_seqs = 6;
  options.max_num_batched_tokens = 40;
  std::deque<Caller> callers(all.size());
  with_engine(*model_, options, [&](Engine& engine) {
    std::mt19937_64 random(1);
    for (size_t i = 0; i < all.size(); ++i) {
      if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
      engine.submit(all[i], callers[i].on_event());
    }
    expect_alone(all, callers);
    const EngineStats stats = engine.stats();
    EXPECT_GT(stats.cached_prompt_tokens, 0);
    EXPECT_EQ(stats.num_preemptions, 0);
    int64_t num_prompt = 0, num_made = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      num_prompt += std::ssize(all[i].prompt);
      num_made += std::ssize(callers[i].tokens);
    }
    EXPECT_EQ(stats.prompt_tokens, num_prompt);
    EXPECT_EQ(stats.generated_tokens, num_made);
    // Chunks of at most 40 tokens: the prompts alone need so many steps.
    EXPECT_GE(stats.num_steps, (num_prompt - stats.cached_prompt_tokens) / 40);
  });
}

TEST_P(Engines, ASmallCacheOnlyTakesLonger) {
  std::vector<GenerationRequest> all = requests(8, 11);
  for (auto& request : all) {
    request.prompt.resize(std::min<size_t>(request.prompt.size(), 60));
    request.max_tokens = 90;
  }
  EngineOptions options = this->options();
  options.max_model_len = 192;
  options.cache_positions = 5 * 64;
  options.max_num_batched_tokens = 64;
  std::deque<Caller> callers(all.size());
  with_engine(*model_, options, [&](Engine& engine) {
    for (size_t i = 0; i < all.size(); ++i) engine.submit(all[i], callers[i].on_event());
    expect_alone(all, callers);
    EXPECT_GT(engine.stats().num_preemptions, 0);
  });
}

TEST_P(Engines, StopTokensEndASequenceAndNoOther) {
  std::vector<GenerationRequest> all = requests(6, 13);
  for (auto& request : all) request.max_tokens = 16;
  for (size_t i = 0; i < all.size(); i += 2) {
    const auto tokens = alone(*model_, all[i]).tokens;
    all[i].stop_tokens = {tokens.at(3 + i)};
    ASSERT_EQ(alone(*model_, all[i]).finish_reason, "stop");
  }
  std::deque<Caller> callers(all.size());
  with_engine(*model_, options(), [&](Engine& engine) {
    for (size_t i = 0; i < all.size(); ++i) engine.submit(all[i], callers[i].on_event());
    expect_alone(all, callers);
  });
}

TEST_P(Engines, ACancelledRequestLeavesTheOthersAlone) {
  std::vector<GenerationRequest> all = requests(6, 17);
  for (auto& request : all) request.max_tokens = 20;
  std::deque<Caller> callers(all.size());
  with_engine(*model_, options(), [&](Engine& engine) {
    std::vector<uint64_t> ids(all.size());
    std::mutex submitting;
    for (size_t i = 1; i < all.size(); i += 2) {
      // On the engine's own thread, as a server does that finds its client gone.
      callers[i].then = [&, i](Caller& caller) {
        if (caller.tokens.size() != 3) return;
        const std::lock_guard lock(submitting);
        engine.cancel(ids[i]);
      };
    }
    {
      const std::lock_guard lock(submitting);
      for (size_t i = 0; i < all.size(); ++i) ids[i] = engine.submit(all[i], callers[i].on_event());
    }
    for (size_t i = 0; i < all.size(); ++i) {
      ASSERT_TRUE(callers[i].wait_for_end());
      const auto expected = alone(*model_, all[i]).tokens;
      if (i % 2 == 0) {
        EXPECT_EQ(callers[i].tokens, expected);
        continue;
      }
      EXPECT_EQ(callers[i].finish_reason, "abort");
      ASSERT_GE(callers[i].tokens.size(), 3u);
      EXPECT_LE(callers[i].tokens.size(), 4u) << "the next plan leaves it out";
      EXPECT_TRUE(std::equal(callers[i].tokens.begin(), callers[i].tokens.end(), expected.begin()));
    }
    engine.cancel(ids[0]);   // has ended
    engine.cancel(1 << 20);  // has never been
    Caller caller;
    engine.submit(all[0], caller.on_event());
    ASSERT_TRUE(caller.wait_for_end());
    EXPECT_EQ(caller.tokens, callers[0].tokens) << "from shared pages";
  });
  for (const Caller& caller : callers) EXPECT_EQ(caller.num_after_end, 0);
}

// Against the kernels of training, over the whole sequence at once.
TEST_P(Engines, LogprobsAreThoseOfTheModel) {
  GenerationRequest request = request_for({text_.begin(), text_.begin() + 11}, 6);
  request.num_logprobs = 4;
  request.prompt_logprobs = true;
  EngineOptions options = this->options();
  options.max_num_batched_tokens = options.max_num_seqs = 4;
  Caller caller;
  with_engine(*model_, options, [&](Engine& engine) {
    engine.submit(request, caller.on_event());
    ASSERT_TRUE(caller.wait_for_end());
  });
  ASSERT_EQ(caller.tokens, alone(*model_, request).tokens);
  EXPECT_EQ(caller.num_events, 6);
  std::vector<int32_t> ids = request.prompt;
  ids.insert(ids.end(), caller.tokens.begin(), caller.tokens.end());
  const at::Tensor expected = at::log_softmax(testing::sequence_logits(golden(GetParam().family), ids), -1);
  std::vector<TokenLogprobs> all = caller.of_prompt;
  all.insert(all.end(), caller.logprobs.begin(), caller.logprobs.end());
  ASSERT_EQ(all.size(), ids.size() - 1);
  for (size_t i = 0; i < all.size(); ++i) {
    const at::Tensor row = expected[static_cast<int64_t>(i)];
    EXPECT_EQ(all[i].token, ids[i + 1]);
    EXPECT_NEAR(all[i].logprob, row[ids[i + 1]].item<float>(), 1e-4);
    ASSERT_EQ(all[i].top.size(), 4u);
    const auto likeliest = row.topk(4);
    for (int64_t k = 0; k < 4; ++k) {
      EXPECT_NEAR(all[i].top[k].second, std::get<0>(likeliest)[k].item<float>(), 1e-4);
      EXPECT_NEAR(row[all[i].top[k].first].item<float>(), all[i].top[k].second, 1e-4);
    }
  }
  for (const TokenLogprobs& made : caller.logprobs) EXPECT_EQ(made.top[0].first, made.token) << "greedy";
  EXPECT_FALSE(caller.of_stop_token.has_value());

  // The same where the third token ends the text: it is no part of it, and has its logprob all the same.
  request.stop_tokens = {caller.tokens[2]};
  const auto first = std::find(caller.tokens.begin(), caller.tokens.end(), caller.tokens[2]) - caller.tokens.begin();
  Caller stopped;
  with_engine(*model_, options, [&](Engine& engine) {
    engine.submit(request, stopped.on_event());
    ASSERT_TRUE(stopped.wait_for_end());
  });
  EXPECT_EQ(stopped.finish_reason, "stop");
  ASSERT_EQ(std::ssize(stopped.logprobs), first);
  ASSERT_TRUE(stopped.of_stop_token.has_value());
  EXPECT_EQ(stopped.of_stop_token->token, caller.tokens[2]);
  EXPECT_NEAR(stopped.of_stop_token->logprob, caller.logprobs[first].logprob, 1e-5);
}

std::vector<EngineCase> cases() {
  std::vector<EngineCase> result;
  for (const std::string family :
       {"deepseek_v2_lite", "deepseek_v3_farskip", "instella_full", "qwen3_moe_farskip", "llama4", "olmoe"}) {
    result.push_back({family, false});
    result.push_back({family, true});
  }
  return result;
}
INSTANTIATE_TEST_SUITE_P(Families, Engines, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.family + (info.param.ahead ? "_async" : "_sync"); });

/// What does not depend on the model.
class OneEngine : public Engines {};
INSTANTIATE_TEST_SUITE_P(Families, OneEngine,
                         ::testing::Values(EngineCase{"qwen3_moe", false}, EngineCase{"qwen3_moe", true}),
                         [](const auto& info) { return info.param.ahead ? "async" : "sync"; });

TEST_P(OneEngine, StreamsOfASeedAreThoseOfGenerate) {
  GenerateOptions generate_options;
  generate_options.max_tokens = 10;
  generate_options.sampling.temperature = 1;
  const std::vector<int32_t> prompt(text_.begin(), text_.begin() + 5);
  const auto expected = generate(*model_, {prompt, prompt, prompt}, generate_options).sequences;
  EXPECT_NE(expected[0].tokens, expected[1].tokens);
  std::deque<Caller> callers(3);
  with_engine(*model_, options(), [&](Engine& engine) {
    for (uint64_t stream = 0; stream < 3; ++stream) {
      GenerationRequest request = request_for(prompt, 10);
      request.sampling = generate_options.sampling;
      request.stream = stream;
      engine.submit(request, callers[stream].on_event());
    }
    for (size_t i = 0; i < 3; ++i) {
      ASSERT_TRUE(callers[i].wait_for_end());
      EXPECT_EQ(callers[i].tokens, expected[i].tokens) << i;
    }
  });
}

TEST_P(OneEngine, TakesNoMoreThanItMay) {
  EngineOptions options = this->options();
  options.max_num_seqs = 2;
  options.max_num_waiting = 3;
  run_ranks(1, [&](World& world) {
    Engine engine(*model_, world, options);
    std::deque<Caller> callers(7);
    const auto request = request_for({1, 2, 3}, 5);
    for (int i = 0; i < 5; ++i) engine.submit(request, callers[i].on_event());
    EXPECT_THROW(engine.submit(request, callers[5].on_event()), Overloaded);
    EXPECT_EQ(engine.stats().num_waiting, 5);
    std::thread thread([&] { engine.run(); });
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE(callers[i].wait_for_end());
      EXPECT_EQ(callers[i].finish_reason, "length");
    }
    EXPECT_EQ(callers[5].num_events, 0);
    engine.submit(request, callers[6].on_event());
    EXPECT_TRUE(callers[6].wait_for_end());
    engine.stop();
    thread.join();
    EXPECT_THAT(error_of([&] { engine.submit(request, callers[6].on_event()); }), HasSubstr("stopped"));
  });
}

TEST_P(OneEngine, WhatHasNotEndedIsAborted) {
  std::deque<Caller> callers(3);
  run_ranks(1, [&](World& world) {
    Engine engine(*model_, world, options());
    std::promise<void> begun;
    callers[0].then = [&](Caller& caller) {
      if (caller.num_events == 1) begun.set_value();
    };
    engine.submit(request_for({1, 2}, 2000), callers[0].on_event());
    std::thread thread([&] { engine.run(); });
    begun.get_future().wait();
    engine.submit(request_for({3}, 2000), callers[1].on_event());
    engine.stop();
    thread.join();
    EXPECT_THROW(engine.submit(request_for({1}, 1), {}), Error);
    Engine never_run(*model_, world, options());
    never_run.submit(request_for({1}, 1), callers[2].on_event());
  });
  for (const Caller& caller : callers) {
    EXPECT_EQ(caller.finish_reason, "abort");
    EXPECT_EQ(caller.num_after_end, 0);
  }
}

TEST_P(OneEngine, RefusesWhatCanNeverRun) {
  EngineOptions options = this->options();
  options.max_model_len = 500;
  options.cache_positions = 130;
  with_engine(*model_, options, [&](Engine& engine) {
    EXPECT_EQ(engine.max_positions(), 128) << "whole pages";
    const auto refused = [&](const GenerationRequest& request) {
      return error_of([&] { engine.submit(request, {}); });
    };
    EXPECT_THAT(refused(request_for({}, 5)), HasSubstr("empty"));
    EXPECT_THAT(refused(request_for({1, 1 << 20}, 5)), HasSubstr("outside the model's vocabulary"));
    EXPECT_THAT(refused(request_for({-1}, 5)), HasSubstr("outside the model's vocabulary"));
    EXPECT_THAT(refused(request_for(std::vector<int32_t>(128, 1), 5)), HasSubstr("128 positions"));
    EXPECT_THAT(refused(request_for({1}, -1)), HasSubstr("max_tokens"));
    GenerationRequest request = request_for({1}, 1);
    request.sampling.top_p = 2;
    EXPECT_THAT(refused(request), HasSubstr("top_p"));
    request = request_for({1}, 1);
    request.num_logprobs = 1 << 20;
    EXPECT_THAT(refused(request), HasSubstr("logprobs"));
    Caller last, none;
    engine.submit(request_for(std::vector<int32_t>(127, 1), 5), last.on_event());
    request = request_for({1, 2, 3}, 0);
    request.prompt_logprobs = true;
    engine.submit(request, none.on_event());
    ASSERT_TRUE(last.wait_for_end() && none.wait_for_end());
    EXPECT_EQ(last.tokens.size(), 1u);
    EXPECT_EQ(last.finish_reason, "length");
    EXPECT_EQ(none.of_prompt.size(), 2u);
    EXPECT_EQ(none.tokens.size(), 0u);
    EXPECT_EQ(none.finish_reason, "length");
    EXPECT_EQ(none.num_events, 1);
  });
  options.max_num_batched_tokens = 1;
  EXPECT_THAT(error_of([&] { with_engine(*model_, options, [](Engine&) {}); }), HasSubstr("max_num_batched_tokens"));
}

TEST_P(OneEngine, ACallerThatFailsLosesItsRequestAlone) {
  std::deque<Caller> callers(2);
  callers[0].then = [](Caller&) { fail("gone"); };
  with_engine(*model_, options(), [&](Engine& engine) {
    for (Caller& caller : callers) engine.submit(request_for({1, 2, 3}, 8), caller.on_event());
    for (Caller& caller : callers) ASSERT_TRUE(caller.wait_for_end());
  });
  EXPECT_EQ(callers[0].finish_reason, "abort");
  EXPECT_EQ(callers[1].finish_reason, "length");
  EXPECT_EQ(callers[1].tokens.size(), 8u);
}

}  // namespace
}  // namespace farskip
