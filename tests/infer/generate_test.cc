// Generation over the cache: the golden models' own tokens, with and without cache, alone and together.

#include "infer/generate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "infer/decoder.h"
#include "model/safetensors.h"
#include "tests/infer/golden_models.h"
#include "tests/infer/sequence_logits.h"

namespace farskip {
namespace {

using testing::families, testing::golden;

std::vector<int32_t> ids_of(const at::Tensor& tensor) {
  const at::Tensor ids = tensor.flatten().to(at::kInt).contiguous();
  return {ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel()};
}

class Generate : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(golden(GetParam()))) GTEST_SKIP() << "no golden model at " << golden(GetParam());
  }
  std::vector<int32_t> text() const {
    return ids_of(SafetensorsReader(golden(GetParam()) + "/golden.safetensors").tensor("input_ids.b"));
  }
  /// Parts of the golden text, of several lengths.
  std::vector<std::vector<int32_t>> prompts() const {
    const auto all = text();
    std::vector<std::vector<int32_t>> result;
    for (const size_t length : {1, 7, 3, 12}) result.emplace_back(all.end() - static_cast<int64_t>(length), all.end());
    return result;
  }
};

GenerateOptions tokens(int64_t num) {
  GenerateOptions options;
  options.max_tokens = num;
  return options;
}

TEST_P(Generate, LogitsAreThoseOfTheWholeSequenceHoweverItIsCut) {
  const auto ids = text();
  const at::Tensor expected = testing::sequence_logits(golden(GetParam()), ids);
  const InferenceModel model(golden(GetParam()), {.dtype = at::kFloat});
  with_decoder(model, {}, [&](Decoder& decoder) {
    for (const size_t step : {size_t{1}, size_t{5}, ids.size()}) {
      const int64_t sequence = decoder.add();
      for (size_t i = 0; i < ids.size(); i += step) {
        const size_t end = std::min(ids.size(), i + step);
        const at::Tensor logits = decoder.step({{sequence, {ids.begin() + i, ids.begin() + end}}})[0];
        const double error = (logits - expected[static_cast<int64_t>(end) - 1]).abs().max().item<double>() /
                             expected.abs().max().item<double>();
        EXPECT_LT(error, 2e-5) << step << " at " << i;
      }
      decoder.remove(sequence);
    }
    const int64_t sequence = decoder.add();
    const at::Tensor every = decoder.step({{sequence, ids}}, {.every_token = true});
    EXPECT_LT((every - expected).abs().max().item<double>(), 2e-5 * expected.abs().max().item<double>());
  });
}

// Longer than a part of a prompt, several pages and expanded latents: against the same in steps of a hundred.
TEST_P(Generate, LongPromptsAreReadInParts) {
  const InferenceModel model(golden(GetParam()), {.dtype = at::kFloat});
  const auto some = text();
  std::vector<int32_t> prompt;
  while (std::ssize(prompt) < Decoder::prompt_chunk + 300) prompt.insert(prompt.end(), some.begin(), some.end());
  with_decoder(model, {.max_positions = 2500, .cache_positions = 5000}, [&](Decoder& decoder) {
    const int64_t whole = decoder.add(), parts = decoder.add();
    const at::Tensor logits = decoder.read(whole, prompt);
    at::Tensor expected;
    for (size_t i = 0; i < prompt.size(); i += 100) {
      const size_t end = std::min(prompt.size(), i + 100);
      expected = decoder.step({{parts, {prompt.begin() + i, prompt.begin() + end}}})[0];
    }
    EXPECT_EQ(decoder.length(whole), std::ssize(prompt));
    EXPECT_LT((logits - expected).abs().max().item<double>(), 1e-4 * expected.abs().max().item<double>());
    EXPECT_THROW(decoder.read(whole, prompt), Error) << "past max_positions";
  });
}

TEST_P(Generate, GivesTheGoldenTokens) {
  const SafetensorsReader reader(golden(GetParam()) + "/golden.safetensors");
  const InferenceModel model(golden(GetParam()), {.dtype = at::kFloat});
  for (const std::string batch : {"a", "b"}) {
    const at::Tensor inputs = reader.tensor("input_ids." + batch), expected = reader.tensor("greedy." + batch);
    std::vector<std::vector<int32_t>> prompts;
    for (int64_t b = 0; b < inputs.size(0); ++b) prompts.push_back(ids_of(inputs[b]));
    const GenerateReport report = generate(model, prompts, tokens(expected.size(1)));
    for (int64_t b = 0; b < inputs.size(0); ++b) EXPECT_EQ(report.sequences[b].tokens, ids_of(expected[b]));
    EXPECT_EQ(report.prompt_tokens, inputs.numel());
    EXPECT_EQ(report.decode_tokens, expected.numel() - inputs.size(0));
  }
}

TEST_P(Generate, SameTokensWithoutCacheAndInAnyBatch) {
  const InferenceModel model(golden(GetParam()), {.dtype = at::kFloat});
  const auto all = prompts();
  GenerateOptions options = tokens(20);
  const auto together = generate(model, all, options).sequences;
  options.use_cache = false;
  const auto anew = generate(model, all, options).sequences;
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(together[i].tokens.size(), 20u);
    EXPECT_EQ(together[i].finish_reason, "length");
    EXPECT_EQ(anew[i].tokens, together[i].tokens) << i;
    EXPECT_EQ(generate(model, {all[i]}, tokens(20)).sequences[0].tokens, together[i].tokens) << i;
  }
}

TEST_P(Generate, BatchInvariantMeansTheSameBits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const InferenceModel model(golden(GetParam()), {.dtype = dtype, .batch_invariant = true});
    const auto all = prompts();
    with_decoder(model, {.cache_positions = 1024}, [&](Decoder& decoder) {
      std::vector<int64_t> alone, together;
      for (size_t i = 0; i < all.size(); ++i) {
        alone.push_back(decoder.add());
        together.push_back(decoder.add());
      }
      std::vector<DecoderInput> inputs;
      for (size_t i = 0; i < all.size(); ++i) inputs.push_back({together[i], all[i]});
      for (int step = 0; step < 4; ++step) {
        const at::Tensor logits = decoder.step(inputs);
        for (size_t i = 0; i < all.size(); ++i) {
          const at::Tensor single = decoder.step({{alone[i], inputs[i].tokens}})[0];
          EXPECT_TRUE(at::equal(single, logits[static_cast<int64_t>(i)])) << c10::toString(dtype) << i << " " << step;
          inputs[i].tokens = {static_cast<int32_t>(single.argmax().item<int64_t>())};
        }
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Generate, ::testing::ValuesIn(families),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace farskip
