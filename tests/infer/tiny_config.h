#pragma once
// A config.json for tests that run a benchmark: a preset with few layers and narrow matrices.

#include <gtest/gtest.h>
#include <unistd.h>

#include <fmt/format.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace farskip::testing {

/// small-deepseek-v3 with 4 layers, the first one dense. Returns the path of the file that was written.
inline std::string write_tiny_config() {
  auto config =
      nlohmann::json::parse(std::ifstream(std::string(FARSKIP_SOURCE_DIR) + "/presets/small-deepseek-v3/config.json"));
  config.update({{"num_hidden_layers", 4},
                 {"hidden_size", 32},
                 {"intermediate_size", 64},
                 {"moe_intermediate_size", 16},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 4},
                 {"q_lora_rank", 16},
                 {"kv_lora_rank", 16},
                 {"qk_nope_head_dim", 16},
                 {"qk_rope_head_dim", 8},
                 {"v_head_dim", 16},
                 {"vocab_size", 64}});
  static std::atomic<int> count = 0;  // ranks are threads
  const std::string path = fmt::format("{}/farskip_tiny_config_{}_{}.json", ::testing::TempDir(), getpid(), count++);
  std::ofstream(path) << config.dump();
  return path;
}

}  // namespace farskip::testing
