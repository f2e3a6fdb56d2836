// Which token is drawn.

#include "infer/sampler.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"

namespace farskip {
namespace {

const at::Tensor five = at::tensor({1.0f, 3.0f, 2.0f, 3.0f, -1.0f});

/// How often each of 20,000 first draws, of as many streams, takes an id.
std::map<int32_t, double> frequencies(const SamplingOptions& options, const at::Tensor& logits = five) {
  constexpr int num_draws = 20'000;
  std::map<int32_t, double> result;
  for (int i = 0; i < num_draws; ++i) result[Sampler(options, i, {}).next(logits)] += 1.0 / num_draws;
  return result;
}

/// softmax(logits / temperature) of the ids given.
std::map<int32_t, double> expected(const std::vector<int32_t>& ids, double temperature) {
  std::map<int32_t, double> result;
  double sum = 0;
  for (const int32_t id : ids) sum += result[id] = std::exp(five[id].item<float>() / temperature);
  for (auto& [id, p] : result) p /= sum;
  return result;
}

void expect_near(const std::map<int32_t, double>& found, const std::map<int32_t, double>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [id, p] : wanted) EXPECT_NEAR(found.at(id), p, 4 * std::sqrt(p * (1 - p) / 20'000) + 1e-9) << id;
}

TEST(Sampler, GreedyTakesTheLikeliestAndTheLowerIdAmongEquals) {
  Sampler sampler({}, 0, {});
  EXPECT_EQ(sampler.next(five), 1);
  EXPECT_EQ(sampler.next(at::tensor({0.0f, 0.0f})), 0);
}

TEST(Sampler, DrawsFromTheDistribution) {
  expect_near(frequencies({.temperature = 1}), expected({0, 1, 2, 3, 4}, 1));
  expect_near(frequencies({.temperature = 2.5}), expected({0, 1, 2, 3, 4}, 2.5));
  expect_near(frequencies({.temperature = 1, .top_k = 3}), expected({1, 2, 3}, 1));
  expect_near(frequencies({.temperature = 1, .top_k = 1}), {{1, 1.0}});
  // 3 and 1 have 0.40 each, 2 has 0.15.
  expect_near(frequencies({.temperature = 1, .top_p = 0.7}), expected({1, 3}, 1));
  expect_near(frequencies({.temperature = 1, .top_p = 0.9}), expected({1, 2, 3}, 1));
  expect_near(frequencies({.temperature = 1, .top_p = 0.01}), {{1, 1.0}});
  expect_near(frequencies({.temperature = 1, .min_p = 0.3}), expected({1, 2, 3}, 1));
  expect_near(frequencies({.temperature = 1, .top_k = 4, .top_p = 0.97, .min_p = 0.3}), expected({1, 2, 3}, 1));
}

TEST(Sampler, PenaltiesLowerWhatWasSeen) {
  Sampler repetition({.repetition_penalty = 2}, 0, {1, 3});  // 3 -> 1.5
  EXPECT_EQ(repetition.next(five), 2);                       // 2 -> 1 from now on
  EXPECT_EQ(repetition.next(five), 1);
  Sampler below({.repetition_penalty = 2}, 0, {0});
  EXPECT_EQ(below.next(at::tensor({-1.0f, -1.5f})), 1) << "-1 becomes -2";
  Sampler presence({.presence_penalty = 1.5}, 0, {1});  // the prompt does not count
  EXPECT_EQ(presence.next(five), 1);
  EXPECT_EQ(presence.next(five), 3);
  EXPECT_EQ(presence.next(five), 2);
  EXPECT_EQ(presence.next(five), 1) << "once, however often";
  Sampler frequency({.frequency_penalty = 0.4}, 0, {});
  std::map<int32_t, int> drawn;
  for (int i = 0; i < 8; ++i) ++drawn[frequency.next(five)];
  EXPECT_EQ(drawn, (std::map<int32_t, int>{{1, 4}, {2, 1}, {3, 3}}))
      << "1 3 1 3 1 3, then 1.8 against 2 against 1.8, 1";
}

TEST(Sampler, DrawsDependOnSeedStreamAndPlaceAlone) {
  const auto draws = [](uint64_t seed, uint64_t stream) {
    Sampler sampler({.temperature = 1, .seed = seed}, stream, {});
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.next(five));
    return ids;
  };
  EXPECT_EQ(draws(1, 0), draws(1, 0));
  EXPECT_NE(draws(1, 0), draws(2, 0));
  EXPECT_NE(draws(1, 0), draws(1, 1));
}

TEST(Sampler, WrongOptionsAndLogitsAreRefused) {
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = -1}, SamplingOptions{.top_k = -1}, SamplingOptions{.top_p = 0},
        SamplingOptions{.top_p = 1.1}, SamplingOptions{.min_p = 2}, SamplingOptions{.repetition_penalty = 0}}) {
    EXPECT_THROW(Sampler(options, 0, {}), Error);
  }
  EXPECT_THROW(Sampler({}, 0, {}).next(at::full({3}, NAN)), Error);
}

}  // namespace
}  // namespace farskip
