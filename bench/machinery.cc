// What does the staged machinery cost? One forward and backward pass of a MoE by the executor, against the same model
// as one plain autograd graph; one rank, no communication. The answer is checked first (the same bits for loss and all
// gradients), then the two are timed in turns. Peak memory counts what a step allocates beside weights and gradients.
//
//   machinery [hidden=512] [tokens=1024] [layers=6] [rounds=40]

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdio>

#include "base/error.h"
#include "base/stats.h"
#include "exec/executor.h"
#include "exec/memory_meter.h"
#include "model/initialize.h"
#include "model/plain_model.h"
#include "schedule/hand_orders.h"
#include "trace/table.h"
#include "transport/clock.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

struct Setting {
  int64_t hidden = 512, tokens = 1024, layers = 6, rounds = 40;

  static Setting parse(int argc, char** argv) {
    Setting setting;
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i], key = text.substr(0, text.find('='));
      int64_t* field = key == "hidden"   ? &setting.hidden
                       : key == "tokens" ? &setting.tokens
                       : key == "layers" ? &setting.layers
                       : key == "rounds" ? &setting.rounds
                                         : nullptr;
      if (field == nullptr) fail("{}: expected hidden=N, tokens=N, layers=N or rounds=N", text);
      char* end = nullptr;
      *field = std::strtoll(text.c_str() + std::min(text.size(), key.size() + 1), &end, 10);
      if (*end != '\0' || *field < 1) fail("{}: expected a positive number after {}=", text, key);
    }
    if (setting.hidden % 64 != 0) fail("hidden={}: expected a multiple of 64, the size of a head", setting.hidden);
    return setting;
  }
};

/// small-moonlight in its own proportions at another width.
ModelConfig model_of(const Setting& setting) {
  ModelConfig config = load_model_config("small-moonlight");
  const int64_t factor = setting.hidden / 64;
  config.layers.assign(setting.layers, LayerKind::moe);
  config.layers[0] = LayerKind::dense;
  config.hidden_size = setting.hidden;
  config.intermediate_size = 160 * factor;
  config.moe_intermediate_size = config.shared_intermediate_size = 40 * factor;
  config.vocab_size = 1024;
  config.max_position_embeddings = setting.tokens;
  AttentionConfig& attention = config.attention;
  attention.num_heads = attention.num_kv_heads = factor;
  attention.kv_lora_rank = 16 * factor;
  attention.qk_nope_head_dim = attention.v_head_dim = 48;
  attention.qk_rope_head_dim = 16;
  return config;
}

class Comparison {
 public:
  Comparison(const Setting& setting, at::ScalarType dtype, World& world)
      : setting_(setting),
        config_(model_of(setting)),
        connectivity_(Connectivity::farskip(config_.num_layers())),
        parameters_(std::make_shared<const ParameterTable>(config_), {.dtype = dtype}),
        communicators_(Communicators::make(world, {})),
        graph_(build_graph(config_, connectivity_, {Phase::train, {}, 1, Scope::gradients})) {
    initialize(parameters_, {.seed = 1});
    parameters_.update_values();
    math_ = std::make_unique<StageMath>(config_, parameters_.weights(), setting.tokens, StageMathOptions{});
    ExecutorOptions options;
    options.record_spans = false;
    executor_ = std::make_unique<Executor>(graph_, paper_schedule(graph_), *math_, parameters_, communicators_, nullptr,
                                           options);
    weights_ = differentiable_copy(parameters_);
    const at::Tensor tokens = at::arange(setting.tokens, at::kLong).mul_(7919).remainder_(config_.vocab_size);
    batch_ = {tokens.view({1, -1}), tokens.roll(-1).view({1, -1}), static_cast<double>(setting.tokens)};
  }

  /// {dtype, plain ms, staged ms, time ratio, plain MiB, staged MiB, memory ratio}
  std::vector<std::string> run() {
    check();
    std::vector<double> plain, staged;
    for (int64_t round = 0; round < setting_.rounds; ++round) {
      for (int turn = 0; turn < 2; ++turn) {
        const bool first = (turn + round) % 2 == 0;
        const double begin = now_us();
        first ? run_plain() : run_staged();
        (first ? plain : staged).push_back((now_us() - begin) / 1e3);
      }
    }
    const Estimate ratio = bootstrap_interval(setting_.rounds, [&](const std::vector<int64_t>& chosen) {
      std::vector<double> a, b;
      for (int64_t i : chosen) {
        a.push_back(plain[i]);
        b.push_back(staged[i]);
      }
      return median(b) / median(a);
    });
    const double plain_mib = peak_mib([&] { run_plain(); }), staged_mib = peak_mib([&] { run_staged(); });
    return {c10::toString(math_->dtype()),
            fmt::format("{:.1f}", median(plain)),
            fmt::format("{:.1f}", median(staged)),
            fmt::format("{:.3f} [{:.3f}, {:.3f}]", ratio.value, ratio.low, ratio.high),
            fmt::format("{:.1f}", plain_mib),
            fmt::format("{:.1f}", staged_mib),
            fmt::format("{:.3f}", staged_mib / plain_mib)};
  }

 private:
  at::Tensor run_plain() {
    for (const ParameterInfo& info : parameters_.table().parameters()) {
      at::Tensor& gradient = info.slot(weights_).value.mutable_grad();
      if (gradient.defined()) gradient.zero_();
    }
    const at::Tensor loss = plain_forward(config_, connectivity_, weights_, batch_).loss;
    loss.backward();
    return loss.detach();
  }
  at::Tensor run_staged() { return executor_->run({batch_}).losses[0]; }

  void check() {
    const at::Tensor plain = run_plain(), staged = run_staged();
    if (!at::equal(plain, staged)) fail("loss {} plain, {} staged", plain.item<double>(), staged.item<double>());
    const auto expected = gradients(parameters_.table(), weights_);
    for (int id = 0; id < parameters_.size(); ++id) {
      if (!at::equal(expected[id].to(at::kFloat), parameters_.main_grad(id))) {
        fail("the gradient of {} differs", parameters_.table()[id].name);
      }
    }
  }

  template <typename Step>
  static double peak_mib(Step&& step) {
    const MemoryMeter meter;
    step();
    return static_cast<double>(meter.peak_bytes()) / (1 << 20);
  }

  const Setting& setting_;
  ModelConfig config_;
  Connectivity connectivity_;
  ParameterSet parameters_;
  Communicators communicators_;
  StageGraph graph_;
  std::unique_ptr<StageMath> math_;
  std::unique_ptr<Executor> executor_;
  nn::ModelWeights weights_;
  Batch batch_;
};

void run(const Setting& setting) {
  Table table{
      {"dtype", "plain ms", "staged ms", "staged / plain", "plain MiB", "staged MiB", "staged / plain"}, {}, ""};
  table.note = fmt::format(
      "hidden {}, {} tokens, {} layers, {} threads; medians of {} rounds in turns with 95 % intervals; peak MiB beside "
      "weights and gradients; loss and all gradients have the same bits",
      setting.hidden, setting.tokens, setting.layers, at::get_num_threads(), setting.rounds);
  run_ranks(1, [&](World& world) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) table.rows.push_back(Comparison(setting, dtype, world).run());
  });
  fmt::print("{}\n", render_text(table));
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  try {
    farskip::run(farskip::Setting::parse(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "machinery: {}\n", error.what());
    return 1;
  }
}
