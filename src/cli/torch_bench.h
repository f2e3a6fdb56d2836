#pragma once
// The benchmarks of `farskip bench`, a file each, and what they read alike.

#include <c10/core/ScalarType.h>

#include <CLI/CLI.hpp>

#include <string>

namespace farskip::cli {

void add_bench_ttft(CLI::App& bench);
void add_bench_serving(CLI::App& bench);

/// fp32 | bf16; REQUIRES: one of them.
inline at::ScalarType dtype_of(const std::string& name) { return name == "bf16" ? at::kBFloat16 : at::kFloat; }

}  // namespace farskip::cli
