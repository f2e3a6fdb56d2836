// Plans without a model: bounds, order, sharing, and a random soak against a cache that remembers what was written.

#include "infer/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "base/error.h"
#include "infer/step_message.h"
#include "tests/infer/pretended_model.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;

SchedulerOptions small() {
  SchedulerOptions options;
  options.num_pages = 16;
  options.page_positions = 4;
  options.max_model_len = 32;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 8;
  return options;
}

std::vector<int32_t> counting(int64_t size, int32_t from = 0) {
  std::vector<int32_t> tokens(size);
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

/// What the test looks at of a chunk.
std::vector<int64_t> brief(const ScheduledChunk& chunk) {
  return {static_cast<int64_t>(chunk.id), chunk.position, chunk.num_tokens, chunk.samples};
}

std::vector<std::vector<int64_t>> brief(const StepPlan& plan) {
  std::vector<std::vector<int64_t>> result;
  for (const ScheduledChunk& chunk : plan.chunks) result.push_back(brief(chunk));
  return result;
}

std::vector<int32_t> ones(const StepPlan& plan) { return std::vector<int32_t>(plan.chunks.size(), 1); }

TEST(PagePool, SharesWhatIsThereAndForgetsTheLongestUnused) {
  PagePool pool(4);
  const PageKey a = page_key("", counting(4)), b = page_key(a, counting(4, 4)), c = page_key("", counting(4, 8));
  const int32_t page_a = pool.take(), page_b = pool.take(), page_c = pool.take();
  pool.publish(page_a, a);
  pool.publish(page_b, b);
  pool.publish(page_c, c);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_THAT(pool.share(std::vector{a, b}), ElementsAre(page_a, page_b));
  pool.give_back(std::vector{page_a, page_b});
  EXPECT_EQ(pool.num_used(), 3) << "the first users are still there";
  pool.give_back(std::vector{page_c});
  pool.give_back(std::vector{page_a, page_b});
  EXPECT_EQ(pool.num_used(), 0);
  EXPECT_EQ(pool.match(std::vector{a, b}).num_unused, 2);
  EXPECT_EQ(pool.match(std::vector{b}).num_pages, 1) << "a key says what was before the page";
  pool.take();  // the one that never held anything
  EXPECT_EQ(pool.take(), page_c);
  EXPECT_EQ(pool.take(), page_b) << "the end of a sequence goes before its beginning";
  EXPECT_EQ(pool.match(std::vector{a, b}).num_pages, 1);
  EXPECT_EQ(pool.match(std::vector{c}).num_pages, 0);
  pool.check();
}

TEST(PagePool, KeysTellApartWhatIsBefore) {
  const auto tokens = counting(4);
  EXPECT_EQ(page_key("", tokens), page_key("", tokens));
  EXPECT_NE(page_key("", tokens), page_key(page_key("", counting(4, 1)), tokens));
}

TEST(Scheduler, ALongPromptIsReadInPartsBesideTheOthersTokens) {
  Scheduler scheduler(small());
  scheduler.add(1, {counting(3), 10});
  StepPlan plan = scheduler.schedule();
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 0, 3, 1)));
  EXPECT_EQ(plan.admitted.size(), 1u);
  scheduler.update(plan, ones(plan));
  scheduler.add(2, {counting(17, 100), 10});
  scheduler.add(3, {counting(2, 200), 10});
  plan = scheduler.schedule();
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 3, 1, 1), ElementsAre(2, 0, 7, 0)));
  scheduler.update(plan, ones(plan));
  plan = scheduler.schedule();
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 4, 1, 1), ElementsAre(2, 7, 7, 0)));
  scheduler.update(plan, ones(plan));
  plan = scheduler.schedule();
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 5, 1, 1), ElementsAre(2, 14, 3, 1), ElementsAre(3, 0, 2, 1)));
  scheduler.check();
}

