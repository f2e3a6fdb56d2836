#pragma once
// Core attention on a CPU in blocks, forward and backward (Dao et al., arXiv 2205.14135 and 2307.08691): no matrix of
// scores is ever whole. Query and value heads may differ in size, documents packed into a sequence are blocks of their
// own, and blocks above the diagonal are left out.

#include <ATen/core/Tensor.h>

#include <vector>

namespace farskip::nn {

/// Rows of one sequence that see each other alone.
struct Segment {
  int64_t sequence, begin, length;
};

/// Whether `flash_attention` takes these: fp32 or bf16 on a processor with the instructions (nn/tiles.h).
bool has_flash_attention(const at::Tensor& q);

/// softmax(scale q k^T) v within each segment, differentiable: q [B, H, S, d], k [B, G, S, d], v [B, G, S, e] with G
/// dividing H -> [B, S, H*e]. Segments cover every row once. `causal`: row i sees rows up to i. Scores and sums are
/// fp32; with bf16 operands the weights are rounded to bf16 before they meet v. The bits of a segment depend on it
/// alone.
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal,
                           const std::vector<Segment>& segments);

}  // namespace farskip::nn
