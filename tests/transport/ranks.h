#pragma once
// What the tests of transports share: the transports to compare, inputs that differ per rank, and ranks as processes.

#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/base/error_of.h"
#include "transport/c10d.h"
#include "transport/loopback.h"

namespace farskip::testing {

/// The transports every test of semantics runs on.
inline Worlds make_worlds(const std::string& kind, int num_ranks, const TransportOptions& options = {}) {
  return kind == "loopback" ? make_loopback(num_ranks, options) : make_gloo_threads(num_ranks, options);
}

/// Values without pattern that differ per rank, with sums that depend on their order.
inline at::Tensor noise(std::vector<int64_t> shape, int seed, at::ScalarType type = at::kFloat) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed) + 1);
  return (at::randn(shape, generator) * at::exp(3 * at::randn(shape, generator))).to(type);
}

inline ::testing::AssertionResult same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() && at::equal(a, b))
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << a.toString() << " " << a.sizes() << " differs from " << b.toString() << " "
                                       << b.sizes();
}

}  // namespace farskip::testing
