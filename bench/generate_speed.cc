// How fast are prefill and decode on one rank, against Hugging Face transformers with the same weights and prompt?
//
//   build/bench/generate_speed python=PYTHON [pythonpath=FOLDER] [models=150m,1b] [dtypes=bf16,fp32] [rounds=8]
//                              [threads=2] [prompt=512] [decode=64] [settings=eager,grouped_mm,batched_mm]
//                              [quantizations=none,int8,int4] [out=FILE.md] [work=FOLDER]
//                              [llama_bench=PROGRAM gguf=f32,bf16,q8_0,q4_0]
//
// The models are Qwen3-MoE with random weights, of about 150 million and 1 billion parameters. PYTHON has torch and
// transformers (or finds them in `pythonpath`); version 5 is needed for grouped experts. `settings` are the peer's:
// how it runs its experts, "+compile" after one for torch.compile over a static cache; all are tried, and of each phase
// the fastest is what we are compared with.
//
// The answer is checked first: logits at 16 positions of the prompt must be as near to those of the same weights in
// fp32 as theirs (relative L2, printed), in fp32 all greedy tokens the same. Then the two are timed in turns in one run
// on one machine; ratios are of medians, with a 95 % bootstrap interval over rounds. Batch-invariant and quantised runs
// of ours are compared with our own plain one in the same way.
//
// `llama_bench` is llama.cpp's program; bench/llama_cpp.sh builds it, converts the models to
// FOLDER/MODEL-DTYPE/TYPE.gguf and starts this. f32 and bf16 meet ours of that dtype, q8_0 our int8, q4_0 our int4,
// both with activations in `dtypes`. It makes up its own tokens, so answers are not compared; its decoding goes on
// behind a prompt as ours does.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <filesystem>
#include <sstream>

#include "base/files.h"
#include "base/philox.h"
#include "base/process_memory.h"
#include "base/stats.h"
#include "bench/arguments.h"
#include "bench/llama_bench.h"
#include "bench/peer.h"
#include "infer/decoder.h"
#include "model/checkpoint.h"
#include "model/initialize.h"
#include "transport/clock.h"

namespace farskip {
namespace {

Arguments parse_arguments(int argc, char** argv) {
  const Arguments arguments(argc, argv,
                            {{"python", "python3"},
                             {"pythonpath", ""},
                             {"models", "150m,1b"},
                             {"dtypes", "bf16,fp32"},
                             {"rounds", "8"},
                             {"threads", "2"},
                             {"prompt", "512"},
                             {"decode", "64"},
                             {"settings", "eager,grouped_mm,batched_mm"},
                             {"quantizations", "none,int8,int4"},
                             {"llama_bench", ""},
                             {"gguf", "f32,bf16,q8_0,q4_0"},
                             {"out", ""},
                             {"work", "out/generate_speed"}},
                            "bench/generate_speed.cc");
  if (arguments.number("rounds") < 6 || arguments.number("decode") < 2) fail("expected rounds >= 6 and decode >= 2");
  return arguments;
}

nlohmann::json model_json(const std::string& name) {
  const bool large = name == "1b";
  if (!large && name != "150m") fail("{}: the models are 150m and 1b", name);
  return {{"architectures", {"Qwen3MoeForCausalLM"}},
          {"model_type", "qwen3_moe"},
          {"vocab_size", 32'000},
          {"hidden_size", large ? 1024 : 512},
          {"intermediate_size", large ? 2816 : 1408},
          {"moe_intermediate_size", large ? 512 : 256},
          {"num_hidden_layers", large ? 16 : 12},
          {"num_experts", 32},
          {"num_experts_per_tok", 4},
          {"norm_topk_prob", true},
          {"decoder_sparse_step", 1},
          {"mlp_only_layers", nlohmann::json::array()},
          {"num_attention_heads", large ? 16 : 8},
          {"num_key_value_heads", large ? 4 : 2},
          {"head_dim", 64},
          {"max_position_embeddings", 4096},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"attention_bias", false},
          {"tie_word_embeddings", false}};
}

constexpr int kLogitPositions = 16;  ///< of the prompt, at which logits are compared

struct Times {
  double prefill_ms = 0, decode_ms = 0;
  std::vector<int32_t> tokens;
};

class Comparison {
 public:
  Comparison(const Arguments& arguments, const std::string& name, const std::string& dtype)
      : arguments_(arguments), name_(name), dtype_(dtype), folder_(arguments["work"] + "/" + name + "-" + dtype) {
    make_model();
    const int64_t vocab = model_json(name)["vocab_size"];
    Philox random(11, 0);
    for (int i = 0; i < arguments.number("prompt"); ++i) prompt_.push_back(static_cast<int32_t>(random.below(vocab)));
    std::string bytes;
    for (const int64_t token : prompt_) bytes.append(reinterpret_cast<const char*>(&token), sizeof(token));
    write_file(folder_ + "/tokens.bin", bytes);
  }