TEST(Scheduler, PlansAheadOfResults) {
  Scheduler scheduler(small());
  scheduler.add(1, {counting(3), 3, {7}});
  scheduler.add(2, {counting(2), 2});
  const StepPlan first = scheduler.schedule(), second = scheduler.schedule();
  EXPECT_THAT(brief(second), ElementsAre(ElementsAre(1, 3, 1, 1), ElementsAre(2, 2, 1, 1)));
  // The first of 1 is a stop token: what the second plan has of it is in vain, and the next says that it is gone.
  const auto progress = scheduler.update(first, {7, 5});
  ASSERT_EQ(progress.size(), 2u);
  EXPECT_EQ(progress[0].finished, FinishReason::stop);
  EXPECT_FALSE(progress[0].token.has_value());
  EXPECT_EQ(progress[1].token, 5);
  const StepPlan third = scheduler.schedule();
  EXPECT_TRUE(third.chunks.empty()) << "two tokens of 2 are on their way, and no more are wanted";
  EXPECT_THAT(third.removed, ElementsAre(1));
  const auto last = scheduler.update(second, {9, 6});
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].chunk, 1u);
  EXPECT_EQ(last[0].finished, FinishReason::length);
  EXPECT_EQ(scheduler.pages_used(), 0);
  EXPECT_THAT(scheduler.schedule().removed, ElementsAre(2));
}

TEST(Scheduler, SharesFullPagesButComputesTheLastToken) {
  Scheduler scheduler(small());
  scheduler.add(1, {counting(8), 4});
  StepPlan plan = scheduler.schedule();
  const auto pages = plan.chunks[0].new_pages;
  scheduler.update(plan, {50});
  scheduler.add(2, {counting(8), 4});
  scheduler.add(3, {counting(7), 4});
  plan = scheduler.schedule();
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 8, 1, 1), ElementsAre(2, 4, 4, 1), ElementsAre(3, 4, 3, 1)));
  EXPECT_EQ(plan.chunks[1].new_pages[0], pages[0]);
  EXPECT_NE(plan.chunks[1].new_pages[1], pages[1]);
  EXPECT_EQ(scheduler.cached_prompt_tokens(), 8);
  scheduler.check();
}

TEST(Scheduler, TheNewestMakesRoomAndComesBackFirst) {
  SchedulerOptions options = small();
  options.num_pages = 4;
  options.max_model_len = 16;
  Scheduler scheduler(options);
  scheduler.add(1, {counting(3), 10});
  scheduler.add(2, {counting(4, 100), 10});
  scheduler.add(3, {counting(9, 200), 4});
  StepPlan plan = scheduler.schedule();
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 0, 3, 1), ElementsAre(2, 0, 4, 1))) << "3 needs three pages";
  for (int step = 0; step < 4; ++step) {
    scheduler.update(plan, ones(plan));
    plan = scheduler.schedule();
  }
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 6, 1, 1), ElementsAre(2, 7, 1, 1))) << "of four pages two each";
  scheduler.update(plan, ones(plan));
  plan = scheduler.schedule();
  EXPECT_EQ(scheduler.num_preemptions(), 1) << "position 8 of 2 needs a third";
  EXPECT_THAT(plan.removed, ElementsAre(2));
  EXPECT_THAT(brief(plan), ElementsAre(ElementsAre(1, 7, 1, 1)));
  EXPECT_EQ(scheduler.num_waiting(), 2);
  while (scheduler.contains(1)) {
    scheduler.update(plan, ones(plan));
    plan = scheduler.schedule();
  }
  ASSERT_FALSE(plan.admitted.empty());
  EXPECT_EQ(plan.admitted[0].id, 2u) << "before 3, which came later";
  scheduler.check();
}

TEST(Scheduler, PromptsThatAreJudgedAreComputedAsAWhole) {
  SchedulerOptions options = small();
  Scheduler scheduler(options);
  scheduler.add(1, {counting(8), 1});
  StepPlan plan = scheduler.schedule();
  scheduler.update(plan, ones(plan));
  scheduler.add(2, {counting(9), 0, {}, true});
  plan = scheduler.schedule();
  ASSERT_THAT(brief(plan), ElementsAre(ElementsAre(2, 0, 8, 0)));
  EXPECT_EQ(plan.chunks[0].num_prompt_logits, 8);
  EXPECT_TRUE(scheduler.update(plan, {-1}).empty());
  plan = scheduler.schedule();
  ASSERT_THAT(brief(plan), ElementsAre(ElementsAre(2, 8, 1, 0))) << "nothing is to be drawn";
  EXPECT_EQ(plan.chunks[0].num_prompt_logits, 0);
  const auto progress = scheduler.update(plan, {-1});
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_EQ(progress[0].finished, FinishReason::length);
}

