#include "infer/sampling_options.h"

#include "base/error.h"

namespace farskip {

void SamplingOptions::check() const {
  if (!(temperature >= 0)) fail("temperature is {}; it must be 0 or more", temperature);
  if (top_k < 0) fail("top_k is {}; it must be 1 or more, or 0 for all tokens", top_k);
  if (!(top_p > 0 && top_p <= 1)) fail("top_p is {}; it must be above 0 and at most 1", top_p);
  if (!(min_p >= 0 && min_p <= 1)) fail("min_p is {}; it must be from 0 to 1", min_p);
  if (!(repetition_penalty > 0)) fail("repetition_penalty is {}; it must be above 0 (1: none)", repetition_penalty);
}

}  // namespace farskip
