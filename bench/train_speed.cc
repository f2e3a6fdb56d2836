// How fast does one rank train, against Hugging Face transformers with the same weights, batches and optimizer?
//
//   build/bench/train_speed python=PYTHON [pythonpath=FOLDER] [models=moonlight-512,small-moonlight] [dtypes=bf16,fp32]
//                           [rounds=12] [threads=2] [settings=eager,grouped_mm,batched_mm] [out=FILE.md] [work=FOLDER]
//
// PYTHON has torch and transformers (or finds them in `pythonpath`); version 5 is needed for grouped experts. With two
// free cores the defaults take about five minutes. `settings` are the peer's: how it runs its experts, "+compile" after
// one for torch.compile; all are tried, and the fastest is the one we are compared with. In bf16 each is tried twice:
// with everything in bf16 and under autocast with fp32 weights.
//
// The answer is checked first: from the same exported weights, the losses of the first steps on the same batches must
// agree. Then the two are timed in turns, two steps each, in one run on one machine; the ratio is that of the median
// steps, with a 95 % bootstrap interval over rounds. Last comes our profile: the share of each stage and the part of
// the machine's matrix peak.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/files.h"
#include "base/process_memory.h"
#include "base/stats.h"
#include "bench/arguments.h"
#include "bench/peer.h"
#include "exec/profile.h"
#include "schedule/schedule.h"
#include "train/launch.h"
#include "train/session.h"
#include "train/step_profile.h"
#include "transport/clock.h"

namespace farskip {
namespace {

constexpr int num_checked_steps = 3, num_warmup_steps = 2, num_trial_steps = 4, steps_a_turn = 2;

Arguments parse_arguments(int argc, char** argv) {
  const Arguments arguments(argc, argv,
                            {{"python", "python3"},
                             {"pythonpath", ""},
                             {"models", "moonlight-512,small-moonlight"},
                             {"dtypes", "bf16,fp32"},
                             {"rounds", "12"},
                             {"threads", "2"},
                             {"settings", "eager,grouped_mm,batched_mm"},
                             {"out", ""},
                             {"work", "out/train_speed"}},
                            "bench/train_speed.cc");
  if (arguments.number("rounds") < 6 || arguments.number("threads") < 1) fail("expected rounds >= 6 and threads >= 1");
  return arguments;
}

/// A preset with its batch, or "moonlight-512": Moonlight's proportions at a quarter of its width, with 64 experts.
struct Workplace {
  std::string model;
  int64_t batch = 8, seq = 256;

  Workplace(const std::string& name, const std::string& folder) : model(name) {
    if (name != "moonlight-512") return;
    batch = 2;
    seq = 512;
    nlohmann::json config = load_model_config("small-moonlight").raw;
    config.update({{"hidden_size", 512},
                   {"intermediate_size", 1408},
                   {"moe_intermediate_size", 176},
                   {"n_routed_experts", 64},
                   {"num_experts_per_tok", 6},
                   {"n_shared_experts", 2},
                   {"num_hidden_layers", 4},
                   {"num_attention_heads", 8},
                   {"num_key_value_heads", 8},
                   {"kv_lora_rank", 128},
                   {"qk_nope_head_dim", 64},
                   {"qk_rope_head_dim", 32},
                   {"v_head_dim", 64},
                   {"vocab_size", 4096}});
    model = folder + "/moonlight-512.json";
    write_file(model, config.dump(2));
  }
};

/// One way to run the peer.
struct Setting {
  std::string experts, dtype;
  bool compile = false;
  std::string name() const { return fmt::format("{}, {}{}", experts, dtype, compile ? ", compiled" : ""); }
};

class Comparison {
 public:
  Comparison(const Arguments& arguments, const Workplace& workplace, const std::string& dtype, RankContext& context)
      : arguments_(arguments),
        workplace_(workplace),
        dtype_(dtype),
        folder_(arguments["work"] + "/model"),
        config_(load_train_config(
            "", {"model=" + workplace.model, "connectivity=standard", "schedule=reference", "dtype=" + dtype,
                 fmt::format("micro_batch_size={}", workplace.batch),
                 fmt::format("global_batch_size={}", workplace.batch), fmt::format("seq_length={}", workplace.seq),
                 "train_iters=100000", "lr=1e-4", "min_lr=1e-4", "lr_decay_style=constant", "lr_warmup_iters=0",
                 "moe_router_load_balancing_type=none", "moe_router_bias_update_rate=0"})),
        samples_(make_samples()),
        session_(resolved(config_), context.world, samples_),
        schedule_(reference_schedule(session_.graph())),
        profile_(session_.graph()),
        world_(context.world) {
    session_.export_model(folder_);
    write_tokens();
  }

