// libtorch's part of the version text.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <fmt/format.h>
#include <torch/version.h>

#include "cli/command.h"

namespace farskip::cli {

std::string torch_version_text() {
  std::string text = fmt::format("libtorch {}\ndevices: cpu ({}, {} threads)", TORCH_VERSION, at::get_cpu_capability(),
                                 at::get_num_threads());
  const int num_gpus = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (num_gpus > 0) text += fmt::format(", {} x {}", num_gpus, at::hasHIP() ? "rocm" : "cuda");
  return text;
}

}  // namespace farskip::cli
