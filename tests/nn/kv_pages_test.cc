// Attention over pages: against the same over whole sequences, and its bits against themselves.

#include "nn/kv_pages.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <numeric>

#include "nn/attention.h"

namespace farskip::nn {
namespace {

struct CacheCase {
  KvShape shape;
  int64_t num_heads;
};

const std::vector<CacheCase> cache_cases = {{{2, 8, 8}, 4},     {{1, 24, 16, true}, 10}, {{4, 32, 20}, 4},
                                            {{2, 64, 128}, 16}, {{1, 72, 64, true}, 2},  {{3, 16, 80}, 9}};
constexpr double scale = 0.3;

at::Tensor random_values(at::IntArrayRef shape, at::ScalarType dtype, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(shape, generator, at::kFloat).to(dtype);
}

/// Keys, values and queries of one sequence, and its pages (in no order).
struct Sequence {
  at::Tensor q, k, v;  ///< [H, S, d], [G, S, d], [G, S, e]
  PageTable pages;

  Sequence(const CacheCase& c, int64_t length, at::ScalarType dtype, uint64_t seed, PageTable table)
      : q(random_values({c.num_heads, length, c.shape.key_dim}, dtype, seed)),
        k(random_values({c.shape.num_heads, length, c.shape.key_dim}, dtype, seed + 1)),
        v(c.shape.values_in_keys ? k.narrow(-1, 0, c.shape.value_dim)
                                 : random_values({c.shape.num_heads, length, c.shape.value_dim}, dtype, seed + 2)),
        pages(std::move(table)) {}

  /// In fp64: row i sees [visible of it, i].
  at::Tensor expected(int64_t reach = 0) const {
    const int64_t length = q.size(1), heads = q.size(0) / k.size(0);
    const auto wide = [&](const at::Tensor& x) { return x.to(at::kDouble).repeat_interleave(heads, 0); };
    at::Tensor scores = at::matmul(q.to(at::kDouble), wide(k).transpose(1, 2)) * scale;
    at::Tensor seen = at::ones({length, length}, at::kBool).tril();
    for (int64_t i = 0; reach > 0 && i < length; ++i) seen[i].narrow(0, 0, i / reach * reach).fill_(false);
    scores.masked_fill_(~seen, -std::numeric_limits<double>::infinity());
    return at::matmul(at::softmax(scores, -1), wide(v)).transpose(0, 1).flatten(1);
  }
};

/// Feeds positions [from, to), asking for each, and returns what they got.
at::Tensor feed(KvPages& pages, const Sequence& s, int64_t from, int64_t to, int64_t visible = 0) {
  const int64_t n = to - from;
  pages.write(s.pages, from, s.k.narrow(1, from, n), s.v.narrow(1, from, n));
  return pages.attend(s.q.narrow(1, from, n), {{&s.pages, 0, n, from, visible}}, scale);
}

double largest_distance(const at::Tensor& x, const at::Tensor& expected) {
  return (x.to(at::kDouble) - expected).abs().max().item<double>();
}

TEST(KvPages, GivesWhatWholeSequencesGive) {
  for (const CacheCase& c : cache_cases) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (const bool portable : {false, true}) {
        const Sequence s(c, 200, dtype, 5, {3, 0, 4, 1});
        const at::Tensor expected = s.expected();
        const double limit = dtype == at::kFloat ? 1e-5 : 3e-2;
        KvPages pages(c.shape, 5, dtype, at::kCPU, portable);
        // A prompt, single positions over a page's end, several at once, and an odd beginning.
        std::vector<at::Tensor> parts;
        for (const auto& [from, to] : std::vector<std::pair<int64_t, int64_t>>{
                 {0, 61}, {61, 62}, {62, 63}, {63, 64}, {64, 65}, {65, 67}, {67, 180}, {180, 181}, {181, 200}}) {
          parts.push_back(feed(pages, s, from, to));
        }
        EXPECT_LT(largest_distance(at::cat(parts), expected), limit) << c.shape.key_dim << " portable " << portable;
        EXPECT_TRUE(at::equal(pages.keys(s.pages, 200), s.k));
        EXPECT_TRUE(at::equal(pages.keys(s.pages, 3), s.k.narrow(1, 0, 3)));
      }
    }
  }
}

TEST(KvPages, EarlierPositionsCanBeLeftOut) {
  for (const bool portable : {false, true}) {
    for (const int64_t reach : {10, 64, 100}) {
      const CacheCase& c = cache_cases[0];
      const Sequence s(c, 150, at::kFloat, 9, {0, 1, 2});
      KvPages pages(c.shape, 3, at::kFloat, at::kCPU, portable);
      std::vector<at::Tensor> parts;
      for (int64_t p = 0; p < 150;) {  // single positions, and runs up to the next multiple
        const int64_t visible = p / reach * reach, end = p % 3 == 0 ? std::min<int64_t>(visible + reach, 150) : p + 1;
        parts.push_back(feed(pages, s, p, end, visible));
        p = end;
      }
      EXPECT_LT(largest_distance(at::cat(parts), s.expected(reach)), 1e-5) << portable << " " << reach;
    }
  }
}

TEST(KvPages, BitsDependOnTheSequenceAlone) {
  const int threads = at::get_num_threads();
  for (const CacheCase& c : cache_cases) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const Sequence a(c, 100, dtype, 1, {0, 1}), b(c, 70, dtype, 2, {3, 2});
      KvPages apart(c.shape, 4, dtype), together(c.shape, 4, dtype);
      at::set_num_threads(1);
      feed(apart, a, 0, 99);
      feed(apart, b, 0, 68);
      const at::Tensor alone_a = feed(apart, a, 99, 100), alone_b = feed(apart, b, 68, 70);
      at::set_num_threads(2);
      together.write(a.pages, 0, a.k, a.v);
      together.write(b.pages, 0, b.k.narrow(1, 0, 68), b.v.narrow(1, 0, 68));
      together.write(b.pages, 68, b.k.narrow(1, 68, 2), b.v.narrow(1, 68, 2));
      const at::Tensor q = at::cat({b.q.narrow(1, 68, 2), a.q.narrow(1, 99, 1)}, 1);
      const at::Tensor both = together.attend(q, {{&b.pages, 0, 2, 68}, {&a.pages, 2, 1, 99}}, scale);
      EXPECT_TRUE(at::equal(both.narrow(0, 0, 2), alone_b)) << c.shape.key_dim;
      EXPECT_TRUE(at::equal(both.narrow(0, 2, 1), alone_a)) << c.shape.key_dim;
    }
  }
  at::set_num_threads(threads);
}

TEST(KvPages, WhatAPageHeldBeforeIsForgotten) {
  const CacheCase& c = cache_cases[0];
  const Sequence before(c, 64, at::kBFloat16, 1, {0}), after(c, 33, at::kBFloat16, 2, {0});
  KvPages used(c.shape, 1, at::kBFloat16), fresh(c.shape, 1, at::kBFloat16);
  Sequence infinite = before;
  infinite.v = at::full_like(before.v, std::numeric_limits<float>::infinity());
  feed(used, infinite, 0, 64);
  EXPECT_TRUE(at::equal(feed(used, after, 0, 33), feed(fresh, after, 0, 33)));
}

}  // namespace
}  // namespace farskip::nn