  void run(Table& table) {
    for (int i = 0; i < num_checked_steps; ++i) ours();
    losses_.resize(num_checked_steps);
    choose_setting();
    for (int i = 0; i < num_warmup_steps; ++i) ours();
    std::vector<double> our_ms, peer_ms;
    const int rounds = arguments_.number("rounds");
    for (int round = 0; round < rounds; ++round) {
      for (int turn = 0; turn < 2; ++turn) {
        if ((turn + round) % 2 == 0) {
          std::vector<double> steps;
          for (int i = 0; i < steps_a_turn; ++i) steps.push_back(ours());
          our_ms.push_back(mean(steps));
        } else {
          peer_ms.push_back(mean(train(*peer_, steps_a_turn).ms));
        }
      }
    }
    const double tokens = static_cast<double>(workplace_.batch * workplace_.seq);
    table.rows.push_back({std::filesystem::path(workplace_.model).stem(), dtype_, fmt::format("{:.0f}", tokens),
                          fmt::format("{:.0f}", tokens / median(our_ms) * 1e3),
                          fmt::format("{:.0f}", tokens / median(peer_ms) * 1e3), ratio_text(peer_ms, our_ms),
                          best_.name(), fmt::format("{:.1e}", loss_difference_)});
    our_step_ms_ = median(our_ms);
  }

  StepProfile profile() const {
    return profile_step(session_.graph(), profile_.table({}, *session_.communicators().world), session_.model().config,
                        workplace_.seq, static_cast<double>(workplace_.batch * workplace_.seq), our_step_ms_,
                        session_.math().dtype());
  }
  const std::string& trials() const { return trials_; }

 private:
  static const TrainConfig& resolved(TrainConfig& config) {
    config.resolve(1);
    return config;
  }

  /// Eight batches of tokens, over and over.
  SampleSource make_samples() const {
    const int64_t vocab = TrainingModel::load(config_).config.vocab_size, num_samples = 8 * workplace_.batch;
    return [source = synthetic_samples(workplace_.seq, vocab, 7), num_samples](int64_t i) {
      return source(i % num_samples);
    };
  }

  void write_tokens() const {
    std::string bytes;
    for (int64_t i = 0; i < 8 * workplace_.batch; ++i) {
      for (int64_t token : samples_(i).tokens) bytes.append(reinterpret_cast<const char*>(&token), sizeof(token));
    }
    write_file(tokens_path(), bytes);
  }
  std::string tokens_path() const { return arguments_["work"] + "/tokens.bin"; }

  /// One step; its milliseconds, making the batch included.
  double ours() {
    const double begin = now_us();
    const StepResult step = session_.step(iteration_++, schedule_);
    const double ms = (now_us() - begin) / 1e3;
    losses_.push_back(session_.stats().loss);
    if (iteration_ > num_checked_steps + num_warmup_steps) profile_.add(step);
    return ms;
  }

  struct Steps {
    std::vector<double> losses, ms;
  };
  /// Empty: the peer has ended.
  static Steps train(Peer& peer, int num_steps) {
    peer.send(fmt::format("train {}", num_steps));
    Steps steps;
    std::string line;
    if (!peer.receive(line)) return steps;
    std::istringstream words(line);
    for (double loss, ms; words >> loss >> ms;) {
      steps.losses.push_back(loss);
      steps.ms.push_back(ms);
    }
    return steps;
  }

  std::unique_ptr<Peer> start(const Setting& setting) {
    const TrainConfig& c = config_;
    std::vector<std::string> command = {arguments_["python"],
                                        std::string(FARSKIP_BENCH_DIR) + "/hf_train.py",
                                        "--model=" + folder_,
                                        "--tokens=" + tokens_path(),
                                        fmt::format("--batch={}", workplace_.batch),
                                        fmt::format("--seq={}", workplace_.seq),
                                        "--threads=" + arguments_["threads"],
                                        "--dtype=" + setting.dtype,
                                        "--experts=" + setting.experts,
                                        fmt::format("--lr={}", c.lr),
                                        fmt::format("--beta1={}", c.adam_beta1),
                                        fmt::format("--beta2={}", c.adam_beta2),
                                        fmt::format("--eps={}", c.adam_eps),
                                        fmt::format("--decay={}", c.weight_decay),
                                        fmt::format("--clip={}", c.clip_grad)};
    if (setting.compile) command.push_back("--compile");
    auto peer = std::make_unique<Peer>(command, arguments_["pythonpath"]);
    std::string version;
    if (!peer->receive(version)) return nullptr;
    trials_ += fmt::format("- {} ({}): ", setting.name(), version);
    return peer;
  }

