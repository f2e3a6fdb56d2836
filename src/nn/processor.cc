#include "nn/processor.h"

namespace farskip::nn {

Vectors vectors_for(at::ScalarType type) {
#if FARSKIP_VECTORS
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool pairs = avx512 && __builtin_cpu_supports("avx512bf16");
  if (type == at::kFloat && avx512) return Vectors::avx512;
  if (type == at::kBFloat16 && pairs) return Vectors::avx512;
  if ((type == at::kFloat || type == at::kBFloat16) && avx2) return Vectors::avx2;
#endif
  (void)type;
  return Vectors::none;
}

}  // namespace farskip::nn
