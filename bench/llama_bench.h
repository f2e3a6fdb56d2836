#pragma once
// llama.cpp's own benchmark as a peer: a process for each measurement.

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace farskip {

/// Milliseconds that `program` (llama-bench) takes for the work of `arguments` on `model`, a GGUF file, after a warm-up
/// of its own. Throws Error where it ends without an answer.
inline double llama_bench_ms(const std::string& program, const std::string& model, const std::string& threads,
                             const std::string& arguments) {
  const std::string command =
      fmt::format("'{}' -m '{}' -t {} -r 1 -o json {} 2>/dev/null", program, model, threads, arguments);
  std::FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) fail("{} cannot be started", program);
  std::string text;
  for (int c = std::fgetc(out); c != EOF; c = std::fgetc(out)) text += static_cast<char>(c);
  const int status = pclose(out);
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (status != 0 || !json.is_array() || json.size() != 1 || !json[0].contains("avg_ns"))
    fail("{} ended without an answer for {}", program, model);
  return json[0]["avg_ns"].get<double>() / 1e6;
}

}  // namespace farskip
