// The engine on several ranks (threads of this process) against each request alone on one rank, and what becomes of
// requests when a rank is lost.

#include <gmock/gmock.h>

#include <deque>
#include <map>
#include <mutex>
#include <random>

#include "infer/inference_model.h"
#include "schedule/hand_orders.h"
#include "tests/infer/engine_harness.h"
#include "transport/probes.h"

namespace farskip {
namespace {

using testing::alone;
using ::testing::AnyOf;
using testing::Caller;
using testing::golden;
using testing::golden_text;
using ::testing::HasSubstr;
using testing::request_for;

InferenceModel model_of(const std::string& family, const Layout& layout, int rank) {
  return InferenceModel(golden(family), {.dtype = at::kFloat, .layout = layout, .rank = rank});
}

/// Calls `body` with rank 0's engine while all ranks serve. What run() threw, per rank.
std::vector<std::string> with_engines(const std::string& family, const Layout& layout, Worlds worlds,
                                      const EngineOptions& options, const std::function<void(Engine&)>& body) {
  std::vector<std::string> errors(worlds.size());
  run_ranks(worlds, [&](World& world) {
    const InferenceModel model = model_of(family, layout, world.rank());
    Engine engine(model, world, options);
    const auto serve = [&] {
      try {
        engine.run();
      } catch (const Error& error) {
        errors[world.rank()] = error.what();
      }
    };
    if (world.rank() > 0) {
      serve();
      EXPECT_THROW(engine.submit(request_for({1}, 1), {}), Error) << "rank 0 takes requests";
      return;
    }
    std::thread thread(serve);
    try {
      body(engine);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    engine.stop();
    thread.join();
    EXPECT_EQ(engine.stats().cache_positions_used, 0);
  });
  return errors;
}

struct Case {
  std::string family, layout;
  bool ahead;
};

class EngineRanks : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string& family = GetParam().family;
    if (!std::filesystem::exists(golden(family))) GTEST_SKIP() << "no golden model at " << golden(family);
    model_.emplace(model_of(family, {}, 0));
    text_ = golden_text(family);
    options_.max_model_len = 2500;
    options_.async_scheduling = GetParam().ahead;
    layout_ = Layout::parse(GetParam().layout);
  }

  std::vector<GenerationRequest> requests(size_t num, int64_t most, uint64_t seed) const {
    std::mt19937_64 random(seed);
    std::vector<GenerationRequest> result;
    for (size_t i = 0; i < num; ++i) {
      GenerationRequest request = request_for({}, 1 + static_cast<int64_t>(random() % 12));
      const size_t size = 1 + random() % most, own = random() % 3;
      for (size_t p = 0; p < size; ++p) request.prompt.push_back(text_[(own * (p / 70) + p) % text_.size()]);
      if (i % 3 == 2) {
        request.sampling.temperature = 0.8;
        request.sampling.seed = seed + i;
        request.sampling.frequency_penalty = 0.1;
      }
      if (i % 4 == 1) {
        const auto tokens = alone(*model_, request).tokens;
        request.stop_tokens = {tokens[tokens.size() / 2]};
      }
      result.push_back(request);
    }
    return result;
  }

  void expect_alone(const std::vector<GenerationRequest>& all, const EngineOptions& options,
                    const std::function<void(const EngineStats&)>& then) {
    std::deque<Caller> callers(all.size());
    const auto errors =
        with_engines(GetParam().family, layout_, make_loopback(layout_.world()), options, [&](Engine& engine) {
          std::mt19937_64 random(3);
          for (size_t i = 0; i < all.size(); ++i) {
            if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(random() % 20));
            engine.submit(all[i], callers[i].on_event());
          }
          for (Caller& caller : callers) ASSERT_TRUE(caller.wait_for_end());
          then(engine.stats());
        });
    for (const std::string& error : errors) EXPECT_EQ(error, "");
    for (size_t i = 0; i < all.size(); ++i) {
      const GeneratedSequence expected = alone(*model_, all[i]);
      EXPECT_EQ(callers[i].tokens, expected.tokens) << i;
      EXPECT_EQ(callers[i].finish_reason, expected.finish_reason) << i << callers[i].error;
      EXPECT_EQ(callers[i].num_events, std::ssize(expected.tokens) + (expected.finish_reason == "stop")) << i;
    }
  }

  std::optional<InferenceModel> model_;
  std::vector<int32_t> text_;
  Layout layout_;
  EngineOptions options_;
};

