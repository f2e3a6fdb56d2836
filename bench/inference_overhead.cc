// What does the engine cost in inference? A prefill by the decoder (stage graph, schedule, executor) against the same
// kernels called one after the other in a plain loop, with the same cache; one rank, no communication. The answer is
// checked first (the same bits in all logits), then the two are timed in turns.
//
//   inference_overhead [model=small-deepseek-v3] [connectivity=farskip] [batch=4] [input=128] [rounds=60] [threads=1]

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "bench/arguments.h"
#include "infer/batch_run.h"
#include "nn/experts.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "trace/table.h"
#include "transport/clock.h"

namespace farskip {
namespace {

/// The forward pass of one rank, written out: standard or FarSkip on all layers.
class PlainLoop {
 public:
  PlainLoop(const InferenceModel& model, int64_t num_sequences, int64_t length)
      : model_(model),
        config_(model.config()),
        farskip_(!model.connectivity().is_standard()),
        rotary_(nn::make_rotary(config_.attention.rotary, config_.attention.qk_rope_head_dim, length, at::kCPU)),
        pages_(num_sequences),
        cache_(config_.attention, config_.num_layers(), num_sequences * pages_of(length), model.dtype()) {
    int32_t next = 0;
    for (auto& pages : pages_) {
      for (int64_t i = 0; i < pages_of(length); ++i) pages.push_back(next++);
    }
  }

  /// Logits that follow each prompt, [prompts, V] fp32. Prompts are of one length.
  at::Tensor prefill(const std::vector<std::vector<int32_t>>& prompts) {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> tokens, positions, last_rows;
    std::vector<nn::CachedChunk> chunks;
    for (size_t i = 0; i < prompts.size(); ++i) {
      chunks.push_back({&pages_[i], std::ssize(tokens), std::ssize(prompts[i]), 0});
      for (size_t k = 0; k < prompts[i].size(); ++k) {
        tokens.push_back(prompts[i][k]);
        positions.push_back(static_cast<int64_t>(k));
      }
      last_rows.push_back(std::ssize(tokens) - 1);
    }
    const nn::RotaryTable rotary = rotary_.positions(at::tensor(positions, at::kLong).unsqueeze(0));
    const nn::ModelWeights& weights = model_.weights();
    at::Tensor x = nn::embedding(at::tensor(tokens, at::kLong).unsqueeze(0), weights.embed_tokens, nullptr);
    at::Tensor y = x;  // x without the routed output of the layer before
    for (int64_t k = 0; k < config_.num_layers(); ++k) {
      const at::Tensor attention = attend(k, farskip_ ? y : x, rotary, chunks);
      const at::Tensor h = x + attention;
      const nn::LayerWeights& layer = weights.layers[k];
      const at::Tensor u =
          nn::rms_norm(farskip_ ? x : h, layer.post_attention_layernorm, config_.rms_norm_eps, nullptr);
      if (!config_.is_moe(k)) {
        x = y = h + nn::feed_forward(u, layer.dense, nullptr);
        continue;
      }
      const at::Tensor routed = experts(layer.moe, u);
      if (config_.has_shared()) {
        const at::Tensor shared = nn::feed_forward(u, layer.moe.shared, nullptr);
        if (farskip_) y = h + shared;
        x = h + (routed + shared);
      } else {
        y = h;
        x = h + routed;
      }
    }
    const at::Tensor last = x.index_select(1, at::tensor(last_rows, at::kLong));
    const at::Tensor logits =
        nn::linear(nn::rms_norm(last, weights.norm, config_.rms_norm_eps, nullptr), weights.lm_head, nullptr);
    sampled_ = logits.argmax(-1);
    return logits[0].to(at::kFloat);
  }

 private:
  static int64_t pages_of(int64_t length) {
    return (length + nn::KvPages::page_positions - 1) / nn::KvPages::page_positions;
  }

  at::Tensor attend(int64_t k, const at::Tensor& x, const nn::RotaryTable& rotary,
                    const std::vector<nn::CachedChunk>& chunks) {
    const nn::LayerWeights& layer = model_.weights().layers[k];
    const bool rotates = config_.attention.of_layer(k).rotary;
    const nn::Qkv projected =
        nn::compressed_qkv(nn::rms_norm(x, layer.input_layernorm, config_.rms_norm_eps, nullptr), layer.attention,
                           config_.attention, rotates ? rotary : rotary.without_angles(), config_.rms_norm_eps);
    const at::Tensor core = cache_.attend(k, projected.q, projected.k, projected.v, layer.attention, chunks);
    return nn::attn_out(core, projected.gate, layer.attention, nullptr);
  }