TEST(Scheduler, RefusesWhatCannotRun) {
  SchedulerOptions options = small();
  options.max_num_batched_tokens = 3;
  EXPECT_THROW(Scheduler{options}, Error);
  options = small();
  options.num_pages = 7;
  EXPECT_THROW(Scheduler{options}, Error);
}

TEST(StepMessage, IsWhatItWas) {
  StepMessage message;
  message.kind = StepMessage::Kind::step;
  message.plan.removed = {3, 4};
  message.plan.admitted = {{7, 1}};
  message.plan.chunks = {{7, 1, 64, 3, true, 0, {5, 9}}, {8, 0, 0, 1, false, 1, {}}};
  SequenceState state;
  state.id = 7;
  state.cache = 1;
  state.tokens = {1, 2, 3};
  state.num_prompt = 2;
  state.sampling = {0.7, 5, 0.9, 0.01, 1.1, 0.2, 0.3, ~uint64_t{0}};
  state.stream = 6;
  state.num_logprobs = 4;
  message.admitted = {state};
  const auto numbers = message.encode();
  const StepMessage copy = StepMessage::decode(numbers);
  EXPECT_EQ(copy.plan, message.plan);
  EXPECT_EQ(copy.kind, message.kind);
  EXPECT_EQ(copy.encode(), numbers);
  EXPECT_EQ(copy.admitted.at(0).tokens, state.tokens);
  EXPECT_EQ(copy.admitted.at(0).sampling.temperature, 0.7);
  EXPECT_EQ(copy.admitted.at(0).sampling.seed, ~uint64_t{0});
  for (size_t size = 0; size < numbers.size(); ++size) {
    EXPECT_THROW(StepMessage::decode(std::span(numbers).first(size)), Error) << size;
  }
}

/// One random engine: sizes, arrivals, cancellations, plans ahead of results or not.
class Soak {
 public:
  explicit Soak(uint64_t seed)
      : random_(seed), ahead_(seed % 2 == 1), options_(random_options()), scheduler_(options_), model_(options_) {}

  void run() {
    int64_t num_to_come = 40;
    std::deque<testing::PretendedStep> planned;
    for (int step = 0; step < 5000; ++step) {
      if (num_to_come == 0 && scheduler_.num_running() + scheduler_.num_waiting() == 0 && planned.empty()) return;
      while (num_to_come > 0 && pick(0, 2) == 0) {
        submit();
        --num_to_come;
      }
      if (pick(0, 15) == 0) cancel(static_cast<uint64_t>(pick(0, static_cast<int64_t>(next_id_))));
      planned.emplace_back(scheduler_);
      scheduler_.check();
      expect_bounds(planned.back().plan);
      if (planned.back().plan.chunks.empty() && planned.size() > 1) ++num_idle;
      if (planned.size() > (ahead_ ? 1u : 0u)) carry_out(planned);
      if (num_to_come == 0 && scheduler_.num_running() + scheduler_.num_waiting() == 0) {
        while (!planned.empty()) carry_out(planned);
      }
    }
    ADD_FAILURE() << scheduler_.num_running() << " run and " << scheduler_.num_waiting() << " wait for ever";
  }