TEST_P(EngineRanks, RequestsAtRandomTimesGiveWhatTheyGiveAlone) {
  options_.max_num_seqs = 5;
  options_.max_num_batched_tokens = 40;
  expect_alone(requests(16, 200, 5), options_, [](const EngineStats& stats) {
    EXPECT_GT(stats.cached_prompt_tokens, 0);
    EXPECT_EQ(stats.num_preemptions, 0);
  });
}

/// What does not depend on the model.
class OneFamily : public EngineRanks {};
class LostRank : public EngineRanks {};

TEST_P(OneFamily, ASmallCacheOnlyTakesLonger) {
  auto all = requests(8, 60, 9);
  for (auto& request : all) request.max_tokens = 90;
  options_.max_model_len = 192;
  options_.cache_positions = 4 * 64;
  expect_alone(all, options_, [](const EngineStats& stats) { EXPECT_GT(stats.num_preemptions, 0); });
}

// Two microbatches where a step is large, one where it is small; each rank prepares each kind once, and all the same.
TEST_P(OneFamily, AFormForEachBucketOfSteps) {
  std::mutex mutex;
  std::map<StepBucket, int> asked;
  options_.max_num_seqs = 5;
  options_.max_num_batched_tokens = 64;
  options_.form = [&](const StepBucket& bucket) {
    const std::lock_guard lock(mutex);
    ++asked[bucket];
    return bucket.tokens >= 16 ? StepForm{2, two_batch_schedule} : StepForm{1, paper_schedule};
  };
  expect_alone(requests(10, 100, 21), options_, [](const EngineStats&) {});
  bool prefill = false, decode = false;
  for (const auto& [bucket, times] : asked) {
    EXPECT_EQ(times, layout_.world()) << to_string(bucket.phase) << " " << bucket.tokens;
    (bucket.phase == Phase::prefill ? prefill : decode) = true;
    EXPECT_LE(bucket.tokens, 64);
  }
  EXPECT_TRUE(prefill && decode);
}

// Prompts that do not fit into one message.
TEST_P(OneFamily, LongPrompts) {
  GenerationRequest request = request_for({}, 4);
  while (std::ssize(request.prompt) < 1500) request.prompt.insert(request.prompt.end(), text_.begin(), text_.end());
  expect_alone({request, request_for({1, 2}, 30), request}, options_, [](const EngineStats&) {});
}

TEST_P(OneFamily, LogprobsComeFromWhereTheyAre) {
  const auto logprobs = [&](const Layout& layout, std::deque<Caller>& callers) {
    with_engines(GetParam().family, layout, make_loopback(layout.world()), options_, [&](Engine& engine) {
      for (size_t i = 0; i < callers.size(); ++i) {
        GenerationRequest request = request_for({text_.begin() + i, text_.begin() + 7 + i}, 5);
        request.num_logprobs = static_cast<int64_t>(i);
        request.prompt_logprobs = i % 2 == 1;
        engine.submit(request, callers[i].on_event());
      }
      for (Caller& caller : callers) ASSERT_TRUE(caller.wait_for_end());
    });
  };
  std::deque<Caller> one(4), several(4);
  logprobs({}, one);
  logprobs(layout_, several);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(several[i].tokens, one[i].tokens);
    EXPECT_EQ(several[i].of_prompt.size(), i % 2 == 1 ? 6u : 0u);
    const auto expect_near = [&](const std::vector<TokenLogprobs>& a, const std::vector<TokenLogprobs>& b) {
      ASSERT_EQ(a.size(), b.size());
      for (size_t t = 0; t < a.size(); ++t) {
        EXPECT_EQ(a[t].token, b[t].token);
        EXPECT_NEAR(a[t].logprob, b[t].logprob, 1e-4);
        ASSERT_EQ(a[t].top.size(), i);
        for (size_t k = 0; k < i; ++k) EXPECT_NEAR(a[t].top[k].second, b[t].top[k].second, 1e-4);
      }
    };
    expect_near(several[i].logprobs, one[i].logprobs);
    expect_near(several[i].of_prompt, one[i].of_prompt);
  }
}