  void run(std::string& report) {
    const auto settings = words_of(arguments_["settings"], ',');
    if (!settings.empty()) {
      with_decoder(InferenceModel(folder_, {.dtype = at::kFloat}), decoder_options(),
                   [&](Decoder& decoder) { exact_ = our_logits(decoder); });
    }
    const InferenceModel model(folder_);
    with_decoder(model, decoder_options(), [&](Decoder& decoder) {
      ours(decoder);
      const Times checked = ours(decoder);
      const double error = settings.empty() ? 0 : error_of(our_logits(decoder));
      for (const auto& setting : settings) compare(setting, decoder, checked, error, report);
    });
    for (const auto& type : words_of(arguments_["gguf"], ',')) {
      if (!arguments_["llama_bench"].empty()) compare_gguf(type, report);
    }
    const auto kinds = words_of(arguments_["quantizations"], ',');
    for (const auto& kind : kinds) variant(model, kind, false, report);
    if (!kinds.empty()) variant(model, "none", true, report);
  }

 private:
  void make_model() const {
    std::filesystem::create_directories(arguments_["work"]);
    if (std::filesystem::exists(folder_ + "/config.json")) return;
    const nlohmann::json json = model_json(name_);
    ParameterSet parameters(std::make_shared<const ParameterTable>(parse_model_config(json, name_)), {});
    initialize(parameters, {.seed = 5, .std = 0.05});
    SaveOptions options;
    options.dtype = dtype_ == "bf16" ? at::kBFloat16 : at::kFloat;
    save_checkpoint(folder_, json, parameters, options);
  }

  DecoderOptions decoder_options() const {
    DecoderOptions options;
    options.max_positions = std::ssize(prompt_) + arguments_.number("decode") + 1;
    return options;
  }

  Times ours(Decoder& decoder) {
    Times times;
    const int64_t sequence = decoder.add();
    double begin = now_us();
    at::Tensor logits = decoder.step({{sequence, prompt_}})[0];
    const auto take = [&] { times.tokens.push_back(static_cast<int32_t>(logits.argmax().item<int64_t>())); };
    take();
    times.prefill_ms = (now_us() - begin) / 1e3;
    begin = now_us();
    for (int i = 1; i < arguments_.number("decode"); ++i) {
      logits = decoder.step({{sequence, {times.tokens.back()}}})[0];
      take();
    }
    times.decode_ms = (now_us() - begin) / 1e3;
    decoder.remove(sequence);
    return times;
  }

  int64_t spacing() const { return std::ssize(prompt_) / kLogitPositions; }

  /// [kLogitPositions, vocab]: logits behind prefixes of the prompt, each spacing() longer than the one before.
  at::Tensor our_logits(Decoder& decoder) const {
    std::vector<at::Tensor> rows;
    for (int i = 1; i <= kLogitPositions; ++i) {
      const int64_t sequence = decoder.add();
      const std::vector<int32_t> prefix(prompt_.begin(), prompt_.begin() + i * spacing());
      rows.push_back(decoder.step({{sequence, prefix}})[0].to(at::kFloat, false, true));
      decoder.remove(sequence);
    }
    return at::stack(rows);
  }

  double error_of(const at::Tensor& logits) const {
    return (logits - exact_).norm().item<double>() / exact_.norm().item<double>();
  }

  bool theirs(Peer& peer, Times& times) const {
    peer.send("generate " + arguments_["decode"]);
    std::string line;
    if (!peer.receive(line)) return false;
    std::istringstream words(line);
    times = {};
    words >> times.prefill_ms >> times.decode_ms;
    for (int32_t token; words >> token;) times.tokens.push_back(token);
    return true;
  }

  void compare(const std::string& setting, Decoder& decoder, const Times& checked, double our_error,
               std::string& report) {
    const std::string experts = setting.substr(0, setting.find('+')), logits_path = folder_ + "/logits.bin";
    std::vector<std::string> command = {arguments_["python"],
                                        FARSKIP_BENCH_DIR "/hf_generate.py",
                                        "--model",
                                        folder_,
                                        "--tokens",
                                        folder_ + "/tokens.bin",
                                        "--logits",
                                        logits_path,
                                        "--max-positions",
                                        std::to_string(decoder.max_positions()),
                                        "--threads",
                                        arguments_["threads"],
                                        "--dtype",
                                        dtype_,
                                        "--experts",
                                        experts};
    if (setting != experts) command.push_back("--compile");
    Peer peer(command, arguments_["pythonpath"]);
    std::string version, done;
    Times first, second;
    peer.send(fmt::format("logits {}", spacing()));
    if (!peer.receive(version) || !peer.receive(done) || !theirs(peer, first) || !theirs(peer, second)) {
      report += fmt::format("| {} | {} | {} | ended without an answer | | | | |\n", name_, dtype_, setting);
      return;
    }
    const double error = error_of(at::from_file(logits_path, false, exact_.numel(), at::kFloat).view(exact_.sizes()));
    // In bf16 a near tie of experts falls either way, which the layers behind it carry on: theirs says how far.
    const double bound = dtype_ == "fp32" ? 1e-4 : std::max(5e-2, 1.5 * error);
    if (!(our_error < bound) || (dtype_ == "fp32" && !(error < bound)))
      fail("{}: its logits are {:.1e} from those of fp32, ours {:.1e}", setting, error, our_error);
    if (dtype_ == "fp32" && second.tokens != checked.tokens) fail("{}: greedy tokens differ", setting);
    const auto they = [&] {
      Times times;
      if (!theirs(peer, times)) fail("{} has ended", setting);
      return times;
    };
    in_turns(
        setting, [&] { return ours(decoder); }, they, fmt::format("{:.1e}, {:.1e}", our_error, error), report);
  }

