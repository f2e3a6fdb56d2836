#pragma once
// A data set and a model small enough to be trained by the program within a second, made by the test itself.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "tests/base/temp_folder.h"
#include "tests/cli/run_program.h"
#include "tests/cli/running_program.h"

namespace farskip::testing {

/// Moonlight's family: hidden size 32, a dense and two MoE layers, 4 experts of which 2 are chosen.
inline nlohmann::json tiny_model() {
  return nlohmann::json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 320, "hidden_size": 32,
    "num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1, "intermediate_size": 64,
    "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": null, "kv_lora_rank": 16,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "rope_interleave": true, "rope_theta": 50000.0,
    "rope_scaling": null, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
    "routed_scaling_factor": 2.446, "aux_loss_alpha": 0.001, "seq_aux": true, "tie_word_embeddings": false,
    "attention_bias": false, "initializer_range": 0.02, "eos_token_id": 256, "torch_dtype": "float32"})");
}

/// A folder with a model, prepared text and a recipe; skipped in builds without libtorch.
class TinyTraining : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!with_libtorch()) GTEST_SKIP() << "a build without libtorch has no farskip train";
    write_model("model", tiny_model());
    std::ofstream text(folder / "text.txt");
    for (int i = 0; i < 400; ++i) {
      text << "The " << (i % 3 ? "quick" : "brown") << " fox number " << i << " jumps over the lazy dog.\n\n";
    }
    text.close();
    prepared =
        run_farskip("prepare " + folder / "text.txt" + " -o " + folder / "data" + " --document-separator '\\n\\n'");
    ASSERT_EQ(prepared.status, 0) << prepared.err;
    // 4 sequences a rank and step on two ranks: two microbatches.
    std::ofstream(folder / "recipe.yaml") << "model: " << folder / "model"
                                          << "\ndata_path: " << folder / "data_text_document"
                                          << "\nseq_length: 32\nmicro_batch_size: 2\nglobal_batch_size: 8\n"
                                             "train_iters: 8\nlr: 1.0e-2\neval_iters: 0\nschedule: paper\n";
  }

  void write_model(const std::string& name, const nlohmann::json& config) {
    create_parent_folders(folder / (name + "/config.json"));
    write_file(folder / (name + "/config.json"), config.dump());
  }
  std::string train(const std::string& settings) const { return "train " + folder / "recipe.yaml" + " " + settings; }

  /// The lines with a loss of a log_file.
  std::vector<nlohmann::json> steps(const std::string& log) const {
    std::vector<nlohmann::json> result;
    std::istringstream lines(read_file(log));
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (json.contains("lm_loss")) result.push_back(json);
    }
    return result;
  }
  /// Loss and norm of the gradient of each step, to the last digit.
  std::vector<std::string> digits(const std::string& log) const {
    std::vector<std::string> result;
    for (const auto& step : steps(log)) result.push_back(step["lm_loss"].dump() + " " + step["grad_norm"].dump());
    return result;
  }
  std::vector<double> losses(const std::string& log) const {
    std::vector<double> result;
    for (const auto& step : steps(log)) result.push_back(step["lm_loss"]);
    return result;
  }
  /// Trains with a log; the name of the log.
  std::string trained(const std::string& settings) {
    const std::string log = folder / ("log" + std::to_string(++num_logs_) + ".jsonl");
    last = run_farskip(train(settings) + " log_file=" + log);
    EXPECT_EQ(last.status, 0) << settings << "\n" << last.err;
    return log;
  }

  const TempFolder folder;
  ProgramResult prepared, last;

 private:
  int num_logs_ = 0;
};

}  // namespace farskip::testing