  /// Starts the peer in each setting, checks its losses, and keeps the fastest.
  void choose_setting() {
    double best_ms = 0;
    for (const std::string& text : words_of(arguments_["settings"], ',')) {
      for (const std::string dtype : dtype_ == "bf16" ? std::vector{"bf16", "mixed"} : std::vector{"fp32"}) {
        Setting setting{words_of(text, '+')[0], dtype, text.ends_with("+compile")};
        auto peer = start(setting);
        const Steps first = peer ? train(*peer, num_checked_steps) : Steps{};
        if (first.losses.empty()) {
          trials_ += fmt::format("- {}: does not run here\n", setting.name());
          continue;
        }
        const double difference = check(first.losses, setting);
        train(*peer, num_warmup_steps);
        const double ms = median(train(*peer, num_trial_steps).ms);
        trials_ += fmt::format("{:.1f} ms a step\n", ms);
        fmt::print(stderr, "{} {}: {:.1f} ms a step\n", dtype_, setting.name(), ms);
        if (peer_ != nullptr && ms >= best_ms) continue;
        best_ms = ms;
        best_ = setting;
        loss_difference_ = difference;
        peer_ = std::move(peer);
      }
    }
    if (peer_ == nullptr) fail("transformers runs in none of the settings {}", arguments_["settings"]);
  }

  /// Largest relative difference of the first losses. A router's tie may send single tokens elsewhere, the more so in
  /// bf16; the first loss is the initial model's, near log(vocab).
  double check(const std::vector<double>& theirs, const Setting& setting) const {
    const double tolerance = dtype_ == "bf16" ? 1e-2 : 1e-4;
    double worst = 0;
    for (int i = 0; i < num_checked_steps; ++i) {
      const double difference = std::abs(losses_[i] - theirs[i]) / theirs[i];
      if (!(difference <= tolerance)) {
        fail("step {}: our loss is {}, theirs ({}) {}: more than {} apart", i, losses_[i], setting.name(), theirs[i],
             tolerance);
      }
      worst = std::max(worst, difference);
    }
    return worst;
  }

  const Arguments& arguments_;
  const Workplace& workplace_;
  const std::string dtype_, folder_;
  TrainConfig config_;
  SampleSource samples_;
  TrainingSession session_;
  Schedule schedule_;
  CostProfile profile_;
  World& world_;
  int64_t iteration_ = 0;
  std::vector<double> losses_;
  std::unique_ptr<Peer> peer_;
  Setting best_;
  std::string trials_;
  double loss_difference_ = 0, our_step_ms_ = 0;
};

std::string markdown(const Table& table) {
  auto line = [](const std::vector<std::string>& cells) {
    std::string text = "|";
    for (const std::string& cell : cells) text += " " + cell + " |";
    return text + "\n";
  };
  std::string text = line(table.columns) + line(std::vector<std::string>(table.columns.size(), "---"));
  for (const auto& row : table.rows) {
    if (!row.empty()) text += line(row);
  }
  return text + (table.note.empty() ? "" : "\n" + table.note + "\n");
}

/// The processor's name and its instructions for matrix products.
std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  std::string name, features;
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name") && name.empty()) name = line.substr(line.find(':') + 2);
    if (!line.starts_with("flags")) continue;
    for (const char* feature : {" avx2", " avx512f", " avx512_bf16", " amx_bf16"}) {
      if (line.find(feature) != std::string::npos) features += feature;
    }
    break;
  }
  return name + " with" + features;
}

void run(const Arguments& arguments) {
  keep_freed_memory();  // as the program does
  at::set_num_threads(arguments.number("threads"));
  std::filesystem::create_directories(arguments["work"]);
  Table table{{"model", "dtype", "tokens a step", "ours, tokens/s", "transformers, tokens/s", "ratio [95 %]",
               "its fastest setting", "first losses differ by"},
              {},
              ""};
  std::string details;
  for (const std::string& name : words_of(arguments["models"], ',')) {
    const Workplace workplace(name, arguments["work"]);
    for (const std::string& dtype : words_of(arguments["dtypes"], ',')) {
      run_on_ranks({}, [&](RankContext& context) {
        Comparison comparison(arguments, workplace, dtype, context);
        comparison.run(table);
        details += fmt::format("\n### {}, {}\n\nSettings of transformers:\n\n{}\nOur step:\n\n{}", name, dtype,
                               comparison.trials(), markdown(comparison.profile().table()));
      });
      fmt::print(stderr, "{}", render_text(table));
    }
  }
  const std::string text =
      fmt::format("## Training against transformers\n\n{}, {} threads; {} rounds of {} steps each in turns.\n\n{}{}",
                  processor(), arguments["threads"], arguments["rounds"], steps_a_turn, markdown(table), details);
  fmt::print("{}", text);
  if (!arguments["out"].empty()) write_file(arguments["out"], text);
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  try {
    farskip::run(farskip::parse_arguments(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "train_speed: {}\n", error.what());
    return 1;
  }
}