TEST_P(LostRank, ALostRankEndsRequestsWithAnError) {
  for (const auto how : {Failure::How::fail, Failure::How::hang}) {
    for (const int rank : {0, 1}) {
      auto worlds = make_loopback(layout_.world(), {.timeout_s = how == Failure::How::hang ? 5.0 : 300.0});
      worlds[rank] = with_failure(std::move(worlds[rank]), {.how = how, .at = 150});
      std::deque<Caller> callers(12);
      const auto errors = with_engines(GetParam().family, layout_, std::move(worlds), options_, [&](Engine& engine) {
        for (size_t i = 0; i < callers.size(); ++i) {
          engine.submit(request_for({1, 2, static_cast<int32_t>(i)}, 2000), callers[i].on_event());
        }
        for (Caller& caller : callers) ASSERT_TRUE(caller.wait_for_end());
        EXPECT_THROW(engine.submit(request_for({1}, 1), {}), Error);
      });
      for (const Caller& caller : callers) {
        EXPECT_EQ(caller.finish_reason, "error");
        EXPECT_THAT(caller.error, HasSubstr("rank " + std::to_string(rank)));
        EXPECT_EQ(caller.num_after_end, 0);
      }
      for (const std::string& error : errors) EXPECT_THAT(error, HasSubstr("rank " + std::to_string(rank)));
    }
  }
}

// Idle ranks hear of each other: nobody has asked for anything, and still the loss is noticed.
TEST_P(LostRank, ARankThatIsLostWhileIdleIsNoticed) {
  auto worlds = make_loopback(layout_.world(), {.timeout_s = 5});
  worlds[1] = with_failure(std::move(worlds[1]), {.how = Failure::How::hang, .at = 5});
  options_.heartbeat_s = 0.05;
  with_engines(GetParam().family, layout_, std::move(worlds), options_, [&](Engine& engine) {
    bool refused = false;
    for (int i = 0; i < 600 && !refused; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      Caller caller;
      try {
        // A request may get in before the loss is known, and then ends with an error.
        engine.submit(request_for({1, 2}, 1), caller.on_event());
        ASSERT_TRUE(caller.wait_for_end());
        EXPECT_THAT(caller.error, AnyOf("", HasSubstr("rank 1")));
      } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("rank 1"));
        refused = true;
      }
    }
    EXPECT_TRUE(refused);
  });
}

// The plan of the next step is under way before this one's first collective, and there is one for each.
TEST_P(OneFamily, PlansTravelWhileStepsRun) {
  auto worlds = make_loopback(layout_.world());
  const auto record = std::make_shared<Record>();
  worlds[0] = with_record(std::move(worlds[0]), record);
  Caller caller;
  int64_t num_steps = 0;
  with_engines(GetParam().family, layout_, std::move(worlds), options_, [&](Engine& engine) {
    engine.submit(request_for({1, 2, 3}, 6), caller.on_event());
    ASSERT_TRUE(caller.wait_for_end());
    num_steps = engine.stats().num_steps;
  });
  EXPECT_EQ(num_steps, 6);
  int64_t num_plans = 0, num_drawn = 0;
  for (const auto& name : record->names()) {
    if (name == "plan") ++num_plans;
    if (name != "tokens") continue;
    ++num_drawn;
    // Idle plans may come before; then a step's own, and the next one's if it is made ahead.
    EXPECT_GE(num_plans, num_drawn + (GetParam().ahead ? 1 : 0));
  }
  EXPECT_EQ(num_drawn, 6);
  std::vector<std::string> steps;  // from the first step on
  const auto names = record->names();
  const auto first = std::find(names.begin(), names.end(), "tokens");
  for (auto name = first; name != names.end(); ++name) {
    if (*name == "plan" || *name == "tokens") steps.push_back(*name);
  }
  for (size_t i = 0; i + 1 < 12; ++i) EXPECT_EQ(steps.at(i), i % 2 == 0 ? "tokens" : "plan");
}

std::vector<Case> cases(const std::vector<std::string>& families) {
  std::vector<Case> result;
  for (const std::string& family : families) {
    for (const std::string layout : {"tp=2", "ep=2", "ep=2,exchange=a2a"}) result.push_back({family, layout, true});
    result.push_back({family, "tp=2", false});
    result.push_back({family, "ep=2", false});
  }
  return result;
}

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.family + "_" + info.param.layout + (info.param.ahead ? "_async" : "_sync");
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Families, EngineRanks,
                         ::testing::ValuesIn(cases({"deepseek_v2_lite", "deepseek_v3_farskip", "qwen3_moe_farskip"})),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Families, OneFamily, ::testing::ValuesIn(cases({"qwen3_moe_farskip"})), name_of);
INSTANTIATE_TEST_SUITE_P(DataParallel, EngineRanks,
                         ::testing::Values(Case{"qwen3_moe_farskip", "dp=2", true},
                                           Case{"deepseek_v3_farskip", "ep=2,dp=2", true}),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Families, LostRank,
                         ::testing::Values(Case{"qwen3_moe_farskip", "tp=2", true},
                                           Case{"qwen3_moe_farskip", "ep=2", false}),
                         name_of);

}  // namespace
}  // namespace farskip