  void expect_endings() {
    for (const auto& [id, request] : requests_) {
      const testing::Ending expected = testing::alone(request, options_.max_model_len), &got = endings_[id];
      const bool cancelled = cancelled_.count(id) != 0;
      if (!cancelled && got.finished != FinishReason::error) {
        EXPECT_EQ(got, expected) << id;
        continue;
      }
      ASSERT_LE(got.tokens.size(), expected.tokens.size());
      EXPECT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), expected.tokens.begin())) << id;
      EXPECT_EQ(got.finished, cancelled ? FinishReason::none : FinishReason::error);
    }
    EXPECT_EQ(scheduler_.pages_used(), 0);
  }

  const Scheduler& scheduler() const { return scheduler_; }
  int64_t num_cancelled() const { return std::ssize(cancelled_); }
  int64_t num_in_vain = 0, num_idle = 0;

 private:
  int64_t pick(int64_t least, int64_t most) { return std::uniform_int_distribution<int64_t>(least, most)(random_); }

  SchedulerOptions random_options() {
    SchedulerOptions options;
    options.num_caches = pick(1, 3);
    options.page_positions = 4;
    options.max_model_len = pick(6, 40);
    options.num_pages = (options.max_model_len + 3) / 4 + pick(0, 6);
    options.max_num_seqs = pick(1, 6);
    options.max_num_batched_tokens = options.max_num_seqs + pick(0, 12);
    options.enable_prefix_caching = pick(0, 3) > 0;
    return options;
  }

  void submit() {
    ScheduledRequest request;
    const int64_t size = pick(1, options_.max_model_len - 1), own = pick(0, size);  // few beginnings: pages are shared
    for (int64_t i = 0; i < size; ++i) {
      request.prompt.push_back(static_cast<int32_t>(i < own ? i : 100 * pick(1, 3)));
    }
    request.max_tokens = pick(0, 24);
    if (pick(0, 2) == 0) request.stop_tokens = {0, 1};
    request.prompt_logprobs = pick(0, 7) == 0;
    requests_[next_id_] = request;
    scheduler_.add(next_id_++, request);
  }

  void cancel(uint64_t id) {
    if (scheduler_.cancel(id)) cancelled_.insert(id);
  }

  void carry_out(std::deque<testing::PretendedStep>& planned) {
    const StepPlan plan = planned.front().plan;
    const auto tokens = model_.run(planned.front(), [&] { return pick(0, 199) == 0; });
    planned.pop_front();
    for (const ScheduledChunk& chunk : plan.chunks) num_in_vain += !scheduler_.contains(chunk.id);
    for (const SequenceProgress& progress : scheduler_.update(plan, tokens)) {
      testing::Ending& ending = endings_[plan.chunks[progress.chunk].id];
      EXPECT_EQ(ending.finished, FinishReason::none) << "nothing follows an end";
      if (progress.token) ending.tokens.push_back(*progress.token);
      ending.finished = progress.finished;
    }
    scheduler_.check();
  }

  void expect_bounds(const StepPlan& plan) const {
    std::vector<int64_t> num_tokens(options_.num_caches), num_seqs(options_.num_caches);
    for (const ScheduledChunk& chunk : plan.chunks) {
      EXPECT_GT(chunk.num_tokens, 0);
      num_tokens[chunk.cache] += chunk.num_tokens;
      ++num_seqs[chunk.cache];
    }
    for (int64_t c = 0; c < options_.num_caches; ++c) {
      EXPECT_LE(num_tokens[c], options_.max_num_batched_tokens);
      EXPECT_LE(num_seqs[c], options_.max_num_seqs);
    }
  }

  std::mt19937_64 random_;
  bool ahead_;
  SchedulerOptions options_;
  Scheduler scheduler_;
  testing::PretendedModel model_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, ScheduledRequest> requests_;
  std::map<uint64_t, testing::Ending> endings_;
  std::set<uint64_t> cancelled_;
};

TEST(Scheduler, SoakLosesNoPageAndEndsEveryRequest) {
  int64_t num_preemptions = 0, num_shared = 0, num_cancelled = 0, num_in_vain = 0, num_idle = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Soak soak(seed);
    soak.run();
    soak.expect_endings();
    num_preemptions += soak.scheduler().num_preemptions();
    num_shared += soak.scheduler().cached_prompt_tokens();
    num_cancelled += soak.num_cancelled();
    num_in_vain += soak.num_in_vain;
    num_idle += soak.num_idle;
    if (HasFailure()) break;
  }
  // The soak met what it is for.
  EXPECT_GT(num_preemptions, 500);
  EXPECT_GT(num_shared, 5000);
  EXPECT_GT(num_cancelled, 200);
  EXPECT_GT(num_in_vain, 200);
  EXPECT_GT(num_idle, 200) << "steps with nothing to do before results are known";
}

}  // namespace
}  // namespace farskip