  /// Times both in turns and adds a row: `mine` and `other` are functions that return Times.
  template <typename Mine, typename Other>
  void in_turns(const std::string& against, const Mine& mine, const Other& other, const std::string& last,
                std::string& report) const {
    std::vector<double> prefill[2], decode[2];
    for (int round = 0; round < arguments_.number("rounds"); ++round) {
      for (int turn = 0; turn < 2; ++turn) {
        const int who = (turn + round) % 2;
        const Times times = who == 0 ? mine() : other();
        prefill[who].push_back(times.prefill_ms);
        decode[who].push_back(times.decode_ms);
      }
    }
    const double made = arguments_.number("decode") - 1;
    const auto rates = [&](int who) {
      return fmt::format("{:.0f} / {:.1f}", 1e3 * static_cast<double>(prompt_.size()) / median(prefill[who]),
                         1e3 * made / median(decode[who]));
    };
    const std::string row =
        fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} |\n", name_, dtype_, against, rates(0), rates(1),
                    ratio_text(prefill[1], prefill[0]), ratio_text(decode[1], decode[0]), last);
    fmt::print("{}", row);
    std::fflush(stdout);
    report += row;
  }

  void compare_gguf(const std::string& type, std::string& report) {
    const std::string path = folder_ + "/" + type + ".gguf";
    if ((type == "f32" && dtype_ != "fp32") || (type == "bf16" && dtype_ != "bf16")) return;
    if (!std::filesystem::exists(path)) fail("{} is missing: bench/llama_cpp.sh makes it", path);
    const char* kind = type == "q8_0" ? "int8" : type == "q4_0" ? "int4" : "none";
    const InferenceModel model(folder_, {.quantization = nn::parse_quantization(kind)});
    const auto run_theirs = [&] {
      const auto ms = [&](const std::string& work) {
        return llama_bench_ms(arguments_["llama_bench"], path, arguments_["threads"], work);
      };
      return Times{ms(fmt::format("-p {} -n 0", prompt_.size())),
                   ms(fmt::format("-p 0 -n {} -d {}", arguments_.number("decode") - 1, prompt_.size())),
                   {}};
    };
    with_decoder(model, decoder_options(), [&](Decoder& decoder) {
      ours(decoder);
      const std::string against = fmt::format("llama.cpp {}, ours {}", type, kind);
      in_turns(
          against, [&] { return ours(decoder); }, run_theirs, "", report);
    });
  }

  /// Ours in another form against ours.
  void variant(const InferenceModel& plain, const std::string& kind, bool invariant, std::string& report) {
    if (kind == "none" && !invariant) return;
    const InferenceModel other(folder_, {.quantization = nn::parse_quantization(kind), .batch_invariant = invariant});
    with_decoder(plain, decoder_options(), [&](Decoder& a) {
      with_decoder(other, decoder_options(), [&](Decoder& b) {
        ours(a);
        ours(b);
        const auto mib = [](const InferenceModel& model) {
          return static_cast<double>(model.weight_bytes()) / (1 << 20);
        };
        const std::string name = fmt::format("ours plain, here {} ({:.0f} MiB of {:.0f})",
                                             invariant ? "batch-invariant" : kind, mib(other), mib(plain));
        in_turns(
            name, [&] { return ours(b); }, [&] { return ours(a); }, "", report);
      });
    });
  }

  const Arguments& arguments_;
  std::string name_, dtype_, folder_;
  std::vector<int32_t> prompt_;
  at::Tensor exact_;  ///< our_logits of the same weights in fp32
};

int run(int argc, char** argv) {
  const Arguments arguments = parse_arguments(argc, argv);
  at::set_num_threads(arguments.number("threads"));
  keep_freed_memory();  // as `farskip generate` does
  std::string report = fmt::format(
      "Prompt of {} tokens, {} decoded, {} threads, {} rounds in turns. Tokens/s are prefill / decode; ratios are "
      "theirs over ours in time (above 1: ours are faster); against \"ours plain\" it is another form of ours that is "
      "compared.\n\n"
      "| model | dtype | against | ours, tokens/s | theirs | prefill | decode | logits from fp32, ours, theirs |\n"
      "|---|---|---|---|---|---|---|---|\n",
      arguments["prompt"], arguments["decode"], arguments["threads"], arguments["rounds"]);
  fmt::print("{}", report);
  for (const auto& model : words_of(arguments["models"], ',')) {
    for (const auto& dtype : words_of(arguments["dtypes"], ',')) Comparison(arguments, model, dtype).run(report);
  }
  if (!arguments["out"].empty()) write_file(arguments["out"], report);
  return 0;
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  try {
    return farskip::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
