#include "nn/weight_format.h"

#include <cmath>

#include "check_function.h"

namespace farskip::nn {
namespace {

/// What a weight becomes, [rows, K] in fp32.
at::Tensor there_and_back(const at::Tensor& weight, WeightFormat format) {
  const int64_t rows = weight.size(0), depth = weight.size(1), bytes = row_bytes(format, depth);
  std::vector<std::byte> blocks(rows * bytes);
  quantize(weight, format, blocks.data());
  const at::Tensor out = at::empty({rows, depth}, at::kFloat);
  for (int64_t n = 0; n < rows; ++n)
    decode_row(format, blocks.data() + n * bytes, depth, out.data_ptr<float>() + n * depth);
  return out;
}

/// bf16's next number above a positive one is at most 2^-7 of it away.
constexpr double above = 1 + 0x1p-7;

/// The largest error of each block of 32 in units of its own step, as the formulas give it from the block's elements.
TEST(Quantised, ElementsAreWithinHalfAStep) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const double offset : {0.0, 0.3, -5.0}) {
      const at::Tensor weight = (random({9, 96}, 1, 0.1) + offset).to(type);
      for (const auto format : {WeightFormat::int8, WeightFormat::int4}) {
        const at::Tensor error = (there_and_back(weight, format) - weight.to(at::kFloat)).abs();
        for (int64_t n = 0; n < 9; ++n) {
          for (int64_t k = 0; k < 96; k += 32) {
            const at::Tensor block = weight[n].slice(0, k, k + 32).to(at::kDouble);
            const double low = block.min().item<double>(), high = block.max().item<double>();
            const double step = format == WeightFormat::int8 ? weight[n].abs().max().item<double>() / 127 * above
                                                             : (high - low + std::abs(low) * 0x1p-7) / 15 * above;
            EXPECT_LE(error[n].slice(0, k, k + 32).max().item<double>(), step / 2 * (1 + 1e-5))
                << n << " " << k << " " << offset;
          }
        }
      }
    }
  }
}

/// Numbers that the blocks can hold come back as they are: every nibble and byte in every place.
TEST(Quantised, KeepWhatTheyCanHold) {
  at::Tensor weight = at::empty({16, 70}), eight = at::empty({255, 70});
  for (int64_t n = 0; n < 16; ++n) {
    for (int64_t k = 0; k < 70; ++k) weight[n][k] = -1.5 + 0.25 * ((n + k * 7) % 16);
  }
  for (int64_t block = 0; block < 70; block += 32) {  // so that each block has its least and its greatest
    weight.slice(1, block, block + 1).fill_(-1.5);
    weight.slice(1, block + 1, block + 2).fill_(-1.5 + 0.25 * 15);
  }
  EXPECT_BITS_EQUAL(there_and_back(weight, WeightFormat::int4), weight);
  for (int64_t n = 0; n < 255; ++n) {
    for (int64_t k = 0; k < 70; ++k) eight[n][k] = 0.5 * ((n + k * 11) % 255 - 127);
    eight[n][n % 70] = 0.5 * -127;
  }
  EXPECT_BITS_EQUAL(there_and_back(eight, WeightFormat::int8), eight);
}

TEST(Quantised, ZerosAndConstantsAreExact) {
  for (const auto format : {WeightFormat::int8, WeightFormat::int4}) {
    EXPECT_BITS_EQUAL(there_and_back(at::zeros({3, 50}), format), at::zeros({3, 50}));
  }
  const at::Tensor constant = at::full({2, 40}, -0.375);
  EXPECT_BITS_EQUAL(there_and_back(constant, WeightFormat::int4), constant);
}

/// Relative errors of normally distributed weights, as docs/numerics.md states them.
TEST(Quantised, ErrorsOfNormalWeights) {
  const at::Tensor weight = random({256, 1024}, 1, 0.02).to(at::kFloat);
  const auto error = [&](WeightFormat format) {
    return ((there_and_back(weight, format) - weight).norm() / weight.norm()).item<double>();
  };
  EXPECT_NEAR(error(WeightFormat::int8), 0.0078, 0.0006);
  EXPECT_NEAR(error(WeightFormat::int4), 0.080, 0.004);
}

TEST(Quantised, RowsTakeWholeBlocks) {
  EXPECT_EQ(row_bytes(WeightFormat::fp32, 33), 132);
  EXPECT_EQ(row_bytes(WeightFormat::bf16, 33), 66);
  EXPECT_EQ(row_bytes(WeightFormat::int8, 33), 96);
  EXPECT_EQ(row_bytes(WeightFormat::int4, 32), 20);
}

}  // namespace
}  // namespace farskip::nn