  at::Tensor experts(const nn::MoeWeights& moe, const at::Tensor& u) const {
    const at::Tensor rows = u.reshape({-1, u.size(-1)});
    const nn::Routing routing =
        nn::route(rows, moe.router, moe.correction_bias, config_.router, config_.top_k, nullptr);
    nn::RoutePlan plan = nn::make_route_plan(routing.ids, config_.num_experts, 1);
    nn::complete_route_plan(plan, plan.send_counts);
    const bool weigh_input = config_.router.weigh_input;
    const at::Tensor sorted = nn::permute(rows, plan, weigh_input ? routing.p : at::Tensor());
    const at::Tensor done = nn::experts(sorted, plan, moe.gate_up, moe.down, nullptr);
    return nn::unpermute(done, weigh_input ? at::Tensor() : routing.p, plan).reshape(u.sizes());
  }

  const InferenceModel& model_;
  const ModelConfig& config_;
  bool farskip_;
  nn::RotaryTable rotary_;
  std::vector<nn::PageTable> pages_;
  nn::KvCache cache_;
  at::Tensor sampled_;
};

void run(const Arguments& arguments) {
  at::set_num_threads(arguments.number("threads"));
  const int64_t batch = arguments.number("batch"), length = arguments.number("input");
  const int rounds = arguments.number("rounds");
  if (batch < 1 || length < 1 || rounds < 6) fail("batch, input and threads are at least 1, rounds at least 6");
  const std::string connectivity = arguments["connectivity"];
  if (connectivity != "farskip" && connectivity != "standard")
    fail("connectivity {}: expected farskip or standard", connectivity);
  InferenceModelOptions options;
  options.connectivity = connectivity;
  const InferenceModel model(load_model_config(arguments["model"]), 1, options);
  const auto prompts = random_prompts(batch, length, model.config().vocab_size, 1);
  const Communicators alone{make_single("expert"), make_single("expert_data"), make_single("world")};
  BatchRun engine(model, alone, {.num_sequences = batch, .num_tokens = length, .record_spans = false});
  PlainLoop plain(model, batch, length);

  engine.start(prompts);
  if (!at::equal(engine.step(), plain.prefill(prompts))) fail("the engine's logits differ from the plain loop's");
  std::vector<double> engine_ms, plain_ms;
  for (int round = -4; round < rounds; ++round) {  // the first ones warm up
    for (int turn = 0; turn < 2; ++turn) {
      const bool first = (turn + round) % 2 == 0;
      if (first) engine.start(prompts);
      const double begin = now_us();
      first ? engine.step() : plain.prefill(prompts);
      const double ms = (now_us() - begin) / 1e3;
      if (round >= 0) (first ? engine_ms : plain_ms).push_back(ms);
    }
  }
  const Estimate a = median_interval(plain_ms), b = median_interval(engine_ms);
  const Estimate extra = paired_difference(engine_ms, plain_ms);
  Table table{{"model", "plain loop, ms", "engine, ms", "engine / plain", "engine - plain, ms"}, {}, ""};
  table.rows = {{arguments["model"], fmt::format("{:.2f} [{:.2f}, {:.2f}]", a.value, a.low, a.high),
                 fmt::format("{:.2f} [{:.2f}, {:.2f}]", b.value, b.low, b.high), ratio_text(engine_ms, plain_ms, 3),
                 fmt::format("{:.2f} [{:.2f}, {:.2f}]", extra.value, extra.low, extra.high)}};
  table.note = fmt::format(
      "{}, a prefill of {} x {} tokens and its sampling, {} thread(s); medians of {} rounds in turns with 95 % "
      "intervals; "
      "all logits have the same bits",
      connectivity, batch, length, at::get_num_threads(), rounds);
  fmt::print("{}\n", render_text(table));
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  try {
    farskip::run(farskip::Arguments(argc, argv,
                                    {{"model", "small-deepseek-v3"},
                                     {"connectivity", "farskip"},
                                     {"batch", "4"},
                                     {"input", "128"},
                                     {"rounds", "60"},
                                     {"threads", "1"}},
                                    "bench/inference_overhead.cc"));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "inference_overhead: {}\n", error.what());
    return 1;
  }
}
