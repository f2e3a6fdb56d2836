#include "model/initialize.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>

#include "base/philox.h"

namespace farskip {
namespace {

/// FNV-1a, 64 bits.
uint64_t hash_name(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

void fill_normal(float* out, int64_t count, uint64_t seed, const std::string& name, double std) {
  constexpr int64_t width = 4;  // numbers of one Philox block
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const uint64_t stream = hash_name(name);
  at::parallel_for(0, (count + width - 1) / width, /*grain_size=*/4096, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const std::array<uint32_t, 4> words =
          philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream),
                      static_cast<uint32_t>(stream >> 32)},
                     key);
      for (int64_t i = 0; i < width; i += 2) {
        // Box-Muller: two uniform numbers inside (0, 1) give two normal ones.
        const double u = (words[i] + 0.5) * 0x1p-32, v = (words[i + 1] + 0.5) * 0x1p-32;
        const double radius = std * std::sqrt(-2.0 * std::log(u)), angle = 2.0 * std::numbers::pi * v;
        const int64_t at = block * width + i;
        if (at < count) out[at] = static_cast<float>(radius * std::cos(angle));
        if (at + 1 < count) out[at + 1] = static_cast<float>(radius * std::sin(angle));
      }
    }
  });
}

at::Tensor initial_piece(const ParameterInfo& info, const TensorPiece& piece, int64_t num_layers,
                         const InitOptions& options) {
  const at::Tensor values = at::empty(piece.shape, at::kFloat);
  if (!info.decays()) return values.fill_(info.role == Role::norm ? 1.0 : 0.0);
  const double output_std = options.std / std::sqrt(2.0 * static_cast<double>(num_layers));
  const double std = info.role == Role::output_weight ? output_std : options.std;
  fill_normal(values.mutable_data_ptr<float>(), values.numel(), options.seed, piece.name, std);
  return values;
}

void initialize(ParameterSet& parameters, const InitOptions& options) {
  const at::NoGradGuard no_grad;
  const ParameterTable& table = parameters.table();
  for (const auto& info : table.parameters()) {
    parameters.for_each_piece(info.id, parameters.stored(info.id), [&](const TensorPiece& piece, at::Tensor block) {
      block.copy_(initial_piece(info, piece, table.num_layers(), options));
    });
  }
  for (size_t i = 0; i < table.buffers().size(); ++i) parameters.buffer(static_cast<int>(i)).zero_();
  parameters.update_values();
}

}  // namespace farskip
